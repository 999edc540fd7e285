//! The driver of the group coordinator on its partition of `__consumer_offsets`, as
//! `src/coordinator/shard.rs` is for real: loads when the partition is led, appends what is decided,
//! answers, and ends when the partition moves.

use crate::batch::Payload;
use crate::log_directories::PartitionDisk;
use crate::message::{CallId, GroupAnswer, GroupRequest, Message, Sender, group_id};
use crate::metadata_driver::NodeStep;
use crate::node::NodeTimer;
use crate::observation::Observation;
use crate::plant::Plant;
use crate::replica::{Replica, header};
use klamm_coordinator::group::{GroupConfig, GroupLoader, GroupShard, JoinGroup};
use klamm_coordinator::outcome::{Outcome, Record, Reply, RequestToken, Response};
use klamm_log::producer_state::AppendOrigin;
use klamm_protocol::ids::Offset;
use klamm_protocol::messages::offset_commit_response::OffsetCommitResponse;
use klamm_protocol::{ErrorCode, Uuid};
use std::collections::BTreeMap;

/// What a version of JoinGroup, SyncGroup and OffsetCommit the members speak.
const JOIN_VERSION: i16 = 5;
const SYNC_VERSION: i16 = 4;
const COMMIT_VERSION: i16 = 9;

#[derive(Debug, Default)]
enum State {
    #[default]
    Ended,
    Loading,
    Active(Box<GroupShard>),
}

/// A request that waits; of a commit also what it commits.
#[derive(Debug)]
struct Waiting {
    to: Sender,
    call: CallId,
    commits: Vec<(usize, Offset)>,
    generation: i32,
}

#[derive(Debug, Default)]
pub(crate) struct GroupDriver {
    state: State,
    waiting: BTreeMap<RequestToken, Waiting>,
    next_token: u64,
    /// How often a coordinator has begun here: names the load that may end.
    begun: u64,
}

fn config() -> GroupConfig {
    GroupConfig {
        min_session_timeout_ms: 100,
        initial_rebalance_delay_ms: 30,
        offset_commit_timeout_ms: 400,
        offsets_retention_check_interval_ms: 100,
        ..GroupConfig::default()
    }
}

impl GroupDriver {
    /// The partition is led here from now on.
    pub(crate) fn begin(&mut self, step: &mut NodeStep<'_>) {
        self.begun += 1;
        self.state = State::Loading;
        let delay_ms = step.random.between(0, 20);
        step.after(delay_ms, NodeTimer::LoadGroups(self.begun));
    }

    /// The partition is led elsewhere. Whoever waits is sent there.
    pub(crate) fn end(&mut self, step: &mut NodeStep<'_>) {
        if let State::Active(shard) = std::mem::take(&mut self.state) {
            self.send(shard.on_unloaded(), step);
        }
    }

    pub(crate) fn next_deadline_ms(&self) -> i64 {
        match &self.state {
            State::Active(shard) => shard.next_deadline_ms(),
            State::Ended | State::Loading => i64::MAX,
        }
    }

    pub(crate) fn load(
        &mut self,
        begun: u64,
        replica: Option<&mut Replica>,
        partition: Option<&mut PartitionDisk>,
        step: &mut NodeStep<'_>,
    ) {
        let (Some(replica), Some(partition)) = (replica, partition) else { return };
        if begun != self.begun || !matches!(self.state, State::Loading) {
            return;
        }
        let mut loader = GroupLoader::new();
        for batch in partition.log.batches() {
            let Payload::Groups(records) = &batch.payload else { continue };
            for (record, offset) in records.iter().zip(batch.base_offset..) {
                let replayed = loader.replay(offset, -1, record.key.clone(), record.value.clone());
                replayed.expect("what a coordinator wrote can be read");
            }
        }
        let shard = loader.on_loaded(config(), partition.log.end(), step.now);
        self.state = State::Active(Box::new(shard));
        self.on_progress(Some(replica), Some(partition), step);
    }

    /// The high watermark may have moved.
    pub(crate) fn on_progress(
        &mut self,
        replica: Option<&mut Replica>,
        partition: Option<&mut PartitionDisk>,
        step: &mut NodeStep<'_>,
    ) {
        let (Some(replica), Some(partition)) = (replica, partition) else { return };
        let State::Active(shard) = &mut self.state else { return };
        let committed_end = match step.plant {
            Plant::OffsetsShownBeforeCommit => partition.log.end(),
            _ => replica.core.high_watermark(),
        };
        let outcome = shard.on_committed(committed_end, step.now);
        self.perform(outcome, replica, partition, step);
    }

    pub(crate) fn on_tick(
        &mut self,
        replica: Option<&mut Replica>,
        partition: Option<&mut PartitionDisk>,
        step: &mut NodeStep<'_>,
    ) {
        let (Some(replica), Some(partition)) = (replica, partition) else { return };
        for _ in 0..100 {
            let State::Active(shard) = &mut self.state else { return };
            if shard.next_deadline_ms() > step.now_ms {
                return;
            }
            let outcome = shard.on_tick(step.now);
            self.perform(outcome, replica, partition, step);
        }
        panic!("a group coordinator is never done with what is due");
    }

