//! Record batches of format v2 (KIP-98), on the wire and in the log: a header of 61 bytes and the records, which may be
//! compressed.
//!
//! Invariants: a batch is a slice of the received bytes and is never copied or changed; a change makes a new
//! [`BatchHeader`], which is written before the old records. The checksum covers everything from the attributes on, so
//! base offset and leader epoch may be assigned freely.

mod header;

use bytes::{Buf, Bytes};

pub use header::{
    BatchHeader, HEADER_LEN, LOG_OVERHEAD, MAGIC, NO_LEADER_EPOCH, NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TimestampType, increment_sequence,
};
pub(crate) use header::{
    COMPRESSION_MASK, CONTROL_FLAG, DELETE_HORIZON_FLAG, LOG_APPEND_TIME_FLAG, TRANSACTIONAL_FLAG,
};
use header::{CRC_START, MIN_LENGTH};

use crate::compression::{Compression, DecompressError, UnknownCompression, decompress};
use crate::crc::crc32c;
use crate::error_code::ErrorCode;
use crate::record::{Record, RecordError, RecordRef};

/// The minimum length of any format (Kafka's `LegacyRecord.RECORD_OVERHEAD_V0`). A smaller length is an error, not a
/// truncated set, even if the magic byte is missing.
pub(crate) const MIN_ANY_LENGTH: i32 = 14;
/// The end of the magic byte.
const MAGIC_END: usize = 17;

/// Why bytes are not a valid batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("a batch of {needed} bytes, of which {available} are there")]
    Truncated {
        /// The batch's size, or the header's if that is incomplete.
        needed: usize,
        /// The available bytes.
        available: usize,
    },
    /// The length is below the minimum.
    #[error("batch length {batch_length} is below the minimum of {MIN_LENGTH}")]
    LengthTooSmall {
        /// The length field.
        batch_length: i32,
    },
    /// A message set of format 0 or 1.
    #[error("message format {magic} is no longer supported")]
    OldMagic {
        /// 0 or 1.
        magic: i8,
    },
    /// An unknown format.
    #[error("invalid magic {magic}")]
    UnknownMagic {
        /// The magic byte.
        magic: i8,
    },
    /// The checksum does not match the bytes.
    #[error("batch is corrupt (stored crc = {stored}, computed crc = {computed})")]
    CrcMismatch {
        /// The checksum in the header.
        stored: u32,
        /// That of the bytes.
        computed: u32,
    },
    /// The attributes have an unknown codec.
    #[error(transparent)]
    UnknownCompression(#[from] UnknownCompression),
    /// The record count is negative.
    #[error("negative record count {count}")]
    NegativeCount {
        /// The count field.
        count: i32,
    },
    /// A record is malformed, or the number of records differs from the header.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The records do not decompress.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
}

impl BatchError {
    /// The error code for the producer of such a batch.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Truncated { .. }
            | Self::LengthTooSmall { .. }
            | Self::UnknownMagic { .. }
            | Self::CrcMismatch { .. } => ErrorCode::CorruptMessage,
            Self::OldMagic { .. } | Self::NegativeCount { .. } | Self::Record(_) => {
                ErrorCode::InvalidRecord
            }
            Self::Decompress(DecompressError::OutputTooLarge { .. }) => ErrorCode::MessageTooLarge,
            Self::UnknownCompression(_) | Self::Decompress(DecompressError::Malformed { .. }) => {
                ErrorCode::UnknownServerError
            }
        }
    }
}

fn check_magic(magic: i8) -> Result<(), BatchError> {
    match magic {
        MAGIC => Ok(()),
        0 | 1 => Err(BatchError::OldMagic { magic }),
        _ => Err(BatchError::UnknownMagic { magic }),
    }
}

/// One complete batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordBatch {
    /// Its header, as it is in `bytes`.
    pub header: BatchHeader,
    /// Header and records.
    pub bytes: Bytes,
}

