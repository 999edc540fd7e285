//! The quorum's requests and responses, independent of versions. `wire` converts them to and from Kafka's messages; no
//! other part of the quorum knows versions.

use super::log_history::ControlChange;
use super::voters::{Endpoints, KRaftVersionRange, ReplicaKey};
use crate::OffsetAndEpoch;
use bytes::Bytes;
use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};

/// A request between replicas of the metadata log.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    Vote(VoteRequest),
    BeginQuorumEpoch(BeginQuorumEpochRequest),
    EndQuorumEpoch(EndQuorumEpochRequest),
    Fetch(FetchRequest),
    FetchSnapshot(FetchSnapshotRequest),
    AddVoter(AddVoterRequest),
    RemoveVoter(RemoveVoterRequest),
    UpdateVoter(UpdateVoterRequest),
    /// Requests the supported levels of kraft.version of a node that will become a voter.
    ApiVersions,
}

/// An inbound request, with the cluster id of its sender.
#[derive(Debug, Clone, PartialEq)]
pub struct Inbound {
    /// None if the request has none.
    pub cluster_id: Option<ByteString>,
    pub request: Request,
}

/// Requests a vote, or a pre-vote (KIP-996).
#[derive(Debug, Clone, PartialEq)]
pub struct VoteRequest {
    pub replica: ReplicaKey,
    /// The candidate's epoch; for a pre-vote the epoch that it is still in.
    pub replica_epoch: LeaderEpoch,
    /// The voter that the request is meant for; None before Vote v1.
    pub voter: Option<ReplicaKey>,
    /// The end of the sender's log.
    pub log_end: OffsetAndEpoch,
    pub pre_vote: bool,
}

/// A leader announces its epoch to a voter that has not fetched from it.
#[derive(Debug, Clone, PartialEq)]
pub struct BeginQuorumEpochRequest {
    pub leader_id: BrokerId,
    pub leader_epoch: LeaderEpoch,
    pub voter: Option<ReplicaKey>,
    /// Empty before v1: the endpoints are then those of the voter set.
    pub leader_endpoints: Endpoints,
}

/// A leader resigns.
#[derive(Debug, Clone, PartialEq)]
pub struct EndQuorumEpochRequest {
    pub leader_id: BrokerId,
    pub leader_epoch: LeaderEpoch,
    /// The preferred successors, best log first.
    pub preferred_candidates: Vec<ReplicaKey>,
    pub leader_endpoints: Endpoints,
}

/// Fetches the records from `fetch_offset` on, and so acknowledges those before it.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchRequest {
    pub replica: ReplicaKey,
    pub current_leader_epoch: LeaderEpoch,
    pub fetch_offset: Offset,
    pub last_fetched_epoch: LeaderEpoch,
    /// The high watermark that the sender knows; `i64::MAX` before Fetch v18, which turns waiting for a newer one off
    /// (KIP-1166).
    pub high_watermark: Option<Offset>,
    pub max_wait_ms: i32,
    pub max_bytes: i32,
}

/// Fetches a chunk of a snapshot (KIP-630).
#[derive(Debug, Clone, PartialEq)]
pub struct FetchSnapshotRequest {
    pub replica: ReplicaKey,
    pub current_leader_epoch: LeaderEpoch,
    pub snapshot_id: OffsetAndEpoch,
    /// In bytes, from the start of the snapshot.
    pub position: i64,
    pub max_bytes: i32,
}

/// Requests that the leader makes an observer a voter (KIP-853).
#[derive(Debug, Clone, PartialEq)]
pub struct AddVoterRequest {
    /// How long the sender waits. The leader ignores it: every change has `controller.quorum.request.timeout.ms`.
    pub timeout_ms: i32,
    /// Refused without a directory id.
    pub voter: ReplicaKey,
    /// Its controller listeners.
    pub endpoints: Endpoints,
    /// Whether to answer once the change is committed, or as soon as it is appended (KIP-1186).
    pub ack_when_committed: bool,
}

/// Requests that the leader removes a voter from the voter set (KIP-853).
#[derive(Debug, Clone, PartialEq)]
pub struct RemoveVoterRequest {
    /// Refused without a directory id.
    pub voter: ReplicaKey,
}

/// A voter sends its current endpoints and supported versions to the leader (KIP-853).
#[derive(Debug, Clone, PartialEq)]
pub struct UpdateVoterRequest {
    pub leader_epoch: LeaderEpoch,
    pub voter: ReplicaKey,
    pub endpoints: Endpoints,
    pub supported_kraft_version: KRaftVersionRange,
}

/// The leader, as far as the answering replica knows.
#[derive(Debug, Clone, PartialEq)]
pub struct LeaderInfo {
    pub epoch: LeaderEpoch,
    pub leader_id: Option<BrokerId>,
    /// Empty if unknown.
    pub endpoints: Endpoints,
}

