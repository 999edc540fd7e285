//! A consumer in the group: joins, is assigned partitions, reads them, commits how far it came.

use crate::batch::{DATA_PARTITIONS, DATA_TOPIC, PartitionId};
use crate::client::{ClientStep, ClientTimer, Leaders};
use crate::message::{Address, CallId, GroupAnswer, GroupRequest, Message, ReadAnswer, group_id};
use crate::observation::Observation;
use crate::scenario::{MEMBER_SESSION_MS, REBALANCE_MS};
use bytes::Bytes;
use bytestring::ByteString;
use klamm_coordinator::group::{JoinGroup, Response};
use klamm_coordinator::runtime::RequestToken;
use klamm_protocol::ids::{BrokerId, Offset};
use klamm_protocol::messages::heartbeat_request::HeartbeatRequest;
use klamm_protocol::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use klamm_protocol::messages::join_group_response::JoinGroupResponse;
use klamm_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use klamm_protocol::messages::offset_commit_response::OffsetCommitResponse;
use klamm_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use klamm_protocol::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use klamm_protocol::messages::sync_group_response::SyncGroupResponse;
use klamm_protocol::{ErrorCode, Uuid};
use std::collections::BTreeMap;

const POLL_MS: i64 = 40;
/// How long a member waits for an answer: longer than a rebalance takes.
const TIMEOUT_MS: i64 = 900;

/// What the member does next, or waits for.
#[derive(Debug, Clone, PartialEq)]
enum State {
    Joining,
    /// The leader of the group brings everybody's assignment.
    Syncing(Vec<SyncGroupRequestAssignment>),
    FetchingOffsets,
    Consuming,
}

#[derive(Debug)]
pub(crate) struct Member {
    id: ByteString,
    generation: i32,
    state: State,
    coordinator: Option<BrokerId>,
    /// The request to the coordinator that waits for its answer.
    asked: Option<CallId>,
    next_call: CallId,
    assigned: Vec<PartitionId>,
    positions: BTreeMap<PartitionId, Offset>,
    /// The reads that wait, and how far the partition reached when they were sent.
    reads: BTreeMap<CallId, (PartitionId, Offset)>,
    /// How far each partition has been seen to reach.
    latest: BTreeMap<PartitionId, Offset>,
    commits: bool,
    /// How far this member has read, over all its generations.
    pub(crate) consumed: BTreeMap<PartitionId, Offset>,
    /// A member that has left comes back then.
    away_until_ms: i64,
    /// Whether members come and go.
    pub(crate) is_restless: bool,
}

impl Member {
    pub(crate) fn new() -> Self {
        Self {
            id: ByteString::new(),
            generation: -1,
            state: State::Joining,
            coordinator: None,
            asked: None,
            next_call: 0,
            assigned: Vec::new(),
            positions: BTreeMap::new(),
            reads: BTreeMap::new(),
            latest: BTreeMap::new(),
            commits: false,
            consumed: BTreeMap::new(),
            away_until_ms: 0,
            is_restless: true,
        }
    }

    fn next_call(&mut self) -> CallId {
        self.next_call += 1;
        self.next_call
    }

    /// Forgets who it was: the group has to do without the member that it was.
    fn crash(&mut self) {
        *self = Self {
            next_call: self.next_call,
            consumed: std::mem::take(&mut self.consumed),
            latest: std::mem::take(&mut self.latest),
            ..Self::new()
        };
    }

    fn rejoin(&mut self) {
        self.state = State::Joining;
        self.assigned.clear();
        self.positions.clear();
        self.reads.clear();
    }

    pub(crate) fn on_poll(&mut self, leaders: &Leaders, step: &mut ClientStep<'_>) {
        step.after(POLL_MS, ClientTimer::Poll);
        if self.is_restless && step.random.below(150) == 0 {
            self.crash();
            self.away_until_ms = step.now_ms + step.random.between(0, 2_000);
        }
        if step.now_ms < self.away_until_ms {
            return;
        }
        self.read(leaders, step);
        if self.asked.is_some() {
            return;
        }
        let coordinator = self.coordinator.or(leaders.of(crate::batch::OFFSETS_PARTITION));
        let Some(coordinator) = coordinator else { return };
        self.coordinator = Some(coordinator);
        let call = self.next_call();
        let request = self.next_request(call, step);
        self.asked = Some(call);
        step.after(TIMEOUT_MS, ClientTimer::CallTimeout(call));
        step.ask(Address::Node(coordinator), Message::Group { call, request });
    }

