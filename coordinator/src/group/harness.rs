//! A driver for tests: a log in memory, a clock that the test sets, and a record of all requests.
//!
//! It fails a test in which a request is answered twice, or never.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use bytestring::ByteString;
use klamm_protocol::ids::Offset;
use klamm_protocol::messages::describe_groups_response::DescribedGroup;
use klamm_protocol::messages::group_metadata_value::GroupMetadataValue;
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

use super::classic::ClassicGroup;
use super::classic::join::JoinGroup;
use super::config::GroupConfig;
use super::record::{GroupRecord, ReadRecord, read};
use super::response::Response;
use super::shard::{GroupShard, Timer};
use crate::runtime::{
    CoordinatorRuntime, Driver, Effects, EncodedRecord, RequestToken, ShardLoader,
};

pub(crate) const GROUP: &str = "g";
pub(crate) const SESSION_MS: i32 = 10_000;
pub(crate) const REBALANCE_MS: i32 = 20_000;
/// Group ids and topics are long enough that they are not stored inline by accident.
pub(crate) const TOPIC: &str = "topic-with-a-name";

#[derive(Debug)]
pub(crate) struct Harness {
    /// The tokens are the harness's own: those of a shard start again with each load.
    runtime: CoordinatorRuntime<GroupShard, RequestToken>,
    pub(crate) config: GroupConfig,
    pub(crate) log: Vec<EncodedRecord>,
    /// The steady clock.
    pub(crate) now_ms: i64,
    /// How far the wall clock has been set ahead of it.
    pub(crate) wall_ahead_ms: i64,
    /// How much of that the retention clock has accepted.
    pub(crate) believed_ms: i64,
    /// Records of the log that are committed.
    pub(crate) committed: usize,
    /// While set, appended records are not committed.
    pub(crate) holds_commits: bool,
    /// The log's answer to the next append.
    pub(crate) next_append_error: Option<ErrorCode>,
    requests: Requests,
    next_token: u64,
}

/// Every request, also after its answer.
#[derive(Debug, Default)]
struct Requests {
    waiting: BTreeSet<RequestToken>,
    answers: BTreeMap<RequestToken, Response>,
}

impl Requests {
    fn on_reply(&mut self, token: RequestToken, response: Response) {
        assert!(self.waiting.remove(&token), "{response:?} answers nothing that waits");
        self.answers.insert(token, response);
    }
}

/// The log and the requests, as the runtime drives them.
struct TestDriver<'a> {
    log: &'a mut Vec<EncodedRecord>,
    next_append_error: &'a mut Option<ErrorCode>,
    requests: &'a mut Requests,
}

impl Driver<GroupShard, RequestToken> for TestDriver<'_> {
    fn append(&mut self, records: &[EncodedRecord]) -> Result<Offset, ErrorCode> {
        if let Some(error) = self.next_append_error.take() {
            return Err(error);
        }
        let base_offset = Offset::try_from(self.log.len()).unwrap();
        self.log.extend_from_slice(records);
        Ok(base_offset)
    }

    fn reply(&mut self, token: RequestToken, response: Response) {
        self.requests.on_reply(token, response);
    }
}

impl Harness {
    pub(crate) fn new() -> Self {
        Self::with_config(GroupConfig::default())
    }

    pub(crate) fn with_config(config: GroupConfig) -> Self {
        Self::loaded(config, Vec::new(), 1_000_000)
    }

    /// A shard that has read `log`, all of which is committed.
    pub(crate) fn loaded(config: GroupConfig, log: Vec<EncodedRecord>, now_ms: i64) -> Self {
        let mut harness = Self {
            runtime: CoordinatorRuntime::loading(),
            config,
            committed: log.len(),
            log,
            now_ms,
            wall_ahead_ms: 0,
            believed_ms: 0,
            holds_commits: false,
            next_append_error: None,
            requests: Requests::default(),
            next_token: 0,
        };
        harness.load();
        harness.commit();
        harness
    }

    /// Loads from the log; no record is known to be committed yet.
    pub(crate) fn load(&mut self) {
        let mut loader = ShardLoader::new(self.config.clone());
        for (offset, record) in (0..).zip(&self.log) {
            loader.replay(offset, None, record.key.clone(), record.value.clone()).unwrap();
        }
        self.load_from(loader);
    }