/// An answer between replicas of the metadata log.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    Vote(VoteResponse),
    BeginQuorumEpoch(QuorumEpochResponse),
    EndQuorumEpoch(QuorumEpochResponse),
    Fetch(FetchResponse),
    FetchSnapshot(FetchSnapshotResponse),
    AddVoter(VoterChangeResponse),
    RemoveVoter(VoterChangeResponse),
    UpdateVoter(QuorumEpochResponse),
    ApiVersions(ApiVersionsResponse),
    /// The whole request failed: a top-level error of the receiver, or no connection or no answer in time
    /// (BROKER_NOT_AVAILABLE).
    Failed(ErrorCode),
}

#[derive(Debug, Clone, PartialEq)]
pub struct VoteResponse {
    pub error: ErrorCode,
    pub leader: LeaderInfo,
    pub vote_granted: bool,
}

/// The answer to BeginQuorumEpoch, EndQuorumEpoch and UpdateVoter.
#[derive(Debug, Clone, PartialEq)]
pub struct QuorumEpochResponse {
    pub error: ErrorCode,
    pub leader: LeaderInfo,
}

/// The answer to AddVoter and RemoveVoter.
#[derive(Debug, Clone, PartialEq)]
pub struct VoterChangeResponse {
    pub error: ErrorCode,
    /// The error message, with Kafka's text.
    pub message: Option<String>,
}

/// The fields of an ApiVersions response that the quorum uses.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiVersionsResponse {
    pub error: ErrorCode,
    /// The range of the feature kraft.version; None if the response has none.
    pub kraft_version: Option<KRaftVersionRange>,
}

/// The answer to a fetch.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchResponse {
    pub error: ErrorCode,
    pub leader: LeaderInfo,
    /// None while the leader has not committed in its own epoch.
    pub high_watermark: Option<Offset>,
    pub log_start_offset: Offset,
    pub body: FetchBody,
}

#[derive(Debug, Clone, PartialEq)]
pub enum FetchBody {
    /// Complete batches that continue the fetcher's log; empty if there are no new ones.
    Records(Vec<FetchedBatch>),
    /// The fetcher's log diverges at or before this end offset of this epoch.
    Diverging(OffsetAndEpoch),
    /// The records are deleted: the fetcher must load this snapshot.
    Snapshot(OffsetAndEpoch),
}

/// One received batch, with the fields that the quorum uses.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchedBatch {
    pub base_offset: Offset,
    /// The offset after its last record.
    pub next_offset: Offset,
    pub epoch: LeaderEpoch,
    /// The changes of voters and kraft.version, by offset, if it is a control batch.
    pub changes: Vec<(Offset, ControlChange)>,
    /// The batch, byte for byte.
    pub bytes: Bytes,
}

/// A chunk of a snapshot; it may end at any byte.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchSnapshotResponse {
    pub error: ErrorCode,
    pub leader: LeaderInfo,
    pub snapshot_id: OffsetAndEpoch,
    /// The size of the whole snapshot in bytes.
    pub size: i64,
    pub position: i64,
    pub bytes: Bytes,
}

/// The answer to FetchSnapshot, for the shell to complete when `error` is none: it reads the file,
/// or answers SNAPSHOT_NOT_FOUND or POSITION_OUT_OF_RANGE.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchSnapshotReply {
    pub error: ErrorCode,
    pub leader: LeaderInfo,
    pub snapshot_id: OffsetAndEpoch,
    pub position: i64,
    pub max_bytes: i32,
}

/// The answer to a fetch, for the shell to complete: it reads `records` from the log.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchReply {
    pub error: ErrorCode,
    pub leader: LeaderInfo,
    pub high_watermark: Option<Offset>,
    pub log_start_offset: Offset,
    pub body: FetchReplyBody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchReplyBody {
    Empty,
    /// Complete batches from `offset` on, committed or not, at most `max_bytes` but at least one.
    Records {
        offset: Offset,
        max_bytes: i32,
    },
    Diverging(OffsetAndEpoch),
    Snapshot(OffsetAndEpoch),
}

/// The answer to an inbound request.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Vote(VoteResponse),
    BeginQuorumEpoch(QuorumEpochResponse),
    EndQuorumEpoch(QuorumEpochResponse),
    Fetch(FetchReply),
    FetchSnapshot(FetchSnapshotReply),
    AddVoter(VoterChangeResponse),
    RemoveVoter(VoterChangeResponse),
    UpdateVoter(QuorumEpochResponse),
    ApiVersions(ApiVersionsResponse),
    /// The whole request is refused with a top-level error code.
    Refused(ErrorCode),
}