    fn next_request(&mut self, call: CallId, step: &mut ClientStep<'_>) -> GroupRequest {
        match &self.state {
            State::Joining => self.join(call),
            State::Syncing(assignments) => GroupRequest::Sync(SyncGroupRequest {
                group_id: group_id(),
                generation_id: self.generation,
                member_id: self.id.clone(),
                assignments: assignments.clone(),
                ..Default::default()
            }),
            State::FetchingOffsets => self.fetch_offsets(step),
            State::Consuming => {
                self.commits = !self.commits;
                if self.commits && !self.positions.is_empty() {
                    self.commit()
                } else {
                    self.heartbeat()
                }
            }
        }
    }

    /// The coordinator fills in what it is to decide: the token and a new member's id.
    fn join(&self, call: CallId) -> GroupRequest {
        let protocol =
            JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::from_static(b"m") };
        GroupRequest::Join(JoinGroup {
            token: RequestToken(call),
            requires_known_member_id: true,
            supports_skipping_assignment: false,
            client_id: "member".into(),
            client_host: "/127.0.0.1".into(),
            member_uuid: Uuid::ZERO,
            request: JoinGroupRequest {
                group_id: group_id(),
                session_timeout_ms: MEMBER_SESSION_MS,
                rebalance_timeout_ms: REBALANCE_MS,
                member_id: self.id.clone(),
                protocol_type: "consumer".into(),
                protocols: vec![protocol],
                ..Default::default()
            },
        })
    }

    fn heartbeat(&self) -> GroupRequest {
        GroupRequest::Heartbeat(HeartbeatRequest {
            group_id: group_id(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            ..Default::default()
        })
    }

    fn commit(&self) -> GroupRequest {
        let partitions =
            self.positions.iter().map(|(partition, offset)| OffsetCommitRequestPartition {
                partition_index: index(*partition),
                committed_offset: *offset,
                committed_metadata: Some(ByteString::new()),
                ..Default::default()
            });
        let topic = OffsetCommitRequestTopic {
            name: DATA_TOPIC.into(),
            partitions: partitions.collect(),
            ..Default::default()
        };
        GroupRequest::Commit(OffsetCommitRequest {
            group_id: group_id(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.id.clone(),
            topics: vec![topic],
            ..Default::default()
        })
    }

    fn fetch_offsets(&self, step: &mut ClientStep<'_>) -> GroupRequest {
        step.observe(Observation::OffsetsAsked {
            member: self.id.clone(),
            generation: self.generation,
            partitions: self.assigned.clone(),
        });
        let partition_indexes = self.assigned.iter().map(|partition| index(*partition)).collect();
        let topic = OffsetFetchRequestTopics {
            name: DATA_TOPIC.into(),
            partition_indexes,
            ..Default::default()
        };
        GroupRequest::FetchOffsets(OffsetFetchRequestGroup {
            group_id: group_id(),
            topics: Some(vec![topic]),
            ..Default::default()
        })
    }

    pub(crate) fn on_timeout(&mut self, call: CallId) {
        if self.asked == Some(call) {
            self.asked = None;
            self.coordinator = None;
            // An offset that is asked for again is asked of whoever coordinates this generation.
            if self.state != State::Consuming {
                self.rejoin();
            }
        }
    }

    pub(crate) fn on_answer(
        &mut self,
        call: CallId,
        answer: GroupAnswer,
        step: &mut ClientStep<'_>,
    ) {
        if self.asked != Some(call) {
            return;
        }
        self.asked = None;
        match answer {
            GroupAnswer::Refused(error) | GroupAnswer::Heartbeat(error) => self.on_error(error),
            GroupAnswer::Answered(Response::JoinGroup(answer)) => self.on_joined(answer),
            GroupAnswer::Answered(Response::SyncGroup(answer)) => self.on_synced(&answer, step),
            GroupAnswer::Answered(Response::OffsetFetch(answer)) => self.on_offsets(&answer, step),
            GroupAnswer::Answered(Response::OffsetCommit(answer)) => {
                self.on_error(commit_error(&answer));
            }
            GroupAnswer::Answered(other) => unreachable!("nobody asked for {other:?}"),
        }
    }

    fn on_error(&mut self, error: ErrorCode) {
        match error {
            ErrorCode::None => {}
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => self.rejoin(),
            ErrorCode::UnknownMemberId => {
                self.id = ByteString::new();
                self.rejoin();
            }
            // Another coordinator knows nothing of a join that this one has not stored.
            _ => {
                self.coordinator = None;
                if self.state != State::Consuming {
                    self.rejoin();
                }
            }
        }
    }

    fn on_joined(&mut self, answer: JoinGroupResponse) {
        let error = ErrorCode::from_code(answer.error_code).expect("a known error");
        if error == ErrorCode::MemberIdRequired {
            self.id = answer.member_id;
            return;
        }
        if error != ErrorCode::None {
            return self.on_error(error);
        }
        self.id = answer.member_id.clone();
        self.generation = answer.generation_id;
        let is_leader = answer.leader == answer.member_id;
        self.state = State::Syncing(if is_leader { assignments(&answer) } else { Vec::new() });
    }

    fn on_synced(&mut self, answer: &SyncGroupResponse, step: &mut ClientStep<'_>) {
        let error = ErrorCode::from_code(answer.error_code).expect("a known error");
        if error != ErrorCode::None {
            return self.on_error(error);
        }
        self.assigned = answer.assignment.iter().map(|id| usize::from(*id)).collect();
        self.state = State::FetchingOffsets;
        step.observe(Observation::Assigned {
            member: self.id.clone(),
            generation: self.generation,
            partitions: self.assigned.clone(),
        });
    }

    fn on_offsets(&mut self, answer: &OffsetFetchResponseGroup, step: &mut ClientStep<'_>) {
        let error = ErrorCode::from_code(answer.error_code).expect("a known error");
        if error != ErrorCode::None {
            return self.on_error(error);
        }
        for shown in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            let partition = usize::try_from(shown.partition_index).expect("an index");
            let (member, offset) = (self.id.clone(), shown.committed_offset);
            step.observe(Observation::OffsetShown { member, partition, offset });
            self.positions.insert(partition, offset.max(0));
        }
        self.state = State::Consuming;
    }

    /// Reads on in every assigned partition.
    fn read(&mut self, leaders: &Leaders, step: &mut ClientStep<'_>) {
        self.reads.clear();
        for (partition, offset) in self.positions.clone() {
            let Some(leader) = leaders.of(partition) else { continue };
            let call = self.next_call();
            let reached = self.latest.get(&partition).copied().unwrap_or(-1);
            self.reads.insert(call, (partition, reached));
            let leader_epoch = leaders.epoch_of(partition);
            let read = Message::Read { call, partition, leader_epoch, offset };
            step.ask(Address::Node(leader), read);
        }
    }

    pub(crate) fn on_read(
        &mut self,
        call: CallId,
        answer: Result<ReadAnswer, ErrorCode>,
        step: &mut ClientStep<'_>,
    ) {
        let Some((partition, reached)) = self.reads.remove(&call) else { return };
        let Ok(ReadAnswer { values, latest }) = answer else { return };
        if let Some(latest) = latest {
            step.observe(Observation::LatestShown { partition, reached, latest });
            self.latest.insert(partition, latest.max(reached));
        }
        for (offset, value) in values {
            step.observe(Observation::Consumed { partition, offset, value });
            self.positions.insert(partition, offset + 1);
            self.consumed.insert(partition, offset + 1);
        }
    }
}

fn index(partition: PartitionId) -> i32 {
    i32::try_from(partition).expect("a small index")
}

fn commit_error(answer: &OffsetCommitResponse) -> ErrorCode {
    let mut codes = answer.topics.iter().flat_map(|topic| &topic.partitions);
    let failed = codes.find(|partition| partition.error_code != 0);
    failed.map_or(ErrorCode::None, |partition| {
        ErrorCode::from_code(partition.error_code).expect("a known error")
    })
}

/// Deals the partitions out.
fn assignments(joined: &JoinGroupResponse) -> Vec<SyncGroupRequestAssignment> {
    let count = joined.members.len();
    let members = joined.members.iter().enumerate();
    let assignments = members.map(|(place, member)| {
        let own = (0..DATA_PARTITIONS).filter(|partition| partition % count == place);
        let ids = own.map(|partition| u8::try_from(partition).expect("a small index"));
        SyncGroupRequestAssignment {
            member_id: member.member_id.clone(),
            assignment: ids.collect::<Vec<u8>>().into(),
        }
    });
    assignments.collect()
}
