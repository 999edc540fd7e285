//! One pass over the records of a batch: structure, count, and the topic's rules for each record.

use std::fmt;

use super::Rules;
use super::error::{InvalidRecords, Reason, RejectedRecords};
use crate::batch::{BatchError, BatchHeader, NO_TIMESTAMP, TimestampType};
use crate::compression::{Compression, Decompressor, Workspace};
use crate::ids::Offset;
use crate::record::stream::{RecordShape, RecordStream, StreamError};
use crate::record::{RecordError, RecordRef};

/// The maximum ratio of deflate, the highest of the codecs except zstd. A higher ratio is only accepted for small
/// decompressed bodies.
const MAX_RATIO: usize = 1_032;
/// The decompressed size that is accepted at any ratio, in bytes.
const MAX_FROM_LITTLE: usize = 16 * 1024 * 1024;

impl From<StreamError> for BatchError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Record(error) => error.into(),
            StreamError::Decompress(error) => error.into(),
        }
    }
}

/// Kafka's description of a record in an error message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordSummary {
    pub(super) offset: Offset,
    pub(super) timestamp: i64,
    key_size: i32,
    value_size: i32,
}

impl fmt::Display for RecordSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "DefaultRecord(offset={}, timestamp={}, key={} bytes, value={} bytes)",
            self.offset,
            self.timestamp,
            self.key_size.max(0),
            self.value_size.max(0)
        )
    }
}

/// The result of the pass over a valid batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walked {
    /// The highest timestamp of the records, or -1.
    pub(super) max_timestamp: i64,
    /// The offset deltas of the records are 0, 1, 2 and so on.
    pub(super) consecutive: bool,
}

/// The pass over a batch's records.
#[derive(Debug)]
pub(super) struct RecordCheck<'r> {
    header: BatchHeader,
    rules: &'r Rules<'r>,
    next_index: i32,
    walked: Walked,
    rejected: Option<Box<RejectedRecords>>,
}

impl<'r> RecordCheck<'r> {
    pub(super) fn new(header: BatchHeader, rules: &'r Rules<'r>) -> Self {
        let walked = Walked { max_timestamp: NO_TIMESTAMP, consecutive: true };
        Self { header, rules, next_index: 0, walked, rejected: None }
    }

    /// Checks every record of `body`. Compressed records are checked while they are decompressed.
    pub(super) fn walk(
        &mut self,
        compression: Compression,
        body: &[u8],
        workspace: &mut Workspace,
    ) -> Result<(), BatchError> {
        let count = self.header.record_count;
        if count < 0 {
            return Err(BatchError::NegativeCount { count });
        }
        match compression {
            Compression::None => Ok(self.walk_slice(body)?),
            _ if count == 0 => Ok(()),
            codec => {
                let limit = decompressed_limit(body, self.rules);
                Ok(self.walk_stream(Decompressor::new(codec, body, limit, workspace)?)?)
            }
        }
    }

    /// The result for the batch.
    pub(super) fn finish(self) -> Result<Walked, InvalidRecords> {
        match self.rejected {
            Some(rejected) => Err(InvalidRecords::Records(rejected)),
            None => Ok(self.walked),
        }
    }

    fn walk_slice(&mut self, mut body: &[u8]) -> Result<(), RecordError> {
        for _ in 0..self.header.record_count {
            if body.is_empty() {
                return Err(RecordError::Missing);
            }
            let record = RecordRef::read(&mut body)?;
            self.on_record(record.into());
        }
        if body.is_empty() { Ok(()) } else { Err(RecordError::BytesRemain) }
    }

    fn walk_stream(&mut self, source: Decompressor<'_>) -> Result<(), StreamError> {
        let mut stream = RecordStream::new(source);
        for _ in 0..self.header.record_count {
            let record = stream.next_record()?;
            self.on_record(record);
        }
        stream.finish()
    }

    fn on_record(&mut self, record: RecordShape) {
        let index = self.next_index;
        self.next_index = index.wrapping_add(1);
        let timestamp = self.header.record_timestamp(record.timestamp_delta);
        self.walked.max_timestamp = self.walked.max_timestamp.max(timestamp);
        self.walked.consecutive &= record.offset_delta == index;
        if let Some(reason) = self.reason_to_reject(record, timestamp) {
            let summary = RecordSummary {
                offset: self.header.base_offset.wrapping_add(i64::from(record.offset_delta)),
                timestamp,
                key_size: record.key_size,
                value_size: record.value_size,
            };
            self.rejected
                .get_or_insert_with(|| Box::new(RejectedRecords::new(self.rules)))
                .add(index, reason, summary);
        }
    }

    fn reason_to_reject(&self, record: RecordShape, timestamp: i64) -> Option<Reason> {
        if self.rules.compacted && record.key_size < 0 {
            return Some(Reason::NoKey);
        }
        let create_time = self.rules.timestamp_type == TimestampType::CreateTime;
        if create_time && timestamp != NO_TIMESTAMP {
            return timestamp_is_out_of_range(timestamp, self.rules)
                .then_some(Reason::TimestampOutOfRange);
        }
        (self.header.timestamp_type() == TimestampType::LogAppendTime)
            .then_some(Reason::TimestampTypeOfBroker)
    }
}

/// The maximum decompressed size of `body`: the topic's limit, and a limit that keeps the time of decompression
/// proportional to the received bytes.
pub(super) fn decompressed_limit(body: &[u8], rules: &Rules<'_>) -> usize {
    let proportionate = body.len().saturating_mul(MAX_RATIO).max(MAX_FROM_LITTLE);
    rules.max_decompressed_size.min(proportionate)
}

/// Whether a producer's timestamp is too old or too far ahead. None (-1) is always in range.
pub(super) fn timestamp_is_out_of_range(timestamp: i64, rules: &Rules<'_>) -> bool {
    let age_ms = rules.now_ms.wrapping_sub(timestamp);
    timestamp != NO_TIMESTAMP
        && (age_ms > rules.timestamp_before_max_ms
            || age_ms.wrapping_neg() > rules.timestamp_after_max_ms)
}
