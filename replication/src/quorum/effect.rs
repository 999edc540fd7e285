//! What the quorum asks of the shell.
//!
//! The order matters: the shell carries effects out in the order in which they are returned, and none
//! before those ahead of it have succeeded. So a vote that follows its `PersistElection` is never
//! sent before the vote is on disk. Failure of `PersistElection`, `Append`, `Truncate` or `Flush`
//! stops the process: the quorum has already moved on.

use super::message::{Reply, Request};
use super::vote_store::StoredElection;
use super::voters::Address;
use crate::OffsetAndEpoch;
use bytes::Bytes;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write [`StoredElection::encode`] to `quorum-state` and sync it before anything further.
    PersistElection(StoredElection),
    /// Append at `base_offset`, the end of the log. No sync is implied.
    Append { base_offset: Offset, epoch: LeaderEpoch, batch: AppendBatch },
    /// Cut the log so that it ends at this offset. No sync is implied.
    Truncate { end_offset: Offset },
    /// Sync the log, without making others wait, then call `on_flushed` with the ticket.
    Flush(FlushTicket),
    /// Send a request and bring the answer, or the failure to get one, back to `on_response`.
    Send { correlation_id: CorrelationId, to: Destination, request: Request },
    /// Answer the inbound request of this id.
    Reply { request_id: RequestId, reply: Reply },
    /// Write a piece of a snapshot at this position of its `.part` file.
    WriteSnapshotChunk { snapshot_id: OffsetAndEpoch, position: i64, bytes: Bytes },
    /// The snapshot is complete: sync it, take it into place, start the log anew at its end, load
    /// the state machine from it, and call `on_snapshot_loaded` before anything else is told.
    LoadSnapshot { snapshot_id: OffsetAndEpoch },
    /// Apply the records below this offset to the state machine: they are committed.
    CommitTo { high_watermark: Offset },
    /// This node leads, and everything that was written before its epoch has been committed (and
    /// announced by `CommitTo`): the active controller may start.
    BecameLeader { epoch: LeaderEpoch },
    /// This node leads no more: drop what is not committed, answer NOT_CONTROLLER.
    Resigned { epoch: LeaderEpoch },
    /// Who leads has changed; None while an election is open.
    LeaderChanged { epoch: LeaderEpoch, leader_id: Option<BrokerId> },
    /// Something that no correct peer sends. For the log and a metric; it was ignored.
    Anomaly(Anomaly),
}

/// What to append.
#[derive(Debug, Clone, PartialEq)]
pub enum AppendBatch {
    /// The first batch of this node's epoch: build it with [`super::EpochStartBatch::encode`].
    EpochStart(super::EpochStartBatch),
    /// Another voter set, or kraft.version: build it with [`super::MembershipBatch::encode`].
    Membership(super::MembershipBatch),
    /// A batch of the state machine, built for `base_offset` and `epoch`.
    Records(Bytes),
    /// Batches of a leader, to be written byte for byte.
    Fetched(Vec<Bytes>),
}

/// Names the flush of everything below `end_offset`. A ticket from before a truncation proves
/// nothing about the bytes written since, so it is ignored when it comes back.
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

/// Where to send. Bootstrap servers, whose ids are not known, are numbered -2, -3, ...
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    pub id: BrokerId,
    pub address: Address,
}

/// A message that contradicts what is known and cannot come from a correct replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anomaly {
    /// Two leaders are claimed for one epoch.
    ConflictingLeader { epoch: LeaderEpoch, known: Option<BrokerId>, claimed: BrokerId },
    /// A leader asks for truncation of committed records, or has a snapshot that ends before them: its log does not
    /// descend from what the quorum had committed.
    TruncationBelowHighWatermark { end_offset: Offset, high_watermark: Offset },
    /// A snapshot piece is not the one that was asked for.
    UnexpectedSnapshotChunk { snapshot_id: OffsetAndEpoch, position: i64 },
    /// Fetched batches do not continue the log, or are of an epoch later than the leader's.
    UnexpectedBatch { base_offset: Offset, epoch: LeaderEpoch, expected_offset: Offset },
    /// A voter fetches from below what it had acknowledged: it has lost records.
    FetchOffsetWentBack { replica_id: BrokerId, from: Offset, to: Offset },
    /// A peer cannot be followed because nothing says where it is.
    LeaderWithoutEndpoint { epoch: LeaderEpoch, leader_id: BrokerId },
}
