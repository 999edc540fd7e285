//! The broker of a node: its life in the cluster (KIP-631), and the replicas that the metadata give it.
//!
//! Invariant: nothing is led or followed before the metadata hold this life's own registration: older
//! metadata would let the broker resume an epoch whose tail it may have lost.

mod contact;
mod fetching;
mod proposals;

use crate::batch::{OFFSETS_PARTITION, PARTITIONS, PartitionBatch, PartitionId, Payload, Value};
use crate::disk::{Disk, PartitionDisk, Second};
use crate::group_driver::GroupDriver;
use crate::log::SyncMark;
use crate::message::{CallId, GroupRequest, Message, ProducedBatch, ReadAnswer, Sender};
use crate::metadata_driver::NodeStep;
use crate::node::NodeTimer;
use crate::observation::{Life, Observation};
use crate::plant::Plant;
use crate::replica::{Replica, Role};
use crate::scenario::{HEARTBEAT_MS, LAG_MS};
use klamm_metadata::directory_id;
use klamm_metadata::image::ClusterImage;
use klamm_metadata::known_replica::KnownReplica;
use klamm_protocol::ErrorCode;
use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_replication::partition::{Registration, check_leader_epoch};
use std::collections::BTreeMap;

/// How long a follower waits after an answer without news.
const POLL_MS: i64 = 20;
/// How long a follower waits after an answer that was of no use.
const BACK_OFF_MS: i64 = 30;

#[derive(Debug)]
pub(crate) struct Broker {
    life: Life,
    min_insync_replicas: usize,
    pub(crate) incarnation_id: Uuid,
    /// The log directories that are here.
    directories: Vec<Uuid>,
    /// Replicas that the metadata look for in another directory, and where they are.
    misplaced: Vec<(PartitionId, Uuid)>,
    previous_epoch: i64,
    /// This life's epoch, once registered.
    pub(crate) epoch: Option<i64>,
    /// The metadata have held this life's registration: they are as new as this process.
    is_caught_up: bool,
    /// The registration or heartbeat that waits for its answer.
    contact: Option<CallId>,
    next_call: CallId,
    stopping: bool,
    /// The controller lets this broker stop.
    pub(crate) may_stop: bool,
    pub(crate) replicas: BTreeMap<PartitionId, Replica>,
    sync_in_flight: bool,
    pub(crate) groups: GroupDriver,
}

