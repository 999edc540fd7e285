//! The broker of a node: its life in the cluster (KIP-631), and the replicas that the metadata give it.
//!
//! Invariant: nothing is led or followed before the metadata hold this life's own registration: older
//! metadata would let the broker resume an epoch whose tail it may have lost.

mod contact;
mod fetching;
mod moves;
mod opening;
mod placement;
mod proposals;
mod repair;

use crate::batch::{OFFSETS_PARTITION, PARTITIONS, PartitionBatch, PartitionId, Payload, Value};
use crate::disk::Disk;
use crate::group_driver::GroupDriver;
use crate::log::SyncMark;
use crate::message::{CallId, GroupRequest, Message, ProducedBatch, ReadAnswer, Sender};
use crate::metadata_driver::NodeStep;
use crate::node::NodeTimer;
use crate::observation::Life;
use crate::plant::Plant;
use crate::replica::Replica;
use crate::scenario::{CALL_TIMEOUT_MS, HEARTBEAT_MS};
use klamm_metadata::directory_id;
use klamm_metadata::image::ClusterImage;
use klamm_metadata::image::partition::Partition;
use klamm_protocol::ErrorCode;
use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_replication::partition::{
    FetchSchedule, FetchedLog, LeaderConfig, ListIsolation, Move, PartitionFetch, Patience, Reader,
    Registration, VisibleEnds,
};
use std::collections::{BTreeMap, BTreeSet};

/// How long a follower waits after an answer without news.
const POLL_MS: i64 = 20;
/// How long a broker waits before it tries again what there was no room for.
const ROOM_MS: i64 = 60;
/// How long a follower waits after an answer that was of no use, at first and at most, and a leader before it repeats a proposal.
const BACK_OFF_MS: i64 = 30;
const LONGEST_BACK_OFF_MS: i64 = 120;

#[derive(Debug)]
pub(crate) struct Broker {
    life: Life,
    leader_config: LeaderConfig,
    pub(crate) incarnation_id: Uuid,
    /// Replicas that the metadata look for in another directory than this.
    misplaced: BTreeMap<PartitionId, Uuid>,
    /// Where this process has opened each replica, or would have if there had been room.
    opened_in: BTreeMap<PartitionId, Uuid>,
    /// The partitions that were there before this life was registered.
    old: Option<BTreeSet<PartitionId>>,
    /// Something is to be opened when there is room.
    waits_for_room: bool,
    /// What a broker with a mistake leads although it cannot serve it.
    dead: BTreeSet<PartitionId>,
    /// The directories that the last registration has named, and those that the controller knows of.
    named: Vec<Uuid>,
    registered: Vec<Uuid>,
    previous_epoch: i64,
    /// This life's epoch, once registered.
    pub(crate) epoch: Option<i64>,
    /// The epoch of this life's registration, once the metadata hold it: they are as new as this process then.
    own_epoch: Option<i64>,
    /// The registration or heartbeat that waits for its answer.
    contact: Option<CallId>,
    /// When the controller has last answered a heartbeat.
    confirmed_ms: i64,
    next_call: CallId,
    stopping: bool,
    /// The controller lets this broker stop.
    pub(crate) may_stop: bool,
    pub(crate) replicas: BTreeMap<PartitionId, Replica>,
    /// The moves between log directories.
    moves: BTreeMap<PartitionId, Move>,
    schedule: FetchSchedule<PartitionId>,
    sync_in_flight: bool,
    pub(crate) groups: GroupDriver,
}

