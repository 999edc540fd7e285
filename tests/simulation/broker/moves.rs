//! Replicas move between the broker's log directories: [`Move`] decides, as for `src/replica/alter_log_dirs.rs`.

use super::Broker;
use crate::batch::PartitionId;
use crate::disk::Disk;
use crate::log_directories::PartitionDisk;
use crate::metadata_driver::{MetadataDriver, NodeStep};
use crate::node::NodeTimer;
use crate::observation::Observation;
use crate::plant::Plant;
use crate::replica::Replica;
use klamm_metadata::image::partition::Partition;
use klamm_protocol::Uuid;
use klamm_protocol::ids::Offset;
use klamm_replication::partition::{
    AfterCopy, Alignment, Move, MoveStep, MovingReplica, RecordedDirectory, align,
};

/// How often a broker looks at damage and moves.
const UPKEEP_MS: i64 = 30;

impl Broker {
    /// Whether the metadata are to have a directory for some replica in which its log is not yet: returns the log's.
    pub(crate) fn announced_from(&self) -> Option<Uuid> {
        let (id, _) = self.moves.iter().find(|(_, moving)| moving.is_announced())?;
        Some(self.opened_in[id])
    }

    pub(crate) fn moves(&self) -> String {
        format!("{:?}, told {:?}", self.moves, self.misplaced)
    }

    /// Tells the controller of a directory, unless it is a move that does so.
    pub(super) fn report(&mut self, id: PartitionId, directory: Uuid) {
        if let Some(moving) = self.moves.get_mut(&id) {
            moving.on_other_report();
        }
        self.misplaced.insert(id, directory);
    }

    pub(crate) fn on_upkeep(
        &mut self,
        metadata: &MetadataDriver,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        step.after(UPKEEP_MS, NodeTimer::Upkeep);
        if self.own_epoch.is_none() {
            return;
        }
        let image = metadata.controller.committed().stable();
        for (id, (topic, index)) in crate::batch::PARTITIONS.iter().enumerate() {
            let topic = image.topics.by_name(topic);
            let Some(known) = topic.and_then(|topic| topic.partition(*index)) else { continue };
            self.repair(id, known, disk, step);
            self.advance_move(id, known, disk, step);
        }
    }

    /// AlterReplicaLogDirs: a replica is to be in this directory.
    pub(crate) fn alter_log_dir(
        &mut self,
        id: PartitionId,
        wanted: Uuid,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let (Some(present), Some(_)) = (disk.logs.directory_of(id), self.replicas.get(&id)) else {
            return;
        };
        let target = disk.logs.copy_in(id).filter(|_| self.moves.contains_key(&id));
        let alteration = Move::alter(present, target, wanted);
        if alteration.cancels {
            step.observe(Observation::MoveCancelled);
            self.cancel_move(id, disk);
        }
        if alteration.begins && disk.logs.are_all_online() {
            disk.logs.begin_copy(id, wanted);
            self.moves.insert(id, Move::default());
        }
    }

    /// A copy that an earlier process has left is copied on; one beside the log is of no use.
    pub(super) fn resume_move(&mut self, id: PartitionId, disk: &mut Disk) {
        let copy = disk.logs.copy_in(id);
        if copy.is_some_and(|copy| Some(copy) != disk.logs.directory_of(id)) {
            self.moves.insert(id, Move::default());
        }
    }

    fn cancel_move(&mut self, id: PartitionId, disk: &mut Disk) {
        disk.logs.discard_copies(id);
        if self.moves.remove(&id).is_some_and(|ended| ended.is_announced()) {
            self.misplaced.insert(id, self.opened_in[&id]);
        }
    }

    fn advance_move(
        &mut self,
        id: PartitionId,
        known: &Partition,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let Some(moving) = self.moves.get_mut(&id) else { return };
        let (source, target) = (self.opened_in[&id], disk.logs.copy_in(id));
        let replica = MovingReplica {
            is_source_online: disk.logs.is_online(source),
            is_target_online: target.is_some(),
            is_damaged: self.replicas.get(&id).is_none_or(Replica::is_under_repair),
        };
        match moving.next_step(replica, step.now_ms) {
            MoveStep::Wait => {}
            MoveStep::Cancel => {
                step.observe(Observation::MoveCancelled);
                self.cancel_move(id, disk);
            }
            MoveStep::Withdraw => {
                step.observe(Observation::MoveWithdrawn);
                self.misplaced.insert(id, source);
            }
            MoveStep::Copy => {
                let target = target.expect("its directory is in use");
                self.copy(id, target, known.directory(self.life.0) == Some(target), disk, step);
            }
        }
    }

    fn copy(
        &mut self,
        id: PartitionId,
        target: Uuid,
        is_recorded: bool,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let moving = self.moves.get_mut(&id).expect("it moves");
        if !disk.logs.has_room(target) {
            return moving.on_failed(step.now_ms);
        }
        let Some((log, copy)) = disk.logs.log_and_copy(id, target) else { return };
        let max = usize::try_from(step.random.between(1, 4)).expect("few");
        if let Err(at) = copy_on(log, copy, max, step) {
            self.replicas.get_mut(&id).expect("it is open").damaged = Some(at);
            return moving.on_failed(step.now_ms);
        }
        let is_level = copy.log.end() == log.log.end();
        if is_level {
            copy.log.sync();
        }
        let recorded = match is_recorded {
            _ if step.plant == Plant::ReplacedBeforeRecorded => RecordedDirectory::NotSupported,
            true => RecordedDirectory::New,
            false => RecordedDirectory::Another,
        };
        match moving.on_copied(is_level, recorded, step.now_ms) {
            AfterCopy::CopyOn => {}
            AfterCopy::Announce => {
                step.observe(Observation::MoveAnnounced);
                self.misplaced.insert(id, target);
            }
            AfterCopy::Replace => self.replace(id, target, disk, step),
        }
    }

    /// The copy is level and replaces the log.
    fn replace(&mut self, id: PartitionId, target: Uuid, disk: &mut Disk, step: &mut NodeStep<'_>) {
        let (log, copy) = disk.logs.log_and_copy(id, target).expect("it was just copied");
        // An epoch in which nothing is written yet.
        copy.epochs = log.epochs.clone();
        copy.checkpoint = log.checkpoint;
        disk.logs.replace_with_copy(id, target);
        self.moves.remove(&id);
        self.opened_in.insert(id, target);
        let log = disk.logs.get(id).expect("it is the log now");
        self.replicas.get_mut(&id).expect("it is open").on_synced(log, step);
        let broker = self.life.0;
        step.observe(Observation::ReplicaMoved { broker, partition: id, directory: target });
        self.after_progress(id, disk, step);
        // It may have left a full directory, into which nothing was fetched.
        self.fetch(id, disk, step);
    }
}

/// Copies the next batches, after what the log does not have any more is cut off. The error is where the log is damaged.
fn copy_on(
    log: &PartitionDisk,
    copy: &mut PartitionDisk,
    max: usize,
    step: &NodeStep<'_>,
) -> Result<(), Offset> {
    let alignment = align(copy.range(), log.range());
    match alignment.filter(|_| step.plant != Plant::CopyNotAligned) {
        None => {}
        Some(Alignment::TruncateTo(end)) => copy.truncate(end),
        Some(Alignment::TruncateFullyAndStartAt(start)) => {
            copy.log.start_at(start);
            copy.epochs.clear();
        }
    }
    let batches = log.read(copy.log.end(), log.log.end(), max)?;
    batches.into_iter().for_each(|batch| copy.append(batch));
    Ok(())
}