impl Broker {
    pub(crate) fn start(
        life: Life,
        min_insync_replicas: usize,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&step.random.next().to_be_bytes());
        bytes[8..].copy_from_slice(&step.random.next().to_be_bytes());
        let (heartbeat_ms, check_ms) = (step.random.between(0, HEARTBEAT_MS), LAG_MS / 2);
        step.after(heartbeat_ms, NodeTimer::Contact);
        step.after(check_ms, NodeTimer::CheckIsr);
        Self {
            life,
            min_insync_replicas,
            incarnation_id: Uuid::from_bytes(bytes),
            directories: disk.directory_ids(),
            misplaced: Vec::new(),
            previous_epoch: disk.clean_broker_epoch.take().unwrap_or(-1),
            epoch: None,
            is_caught_up: false,
            contact: None,
            next_call: 0,
            stopping: false,
            may_stop: false,
            replicas: BTreeMap::new(),
            sync_in_flight: false,
            groups: GroupDriver::default(),
        }
    }

    fn next_call(&mut self) -> CallId {
        self.next_call += 1;
        self.next_call
    }

    /// The second log directory is back.
    pub(crate) fn on_directory_back(&mut self, disk: &Disk) {
        self.directories = disk.directory_ids();
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
        let registered = image.brokers.get(self.life.0).map(|broker| broker.incarnation_id);
        self.is_caught_up |= registered == Some(self.incarnation_id);
        if !self.is_caught_up && step.plant != Plant::LeaderResumesItsEpoch {
            return;
        }
        self.settle_second(image, disk, step);
        self.misplaced.clear();
        for (id, (topic, index)) in PARTITIONS.iter().enumerate() {
            let Some(topic) = image.topics.by_name(topic) else { continue };
            let Some(found) = topic.partition(*index) else { continue };
            if !found.replicas.contains(&self.life.0) {
                self.drop_replica(id, disk, step);
                continue;
            }
            let known = KnownReplica::of(topic.id, found, self.life.0).expect("a replica");
            let Some(actual) = place(id, &known, disk, step) else { continue };
            if known.directory != actual {
                self.misplaced.push((id, actual));
            }
            let registration = Registration {
                leader_epoch: found.leader_epoch,
                partition_epoch: found.partition_epoch,
                replicas: found.replicas.clone(),
                isr: found.isr.clone(),
            };
            self.on_registration(id, found.leader, &registration, image, disk, step);
        }
    }

    fn on_registration(
        &mut self,
        id: PartitionId,
        leader_id: BrokerId,
        registration: &Registration,
        image: &ClusterImage,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let (life, min_insync_replicas) = (self.life, self.min_insync_replicas);
        let partition = disk.partitions.get_mut(&id).expect("it has been placed");
        let replica = self.replicas.entry(id).or_insert_with(|| Replica::open(life, id, partition));
        let changed = replica.on_metadata(
            leader_id,
            registration,
            image,
            min_insync_replicas,
            partition,
            step,
        );
        if !changed {
            return;
        }
        if id == OFFSETS_PARTITION {
            self.groups.end(step);
            if self.replicas[&id].leads() {
                self.groups.begin(step);
            }
        }
        self.request_sync(disk, step);
        self.fetch(id, disk, step);
    }

    /// What lies in a second directory that is back counts as soon as the metadata know the directory again.
    fn settle_second(&mut self, image: &ClusterImage, disk: &mut Disk, step: &mut NodeStep<'_>) {
        let registered = image.brokers.get(self.life.0).map_or(&[][..], |it| &it.directories);
        let back = disk.second.as_mut().filter(|it| !it.is_away && !it.is_settled);
        let Some(second) = back.filter(|it| registered.contains(&it.id)) else { return };
        second.is_settled = true;
        for (id, found) in std::mem::take(&mut second.logs) {
            let (topic, index) = PARTITIONS[id];
            let known = KnownReplica::find(image, self.life.0, topic, index);
            // What the cluster has no replica of here is set aside.
            let Some(known) = known else { continue };
            let open = disk.partitions.get(&id);
            let is_better = open.is_none_or(|open| {
                step.observe(Observation::LogDoubled);
                let directories = [open, &found].map(|partition| disk.directory_of(partition));
                known.choose(directories, [Some(open.log_end()), Some(found.log_end())]) == 1
            });
            if is_better {
                self.drop_replica(id, disk, step);
                disk.partitions.insert(id, found);
            }
        }
    }

    /// The replica has been moved away: its log is deleted.
    fn drop_replica(&mut self, id: PartitionId, disk: &mut Disk, step: &mut NodeStep<'_>) {
        if let Some(mut replica) = self.replicas.remove(&id) {
            replica.give_up(step);
        }
        if disk.partitions.remove(&id).is_some() && id == OFFSETS_PARTITION {
            self.groups.end(step);
        }
    }

    // Syncing.

    /// Begins to sync all logs that need it, unless that is going on.
    pub(crate) fn request_sync(&mut self, disk: &Disk, step: &mut NodeStep<'_>) {
        if self.sync_in_flight {
            return;
        }
        let dirty = disk
            .partitions
            .iter()
            .filter(|(_, partition)| partition.log.synced_end() < partition.log.end());
        let marks: Vec<(PartitionId, SyncMark)> =
            dirty.map(|(id, partition)| (*id, partition.log.sync_mark())).collect();
        if marks.is_empty() {
            return;
        }
        self.sync_in_flight = true;
        let delay_ms = step.random.between(0, 12);
        step.after(delay_ms, NodeTimer::DataSynced(marks));
    }

    pub(crate) fn on_synced(
        &mut self,
        marks: Vec<(PartitionId, SyncMark)>,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        self.sync_in_flight = false;
        for (id, mark) in marks {
            let Some(partition) = disk.partitions.get_mut(&id) else { continue };
            partition.log.on_synced(mark);
            let Some(replica) = self.replicas.get_mut(&id) else { continue };
            replica.on_synced(partition, step);
            match replica.leads() {
                true => self.after_progress(id, disk, step),
                false => self.fetch(id, disk, step),
            }
        }
        self.request_sync(disk, step);
    }

    /// The coordinator hears of the high watermark; what it appends has to be synced.
    fn after_progress(&mut self, id: PartitionId, disk: &mut Disk, step: &mut NodeStep<'_>) {
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
        let (Some(replica), Some(partition)) =
            (self.replicas.get_mut(&id), disk.partitions.get_mut(&id))
        else {
            let answer = Err(ErrorCode::UnknownTopicOrPartition);
            return step.answer(to.0, Message::ProduceAnswer { call: to.1, answer });
        };
        replica.produce(to, batch.values, partition, step);
        self.request_sync(disk, step);
    }

    /// What a consumer may see from `offset` on.
    pub(crate) fn read(
        &self,
        id: PartitionId,
        leader_epoch: LeaderEpoch,
        offset: Offset,
        disk: &Disk,
        plant: Plant,
    ) -> Result<ReadAnswer, ErrorCode> {
        let replica = self.replicas.get(&id).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let Role::Leader(leader) = &replica.role else {
            return Err(ErrorCode::NotLeaderOrFollower);
        };
        check_leader_epoch(leader_epoch, leader.leader_epoch())?;
        let known = leader.check_offsets_available().is_ok();
        let early = plant == Plant::LatestShownTooEarly;
        let batches = disk.partitions[&id].log.read(offset, leader.high_watermark(), 4);
        Ok(ReadAnswer {
            values: batches.iter().flat_map(|batch| values_from(batch, offset)).collect(),
            latest: (known || early).then(|| leader.high_watermark()),
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
            Option<&mut PartitionDisk>,
            &mut NodeStep<'_>,
        ),
    ) {
        let replica = self.replicas.get_mut(&OFFSETS_PARTITION);
        let partition = disk.partitions.get_mut(&OFFSETS_PARTITION);
        act(&mut self.groups, replica, partition, step);
        self.request_sync(disk, step);
    }
}

