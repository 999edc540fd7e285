//! The effects that the shell carries out for the quorum.
//!
//! The shell carries effects out in the order in which they are returned, each only after the previous ones have
//! succeeded. So a vote, which follows its `PersistElection`, is never sent before it is on disk. Failure of
//! `PersistElection`, `Append`, `Truncate` or `Flush` stops the process: the quorum has already moved on.

use super::message::{Reply, Request};
use super::vote_store::StoredElection;
use super::voters::Address;
use crate::OffsetAndEpoch;
use bytes::Bytes;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};

/// One action of the shell.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write [`StoredElection::encode`] to `quorum-state` and sync it before anything further.
    PersistElection(StoredElection),
    /// Append at `base_offset`, the end of the log. No sync is implied.
    Append { base_offset: Offset, epoch: LeaderEpoch, batch: AppendBatch },
    /// Truncate the log to end at this offset. No sync is implied.
    Truncate { end_offset: Offset },
    /// Sync the log in the background, then call `on_flushed` with the ticket.
    Flush(FlushTicket),
    /// Send a request and pass the answer, or the failure to get one, to `on_response`.
    Send { correlation_id: CorrelationId, to: Destination, request: Request },
    /// Answer the inbound request of this id.
    Reply { request_id: RequestId, reply: Reply },
    /// Write a chunk of a snapshot at this position of its `.part` file.
    WriteSnapshotChunk { snapshot_id: OffsetAndEpoch, position: i64, bytes: Bytes },
    /// The snapshot is complete: sync and rename it, start a new log at its end, load the state machine from it, and
    /// call `on_snapshot_loaded` before any other event.
    LoadSnapshot { snapshot_id: OffsetAndEpoch },
    /// Apply the records below this offset to the state machine: they are committed.
    CommitTo { high_watermark: Offset },
    /// This node leads, and all records from before its epoch are committed (and returned by `CommitTo`): the active
    /// controller may start.
    BecameLeader { epoch: LeaderEpoch },
    /// This node no longer leads: drop uncommitted records, answer NOT_CONTROLLER.
    Resigned { epoch: LeaderEpoch },
    /// The leader has changed; None while the epoch has none.
    LeaderChanged { epoch: LeaderEpoch, leader_id: Option<BrokerId> },
    /// A message that no correct peer sends. It was ignored; log it and count it in a metric.
    Anomaly(Anomaly),
}

/// What to append.
#[derive(Debug, Clone, PartialEq)]
pub enum AppendBatch {
    /// The first batch of this node's epoch: build it with [`super::EpochStartBatch::encode`].
    EpochStart(super::EpochStartBatch),
    /// A new voter set or kraft.version: build it with [`super::MembershipBatch::encode`].
    Membership(super::MembershipBatch),
    /// A batch of the state machine, built for `base_offset` and `epoch`.
    Records(Bytes),
    /// Fetched batches, to be written byte for byte.
    Fetched(Vec<Bytes>),
}

/// Identifies the flush of all records below `end_offset`. A ticket from before a truncation does not cover the bytes
/// written since, so it is ignored when it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushTicket {
    pub end_offset: Offset,
    pub(super) truncations: u64,
}

/// An inbound request, numbered by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// An outbound request, numbered by the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CorrelationId(pub u64);

/// The destination of a request. Bootstrap servers, whose ids are not known, get the ids -2, -3, ...
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    pub id: BrokerId,
    pub address: Address,
}

/// A message that contradicts this node's state and cannot come from a correct replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anomaly {
    /// Two nodes claim to lead one epoch.
    ConflictingLeader { epoch: LeaderEpoch, known: Option<BrokerId>, claimed: BrokerId },
    /// A leader's answer requires the truncation of committed records, or has a snapshot that ends before them: its log
    /// does not have the records that the quorum had committed.
    TruncationBelowHighWatermark { end_offset: Offset, high_watermark: Offset },
    /// A snapshot chunk is not the requested one.
    UnexpectedSnapshotChunk { snapshot_id: OffsetAndEpoch, position: i64 },
    /// Fetched batches do not continue the log, or are of an epoch later than the leader's.
    UnexpectedBatch { base_offset: Offset, epoch: LeaderEpoch, expected_offset: Offset },
    /// A voter fetches from below an offset that it had acknowledged: it has lost records.
    FetchOffsetWentBack { replica_id: BrokerId, from: Offset, to: Offset },
    /// A leader cannot be followed because its endpoint is unknown.
    LeaderWithoutEndpoint { epoch: LeaderEpoch, leader_id: BrokerId },
}