impl RecordBatch {
    /// The batch at the front of `bytes`.
    pub fn parse(bytes: &Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let needed = header.size();
        if bytes.len() < needed {
            return Err(BatchError::Truncated { needed, available: bytes.len() });
        }
        Ok(Self { header, bytes: bytes.slice(..needed) })
    }

    /// Compares the stored checksum with that of the bytes.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        let stored = self.header.crc;
        let computed = crc32c(&self.bytes[CRC_START..]);
        if stored != computed {
            return Err(BatchError::CrcMismatch { stored, computed });
        }
        Ok(())
    }

    /// The records as stored in the batch, which may be compressed.
    pub fn body(&self) -> Bytes {
        self.bytes.slice(HEADER_LEN..)
    }

    /// Decodes the records. Compressed ones are decompressed first, to at most `max_output` bytes.
    pub fn records(&self, max_output: usize) -> Result<Records, BatchError> {
        let count = self.header.record_count;
        let left = u32::try_from(count).map_err(|_| BatchError::NegativeCount { count })?;
        let body = match self.header.compression()? {
            // Like Kafka, ignores the body of an empty batch.
            _ if left == 0 => Bytes::new(),
            Compression::None => self.body(),
            codec => decompress(codec, &self.bytes[HEADER_LEN..], max_output)?.into(),
        };
        Ok(Records { header: self.header, body, position: 0, left })
    }
}

/// The records of a batch. After an error there are no more.
#[derive(Debug, Clone)]
pub struct Records {
    header: BatchHeader,
    body: Bytes,
    position: usize,
    left: u32,
}

impl Records {
    /// The next record, borrowed without a copy, for readers of many records.
    pub fn next_ref(&mut self) -> Option<Result<RecordRef<'_>, BatchError>> {
        let left = self.left.checked_sub(1)?;
        // If this record cannot be decoded, there are no further ones.
        self.left = 0;
        let mut input = &self.body[self.position..];
        if input.is_empty() {
            return Some(Err(RecordError::Missing.into()));
        }
        let record = match RecordRef::read(&mut input) {
            Ok(record) => record,
            Err(error) => return Some(Err(error.into())),
        };
        if left == 0 && !input.is_empty() {
            return Some(Err(RecordError::BytesRemain.into()));
        }
        self.left = left;
        self.position = self.body.len() - input.len();
        Some(Ok(record))
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        // A second handle on the bytes, so that the record may outlive the borrow of `self`.
        let (header, body) = (self.header, self.body.clone());
        Some(self.next_ref()?.map(|record| {
            let timestamp = header.record_timestamp(record.timestamp_delta);
            record.to_record(&body, header.base_offset, timestamp)
        }))
    }
}

/// The batches of a record set, in order.
///
/// As in Kafka, an incomplete batch ends the set without an error; an invalid length or magic is an error, and ends the
/// set too. Checksums are not checked.
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
}

impl Batches {
    /// The batches of `records`.
    pub fn new(records: Bytes) -> Self {
        Self { rest: records }
    }

    /// The unread bytes; after the last batch, the bytes that are not a batch.
    pub fn rest(&self) -> &Bytes {
        &self.rest
    }

