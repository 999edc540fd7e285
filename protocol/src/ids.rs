//! The numbers that Kafka names things by, and what they name together.

use std::fmt;

use bytestring::ByteString;

use crate::Uuid;

/// The position of a record in a partition's log.
pub type Offset = i64;
/// How often a partition (or the metadata quorum) has changed its leader. -1: none known.
pub type LeaderEpoch = i32;
/// A node of the cluster. -1: none.
pub type BrokerId = i32;
/// A partition of a topic, from 0.
pub type PartitionIndex = i32;
/// An idempotent or transactional producer. -1: neither.
pub type ProducerId = i64;
/// How often a producer id has been taken over.
pub type ProducerEpoch = i16;

/// A partition by the name of its topic (Kafka's `TopicPartition`), shown as `topic-0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: ByteString,
    pub partition: PartitionIndex,
}

/// A partition by the id of its topic (KIP-516), shown as `id-0`: what a name means changes when a topic is deleted and created
/// again.
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
