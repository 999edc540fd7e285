//! The validation of records before a leader appends them, and the changes that it makes to accepted ones: the rules of
//! Kafka 4.3.1's produce path (`ProduceRequest.validateRecords`, `UnifiedLog.analyzeAndValidateRecords`,
//! `LogValidator`).
//!
//! Invariants: an accepted batch is not copied, and only its header changes, unless the topic has another codec or the
//! records' offsets are not consecutive. The records of an uncompressed batch are always checked, in one pass and
//! without an allocation per record.
//!
//! The records of a compressed batch are checked while they are decompressed, in pieces. Unlike Kafka, this refuses a
//! compressed batch that decompresses to more than `max_decompressed_size` or, beyond 16 MiB, to more than 1032 times
//! its size; and record lengths in a compressed batch that disagree with the fields, which no consumer can read.
//!
//! Without `validate_compressed` they are checked only if a rule of the topic needs it: keys (compaction), a limit on
//! the age of timestamps, another codec, or suspicious timestamps in the header. Otherwise only the frame is checked
//! ([`compression::check_frame`]), and the record count against the size of the frame. So, unlike Kafka, this then
//! accepts, from a client that computes a valid checksum over it: damage inside compressed blocks, malformed records or
//! a wrong number of them inside, and record timestamps beyond the limits with a header that hides them. Kafka stores
//! uncompressed records whose offsets are not consecutive unchanged (and consumers then skip records); here they are
//! renumbered, as Kafka intends to do with compressed ones: for those it fails unless it recompresses them, and so they
//! are refused here.

mod error;
mod rebuild;
mod records;

use bytes::Bytes;

pub use error::{InvalidRecords, RejectedRecords};

use crate::batch::{
    BatchError, BatchHeader, Batches, HEADER_LEN, NO_TIMESTAMP, RecordBatch, TimestampType,
};
use crate::compression::{self, Codec, Compression, Workspace};
use crate::ids::PartitionIndex;
use crate::record::{MIN_RECORD_LEN, RecordError};
use rebuild::rebuild;
use records::RecordCheck;

/// The first Produce version that may carry zstd (KIP-110).
const FIRST_ZSTD_VERSION: i16 = 7;

/// The rules of a topic for appended records.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Used in the errors of single records.
    pub topic: &'a str,
    /// Used in the errors of single records.
    pub partition: PartitionIndex,
    /// `max.message.bytes`, of a whole batch.
    pub max_message_size: usize,
    /// `cleanup.policy` has `compact`: every record needs a key.
    pub compacted: bool,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`; `i64::MAX` is no limit. For CreateTime only.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`. For CreateTime only.
    pub timestamp_after_max_ms: i64,
    /// The time of the append, by the wall clock.
    pub now_ms: i64,
    /// `compression.type` with its level; none is `producer`.
    pub target: Option<Codec>,
    /// The origin of the records.
    pub origin: AppendOrigin,
    /// `compressed.record.validation` is `full`: check the records of compressed batches too.
    pub validate_compressed: bool,
    /// The maximum decompressed size of a compressed batch.
    pub max_decompressed_size: usize,
}

/// The origin of an append to a leader's log. (A follower appends records that its leader has validated.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A client, by a Produce request of this version.
    Client {
        /// The request's version.
        version: i16,
    },
    /// A coordinator or the quorum of this node: control batches and any base offset are allowed.
    Coordinator,
}

/// A batch that may be appended after its offset and epoch are set ([`BatchHeader::placed_at`]).
///
/// As in Kafka, the time index entry of `header.max_timestamp` has the placed header's last offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validated {
    /// The header to write: timestamps and checksum are updated, offset and epoch are still the producer's.
    pub header: BatchHeader,
    /// The records to write after it.
    pub body: Bytes,
    /// The timestamp of the batch on a LogAppendTime topic, for the producer's answer.
    pub log_append_time_ms: Option<i64>,
    /// The body differs from the received one.
    pub rebuilt: bool,
}

/// A batch that this node built itself, which needs no validation.
impl From<RecordBatch> for Validated {
    fn from(batch: RecordBatch) -> Self {
        Self { header: batch.header, body: batch.body(), log_append_time_ms: None, rebuilt: false }
    }
}

/// Validates one partition's records of a Produce request, or the records of a coordinator. `workspace` only saves
/// allocations between calls.
pub fn validate(
    records: Bytes,
    rules: &Rules<'_>,
    workspace: &mut Workspace,
) -> Result<Validated, InvalidRecords> {
    let batch = only_batch(records, rules.origin)?;
    check_batch(&batch, rules)?;
    let source = batch.header.compression().map_err(BatchError::from)?;
    if matches!(rules.origin, AppendOrigin::Client { .. }) {
        check_client_header(&batch.header)?;
    }
    let target = target_codec(&batch.header, source, rules);
    if target.compression() != source {
        return rebuild(&batch, source, target, rules, workspace);
    }
    if source != Compression::None && !needs_walk(&batch.header, rules) {
        check_unwalked(&batch, source)?;
        return Ok(accepted(&batch, batch.header.max_timestamp, rules));
    }
    let mut check = RecordCheck::new(batch.header, rules);
    check.walk(source, &batch.bytes[HEADER_LEN..], workspace)?;
    let walked = check.finish()?;
    if !walked.consecutive {
        if source != Compression::None {
            return Err(InvalidRecords::OffsetsNotConsecutive);
        }
        return rebuild(&batch, source, target, rules, workspace);
    }
    Ok(accepted(&batch, walked.max_timestamp, rules))
}

