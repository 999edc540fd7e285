//! A driver for tests: a log in memory, a clock that is set by hand, and a ledger of all requests.
//!
//! It fails a test that leaves the contract: a token answered twice, or never.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use bytestring::ByteString;
use klamm_protocol::messages::heartbeat_request::HeartbeatRequest;
use klamm_protocol::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use klamm_protocol::messages::join_group_response::JoinGroupResponse;
use klamm_protocol::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use klamm_protocol::messages::leave_group_response::LeaveGroupResponse;
use klamm_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use klamm_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use klamm_protocol::messages::sync_group_response::SyncGroupResponse;
use klamm_protocol::time::Now;
use klamm_protocol::{ErrorCode, Uuid};

use super::config::GroupConfig;
use super::join::JoinGroup;
use super::loader::GroupLoader;
use super::shard::GroupShard;
use crate::outcome::{Outcome, Record, Reply, RequestToken, Response};

pub(crate) const GROUP: &str = "g";
pub(crate) const SESSION_MS: i32 = 10_000;
pub(crate) const REBALANCE_MS: i32 = 20_000;
/// Group ids and topics are long enough that they are not stored inline by accident.
pub(crate) const TOPIC: &str = "topic-with-a-name";

#[derive(Debug)]
pub(crate) struct Harness {
    pub(crate) shard: GroupShard,
    pub(crate) log: Vec<Record>,
    /// The steady clock.
    pub(crate) now_ms: i64,
    /// How far the wall clock has been set ahead of it.
    pub(crate) wall_ahead_ms: i64,
    /// How much of that is believed.
    pub(crate) believed_ms: i64,
    /// Records of the log that are committed.
    pub(crate) committed: usize,
    /// While set, nothing that is appended is committed.
    pub(crate) holds_commits: bool,
    /// The log's answer to the next append.
    pub(crate) next_append_error: Option<ErrorCode>,
    waiting: BTreeSet<RequestToken>,
    answers: BTreeMap<RequestToken, Response>,
    next_token: u64,
}

impl Harness {
    pub(crate) fn new() -> Self {
        Self::with_config(GroupConfig::default())
    }

    pub(crate) fn with_config(config: GroupConfig) -> Self {
        Self::loaded(config, Vec::new(), 1_000_000)
    }

