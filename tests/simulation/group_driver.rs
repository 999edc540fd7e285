//! The group coordinator on its partition of `__consumer_offsets`: the runtime that ships, on a
//! simulated log.

use crate::batch::Payload;
use crate::log_directories::PartitionDisk;
use crate::message::{CallId, GroupAnswer, GroupRequest, Message, Sender, group_id};
use crate::metadata_driver::NodeStep;
use crate::node::NodeTimer;
use crate::observation::Observation;
use crate::plant::Plant;
use crate::replica::{Replica, header};
use klamm_coordinator::group::{GroupConfig, GroupShard, JoinGroup, Response};
use klamm_coordinator::runtime::{
    CoordinatorRuntime, Driver, Effects, EncodedRecord, RequestToken, ShardLoader,
};
use klamm_log::producer_state::AppendOrigin;
use klamm_protocol::ids::Offset;
use klamm_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition,
};
use klamm_protocol::messages::offset_commit_response::OffsetCommitResponse;
use klamm_protocol::{ErrorCode, Uuid};

/// A request that waits; of a commit also what it commits.
#[derive(Debug)]
struct Waiting {
    to: Sender,
    call: CallId,
    commits: Vec<(usize, Offset)>,
    generation: i32,
}

type Runtime = CoordinatorRuntime<GroupShard, Waiting>;

#[derive(Debug)]
pub(crate) struct GroupDriver {
    runtime: Runtime,
    /// How often a coordinator has begun here: names the load that may end.
    begun: u64,
}

impl Default for GroupDriver {
    fn default() -> Self {
        Self { runtime: Runtime::ended(), begun: 0 }
    }
}

/// The partition and the network during one event.
struct Io<'a, 'w> {
    replica: &'a mut Replica,
    partition: &'a mut PartitionDisk,
    step: &'a mut NodeStep<'w>,
}

impl Driver<GroupShard, Waiting> for Io<'_, '_> {
    fn append(&mut self, records: &[EncodedRecord]) -> Result<Offset, ErrorCode> {
        records.iter().filter_map(deleted).for_each(|seen| self.step.observe(seen));
        let header = header(records.len(), self.step.now_ms);
        let payload = Payload::Groups(records.to_vec());
        let origin = AppendOrigin::Coordinator;
        let appended = self.replica.append(header, payload, origin, self.partition, self.step)?;
        Ok(appended.first_offset)
    }

    fn reply(&mut self, waiting: Waiting, response: Response) {
        if let Some(seen) = joined(&response, self.partition) {
            self.step.observe(seen);
        }
        waiting.answer(response, self.step);
    }
}