/// The directory of a replica's log, which is created if it is new here; none if it must be in a directory that is away.
fn place(
    id: PartitionId,
    known: &KnownReplica,
    disk: &mut Disk,
    step: &mut NodeStep<'_>,
) -> Option<Uuid> {
    if let Some(partition) = disk.partitions.get(&id) {
        return Some(disk.directory_of(partition));
    }
    let second = disk.second.as_ref();
    let is_complete = second.is_none_or(|second| second.is_settled);
    let waits = second.is_some_and(|second| !second.is_settled && second.is_named);
    let is_missed = known.is_missed(|directory| disk.serves(directory), || !is_complete);
    if is_missed && step.plant != Plant::EmptyLogForMissedOne {
        if !known.can_be_fetched() || waits {
            return None;
        }
        step.observe(Observation::FetchedAnew);
    }
    let is_recorded = |second: &Second| known.directory == second.id;
    let spreads = directory_id::is_reserved(known.directory) && id % 2 == 1;
    let is_in_second =
        second.is_some_and(|second| second.is_settled && (is_recorded(second) || spreads));
    let partition = PartitionDisk { is_in_second, ..PartitionDisk::default() };
    let directory = disk.directory_of(&partition);
    disk.partitions.insert(id, partition);
    Some(directory)
}

fn values_from(batch: &PartitionBatch, offset: Offset) -> Vec<(Offset, Option<Value>)> {
    let Payload::Values(values) = &batch.payload else { return Vec::new() };
    let values = (batch.base_offset..).zip(values.iter().map(|value| Some(*value)));
    values.filter(|(at, _)| *at >= offset).collect()
}