    pub(crate) fn on_request(
        &mut self,
        (to, call): (Sender, CallId),
        request: GroupRequest,
        replica: Option<&mut Replica>,
        partition: Option<&mut PartitionDisk>,
        step: &mut NodeStep<'_>,
    ) {
        let refusal = match &self.state {
            State::Active(_) => None,
            State::Loading => Some(ErrorCode::CoordinatorLoadInProgress),
            State::Ended => Some(ErrorCode::NotCoordinator),
        };
        let (Some(replica), Some(partition), None) = (replica, partition, refusal) else {
            let answer = GroupAnswer::Refused(refusal.unwrap_or(ErrorCode::NotCoordinator));
            return step.answer(to, Message::GroupAnswer { call, answer });
        };
        let State::Active(shard) = &mut self.state else { return };
        let token = RequestToken(self.next_token);
        let (mut commits, mut generation) = (Vec::new(), -1);
        let now = step.now;
        let outcome = match request {
            GroupRequest::Heartbeat(request) => {
                let answer = GroupAnswer::Heartbeat(shard.on_heartbeat(&request, now));
                return step.answer(to, Message::GroupAnswer { call, answer });
            }
            GroupRequest::Join(join) => {
                let member_uuid = random_uuid(step);
                let join = JoinGroup { token, version: JOIN_VERSION, member_uuid, ..join };
                shard.on_join_group(&join, now)
            }
            GroupRequest::Sync(request) => shard.on_sync_group(token, SYNC_VERSION, &request, now),
            GroupRequest::Commit(request) => {
                generation = request.generation_id_or_member_epoch;
                let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
                commits.extend(partitions.map(|partition| {
                    let id = usize::try_from(partition.partition_index).expect("an index");
                    (id, partition.committed_offset)
                }));
                shard.on_offset_commit(token, COMMIT_VERSION, &request, now)
            }
            GroupRequest::FetchOffsets(group) => shard.on_offset_fetch(token, &group, true),
        };
        self.next_token += 1;
        self.waiting.insert(token, Waiting { to, call, commits, generation });
        self.perform(outcome, replica, partition, step);
        self.on_progress(Some(replica), Some(partition), step);
    }

    /// Sends the replies and appends the records; a refusal by the log is another outcome.
    fn perform(
        &mut self,
        decided: Outcome,
        replica: &mut Replica,
        partition: &mut PartitionDisk,
        step: &mut NodeStep<'_>,
    ) {
        let mut outcome = decided;
        loop {
            outcome.replies.iter().filter_map(|reply| joined(reply, partition)).for_each(|seen| {
                step.observe(seen);
            });
            self.send(std::mem::take(&mut outcome.replies), step);
            if outcome.records.is_empty() {
                return;
            }
            outcome.records.iter().filter_map(deleted).for_each(|seen| step.observe(seen));
            let header = header(outcome.records.len(), step.now_ms);
            let payload = Payload::Groups(std::mem::take(&mut outcome.records));
            let origin = AppendOrigin::Coordinator;
            let appended = replica.append(header, payload, origin, partition, step);
            let State::Active(shard) = &mut self.state else { return };
            match appended {
                Ok(appended) => {
                    return shard.on_appended(appended.first_offset, step.now);
                }
                Err(error) => outcome = shard.on_append_failed(error, step.now),
            }
        }
    }

    fn send(&mut self, replies: Vec<Reply>, step: &mut NodeStep<'_>) {
        for Reply { token, response } in replies {
            let waiting = self.waiting.remove(&token).expect("every request is answered once");
            if let Response::OffsetCommit(response) = &response
                && is_committed(response)
            {
                for (partition, offset) in waiting.commits {
                    let generation = waiting.generation;
                    step.observe(Observation::OffsetCommitted { generation, partition, offset });
                }
            }
            let (call, answer) = (waiting.call, GroupAnswer::Answered(response));
            step.answer(waiting.to, Message::GroupAnswer { call, answer });
        }
    }
}

/// What a tombstone deletes, by the version of its key (Kafka's CoordinatorRecordType).
fn deleted(record: &Record) -> Option<Observation> {
    if record.value.is_some() {
        return None;
    }
    Some(match record.key[1] {
        0 | 1 => Observation::OffsetDeleted,
        _ => Observation::GroupDeleted,
    })
}

/// A member has joined the group: which one of those that had the name one after another, the log says.
fn joined(reply: &Reply, partition: &PartitionDisk) -> Option<Observation> {
    let Response::JoinGroup(answer) = &reply.response else { return None };
    if answer.error_code != ErrorCode::None.code() {
        return None;
    }
    let groups = partition.log.batches().iter().filter_map(|batch| match &batch.payload {
        Payload::Groups(records) => Some(records),
        _ => None,
    });
    let deletions = groups.flatten().filter(|record| deletes_group(record)).count();
    Some(Observation::Joined { member: answer.member_id.clone(), deletions })
}

/// Whether a record deletes the group that the members are in: its key is the version, then the name with its length.
fn deletes_group(record: &Record) -> bool {
    matches!(deleted(record), Some(Observation::GroupDeleted))
        && record.key[4..] == *group_id().as_bytes()
}

fn random_uuid(step: &mut NodeStep<'_>) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&step.random.next().to_be_bytes());
    bytes[8..].copy_from_slice(&step.random.next().to_be_bytes());
    Uuid::from_bytes(bytes)
}

fn is_committed(response: &OffsetCommitResponse) -> bool {
    let mut partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.all(|partition| partition.error_code == 0)
}
