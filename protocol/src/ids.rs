//! Kafka's numeric ids, and the partition keys made of them.

use std::fmt;

use bytestring::ByteString;

use crate::Uuid;

/// The position of a record in a partition's log.
pub type Offset = i64;
/// The number of leader changes of a partition (or of the metadata quorum). -1: unknown.
pub type LeaderEpoch = i32;
/// A node of the cluster. -1: none.
pub type BrokerId = i32;
/// A partition of a topic, from 0.
pub type PartitionIndex = i32;
/// An idempotent or transactional producer. -1: none.
pub type ProducerId = i64;
/// The number of times that another producer has taken over a producer id.
pub type ProducerEpoch = i16;

/// A partition by the name of its topic (Kafka's `TopicPartition`), shown as `topic-0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: ByteString,
    pub partition: PartitionIndex,
}

/// A partition by the id of its topic (KIP-516), shown as `id-0`: unlike the name, it changes when a topic is deleted
/// and created again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicIdPartition {
    pub topic_id: Uuid,
    pub partition: PartitionIndex,
}

impl TopicPartition {
    pub fn new(topic: ByteString, partition: PartitionIndex) -> Self {
        Self { topic, partition }
    }
}

impl TopicIdPartition {
    pub fn new(topic_id: Uuid, partition: PartitionIndex) -> Self {
        Self { topic_id, partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Display for TopicIdPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic_id, self.partition)
    }
}
