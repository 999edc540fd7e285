//! The header of a record batch: its fields, derived values, and the changes that a leader makes to it.
//!
//! Invariants: a parsed header has magic 2 and at least its own length; a change of a field that the checksum covers
//! also updates the checksum.

use bytes::{Buf, BufMut};

use super::{BatchError, check_magic};
use crate::compression::{Compression, UnknownCompression};
use crate::crc::{continued, crc32c, with_replaced_prefix};
use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// The bytes of a batch before its records.
pub const HEADER_LEN: usize = 61;
/// The bytes that `batch_length` does not count: base offset and the length itself.
pub const LOG_OVERHEAD: usize = 12;
/// The magic of the format; 0 and 1 were message sets.
pub const MAGIC: i8 = 2;
/// Producer id of a batch that is neither idempotent nor transactional.
pub const NO_PRODUCER_ID: ProducerId = -1;
/// Producer epoch of such a batch.
pub const NO_PRODUCER_EPOCH: ProducerEpoch = -1;
/// Base sequence of such a batch, and of control batches.
pub const NO_SEQUENCE: i32 = -1;
/// Timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = -1;
/// Leader epoch of a batch that no leader has appended yet.
pub const NO_LEADER_EPOCH: LeaderEpoch = -1;

/// The `batch_length` of a batch without records.
pub(super) const MIN_LENGTH: i32 = 49;
/// The start of the bytes that the checksum covers: the attributes.
pub(super) const CRC_START: usize = 21;

pub(crate) const COMPRESSION_MASK: i16 = 0x07;
pub(crate) const LOG_APPEND_TIME_FLAG: i16 = 0x08;
pub(crate) const TRANSACTIONAL_FLAG: i16 = 0x10;
pub(crate) const CONTROL_FLAG: i16 = 0x20;
pub(crate) const DELETE_HORIZON_FLAG: i16 = 0x40;
const KNOWN_FLAGS: i16 = 0x7f;

/// The kind of a batch's timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimestampType {
    /// Set by the producer.
    #[default]
    CreateTime,
    /// Set by the broker, one for the whole batch.
    LogAppendTime,
}

/// The header of a batch, field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Bytes after this field: the batch's size less 12.
    pub batch_length: i32,
    /// The epoch of the leader that appended it.
    pub partition_leader_epoch: LeaderEpoch,
    /// Always 2.
    pub magic: i8,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Codec (bits 0-2), timestamp type (3), transactional (4), control (5), delete horizon (6).
    pub attributes: i16,
    /// Offset of the last record less the base offset. Compaction keeps it, so it may be larger than the record count
    /// implies.
    pub last_offset_delta: i32,
    /// Timestamp of the first record in ms; the delete horizon if that flag is set.
    pub base_timestamp: i64,
    /// Highest timestamp of the records in ms.
    pub max_timestamp: i64,
    /// The producer, or -1.
    pub producer_id: ProducerId,
    /// Its epoch, or -1.
    pub producer_epoch: ProducerEpoch,
    /// The sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// The number of records.
    pub record_count: i32,
}

