//! The errors of the log: the storage failed ([`LogError`]), an append is refused ([`AppendError`]), a read is not
//! possible ([`ReadError`]).

use crate::disk::DiskError;
use klamm_protocol::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use klamm_protocol::{ErrorCode, Uuid};
use std::path::PathBuf;

/// A failure of the storage below the log, or of the stored files.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A previous failure has taken the directory offline: no file in it is used any more.
    #[error("log directory {} is offline since {cause}", dir.display())]
    Offline { dir: PathBuf, cause: String },
    #[error(
        "{} line {line}: {problem}; restore the file from a replica or remove it to have it rebuilt",
        path.display()
    )]
    Malformed { path: PathBuf, line: usize, problem: FileProblem },
    #[error(
        "{} says that the topic id is {found}, but the cluster says {expected}: the directory \
         belongs to a deleted topic of the same name",
        path.display()
    )]
    InconsistentTopicId { path: PathBuf, found: Uuid, expected: Uuid },
    #[error(
        "{} is locked by another process: is a broker already running on this directory?",
        path.display()
    )]
    Locked { path: PathBuf },
}

/// What a failure of the storage affects (`docs/decisions/0009`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Space, file descriptors or memory are lacking. Stored data is intact. The operation has changed nothing, or the
    /// next operation finishes it; it is retried.
    Passes,
    /// The files of one partition cannot be used as they are.
    Partition,
    /// Writes to the log directory cannot be trusted: it is offline until the process ends.
    Directory,
    /// The process cannot use the directory at all and must not start.
    Node,
}

/// Why a small text file cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    #[error("the file is not text")]
    NotText,
    #[error("version {found} is not known, expected {expected}")]
    Version { found: i64, expected: i64 },
    #[error("expected {expected}")]
    Syntax { expected: &'static str },
    #[error("{expected} entries are announced, {found} are there")]
    EntryCount { expected: usize, found: usize },
    #[error("{key} is missing")]
    Missing { key: &'static str },
}

impl LogError {
    /// What the failure affects. Only this function decides it, for all callers. No wildcard arm: a new failure must
    /// choose.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Disk(error) => error.severity(),
            Self::Offline { .. } => Severity::Directory,
            Self::Malformed { .. } | Self::InconsistentTopicId { .. } => Severity::Partition,
            Self::Locked { .. } => Severity::Node,
        }
    }

    /// A later retry may succeed, and no data is lost.
    pub fn passes(&self) -> bool {
        self.severity() == Severity::Passes
    }

    /// The disk or the quota is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Disk(error) if error.is_full())
    }

    /// The log directory is offline, because of this failure or of an earlier one.
    pub fn is_offline(&self) -> bool {
        self.severity() == Severity::Directory
    }

    /// The error code for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Disk(_) | Self::Offline { .. } | Self::Malformed { .. } | Self::Locked { .. } => {
                ErrorCode::KafkaStorageError
            }
            Self::InconsistentTopicId { .. } => ErrorCode::InconsistentTopicId,
        }
    }
}

/// Why records were not appended. None of them was.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error(transparent)]
    Storage(#[from] LogError),
    #[error(
        "out of order sequence number for producer {producer_id} at offset {offset}: \
         {incoming} (incoming), {current} (current end)"
    )]
    OutOfOrderSequence { producer_id: ProducerId, offset: Offset, incoming: i32, current: i32 },
    #[error(
        "epoch {incoming} of producer {producer_id} at offset {offset} is older than {current}"
    )]
    InvalidProducerEpoch {
        producer_id: ProducerId,
        offset: Offset,
        incoming: ProducerEpoch,
        current: ProducerEpoch,
    },
    #[error("coordinator epoch {incoming} of producer {producer_id} is older than {current}")]
    TransactionCoordinatorFenced { producer_id: ProducerId, incoming: i32, current: i32 },
    #[error("non-transactional write of producer {producer_id} inside its transaction")]
    ExpectedTransactional { producer_id: ProducerId },
    #[error("record of producer {producer_id} was not part of an ongoing transaction")]
    NotInTransaction { producer_id: ProducerId },
    #[error("{size} bytes exceed segment.bytes={limit}")]
    LargerThanSegment { size: u64, limit: u32 },
    #[error("batch at {found} comes before the next offset {expected}")]
    UnexpectedOffset { found: Offset, expected: Offset },
    #[error("batches are out of order: {found} follows {previous}")]
    OutOfOrderOffsets { previous: Offset, found: Offset },
    #[error("batch epoch {found} is not the leader's {expected}")]
    WrongLeaderEpoch { found: LeaderEpoch, expected: LeaderEpoch },
    #[error("the batch at byte {position} is corrupt")]
    CorruptBatch { position: usize },
}