    /// A shard that has read `log`, all of which is committed.
    pub(crate) fn loaded(config: GroupConfig, log: Vec<Record>, now_ms: i64) -> Self {
        let mut loader = GroupLoader::new();
        for (offset, record) in (0..).zip(&log) {
            loader.replay(offset, -1, record.key.clone(), record.value.clone()).unwrap();
        }
        let log_end = i64::try_from(log.len()).unwrap();
        let mut harness = Self {
            shard: loader.on_loaded(config, log_end, Now::at(now_ms)),
            committed: log.len(),
            log,
            now_ms,
            wall_ahead_ms: 0,
            believed_ms: 0,
            holds_commits: false,
            next_append_error: None,
            waiting: BTreeSet::new(),
            answers: BTreeMap::new(),
            next_token: 0,
        };
        harness.commit();
        harness
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            steady_ms: self.now_ms,
            wall_ms: self.now_ms + self.wall_ahead_ms,
            retention_ms: self.now_ms + self.believed_ms,
        }
    }

    /// Reads the log again, as after a restart.
    pub(crate) fn restart(self) -> Self {
        let (wall_ahead_ms, believed_ms) = (self.wall_ahead_ms, self.believed_ms);
        let restarted = Self::loaded(self.shard.config.clone(), self.log, self.now_ms);
        Self { wall_ahead_ms, believed_ms, ..restarted }
    }

    /// The coordinator moves: who waits is answered, and what was not committed is lost.
    pub(crate) fn fail_over(&mut self) {
        let config = self.shard.config.clone();
        self.log.truncate(self.committed);
        let next = Self::loaded(config, self.log.clone(), self.now_ms).shard;
        let last = std::mem::replace(&mut self.shard, next);
        self.note(last.on_unloaded());
        assert!(self.waiting.is_empty(), "{:?} were never answered", self.waiting);
    }

    pub(crate) fn token(&mut self) -> RequestToken {
        self.next_token += 1;
        let token = RequestToken(self.next_token);
        self.waiting.insert(token);
        token
    }

    pub(crate) fn perform(&mut self, outcome: Outcome) {
        self.note(outcome.replies);
        if outcome.records.is_empty() {
            return;
        }
        if let Some(error) = self.next_append_error.take() {
            let failed = self.shard.on_append_failed(error, self.now());
            return self.perform(failed);
        }
        let base_offset = i64::try_from(self.log.len()).unwrap();
        self.log.extend(outcome.records);
        self.shard.on_appended(base_offset, self.now());
        if !self.holds_commits {
            self.commit();
        }
    }

    pub(crate) fn commit(&mut self) {
        self.commit_up_to(self.log.len());
    }

    pub(crate) fn commit_up_to(&mut self, records: usize) {
        self.committed = self.committed.max(records);
        let end = i64::try_from(self.committed).unwrap();
        let outcome = self.shard.on_committed(end, self.now());
        self.perform(outcome);
    }

    pub(crate) fn note(&mut self, replies: Vec<Reply>) {
        for reply in replies {
            assert!(self.waiting.remove(&reply.token), "{reply:?} answers nothing that waits");
            self.answers.insert(reply.token, reply.response);
        }
    }

    /// Lets time pass, and everything happen that is due meanwhile.
    pub(crate) fn advance(&mut self, by_ms: i64) {
        let until_ms = self.now_ms + by_ms;
        while self.shard.next_deadline_ms() <= until_ms {
            self.now_ms = self.now_ms.max(self.shard.next_deadline_ms());
            let outcome = self.shard.on_tick(self.now());
            self.perform(outcome);
        }
        self.now_ms = until_ms;
    }

    pub(crate) fn waiting(&self) -> Vec<RequestToken> {
        self.waiting.iter().copied().collect()
    }

    pub(crate) fn find_answer(&self, token: RequestToken) -> Option<&Response> {
        self.answers.get(&token)
    }

    pub(crate) fn is_waiting(&self, token: RequestToken) -> bool {
        self.waiting.contains(&token)
    }

    #[track_caller]
    pub(crate) fn answer(&self, token: RequestToken) -> Response {
        self.answers.get(&token).cloned().expect("the request was answered")
    }

    #[track_caller]
    pub(crate) fn join_answer(&self, token: RequestToken) -> JoinGroupResponse {
        let Response::JoinGroup(response) = self.answer(token) else { panic!("not a JoinGroup") };
        response
    }

    #[track_caller]
    pub(crate) fn sync_answer(&self, token: RequestToken) -> SyncGroupResponse {
        let Response::SyncGroup(response) = self.answer(token) else { panic!("not a SyncGroup") };
        response
    }

    // Requests.

    pub(crate) fn join(&mut self, version: i16, request: JoinGroupRequest) -> RequestToken {
        let token = self.token();
        let mut uuid = [0; 16];
        uuid[8..].copy_from_slice(&token.0.to_be_bytes());
        let join = JoinGroup {
            token,
            version,
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            member_uuid: Uuid::from_bytes(uuid),
            request,
        };
        let outcome = self.shard.on_join_group(&join, self.now());
        self.perform(outcome);
        token
    }

    pub(crate) fn sync(
        &mut self,
        generation_id: i32,
        member_id: &ByteString,
        assignments: &[(&ByteString, &'static str)],
    ) -> RequestToken {
        let token = self.token();
        let assignments = assignments.iter().map(|(member_id, assignment)| {
            let assignment = Bytes::from_static(assignment.as_bytes());
            SyncGroupRequestAssignment { member_id: (*member_id).clone(), assignment }
        });
        let request = SyncGroupRequest {
            group_id: GROUP.into(),
            generation_id,
            member_id: member_id.clone(),
            assignments: assignments.collect(),
            ..Default::default()
        };
        let outcome = self.shard.on_sync_group(token, 4, &request, self.now());
        self.perform(outcome);
        token
    }

    pub(crate) fn heartbeat(&mut self, generation_id: i32, member_id: &ByteString) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id,
            member_id: member_id.clone(),
            ..Default::default()
        };
        self.shard.on_heartbeat(&request, self.now())
    }

    pub(crate) fn leave_all(&mut self, members: Vec<MemberIdentity>) -> LeaveGroupResponse {
        let token = self.token();
        let request = LeaveGroupRequest { group_id: GROUP.into(), members, ..Default::default() };
        let outcome = self.shard.on_leave_group(token, &request, self.now());
        self.perform(outcome);
        let Response::LeaveGroup(response) = self.answer(token) else { panic!("not a LeaveGroup") };
        response
    }

    pub(crate) fn leave(&mut self, member_id: &ByteString) -> ErrorCode {
        let member = MemberIdentity { member_id: member_id.clone(), ..Default::default() };
        ErrorCode::from_code(self.leave_all(vec![member]).members[0].error_code).unwrap()
    }

    pub(crate) fn commit_request(
        &mut self,
        version: i16,
        request: &OffsetCommitRequest,
    ) -> RequestToken {
        let token = self.token();
        let outcome = self.shard.on_offset_commit(token, version, request, self.now());
        self.perform(outcome);
        token
    }

    /// Commits an offset and gives the partition's error.
    #[track_caller]
    pub(crate) fn commit_offset(&mut self, request: &OffsetCommitRequest) -> ErrorCode {
        let token = self.commit_request(9, request);
        self.commit_error(token)
    }

    #[track_caller]
    pub(crate) fn commit_error(&self, token: RequestToken) -> ErrorCode {
        let Response::OffsetCommit(response) = self.answer(token) else {
            panic!("not an OffsetCommit")
        };
        ErrorCode::from_code(response.topics[0].partitions[0].error_code).unwrap()
    }

    pub(crate) fn fetch(&mut self, group: &OffsetFetchRequestGroup, stable: bool) -> RequestToken {
        let token = self.token();
        let outcome = self.shard.on_offset_fetch(token, group, stable);
        self.perform(outcome);
        token
    }

    /// The committed offset of partition 0 of [`TOPIC`], -1 if there is none.
    #[track_caller]
    pub(crate) fn committed_offset(&mut self) -> i64 {
        let token = self.fetch(&fetch_one(), false);
        let Response::OffsetFetch(response) = self.answer(token) else {
            panic!("not an OffsetFetch")
        };
        response.topics[0].partitions[0].committed_offset
    }

    // Whole stories.

    /// Members that join together (before version 4, so at once), up to the JoinGroup answers.
    /// The leader comes first.
    pub(crate) fn joined(&mut self, count: usize) -> Vec<ByteString> {
        let tokens: Vec<_> = (0..count).map(|_| self.join(3, joining(""))).collect();
        self.advance(i64::from(self.shard.config.initial_rebalance_delay_ms) * 4);
        let mut members: Vec<_> = tokens
            .iter()
            .map(|token| {
                let answer = self.join_answer(*token);
                assert_eq!(answer.error_code, 0);
                (answer.leader != answer.member_id, answer.member_id)
            })
            .collect();
        members.sort();
        members.into_iter().map(|(_, member_id)| member_id).collect()
    }

    /// A stable group in its first generation; member i is assigned "a", the others "b".
    pub(crate) fn stable(&mut self, count: usize) -> Vec<ByteString> {
        let members = self.joined(count);
        let leader = members[0].clone();
        let mut assignments = vec![(&leader, "a")];
        assignments.extend(members[1..].iter().map(|member| (member, "b")));
        let generation = self.generation();
        for member in members.iter().rev() {
            let brought = if *member == leader { &assignments[..] } else { &[] };
            self.sync(generation, member, brought);
        }
        members
    }

    pub(crate) fn generation(&self) -> i32 {
        self.shard.groups[GROUP].generation_id
    }

    pub(crate) fn state_name(&self) -> String {
        self.shard.on_describe_groups(&[GROUP.into()], 5)[0].group_state.to_string()
    }
}