/// A record set for a leader's append must be one batch; bytes after it that are not a batch are ignored.
fn only_batch(records: Bytes, origin: AppendOrigin) -> Result<RecordBatch, InvalidRecords> {
    let mut batches = Batches::new(records);
    let batch = batches.next().ok_or(InvalidRecords::NoBatch)??;
    if let AppendOrigin::Client { version } = origin
        && version < FIRST_ZSTD_VERSION
        && batch.header.compression() == Ok(Compression::Zstd)
    {
        return Err(InvalidRecords::ZstdNotAllowed { version });
    }
    match batches.next() {
        None => Ok(batch),
        Some(Ok(_) | Err(BatchError::OldMagic { .. })) => Err(InvalidRecords::SeveralBatches),
        Some(Err(error)) => Err(InvalidRecords::AfterBatch(error)),
    }
}

/// Checks size and checksum, in Kafka's order.
fn check_batch(batch: &RecordBatch, rules: &Rules<'_>) -> Result<(), InvalidRecords> {
    let base_offset = batch.header.base_offset;
    if rules.origin != AppendOrigin::Coordinator && base_offset != 0 {
        return Err(InvalidRecords::NonZeroBaseOffset { base_offset });
    }
    check_size(batch.bytes.len(), rules)?;
    Ok(batch.check_crc()?)
}

fn check_size(size: usize, rules: &Rules<'_>) -> Result<(), InvalidRecords> {
    let limit = rules.max_message_size;
    if size > limit {
        return Err(InvalidRecords::TooLarge { size, limit });
    }
    Ok(())
}

/// Checks that only apply to a client's header.
fn check_client_header(header: &BatchHeader) -> Result<(), InvalidRecords> {
    let count = header.record_count;
    let count_from_offsets = i64::from(header.last_offset_delta) + 1;
    if count_from_offsets <= 0 {
        return Err(InvalidRecords::OffsetRange { last_offset: header.last_offset() });
    }
    if count <= 0 {
        return Err(InvalidRecords::RecordCount { count });
    }
    if count_from_offsets != i64::from(count) {
        return Err(InvalidRecords::CountMismatch { last_offset: header.last_offset(), count });
    }
    if header.is_control() {
        return Err(InvalidRecords::ControlBatch);
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        return Err(InvalidRecords::NegativeSequence {
            base_sequence: header.base_sequence,
            producer_id: header.producer_id,
        });
    }
    Ok(())
}

/// The codec to store the batch with. Control records are never compressed: they are small, and their readers do not
/// decompress.
fn target_codec(header: &BatchHeader, source: Compression, rules: &Rules<'_>) -> Codec {
    match rules.target {
        Some(target) if !(header.is_control() && source == Compression::None) => target,
        _ => source.into(),
    }
}

/// Whether the records of a compressed batch must be checked one by one.
fn needs_walk(header: &BatchHeader, rules: &Rules<'_>) -> bool {
    let create_time = rules.timestamp_type == TimestampType::CreateTime;
    rules.validate_compressed
        || rules.compacted
        || header.timestamp_type() == TimestampType::LogAppendTime
        || (create_time && rules.timestamp_before_max_ms != i64::MAX)
        || (create_time && records::timestamp_is_out_of_range(header.max_timestamp, rules))
        || matches!(rules.origin, AppendOrigin::Coordinator)
}

/// The cheap checks of a compressed batch whose records are not checked.
fn check_unwalked(batch: &RecordBatch, source: Compression) -> Result<(), BatchError> {
    let max_output = compression::check_frame(source, &batch.bytes[HEADER_LEN..])?;
    let count = batch.header.record_count;
    let needed = u64::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(MIN_RECORD_LEN as u64))
        .ok_or(BatchError::NegativeCount { count })?;
    if needed > max_output {
        return Err(RecordError::Missing.into());
    }
    Ok(())
}

/// The timestamp type and maximum timestamp in the header of an accepted batch.
fn final_timestamps(max_timestamp: i64, rules: &Rules<'_>) -> (TimestampType, i64) {
    match rules.timestamp_type {
        TimestampType::CreateTime => (TimestampType::CreateTime, max_timestamp),
        TimestampType::LogAppendTime => (TimestampType::LogAppendTime, rules.now_ms),
    }
}

fn log_append_time(rules: &Rules<'_>) -> Option<i64> {
    (rules.timestamp_type == TimestampType::LogAppendTime).then_some(rules.now_ms)
}

fn accepted(batch: &RecordBatch, max_timestamp: i64, rules: &Rules<'_>) -> Validated {
    let (timestamp_type, max_timestamp) = final_timestamps(max_timestamp, rules);
    Validated {
        header: batch.header.with_max_timestamp(timestamp_type, max_timestamp.max(NO_TIMESTAMP)),
        body: batch.body(),
        log_append_time_ms: log_append_time(rules),
        rebuilt: false,
    }
}

#[cfg(test)]
mod compressed_tests;
#[cfg(test)]
mod tests;
