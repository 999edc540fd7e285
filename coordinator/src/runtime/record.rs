//! Encoded records of a coordinator's partition.

use bytes::Bytes;

/// A record for the coordinator's log, with Kafka's type and version prefixes in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedRecord {
    pub key: Bytes,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
}

/// The result of replaying a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// It changed (or repeated) the state of the shard.
    Applied,
    /// It belongs to a feature that this shard does not run. It stays in the log.
    NotRun { record_type: i16 },
    /// No version of Kafka up to 4.3.1 writes this record type. It stays in the log; worth a
    /// warning, as Kafka gives one (a left-over of an aborted upgrade).
    UnknownType { record_type: i16 },
}
