//! Why records are refused, and the error for the producer.

use std::fmt;

use super::Rules;
use super::records::RecordSummary;
use crate::batch::{BatchError, MIN_ANY_LENGTH, TimestampType};
use crate::batch_builder::BuildError;
use crate::compression::DecompressError;
use crate::error_code::ErrorCode;
use crate::ids::{Offset, ProducerId};

/// The maximum number of errors of single records that are kept, so that an answer is not larger than its request.
const MAX_RECORD_ERRORS: usize = 1_000;
/// The number of them that Kafka repeats in the message about the batch.
const SHOWN_IN_MESSAGE: usize = 3;

/// Why a record set is not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecords {
    /// There is no complete batch.
    #[error("there must be a record batch for each partition")]
    NoBatch,
    /// More than one batch.
    #[error("there may be only one record batch for each partition")]
    SeveralBatches,
    /// zstd needs a newer request.
    #[error("Produce requests of version {version} must not use zstd: version 7 is the first")]
    ZstdNotAllowed {
        /// The request's version.
        version: i16,
    },
    /// The batch or a record is malformed, damaged or of an old format.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// After the batch is the beginning of an invalid one.
    #[error("after the record batch: {0}")]
    AfterBatch(BatchError),
    /// Producers number their records from 0.
    #[error("the base offset of a record batch must be 0, but it is {base_offset}")]
    NonZeroBaseOffset {
        /// The header's base offset.
        base_offset: Offset,
    },
    /// Above `max.message.bytes`, as sent or in the topic's own codec.
    #[error("record batch of {size} bytes exceeds max.message.bytes={limit}")]
    TooLarge {
        /// The batch's size in bytes.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The batch in the topic's own codec cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The last offset is below the first.
    #[error("batch has an invalid offset range: [0, {last_offset}]")]
    OffsetRange {
        /// The last offset.
        last_offset: Offset,
    },
    /// The record count is zero or negative.
    #[error("invalid reported count for record batch: {count}")]
    RecordCount {
        /// The count field.
        count: i32,
    },
    /// Offsets and count disagree.
    #[error("inconsistent batch offset range [0, {last_offset}] and count of records {count}")]
    CountMismatch {
        /// The last offset.
        last_offset: Offset,
        /// The count field.
        count: i32,
    },
    /// The offsets of compressed records are not 0, 1, 2 and so on.
    #[error("the offsets of a compressed batch's records must be consecutive and begin at 0")]
    OffsetsNotConsecutive,
    /// Clients must not write control records.
    #[error("clients are not allowed to write control records")]
    ControlBatch,
    /// A batch of an idempotent producer has no valid sequence number.
    #[error(
        "invalid sequence number {base_sequence} in record batch with producer id {producer_id}"
    )]
    NegativeSequence {
        /// The sequence number.
        base_sequence: i32,
        /// The producer.
        producer_id: ProducerId,
    },
    /// Single records break the topic's rules.
    #[error(transparent)]
    Records(Box<RejectedRecords>),
}

impl From<DecompressError> for InvalidRecords {
    fn from(error: DecompressError) -> Self {
        Self::Batch(error.into())
    }
}

impl InvalidRecords {
    /// The error code for the producer.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Batch(error) | Self::AfterBatch(error) => error.code(),
            Self::ZstdNotAllowed { .. } => ErrorCode::UnsupportedCompressionType,
            Self::TooLarge { .. } | Self::Build(_) => ErrorCode::MessageTooLarge,
            Self::Records(rejected) => rejected.code(),
            // Kafka begins to renumber them and then fails, because it has not kept the data that it needs.
            Self::OffsetsNotConsecutive => ErrorCode::UnknownServerError,
            Self::NoBatch
            | Self::SeveralBatches
            | Self::NonZeroBaseOffset { .. }
            | Self::OffsetRange { .. }
            | Self::RecordCount { .. }
            | Self::CountMismatch { .. }
            | Self::ControlBatch
            | Self::NegativeSequence { .. } => ErrorCode::InvalidRecord,
        }
    }

    /// Whether Kafka's answer has the partition's log start offset, and not -1. It has -1 if the records are refused
    /// before the log, are corrupt or are too large.
    pub fn answers_log_start_offset(&self) -> bool {
        match self {
            Self::NoBatch | Self::SeveralBatches | Self::ZstdNotAllowed { .. } => false,
            Self::Batch(BatchError::OldMagic { .. }) => false,
            _ => !matches!(self.code(), ErrorCode::CorruptMessage | ErrorCode::MessageTooLarge),
        }
    }

    /// The answer's `error_message`, in the cases in which Kafka has one: single records are refused, or the records do
    /// not begin like a batch.
    pub fn client_message(&self) -> Option<String> {
        match self {
            Self::Records(rejected) => Some(rejected.to_string()),
            Self::Batch(BatchError::UnknownMagic { magic }) => {
                Some(format!("Invalid magic found in record: {magic}"))
            }
            Self::Batch(BatchError::LengthTooSmall { batch_length })
                if *batch_length < MIN_ANY_LENGTH =>
            {
                Some(format!(
                    "Record size {batch_length} is less than the minimum record overhead \
                     ({MIN_ANY_LENGTH})"
                ))
            }
            _ => None,
        }
    }

    /// The errors of single records, for the answer's `record_errors`.
    pub fn rejected_records(&self) -> Option<&RejectedRecords> {
        match self {
            Self::Records(rejected) => Some(rejected),
            _ => None,
        }
    }
}