impl BatchHeader {
    /// Decodes the header at the front of `bytes`; the records may be missing.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let mut fields: &[u8] = bytes
            .first_chunk::<HEADER_LEN>()
            .ok_or(BatchError::Truncated { needed: HEADER_LEN, available: bytes.len() })?;
        let header = Self {
            base_offset: fields.get_i64(),
            batch_length: fields.get_i32(),
            partition_leader_epoch: fields.get_i32(),
            magic: fields.get_i8(),
            crc: fields.get_u32(),
            attributes: fields.get_i16(),
            last_offset_delta: fields.get_i32(),
            base_timestamp: fields.get_i64(),
            max_timestamp: fields.get_i64(),
            producer_id: fields.get_i64(),
            producer_epoch: fields.get_i16(),
            base_sequence: fields.get_i32(),
            record_count: fields.get_i32(),
        };
        check_magic(header.magic)?;
        if header.batch_length < MIN_LENGTH {
            return Err(BatchError::LengthTooSmall { batch_length: header.batch_length });
        }
        Ok(header)
    }

    /// The header's bytes.
    pub fn write_to(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut out = &mut bytes[..];
        out.put_i64(self.base_offset);
        out.put_i32(self.batch_length);
        out.put_i32(self.partition_leader_epoch);
        out.put_i8(self.magic);
        out.put_u32(self.crc);
        out.put_i16(self.attributes);
        out.put_i32(self.last_offset_delta);
        out.put_i64(self.base_timestamp);
        out.put_i64(self.max_timestamp);
        out.put_i64(self.producer_id);
        out.put_i16(self.producer_epoch);
        out.put_i32(self.base_sequence);
        out.put_i32(self.record_count);
        bytes
    }

    /// The bytes of the whole batch.
    pub fn size(&self) -> usize {
        let length = usize::try_from(self.batch_length).expect("a header has a length above 48");
        LOG_OVERHEAD + length
    }

    /// Offset of the last record, or of the last one before compaction.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.wrapping_add(i64::from(self.last_offset_delta))
    }

    /// Offset of the batch that follows.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().wrapping_add(1)
    }

    /// Sequence number of the last record, or -1.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        increment_sequence(self.base_sequence, self.last_offset_delta)
    }

    /// The codec of the records.
    pub fn compression(&self) -> Result<Compression, UnknownCompression> {
        let [_, low] = (self.attributes & COMPRESSION_MASK).to_be_bytes();
        Compression::from_id(low)
    }

    /// Who set the timestamps.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME_FLAG == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether it belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_FLAG != 0
    }

    /// Whether it has a control record, which consumers do not see.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_FLAG != 0
    }

    /// Whether an idempotent or transactional producer has sent it.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// When the cleaner may drop the batch's tombstones or marker, in ms (KIP-534).
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON_FLAG != 0).then_some(self.base_timestamp)
    }

    /// The absolute timestamp of a record in ms, for either kind of timestamps.
    pub fn record_timestamp(&self, timestamp_delta: i64) -> i64 {
        match self.timestamp_type() {
            TimestampType::CreateTime => self.base_timestamp.wrapping_add(timestamp_delta),
            TimestampType::LogAppendTime => self.max_timestamp,
        }
    }

    /// The header with its base offset and leader epoch in the log. The checksum does not cover these fields.
    pub fn placed_at(&self, base_offset: Offset, partition_leader_epoch: LeaderEpoch) -> Self {
        Self { base_offset, partition_leader_epoch, ..*self }
    }

    /// The header with other timestamps. The checksum is derived from the old one, without reading the records again.
    pub fn with_max_timestamp(&self, timestamp_type: TimestampType, max_timestamp: i64) -> Self {
        if (self.timestamp_type(), self.max_timestamp) == (timestamp_type, max_timestamp) {
            return *self;
        }
        let flags = self.attributes & KNOWN_FLAGS & !LOG_APPEND_TIME_FLAG;
        let attributes = match timestamp_type {
            TimestampType::CreateTime => flags,
            TimestampType::LogAppendTime => flags | LOG_APPEND_TIME_FLAG,
        };
        let mut patched = Self { attributes, max_timestamp, ..*self };
        let (old, new) = (self.write_to(), patched.write_to());
        let body_len = (self.size() - HEADER_LEN) as u64;
        patched.crc =
            with_replaced_prefix(self.crc, &old[CRC_START..], &new[CRC_START..], body_len);
        patched
    }

    /// The header with the checksum of itself and `body`.
    pub(crate) fn sealed(&self, body: &[u8]) -> Self {
        let header_crc = crc32c(&self.write_to()[CRC_START..]);
        Self { crc: continued(header_crc, body), ..*self }
    }
}

/// Adds to a sequence number; after 2^31-1 comes 0.
pub fn increment_sequence(sequence: i32, increment: i32) -> i32 {
    if sequence > i32::MAX.wrapping_sub(increment) {
        return increment.wrapping_sub(i32::MAX - sequence).wrapping_sub(1);
    }
    sequence.wrapping_add(increment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::RecordBatch;
    use crate::batch_builder::batch_of;

    #[test]
    fn a_header_is_written_as_it_was_read() {
        let bytes: Vec<u8> = (0..61u8).map(|i| i.wrapping_mul(37)).collect();
        let mut bytes = bytes;
        bytes[8..12].copy_from_slice(&[0, 0, 1, 0]);
        bytes[16] = 2;
        let header = BatchHeader::parse(&bytes).unwrap();
        assert_eq!(header.write_to()[..], bytes[..]);
        assert_eq!(header.size(), 268);
    }

    #[test]
    fn a_new_place_in_the_log_leaves_the_checksum_valid() {
        let batch = batch_of(b"value");
        let placed = batch.header.placed_at(1_000_000, 7);
        let bytes = [&placed.write_to()[..], &batch.body()[..]].concat().into();
        let stored = RecordBatch::parse(&bytes).unwrap();
        stored.check_crc().unwrap();
        assert_eq!(
            (stored.header.base_offset, stored.header.partition_leader_epoch),
            (1_000_000, 7)
        );
        assert_eq!(stored.records(0).unwrap().next().unwrap().unwrap().offset, 1_000_000);
    }

    #[test]
    fn new_timestamps_come_with_the_checksum_of_the_new_header() {
        let batch = batch_of(&[7; 10_000]);
        for (timestamp_type, max) in
            [(TimestampType::LogAppendTime, 99), (TimestampType::CreateTime, 5)]
        {
            let patched = batch.header.with_max_timestamp(timestamp_type, max);
            assert_eq!((patched.timestamp_type(), patched.max_timestamp), (timestamp_type, max));
            let bytes = [&patched.write_to()[..], &batch.body()[..]].concat().into();
            RecordBatch::parse(&bytes).unwrap().check_crc().unwrap();
        }
    }

    #[test]
    fn unchanged_timestamps_change_nothing() {
        let header = BatchHeader { attributes: 0x180, ..batch_of(b"").header };
        assert_eq!(
            header.with_max_timestamp(TimestampType::CreateTime, header.max_timestamp),
            header
        );
    }

    #[test]
    fn sequence_numbers_wrap_to_zero() {
        assert_eq!(increment_sequence(i32::MAX, 1), 0);
        assert_eq!(increment_sequence(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(increment_sequence(i32::MAX - 2, 10), 7);
        let header =
            BatchHeader { base_sequence: i32::MAX, last_offset_delta: 2, ..batch_of(b"").header };
        assert_eq!(header.last_sequence(), 1);
        assert_eq!(BatchHeader { base_sequence: -1, ..header }.last_sequence(), -1);
    }
}