    /// Continues with a shard that was loaded by another loader.
    pub(crate) fn load_from(&mut self, loader: ShardLoader<GroupShard>) {
        let log_end = Offset::try_from(self.log.len()).unwrap();
        let now = self.now();
        self.runtime = CoordinatorRuntime::loading();
        self.with_runtime(|runtime, driver| {
            runtime.on_loaded(loader.into_active(log_end, now), now, driver);
        });
    }

    fn with_runtime<R>(
        &mut self,
        act: impl FnOnce(&mut CoordinatorRuntime<GroupShard, RequestToken>, &mut TestDriver<'_>) -> R,
    ) -> R {
        let mut driver = TestDriver {
            log: &mut self.log,
            next_append_error: &mut self.next_append_error,
            requests: &mut self.requests,
        };
        act(&mut self.runtime, &mut driver)
    }

    pub(crate) fn shard(&self) -> &GroupShard {
        self.runtime.shard()
    }

    pub(crate) fn shard_mut(&mut self) -> &mut GroupShard {
        self.runtime.shard_mut()
    }

    /// The group that most tests use.
    pub(crate) fn group(&self) -> &ClassicGroup {
        self.shard().classic_group(GROUP).expect("the group exists")
    }

    /// The last record of that group in the log.
    pub(crate) fn stored_group(&self) -> GroupMetadataValue {
        let records = self.log.iter().rev().filter_map(|record| {
            match read(record.key.clone(), record.value.clone()).unwrap() {
                ReadRecord::Group(GroupRecord::GroupMetadata { group_id, value })
                    if group_id == GROUP =>
                {
                    Some(value)
                }
                _ => None,
            }
        });
        records.flatten().next().expect("the group is stored")
    }

    pub(crate) fn next_deadline_ms(&self) -> i64 {
        self.runtime.next_deadline_ms().expect("a group coordinator always waits for something")
    }

    pub(crate) fn is_set(&self, timer: &Timer) -> bool {
        self.runtime.timers().is_set(timer)
    }

    /// Sends a request, whose answer may come later.
    pub(crate) fn send(
        &mut self,
        event: impl FnOnce(&mut GroupShard, RequestToken, &mut Effects<GroupShard>),
    ) -> RequestToken {
        let token = self.token();
        self.send_as(token, event);
        token
    }

    fn send_as(
        &mut self,
        token: RequestToken,
        event: impl FnOnce(&mut GroupShard, RequestToken, &mut Effects<GroupShard>),
    ) {
        let now = self.now();
        let sent =
            self.with_runtime(|runtime, driver| runtime.send_request(token, event, now, driver));
        sent.expect("the coordinator is active");
        self.commit_unless_held();
    }

    /// Calls the shard and carries out the effects.
    pub(crate) fn call<R>(
        &mut self,
        event: impl FnOnce(&mut GroupShard, &mut Effects<GroupShard>) -> R,
    ) -> R {
        let now = self.now();
        let called = self.with_runtime(|runtime, driver| runtime.call(event, now, driver));
        self.commit_unless_held();
        called.expect("the coordinator is active")
    }

    pub(crate) fn tick(&mut self) {
        let now = self.now();
        self.with_runtime(|runtime, driver| runtime.on_tick(now, driver));
        self.commit_unless_held();
    }

    pub(crate) fn describe(&self, reports_missing: bool) -> DescribedGroup {
        self.shard().on_describe_groups(&[GROUP.into()], reports_missing).remove(0)
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            steady_ms: self.now_ms,
            wall_ms: self.now_ms + self.wall_ahead_ms,
            retention_ms: self.now_ms + self.believed_ms,
        }
    }

    /// Loads from the log again, as after a restart.
    pub(crate) fn restart(self) -> Self {
        let (wall_ahead_ms, believed_ms) = (self.wall_ahead_ms, self.believed_ms);
        let restarted = Self::loaded(self.config, self.log, self.now_ms);
        Self { wall_ahead_ms, believed_ms, ..restarted }
    }

    /// The coordinator moves: waiting requests are answered, and uncommitted records are lost.
    pub(crate) fn fail_over(&mut self) {
        let requests = &mut self.requests;
        self.runtime.unload(|token, response| requests.on_reply(token, response));
        assert!(requests.waiting.is_empty(), "{:?} were never answered", requests.waiting);
        self.log.truncate(self.committed);
        self.load();
        self.commit();
    }

    pub(crate) fn token(&mut self) -> RequestToken {
        self.next_token += 1;
        let token = RequestToken(self.next_token);
        self.requests.waiting.insert(token);
        token
    }