impl AppendError {
    /// The error code for the client. No wildcard arm: a new failure must choose its code here.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Storage(error) => error.code(),
            Self::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
            Self::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
            Self::TransactionCoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
            Self::ExpectedTransactional { .. } | Self::NotInTransaction { .. } => {
                ErrorCode::InvalidTxnState
            }
            Self::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
            // Kafka's exceptions for these three have no code of their own (`Errors.forException`).
            Self::UnexpectedOffset { .. } | Self::OutOfOrderOffsets { .. } => {
                ErrorCode::UnknownServerError
            }
            Self::WrongLeaderEpoch { .. } => ErrorCode::InvalidRecord,
            Self::CorruptBatch { .. } => ErrorCode::CorruptMessage,
        }
    }
}

impl AppendError {
    /// What a failure of the storage affects; `None` if the records were refused.
    pub fn severity(&self) -> Option<Severity> {
        match self {
            Self::Storage(error) => Some(error.severity()),
            Self::OutOfOrderSequence { .. }
            | Self::InvalidProducerEpoch { .. }
            | Self::TransactionCoordinatorFenced { .. }
            | Self::ExpectedTransactional { .. }
            | Self::NotInTransaction { .. }
            | Self::LargerThanSegment { .. }
            | Self::UnexpectedOffset { .. }
            | Self::OutOfOrderOffsets { .. }
            | Self::WrongLeaderEpoch { .. }
            | Self::CorruptBatch { .. } => None,
        }
    }
}

impl From<DiskError> for AppendError {
    fn from(error: DiskError) -> Self {
        Self::Storage(error.into())
    }
}

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Storage(#[from] LogError),
    #[error("offset {offset} is not between {log_start} and {log_end}")]
    OffsetOutOfRange { offset: Offset, log_start: Offset, log_end: Offset },
    /// Retention has removed the segment after the view was taken.
    #[error("the segment at {segment} was deleted")]
    SegmentDeleted { segment: Offset },
    /// The log was truncated after the view was taken: take a new one and retry.
    #[error("the log was truncated while it was read")]
    Truncated,
    /// The bytes at `position` are not a valid record batch: the disk has damaged them.
    #[error("the segment at {segment} is corrupt at byte {position}")]
    Corrupt { segment: Offset, position: u64 },
}

impl ReadError {
    /// The error code for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Storage(error) => error.code(),
            Self::OffsetOutOfRange { .. } | Self::SegmentDeleted { .. } => {
                ErrorCode::OffsetOutOfRange
            }
            Self::Truncated => ErrorCode::NotLeaderOrFollower,
            Self::Corrupt { .. } => ErrorCode::CorruptMessage,
        }
    }
}

impl ReadError {
    /// What a failure of the storage affects; `None` if the requested records do not exist.
    pub fn severity(&self) -> Option<Severity> {
        match self {
            Self::Storage(error) => Some(error.severity()),
            Self::OffsetOutOfRange { .. }
            | Self::SegmentDeleted { .. }
            | Self::Truncated
            | Self::Corrupt { .. } => None,
        }
    }
}

impl From<DiskError> for ReadError {
    fn from(error: DiskError) -> Self {
        Self::Storage(error.into())
    }
}
