//! The numbers that Kafka names things by.

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
