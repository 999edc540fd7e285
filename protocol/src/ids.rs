//! Kafka's numeric ids, and the partition keys made of them.
//!
//! An id is always a real one. Where there may be none, our own state, arguments and results say `Option`; the -1 of
//! requests, answers, records and files becomes `None` where it is decoded and -1 again where it is encoded.

use std::fmt;

use bytestring::ByteString;

use crate::Uuid;

/// The position of a record in a partition's log.
pub type Offset = i64;
/// The number of leader changes of a partition (or of the metadata quorum).
pub type LeaderEpoch = i32;
/// A node of the cluster.
pub type BrokerId = i32;
/// A partition of a topic, from 0.
pub type PartitionIndex = i32;
/// An idempotent or transactional producer.
pub type ProducerId = i64;
/// The number of times that another producer has taken over a producer id.
pub type ProducerEpoch = i16;

/// Decodes an id, an epoch, an offset or a time that a message, a record or a file may lack: -1 stands for none. Any
/// other negative value is passed on, and compared as every other.
pub fn none_if_minus_one<T: From<i8> + PartialEq>(raw: T) -> Option<T> {
    (raw != T::from(-1)).then_some(raw)
}

/// As [`none_if_minus_one`], for values of which Kafka checks only the sign: every negative one stands for none.
pub fn none_if_negative<T: From<i8> + PartialOrd>(raw: T) -> Option<T> {
    (raw >= T::from(0)).then_some(raw)
}

/// Encodes a value that may be absent for a message, a record or a file: none is -1.
pub fn or_minus_one<T: From<i8>>(value: Option<T>) -> T {
    value.unwrap_or_else(|| T::from(-1))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_one_stands_for_none_and_comes_back_as_minus_one() {
        assert_eq!(none_if_minus_one(-1), None::<BrokerId>);
        assert_eq!(none_if_minus_one(0), Some(0 as Offset));
        assert_eq!(or_minus_one(None::<ProducerEpoch>), -1);
        assert_eq!(or_minus_one(Some(7 as ProducerId)), 7);
    }

    #[test]
    fn other_negative_values_are_none_only_where_the_sign_alone_counts() {
        assert_eq!(none_if_minus_one(-2 as LeaderEpoch), Some(-2));
        assert_eq!(none_if_negative(-2 as LeaderEpoch), None);
        assert_eq!(none_if_negative(0 as LeaderEpoch), Some(0));
    }
}
