//! What nodes and clients say to each other, without versions and bytes.

use crate::batch::{PartitionBatch, PartitionId, Value};
use bytestring::ByteString;
use klamm_coordinator::group::JoinGroup;
use klamm_coordinator::group::Response as GroupResponse;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_protocol::messages::alter_partition_request::AlterPartitionRequest;
use klamm_protocol::messages::alter_partition_response::AlterPartitionResponse;
use klamm_protocol::messages::assign_replicas_to_dirs_request::AssignReplicasToDirsRequest;
use klamm_protocol::messages::broker_heartbeat_request::BrokerHeartbeatRequest;
use klamm_protocol::messages::broker_heartbeat_response::BrokerHeartbeatResponse;
use klamm_protocol::messages::broker_registration_request::BrokerRegistrationRequest;
use klamm_protocol::messages::heartbeat_request::HeartbeatRequest;
use klamm_protocol::messages::offset_commit_request::OffsetCommitRequest;
use klamm_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use klamm_protocol::messages::sync_group_request::SyncGroupRequest;
use klamm_replication::partition::FetchedPartition;
use klamm_replication::quorum::CorrelationId;
use klamm_replication::quorum::message::{Request, Response};
use std::rc::Rc;

/// Who sends or receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Address {
    Node(BrokerId),
    Client(usize),
}

/// A sender in one of its lives: an answer to an earlier life finds nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sender {
    pub(crate) address: Address,
    pub(crate) incarnation: u64,
}

/// Pairs an answer with its request; numbered by the sender.
pub(crate) type CallId = u64;

#[derive(Debug, Clone)]
pub(crate) enum ControllerRequest {
    Register(BrokerRegistrationRequest),
    Heartbeat(BrokerHeartbeatRequest),
    AlterPartition(AlterPartitionRequest),
    AssignDirectories(AssignReplicasToDirsRequest),
    /// Creates the topics of the simulation, once all brokers are there.
    CreateTopics {
        replicas: Vec<Vec<BrokerId>>,
    },
    /// Moves a partition to other replicas.
    Reassign {
        partition: PartitionId,
        replicas: Vec<BrokerId>,
    },
    /// Elects the preferred leaders.
    ElectPreferred,
}

#[derive(Debug, Clone)]
pub(crate) enum ControllerAnswer {
    Registered(Result<i64, ErrorCode>),
    Heartbeat(BrokerHeartbeatResponse),
    AlterPartition(AlterPartitionResponse),
    Done(Result<(), ErrorCode>),
}

/// A follower's fetch of one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplicaFetch {
    pub(crate) partition: PartitionId,
    pub(crate) follower: BrokerId,
    pub(crate) broker_epoch: Option<i64>,
    pub(crate) number: u64,
    pub(crate) current_leader_epoch: LeaderEpoch,
    pub(crate) fetch_offset: Offset,
    pub(crate) last_fetched_epoch: Option<LeaderEpoch>,
}

/// A producer's batch.
#[derive(Debug, Clone)]
pub(crate) struct ProducedBatch {
    pub(crate) partition: PartitionId,
    pub(crate) values: Vec<Value>,
    /// By the producer's clock.
    pub(crate) timestamp_ms: i64,
}

/// What a consumer is given: the answers to its Fetch and its ListOffsets in one.
#[derive(Debug, Clone)]
pub(crate) struct ReadAnswer {
    pub(crate) values: Vec<(Offset, Option<Value>)>,
    /// Where the partition ends for consumers, if the leader can tell yet.
    pub(crate) latest: Option<Offset>,
}

#[derive(Debug, Clone)]
pub(crate) enum GroupRequest {
    Join(JoinGroup),
    Sync(SyncGroupRequest),
    Heartbeat(HeartbeatRequest),
    Commit(OffsetCommitRequest),
    FetchOffsets(OffsetFetchRequestGroup),
}

#[derive(Debug, Clone)]
pub(crate) enum GroupAnswer {
    /// NOT_COORDINATOR and the like: the request was not looked at.
    Refused(ErrorCode),
    Heartbeat(ErrorCode),
    Answered(GroupResponse),
}

#[derive(Debug, Clone)]
pub(crate) enum Message {
    Quorum {
        id: CorrelationId,
        request: Request,
    },
    QuorumAnswer {
        id: CorrelationId,
        response: Response,
    },
    Controller {
        call: CallId,
        request: ControllerRequest,
    },
    ControllerAnswer {
        call: CallId,
        answer: Result<ControllerAnswer, ErrorCode>,
    },
    Fetch(ReplicaFetch),
    FetchAnswer {
        partition: PartitionId,
        fetched: FetchedPartition,
        batches: Vec<Rc<PartitionBatch>>,
    },
    Produce {
        call: CallId,
        batch: ProducedBatch,
    },
    ProduceAnswer {
        call: CallId,
        answer: Result<Offset, ErrorCode>,
    },
    Read {
        call: CallId,
        partition: PartitionId,
        leader_epoch: Option<LeaderEpoch>,
        offset: Offset,
    },
    ReadAnswer {
        call: CallId,
        answer: Result<ReadAnswer, ErrorCode>,
    },
    Group {
        call: CallId,
        request: GroupRequest,
    },
    GroupAnswer {
        call: CallId,
        answer: GroupAnswer,
    },
}

/// The group of the simulation.
pub(crate) fn group_id() -> ByteString {
    ByteString::from_static("group")
}
