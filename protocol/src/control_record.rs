//! Control records, which brokers and the KRaft quorum write between other records.
//!
//! Invariants: a control record's key is its type; an unknown type is skipped without an error (`ControlRecordType`), a
//! known one with an invalid value is an error.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::batch::{NO_SEQUENCE, RecordBatch};
use crate::batch_builder::{BatchBuilder, BuildError};
use crate::decode::{DecodeError, Decoder};
use crate::encode::EncodeError;
use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use crate::message::Message;
use crate::messages::end_txn_marker::EndTxnMarker;
use crate::messages::k_raft_version_record::KRaftVersionRecord;
use crate::messages::leader_change_message::LeaderChangeMessage;
use crate::messages::snapshot_footer_record::SnapshotFooterRecord;
use crate::messages::snapshot_header_record::SnapshotHeaderRecord;
use crate::messages::voters_record::VotersRecord;
use crate::record::Record;

/// The version of a control record's key, and of every value that Kafka 4.3.1 writes.
const VERSION: i16 = 0;

/// The end marker of a transaction in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTransaction {
    /// Committed, otherwise aborted.
    pub committed: bool,
    /// The epoch of the transaction coordinator that decided it.
    pub coordinator_epoch: i32,
}

/// A control record's type and value.
#[derive(Debug, Clone, PartialEq)]
pub enum ControlRecord {
    /// The marker of a transaction's end (types 0 and 1).
    EndTransaction(EndTransaction),
    /// A quorum has a new leader (type 2).
    LeaderChange(LeaderChangeMessage),
    /// A snapshot begins (type 3).
    SnapshotHeader(SnapshotHeaderRecord),
    /// A snapshot is complete (type 4).
    SnapshotFooter(SnapshotFooterRecord),
    /// The quorum's protocol version (type 5, KIP-853).
    KRaftVersion(KRaftVersionRecord),
    /// The quorum's voters (type 6, KIP-853).
    KRaftVoters(VotersRecord),
}