/// Why a single record is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    NoKey,
    TimestampOutOfRange,
    TimestampTypeOfBroker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rejection {
    batch_index: i32,
    reason: Reason,
    record: RecordSummary,
}

/// The records of a batch that break the topic's rules. `Display` gives Kafka's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRecords {
    topic_partition: String,
    /// The earliest and the latest timestamp allowed, in ms.
    allowed_timestamps: [i64; 2],
    rejections: Vec<Rejection>,
    total: usize,
    any_timestamp: bool,
}

impl RejectedRecords {
    pub(super) fn new(rules: &Rules<'_>) -> Self {
        Self {
            topic_partition: format!("{}-{}", rules.topic, rules.partition),
            allowed_timestamps: [
                rules.now_ms.wrapping_sub(rules.timestamp_before_max_ms),
                rules.now_ms.wrapping_add(rules.timestamp_after_max_ms),
            ],
            rejections: Vec::new(),
            total: 0,
            any_timestamp: false,
        }
    }

    pub(super) fn add(&mut self, batch_index: i32, reason: Reason, record: RecordSummary) {
        self.total += 1;
        self.any_timestamp |= match reason {
            Reason::NoKey => false,
            Reason::TimestampOutOfRange | Reason::TimestampTypeOfBroker => true,
        };
        if self.rejections.len() < MAX_RECORD_ERRORS {
            self.rejections.push(Rejection { batch_index, reason, record });
        }
    }

    /// The code of the batch: INVALID_TIMESTAMP if any record has an invalid timestamp.
    pub fn code(&self) -> ErrorCode {
        if self.any_timestamp { ErrorCode::InvalidTimestamp } else { ErrorCode::InvalidRecord }
    }

    /// Index in the batch and message of each refused record, of the first thousand at most.
    pub fn record_errors(&self) -> impl Iterator<Item = (i32, String)> + '_ {
        self.rejections.iter().map(|rejection| (rejection.batch_index, self.text(rejection)))
    }

    fn text(&self, rejection: &Rejection) -> String {
        let record = rejection.record;
        match rejection.reason {
            Reason::NoKey => format!(
                "Compacted topic cannot accept message without key in topic partition {}",
                self.topic_partition
            ),
            Reason::TimestampOutOfRange => {
                let [earliest, latest] = self.allowed_timestamps;
                format!(
                    "Timestamp {} of message with offset {} is out of range. The timestamp should \
                     be within [{earliest}, {latest}]",
                    record.timestamp, record.offset
                )
            }
            Reason::TimestampTypeOfBroker => format!(
                "Invalid timestamp type in message {record}. Producer should not set timestamp \
                 type to {}.",
                kafka_name(TimestampType::LogAppendTime)
            ),
        }
    }
}

fn kafka_name(timestamp_type: TimestampType) -> &'static str {
    match timestamp_type {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

impl fmt::Display for RejectedRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.any_timestamp {
            return f.write_str("One or more records have been rejected due to invalid timestamp");
        }
        write!(
            f,
            "One or more records have been rejected due to {} record errors in total, and only \
             showing the first three errors at most: [",
            self.total
        )?;
        for (shown, (index, message)) in self.record_errors().take(SHOWN_IN_MESSAGE).enumerate() {
            let separator = if shown == 0 { "" } else { ", " };
            write!(f, "{separator}RecordError(batchIndex={index}, message='{message}')")?;
        }
        f.write_str("]")
    }
}

impl std::error::Error for RejectedRecords {}