    fn commit_unless_held(&mut self) {
        while !self.holds_commits && self.committed < self.log.len() {
            self.commit();
        }
    }

    pub(crate) fn commit(&mut self) {
        self.commit_up_to(self.log.len());
    }

    pub(crate) fn commit_up_to(&mut self, records: usize) {
        self.committed = self.committed.max(records);
        let end = Offset::try_from(self.committed).unwrap();
        let now = self.now();
        self.with_runtime(|runtime, driver| runtime.on_committed(end, now, driver));
        self.commit_unless_held();
    }

    /// Lets time pass, and runs all timers that are due meanwhile.
    pub(crate) fn advance(&mut self, by_ms: i64) {
        let until_ms = self.now_ms + by_ms;
        while self.next_deadline_ms() <= until_ms {
            self.now_ms = self.now_ms.max(self.next_deadline_ms());
            self.tick();
        }
        self.now_ms = until_ms;
    }

    pub(crate) fn waiting(&self) -> Vec<RequestToken> {
        self.requests.waiting.iter().copied().collect()
    }

    pub(crate) fn find_answer(&self, token: RequestToken) -> Option<&Response> {
        self.requests.answers.get(&token)
    }

    pub(crate) fn is_waiting(&self, token: RequestToken) -> bool {
        self.requests.waiting.contains(&token)
    }

    #[track_caller]
    pub(crate) fn answer(&self, token: RequestToken) -> Response {
        self.requests.answers.get(&token).cloned().expect("the request was answered")
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

    /// Joins as a client that uses this version of JoinGroup.
    pub(crate) fn join(&mut self, version: i16, request: JoinGroupRequest) -> RequestToken {
        let token = self.token();
        let mut uuid = [0; 16];
        uuid[8..].copy_from_slice(&token.0.to_be_bytes());
        let member_uuid = Uuid::from_bytes(uuid);
        self.send_as(token, |shard, token, effects| {
            let join = JoinGroup {
                token,
                requires_known_member_id: version >= 4,
                supports_skipping_assignment: version >= 9,
                client_id: "client".into(),
                client_host: "/127.0.0.1".into(),
                member_uuid,
                request,
            };
            shard.on_join_group(&join, effects);
        });
        token
    }

    pub(crate) fn sync(
        &mut self,
        generation_id: i32,
        member_id: &ByteString,
        assignments: &[(&ByteString, &'static str)],
    ) -> RequestToken {
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
        self.send(|shard, token, effects| shard.on_sync_group(token, &request, false, effects))
    }

    pub(crate) fn heartbeat(&mut self, generation_id: i32, member_id: &ByteString) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id,
            member_id: member_id.clone(),
            ..Default::default()
        };
        self.call(|shard, effects| shard.on_heartbeat(&request, effects))
    }

    pub(crate) fn leave_all(&mut self, members: Vec<MemberIdentity>) -> LeaveGroupResponse {
        let request = LeaveGroupRequest { group_id: GROUP.into(), members, ..Default::default() };
        let token = self.send(|shard, token, effects| {
            shard.on_leave_group(token, &request, effects);
        });
        let Response::LeaveGroup(response) = self.answer(token) else { panic!("not a LeaveGroup") };
        response
    }

    pub(crate) fn leave(&mut self, member_id: &ByteString) -> ErrorCode {
        let member = MemberIdentity { member_id: member_id.clone(), ..Default::default() };
        ErrorCode::from_code(self.leave_all(vec![member]).members[0].error_code).unwrap()
    }

    pub(crate) fn commit_request(&mut self, request: &OffsetCommitRequest) -> RequestToken {
        self.send(|shard, token, effects| shard.on_offset_commit(token, request, true, effects))
    }

    /// Commits an offset and returns the partition's error.
    #[track_caller]
    pub(crate) fn commit_offset(&mut self, request: &OffsetCommitRequest) -> ErrorCode {
        let token = self.commit_request(request);
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
        self.send(|shard, token, effects| shard.on_offset_fetch(token, group, stable, effects))
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
        self.advance(i64::from(self.config.initial_rebalance_delay_ms) * 4);
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
        self.group().generation_id
    }

    pub(crate) fn state_name(&self) -> String {
        self.describe(false).group_state.to_string()
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

/// A commit of partition 0 of [`TOPIC`] without member id and generation.
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