/// Why a control record cannot be decoded or encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlRecordError {
    /// The key has fewer than four bytes, or a negative version.
    #[error("a control record has no valid key")]
    InvalidKey,
    /// The type needs a value.
    #[error("a control record has no value")]
    NoValue,
    /// The value is invalid for the type.
    #[error("the value of a control record: {0}")]
    Decode(#[from] DecodeError),
    /// A value's version is negative.
    #[error("negative version {version} of a control record's value")]
    NegativeVersion {
        /// The stated version.
        version: i16,
    },
    /// The value cannot be encoded.
    #[error("the value of a control record: {0}")]
    Encode(#[from] EncodeError),
    /// The batch cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl ControlRecord {
    /// Decodes a record of a control batch; `None` for an unknown type.
    pub fn read(record: &Record) -> Result<Option<Self>, ControlRecordError> {
        let type_id = type_id(record.key.as_deref())?;
        let value = || record.value.clone().ok_or(ControlRecordError::NoValue);
        Ok(Some(match type_id {
            0 | 1 => {
                let coordinator_epoch =
                    decode_prefixed::<EndTxnMarker>(value()?)?.coordinator_epoch;
                Self::EndTransaction(EndTransaction { committed: type_id == 1, coordinator_epoch })
            }
            2 => Self::LeaderChange(decode(value()?)?),
            3 => Self::SnapshotHeader(decode(value()?)?),
            4 => Self::SnapshotFooter(decode(value()?)?),
            5 => Self::KRaftVersion(decode(value()?)?),
            6 => Self::KRaftVoters(decode(value()?)?),
            _ => return Ok(None),
        }))
    }

    /// The type's number.
    pub fn type_id(&self) -> i16 {
        match self {
            Self::EndTransaction(end) => i16::from(end.committed),
            Self::LeaderChange(_) => 2,
            Self::SnapshotHeader(_) => 3,
            Self::SnapshotFooter(_) => 4,
            Self::KRaftVersion(_) => 5,
            Self::KRaftVoters(_) => 6,
        }
    }

    /// The record's key.
    pub fn key(&self) -> [u8; 4] {
        let [version_high, version_low] = VERSION.to_be_bytes();
        let [type_high, type_low] = self.type_id().to_be_bytes();
        [version_high, version_low, type_high, type_low]
    }

    /// The record's value.
    pub fn value(&self) -> Result<Bytes, EncodeError> {
        match self {
            Self::EndTransaction(end) => {
                let mut out = BytesMut::new();
                out.put_i16(VERSION);
                let marker = EndTxnMarker { coordinator_epoch: end.coordinator_epoch };
                marker.encode(&mut out, VERSION)?;
                Ok(out.freeze())
            }
            Self::LeaderChange(message) => message.encoded(VERSION),
            Self::SnapshotHeader(record) => record.encoded(VERSION),
            Self::SnapshotFooter(record) => record.encoded(VERSION),
            Self::KRaftVersion(record) => record.encoded(VERSION),
            Self::KRaftVoters(record) => record.encoded(VERSION),
        }
    }
}

/// Builds a batch of the quorum's control records, as the leader of `epoch` appends it.
pub fn quorum_batch(
    base_offset: Offset,
    epoch: LeaderEpoch,
    timestamp_ms: i64,
    records: &[ControlRecord],
) -> Result<RecordBatch, ControlRecordError> {
    let builder = BatchBuilder::new(base_offset).leader_epoch(epoch);
    control_batch(builder, timestamp_ms, records)
}

/// Builds the batch that ends `producer_id`'s transaction in a partition.
pub fn end_transaction_batch(
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    end: EndTransaction,
    timestamp_ms: i64,
) -> Result<RecordBatch, ControlRecordError> {
    let builder =
        BatchBuilder::new(0).producer(producer_id, producer_epoch, NO_SEQUENCE).transactional();
    control_batch(builder, timestamp_ms, &[ControlRecord::EndTransaction(end)])
}

fn control_batch(
    builder: BatchBuilder,
    timestamp_ms: i64,
    records: &[ControlRecord],
) -> Result<RecordBatch, ControlRecordError> {
    let mut builder = builder.control();
    for record in records {
        builder.append(timestamp_ms, Some(&record.key()), Some(&record.value()?), &[])?;
    }
    Ok(builder.build()?)
}

fn type_id(key: Option<&[u8]>) -> Result<i16, ControlRecordError> {
    let mut key = key.filter(|key| key.len() >= 4).ok_or(ControlRecordError::InvalidKey)?;
    if key.get_i16() < VERSION {
        return Err(ControlRecordError::InvalidKey);
    }
    Ok(key.get_i16())
}

/// Decodes a value whose first field is its version. As in Kafka, an unknown newer version is decoded as the highest
/// known one.
fn decode<M: Message>(value: Bytes) -> Result<M, ControlRecordError> {
    let version = readable_version::<M>(&value)?;
    Ok(M::decode(&mut Decoder::new(value), version)?)
}

/// Decodes a value after a version.
fn decode_prefixed<M: Message>(mut value: Bytes) -> Result<M, ControlRecordError> {
    let version = readable_version::<M>(&value)?;
    value.advance(2);
    Ok(M::decode(&mut Decoder::new(value), version)?)
}

fn readable_version<M: Message>(value: &[u8]) -> Result<i16, ControlRecordError> {
    let prefix =
        value.first_chunk().ok_or(DecodeError::Truncated { wanted: 2, left: value.len() })?;
    let version = i16::from_be_bytes(*prefix);
    if version < 0 {
        return Err(ControlRecordError::NegativeVersion { version });
    }
    Ok(version.min(*M::VERSIONS.end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::leader_change_message::Voter;
    use crate::messages::voters_record;

    fn all() -> Vec<ControlRecord> {
        let voter = Voter { voter_id: 3, ..Voter::default() };
        let quorum_voter = voters_record::Voter { voter_id: 3, ..Default::default() };
        vec![
            ControlRecord::LeaderChange(LeaderChangeMessage {
                leader_id: 3,
                voters: vec![voter.clone()],
                granting_voters: vec![voter],
                ..Default::default()
            }),
            ControlRecord::SnapshotHeader(SnapshotHeaderRecord {
                last_contained_log_timestamp: 77,
                ..Default::default()
            }),
            ControlRecord::SnapshotFooter(SnapshotFooterRecord::default()),
            ControlRecord::KRaftVersion(KRaftVersionRecord {
                k_raft_version: 1,
                ..Default::default()
            }),
            ControlRecord::KRaftVoters(VotersRecord {
                voters: vec![quorum_voter],
                ..Default::default()
            }),
        ]
    }

    fn read_all(batch: &RecordBatch) -> Vec<ControlRecord> {
        let records = batch.records(0).unwrap().map(Result::unwrap);
        records.map(|record| ControlRecord::read(&record).unwrap().unwrap()).collect()
    }

    #[test]
    fn every_record_of_the_quorum_is_read_as_it_was_written() {
        let batch = quorum_batch(10, 4, 99, &all()).unwrap();
        batch.check_crc().unwrap();
        assert!(batch.header.is_control() && !batch.header.is_transactional());
        assert_eq!((batch.header.base_offset, batch.header.partition_leader_epoch), (10, 4));
        assert_eq!(read_all(&batch), all());
    }

    #[test]
    fn a_transaction_marker_is_read_as_it_was_written() {
        for committed in [false, true] {
            let end = EndTransaction { committed, coordinator_epoch: 6 };
            let batch = end_transaction_batch(12, 3, end, 50).unwrap();
            let header = batch.header;
            assert!(header.is_control() && header.is_transactional());
            assert_eq!((header.producer_id, header.producer_epoch), (12, 3));
            assert_eq!(header.base_sequence, NO_SEQUENCE);
            assert_eq!(read_all(&batch), vec![ControlRecord::EndTransaction(end)]);
        }
    }

    fn record(key: &'static [u8], value: Option<&'static [u8]>) -> Record {
        Record {
            offset: 0,
            timestamp: 0,
            key: Some(Bytes::from_static(key)),
            value: value.map(Bytes::from_static),
            headers: vec![],
        }
    }

    #[test]
    fn an_unknown_type_is_passed_over() {
        assert_eq!(ControlRecord::read(&record(&[0, 0, 0, 7], None)), Ok(None));
        assert_eq!(ControlRecord::read(&record(&[0, 9, 0xff, 0xff], None)), Ok(None));
    }

    #[test]
    fn a_later_version_of_a_marker_is_read_as_the_one_that_is_known() {
        let marker = record(&[0, 0, 0, 1], Some(&[0, 5, 0, 0, 0, 8, 1, 2, 3]));
        let end = EndTransaction { committed: true, coordinator_epoch: 8 };
        assert_eq!(ControlRecord::read(&marker), Ok(Some(ControlRecord::EndTransaction(end))));
    }

    #[test]
    fn a_broken_key_or_value_is_an_error() {
        let cases = [
            (record(&[0, 0, 0], None), ControlRecordError::InvalidKey),
            (record(&[0xff, 0xff, 0, 1], None), ControlRecordError::InvalidKey),
            (record(&[0, 0, 0, 2], None), ControlRecordError::NoValue),
            (
                record(&[0, 0, 0, 1], Some(&[0xff, 0xfe, 0, 0, 0, 0])),
                ControlRecordError::NegativeVersion { version: -2 },
            ),
            (
                record(&[0, 0, 0, 1], Some(&[0])),
                DecodeError::Truncated { wanted: 2, left: 1 }.into(),
            ),
        ];
        for (record, error) in cases {
            assert_eq!(ControlRecord::read(&record), Err(error));
        }
        assert!(ControlRecord::read(&record(&[0, 0, 0, 2], Some(&[0, 0, 0]))).is_err());
    }
}