impl Broker {
    pub(crate) fn start(
        life: Life,
        leader_config: LeaderConfig,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&step.random.next().to_be_bytes());
        bytes[8..].copy_from_slice(&step.random.next().to_be_bytes());
        let heartbeat_ms = step.random.between(0, HEARTBEAT_MS);
        step.after(heartbeat_ms, NodeTimer::Contact);
        step.after(leader_config.replica_lag_time_max_ms / 2, NodeTimer::CheckIsr);
        let patience = Patience::new(CALL_TIMEOUT_MS, CALL_TIMEOUT_MS);
        Self {
            life,
            leader_config,
            incarnation_id: Uuid::from_bytes(bytes),
            misplaced: BTreeMap::new(),
            opened_in: BTreeMap::new(),
            old: None,
            waits_for_room: false,
            dead: BTreeSet::new(),
            named: Vec::new(),
            registered: Vec::new(),
            previous_epoch: disk.logs.start().unwrap_or(-1),
            epoch: None,
            own_epoch: None,
            contact: None,
            confirmed_ms: i64::MIN,
            next_call: 0,
            stopping: false,
            may_stop: false,
            replicas: BTreeMap::new(),
            moves: BTreeMap::new(),
            schedule: FetchSchedule::new(BACK_OFF_MS, LONGEST_BACK_OFF_MS, patience),
            sync_in_flight: false,
            groups: GroupDriver::default(),
        }
    }

    fn next_call(&mut self) -> CallId {
        self.next_call += 1;
        self.next_call
    }

    /// As the controller has answered, or as the metadata say before the answer has come.
    fn broker_epoch(&self) -> Option<i64> {
        self.epoch.or(self.own_epoch)
    }

    /// Begins a controlled shutdown.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    // The replicas.

    /// The metadata have moved on.
    pub(crate) fn on_metadata(
        &mut self,
        image: &ClusterImage,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        if self.own_epoch.is_none() {
            let own = image.brokers.get(self.life.0);
            let own = own.filter(|own| own.incarnation_id == self.incarnation_id);
            self.own_epoch = own.map(|own| own.epoch);
        }
        if self.own_epoch.is_none() && step.plant != Plant::LeaderResumesItsEpoch {
            return;
        }
        self.old.get_or_insert_with(|| {
            let is_there = |(id, (topic, index)): (PartitionId, &(&str, i32))| {
                image.topics.by_name(topic)?.partition(*index).map(|_| id)
            };
            PARTITIONS.iter().enumerate().filter_map(is_there).collect()
        });
        // What a broker gives up it asks for until the controller has heard it, whoever is in sync by then; and what a
        // move says.
        let (is_any_full, have_room) = disk.logs.look_for_room();
        if is_any_full && !self.waits_for_room {
            self.waits_for_room = true;
            step.after(ROOM_MS, NodeTimer::TryAgain);
        }
        let moves = &self.moves;
        self.misplaced.retain(|id, directory| {
            directory_id::is_given_up(*directory) || moves.contains_key(id)
        });
        for (id, (topic, index)) in PARTITIONS.iter().enumerate() {
            let topic = image.topics.by_name(topic);
            let Some(found) = topic.and_then(|topic| topic.partition(*index)) else { continue };
            if !found.replicas.contains(&self.life.0) {
                self.drop_replica(id, disk, step);
                continue;
            }
            let is_known = found.directory(self.life.0) == self.misplaced.get(&id).copied();
            if is_known && !self.waits_for_election(found) {
                self.misplaced.remove(&id);
            }
            if !self.is_open(id, found, disk, step) {
                continue;
            }
            let has_room = self.has_room_to_lead(id, found, disk);
            if !has_room && step.plant == Plant::DeadLeaderShrinksIsr {
                self.dead.insert(id);
            } else if !has_room {
                self.close_replica(id, step);
                disk.logs.close_log(id);
                self.on_no_room(id, found, disk, step);
                continue;
            }
            let registration = Registration {
                leader_epoch: found.leader_epoch,
                partition_epoch: found.partition_epoch,
                replicas: found.replicas.clone(),
                isr: found.isr.clone(),
            };
            self.on_registration(id, found.leader, &registration, image, disk, step);
            if have_room.contains(&id) {
                self.fetch(id, disk, step);
            }
        }
    }

    /// The controller elects by a directory when it is reported once more.
    fn waits_for_election(&self, partition: &Partition) -> bool {
        let could_lead = [&partition.isr, &partition.elr, &partition.last_known_elr];
        !partition.has_leader() && could_lead.iter().any(|ids| ids.contains(&self.life.0))
    }

    fn close_replica(&mut self, id: PartitionId, step: &mut NodeStep<'_>) {
        if let Some(mut replica) = self.replicas.remove(&id) {
            replica.close(step);
        }
        self.assign_fetches();
        if id == OFFSETS_PARTITION {
            self.groups.end(step);
        }
    }

    /// The fetcher fetches what this broker follows.
    fn assign_fetches(&mut self) {
        let followed = |id: &PartitionId| {
            let core = &self.replicas.get(id)?.core;
            core.follower().and_then(|_| core.role().leader_epoch())
        };
        self.schedule.on_assignment(followed);
    }

    fn on_registration(
        &mut self,
        id: PartitionId,
        leader_id: Option<BrokerId>,
        registration: &Registration,
        image: &ClusterImage,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let (life, config) = (self.life, self.leader_config);
        let partition = disk.logs.get_mut(id).expect("it is open");
        let replica = self.replicas.entry(id).or_insert_with(|| Replica::open(life, id, partition));
        let changed = replica.on_metadata(leader_id, registration, image, config, partition, step);
        if !changed {
            return;
        }
        self.assign_fetches();
        self.watch_followers(id, step);
        if id == OFFSETS_PARTITION {
            self.groups.end(step);
            if self.replicas[&id].core.is_leader() {
                self.groups.begin(step);
            }
        }
        self.request_sync(disk, step);
        self.fetch(id, disk, step);
    }

    /// The replica has been moved away: its log is deleted.
    fn drop_replica(&mut self, id: PartitionId, disk: &mut Disk, step: &mut NodeStep<'_>) {
        self.close_replica(id, step);
        self.moves.remove(&id);
        disk.logs.delete(id);
        disk.logs.discard_copies(id);
    }

    // Syncing.

    /// Begins to sync all logs that need it, unless that is going on.
    pub(crate) fn request_sync(&mut self, disk: &Disk, step: &mut NodeStep<'_>) {
        if self.sync_in_flight {
            return;
        }
        let in_use = disk.logs.in_use();
        let dirty = in_use.filter(|(.., found)| found.log.synced_end() < found.log.end());
        let marks: Vec<(PartitionId, Uuid, SyncMark)> =
            dirty.map(|(id, directory, found)| (id, directory, found.log.sync_mark())).collect();
        if marks.is_empty() {
            return;
        }
        self.sync_in_flight = true;
        let delay_ms = step.random.between(0, 12);
        step.after(delay_ms, NodeTimer::DataSynced(marks));
    }

    pub(crate) fn on_synced(
        &mut self,
        marks: Vec<(PartitionId, Uuid, SyncMark)>,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        self.sync_in_flight = false;
        for (id, directory, mark) in marks {
            if disk.logs.directory_of(id) != Some(directory) {
                continue;
            }
            let Some(partition) = disk.logs.get_mut(id) else { continue };
            partition.log.on_synced(mark);
            let Some(replica) = self.replicas.get_mut(&id) else { continue };
            replica.on_synced(partition, step);
            match replica.core.is_leader() {
                true => self.after_progress(id, disk, step),
                false => self.fetch(id, disk, step),
            }
        }
        self.request_sync(disk, step);
    }

    /// The coordinator hears of the high watermark; what it appends has to be synced.
    fn after_progress(&mut self, id: PartitionId, disk: &mut Disk, step: &mut NodeStep<'_>) {
        self.watch_followers(id, step);
        if id == OFFSETS_PARTITION {
            self.with_groups(disk, step, GroupDriver::on_progress);
        }
        self.request_sync(disk, step);
    }

    // Clients.

    pub(crate) fn on_produce(
        &mut self,
        to: (Sender, CallId),
        batch: ProducedBatch,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let id = batch.partition;
        let (Some(replica), Some(partition)) = (self.replicas.get_mut(&id), disk.logs.get_mut(id))
        else {
            let answer = Err(ErrorCode::UnknownTopicOrPartition);
            return step.answer(to.0, Message::ProduceAnswer { call: to.1, answer });
        };
        replica.produce(to, batch, partition, step);
        self.request_sync(disk, step);
    }

    /// What a consumer may see from `offset` on.
    pub(crate) fn read(
        &mut self,
        id: PartitionId,
        leader_epoch: Option<LeaderEpoch>,
        offset: Offset,
        disk: &Disk,
        plant: Plant,
    ) -> Result<ReadAnswer, ErrorCode> {
        let replica = self.replicas.get_mut(&id).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        if replica.is_offline {
            return Err(ErrorCode::KafkaStorageError);
        }
        let partition = disk.logs.get(id).expect("a replica has a log");
        let fetch = PartitionFetch {
            reader: Reader::Consumer { read_committed: false, from_followers: false },
            current_leader_epoch: leader_epoch,
            fetch_offset: offset,
            last_fetched_epoch: None,
            log_start_offset: 0,
            now_ms: 0,
        };
        let log = FetchedLog { log_start_offset: partition.log.start(), epoch_end: None };
        replica.core.on_fetch(&fetch, log, None)?;
        let high_watermark = replica.core.high_watermark();
        let ends = VisibleEnds {
            high_watermark,
            last_stable_offset: high_watermark,
            log_end_offset: partition.log.end(),
        };
        let listed = replica.core.latest_offset(ListIsolation::ReadUncommitted, ends);
        let early = plant == Plant::LatestShownTooEarly;
        let batches = partition.read(offset, fetch.reader.upper_bound(ends), 4);
        let batches = batches.map_err(|at| {
            replica.damaged = Some(at);
            ErrorCode::KafkaStorageError
        })?;
        Ok(ReadAnswer {
            values: batches.iter().flat_map(|batch| values_from(batch, offset)).collect(),
            latest: if early { Some(high_watermark) } else { listed.ok().map(|(end, _)| end) },
        })
    }

    pub(crate) fn on_group_request(
        &mut self,
        to: Sender,
        call: CallId,
        request: GroupRequest,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        self.with_groups(disk, step, |groups, replica, partition, step| {
            groups.on_request((to, call), request, replica, partition, step);
        });
    }

    /// Lets the coordinator act on its partition.
    pub(crate) fn with_groups(
        &mut self,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
        act: impl FnOnce(
            &mut GroupDriver,
            Option<&mut Replica>,
            Option<&mut crate::log_directories::PartitionDisk>,
            &mut NodeStep<'_>,
        ),
    ) {
        let replica = self.replicas.get_mut(&OFFSETS_PARTITION);
        let partition = disk.logs.get_mut(OFFSETS_PARTITION);
        act(&mut self.groups, replica, partition, step);
        self.request_sync(disk, step);
    }
}

fn values_from(batch: &PartitionBatch, offset: Offset) -> Vec<(Offset, Option<Value>)> {
    let Payload::Values(values) = &batch.payload else { return Vec::new() };
    let values = (batch.base_offset..).zip(values.iter().map(|value| Some(*value)));
    values.filter(|(at, _)| *at >= offset).collect()
}