    fn read_next(&mut self) -> Result<Option<RecordBatch>, BatchError> {
        let Some(prefix) = self.rest.first_chunk::<LOG_OVERHEAD>() else { return Ok(None) };
        let batch_length = (&prefix[8..]).get_i32();
        if batch_length < MIN_ANY_LENGTH {
            return Err(BatchError::LengthTooSmall { batch_length });
        }
        let Some(magic) = self.rest.get(MAGIC_END - 1) else { return Ok(None) };
        let magic = magic.cast_signed();
        if !(0..=MAGIC).contains(&magic) {
            return Err(BatchError::UnknownMagic { magic });
        }
        let length = usize::try_from(batch_length).expect("checked to be at least 14");
        if self.rest.len() - LOG_OVERHEAD < length {
            return Ok(None);
        }
        check_magic(magic)?;
        if batch_length < MIN_LENGTH {
            return Err(BatchError::LengthTooSmall { batch_length });
        }
        let batch = RecordBatch::parse(&self.rest)?;
        self.rest.advance(batch.bytes.len());
        Ok(Some(batch))
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.read_next().transpose();
        if matches!(batch, Some(Err(_))) {
            self.rest.clear();
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch_builder::{BatchBuilder, batch_of};

    fn with_bytes(batch: &RecordBatch, patch: impl FnOnce(&mut [u8])) -> Bytes {
        let mut bytes = batch.bytes.to_vec();
        patch(&mut bytes);
        bytes.into()
    }

    #[test]
    fn any_flipped_bit_behind_the_checksum_is_noticed() {
        let batch = batch_of(b"value");
        for position in CRC_START..batch.bytes.len() {
            let bytes = with_bytes(&batch, |bytes| bytes[position] ^= 0x10);
            let damaged = RecordBatch::parse(&bytes).unwrap();
            assert!(
                matches!(damaged.check_crc(), Err(BatchError::CrcMismatch { .. })),
                "{position}"
            );
        }
    }

    #[test]
    fn batches_are_read_in_order_and_a_torn_last_one_is_left_over() {
        let batch = batch_of(b"value");
        let torn = batch.bytes.slice(..batch.bytes.len() - 1);
        let mut batches = Batches::new([&batch.bytes[..], &batch.bytes, &torn].concat().into());
        assert_eq!(batches.by_ref().map(Result::unwrap).count(), 2);
        assert_eq!(*batches.rest(), torn);
    }

    #[test]
    fn an_impossible_length_or_magic_ends_the_set_with_an_error() {
        let batch = batch_of(b"value");
        let short = BatchError::LengthTooSmall { batch_length: 13 };
        let cases = [
            (with_bytes(&batch, |bytes| bytes[11] = 13), short),
            (
                with_bytes(&batch, |bytes| bytes[11] = 48),
                BatchError::LengthTooSmall { batch_length: 48 },
            ),
            (with_bytes(&batch, |bytes| bytes[16] = 1), BatchError::OldMagic { magic: 1 }),
            (with_bytes(&batch, |bytes| bytes[16] = 3), BatchError::UnknownMagic { magic: 3 }),
            (with_bytes(&batch, |bytes| bytes[16] = 0xff), BatchError::UnknownMagic { magic: -1 }),
        ];
        for (bytes, error) in cases {
            let read: Vec<_> = Batches::new(bytes).collect();
            assert_eq!(read, vec![Err(error)]);
        }
    }

    #[test]
    fn a_count_that_does_not_match_the_records_is_an_error() {
        let mut builder = BatchBuilder::new(0);
        for _ in 0..3 {
            builder.append(0, None, None, &[]).unwrap();
        }
        let batch = builder.build().unwrap();
        let last_of = |count: i32| {
            let header = BatchHeader { record_count: count, ..batch.header };
            RecordBatch { header, bytes: batch.bytes.clone() }.records(0).unwrap().last().unwrap()
        };
        assert_eq!(last_of(2), Err(RecordError::BytesRemain.into()));
        assert_eq!(last_of(4), Err(RecordError::Missing.into()));
        assert!(last_of(3).is_ok());
    }

    #[test]
    fn codecs_without_a_name_and_negative_counts_are_errors() {
        let batch = batch_of(b"value");
        let unknown = BatchHeader { attributes: 6, ..batch.header };
        let batch_with = |header| RecordBatch { header, bytes: batch.bytes.clone() };
        assert!(matches!(
            batch_with(unknown).records(0),
            Err(BatchError::UnknownCompression(UnknownCompression { id: 6 }))
        ));
        let negative = BatchHeader { record_count: -1, ..batch.header };
        assert!(matches!(
            batch_with(negative).records(0),
            Err(BatchError::NegativeCount { count: -1 })
        ));
    }
}