impl Waiting {
    fn answer(self, response: Response, step: &mut NodeStep<'_>) {
        if let Response::OffsetCommit(response) = &response
            && is_committed(response)
        {
            for (partition, offset) in self.commits {
                let generation = self.generation;
                step.observe(Observation::OffsetCommitted { generation, partition, offset });
            }
        }
        let (call, answer) = (self.call, GroupAnswer::Answered(response));
        step.answer(self.to, Message::GroupAnswer { call, answer });
    }
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
        self.runtime = Runtime::loading();
        let delay_ms = step.random.between(0, 20);
        step.after(delay_ms, NodeTimer::LoadGroups(self.begun));
    }

    /// The partition is led elsewhere. Whoever waits is sent there.
    pub(crate) fn end(&mut self, step: &mut NodeStep<'_>) {
        self.runtime.unload(|waiting, response| waiting.answer(response, step));
    }

    pub(crate) fn next_deadline_ms(&self) -> i64 {
        self.runtime.next_deadline_ms().unwrap_or(i64::MAX)
    }

    pub(crate) fn load(
        &mut self,
        begun: u64,
        replica: Option<&mut Replica>,
        partition: Option<&mut PartitionDisk>,
        step: &mut NodeStep<'_>,
    ) {
        let (Some(replica), Some(partition)) = (replica, partition) else { return };
        if begun != self.begun {
            return;
        }
        let mut loader = ShardLoader::new(config());
        for batch in partition.log.batches() {
            let Payload::Groups(records) = &batch.payload else { continue };
            for (record, offset) in records.iter().zip(batch.base_offset..) {
                let replayed =
                    loader.replay(offset, None, record.key.clone(), record.value.clone());
                replayed.expect("what a coordinator wrote can be read");
            }
        }
        let active = loader.into_active(partition.log.end(), step.now);
        let now = step.now;
        self.runtime.on_loaded(active, now, &mut Io { replica, partition, step });
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
        let committed_end = match step.plant {
            Plant::OffsetsShownBeforeCommit => partition.log.end(),
            _ => replica.core.high_watermark(),
        };
        let now = step.now;
        self.runtime.on_committed(committed_end, now, &mut Io { replica, partition, step });
    }

    pub(crate) fn on_tick(
        &mut self,
        replica: Option<&mut Replica>,
        partition: Option<&mut PartitionDisk>,
        step: &mut NodeStep<'_>,
    ) {
        let (Some(replica), Some(partition)) = (replica, partition) else { return };
        let now = step.now;
        for _ in 0..100 {
            if self.next_deadline_ms() > step.now_ms {
                return;
            }
            let mut io =
                Io { replica: &mut *replica, partition: &mut *partition, step: &mut *step };
            self.runtime.on_tick(now, &mut io);
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
        let (Some(replica), Some(partition)) = (replica, partition) else {
            let answer = GroupAnswer::Refused(ErrorCode::NotCoordinator);
            return step.answer(to, Message::GroupAnswer { call, answer });
        };
        let decided = self.decide((to, call), request, &mut Io { replica, partition, step });
        if let Some(answer) = decided {
            step.answer(to, Message::GroupAnswer { call, answer });
        }
        self.on_progress(Some(replica), Some(partition), step);
    }

    /// Has a request decided on; returns the answer if there is one at once.
    fn decide(
        &mut self,
        (to, call): (Sender, CallId),
        request: GroupRequest,
        io: &mut Io<'_, '_>,
    ) -> Option<GroupAnswer> {
        let now = io.step.now;
        let mut waiting = Waiting { to, call, commits: Vec::new(), generation: -1 };
        let sent = match request {
            GroupRequest::Heartbeat(request) => {
                let event = |shard: &mut GroupShard, effects: &mut Effects<GroupShard>| {
                    shard.on_heartbeat(&request, effects)
                };
                let heartbeat = self.runtime.call(event, now, io);
                return Some(heartbeat.map_or_else(GroupAnswer::Refused, GroupAnswer::Heartbeat));
            }
            GroupRequest::Join(join) => {
                // Drawn only for a request that is looked at, as a real driver does.
                let is_active = self.runtime.is_active();
                let member_uuid = if is_active { random_uuid(io.step) } else { Uuid::ZERO };
                self.send(waiting, io, |shard, token, effects| {
                    let join = JoinGroup { token, member_uuid, ..join };
                    shard.on_join_group(&join, effects);
                })
            }
            GroupRequest::Sync(request) => self.send(waiting, io, |shard, token, effects| {
                shard.on_sync_group(token, &request, false, effects);
            }),
            GroupRequest::Commit(request) => {
                waiting.generation = request.generation_id_or_member_epoch;
                waiting.commits = commits(&request);
                self.send(waiting, io, |shard, token, effects| {
                    shard.on_offset_commit(token, &request, true, effects);
                })
            }
            GroupRequest::FetchOffsets(group) => self.send(waiting, io, |shard, token, effects| {
                shard.on_offset_fetch(token, &group, true, effects);
            }),
        };
        sent.err().map(GroupAnswer::Refused)
    }

    fn send(
        &mut self,
        waiting: Waiting,
        io: &mut Io<'_, '_>,
        event: impl FnOnce(&mut GroupShard, RequestToken, &mut Effects<GroupShard>),
    ) -> Result<(), ErrorCode> {
        let now = io.step.now;
        self.runtime.send_request(waiting, event, now, io)
    }
}

/// The partitions of a commit, with their offsets.
fn commits(request: &OffsetCommitRequest) -> Vec<(usize, Offset)> {
    let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
    let commit = |partition: &OffsetCommitRequestPartition| {
        let id = usize::try_from(partition.partition_index).expect("an index");
        (id, partition.committed_offset)
    };
    partitions.map(commit).collect()
}

/// What a tombstone deletes, by the version of its key (Kafka's CoordinatorRecordType).
fn deleted(record: &EncodedRecord) -> Option<Observation> {
    if record.value.is_some() {
        return None;
    }
    Some(match record.key[1] {
        0 | 1 => Observation::OffsetDeleted,
        _ => Observation::GroupDeleted,
    })
}

/// A member has joined the group: which one of those that had the name one after another, the log
/// says.
fn joined(response: &Response, partition: &PartitionDisk) -> Option<Observation> {
    let Response::JoinGroup(answer) = response else { return None };
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

/// Whether a record deletes the group that the members are in: its key is the version, then the
/// name with its length.
fn deletes_group(record: &EncodedRecord) -> bool {
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