pub(crate) fn protocol(name: &'static str, metadata: &'static str) -> JoinGroupRequestProtocol {
    let metadata = Bytes::from_static(metadata.as_bytes());
    JoinGroupRequestProtocol { name: name.into(), metadata }
}

/// A consumer's JoinGroup request with one protocol.
pub(crate) fn joining(member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: GROUP.into(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        member_id: member_id.into(),
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range", "m")],
        ..Default::default()
    }
}

/// A commit of partition 0 of [`TOPIC`] by nobody in particular.
pub(crate) fn committing(offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: offset,
        committed_metadata: Some("meta".into()),
        ..Default::default()
    };
    OffsetCommitRequest {
        group_id: GROUP.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: TOPIC.into(),
            topic_id: topic_id(),
            partitions: vec![partition],
        }],
        ..Default::default()
    }
}

pub(crate) fn committing_as(
    member_id: &ByteString,
    generation_id: i32,
    offset: i64,
) -> OffsetCommitRequest {
    OffsetCommitRequest {
        member_id: member_id.clone(),
        generation_id_or_member_epoch: generation_id,
        ..committing(offset)
    }
}

pub(crate) fn fetch_one() -> OffsetFetchRequestGroup {
    OffsetFetchRequestGroup {
        group_id: GROUP.into(),
        topics: Some(vec![OffsetFetchRequestTopics {
            name: TOPIC.into(),
            topic_id: topic_id(),
            partition_indexes: vec![0],
        }]),
        ..Default::default()
    }
}

pub(crate) fn topic_id() -> Uuid {
    Uuid::from_bytes([7; 16])
}
