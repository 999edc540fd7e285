//! Replicas' logs are opened, as far as their directories are there and have room.

use super::placement::{Before, Placement, place};
use super::{Broker, ROOM_MS};
use crate::batch::PartitionId;
use crate::disk::Disk;
use crate::metadata_driver::NodeStep;
use crate::node::NodeTimer;
use crate::observation::Observation;
use crate::plant::Plant;
use crate::replica::Replica;
use klamm_metadata::directory_id;
use klamm_metadata::image::partition::Partition;
use klamm_replication::partition::Move;

impl Broker {
    /// Opens a replica's log, if it may be opened, and notes what the controller is to be told of its directory.
    pub(super) fn is_open(
        &mut self,
        id: PartitionId,
        partition: &Partition,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) -> bool {
        if !self.replicas.contains_key(&id) {
            let opened_in = self.opened_in.get(&id).copied();
            let forgets_failed = step.plant == Plant::BeginsEligibleReplicaAnew;
            let seen_in = disk.logs.failed_with(id).filter(|_| !forgets_failed);
            let opened_in = opened_in.or(seen_in);
            let is_old = self.old.as_ref().is_some_and(|old| old.contains(&id));
            let before = Before { opened_in, is_old };
            disk.logs.list();
            match place(self.life.0, id, partition, before, &disk.logs, step) {
                Placement::Open(directory) => disk.logs.open(id, directory),
                Placement::Record(directory) => {
                    self.misplaced.insert(id, directory);
                    return false;
                }
                Placement::NoRoom => {
                    self.on_no_room(id, partition, disk, step);
                    return false;
                }
                Placement::Elsewhere => {
                    self.on_elsewhere(id, partition, step);
                    return false;
                }
                Placement::Offline => {
                    // Of an announced move the move tells.
                    if !self.moves.get(&id).is_some_and(Move::is_announced) {
                        self.misplaced.extend(opened_in.map(|directory| (id, directory)));
                    }
                    step.observe(Observation::ReplicaOffline);
                    return false;
                }
            }
        }
        let directory = disk.logs.directory_of(id).expect("it is open");
        self.opened_in.insert(id, directory);
        if !self.moves.contains_key(&id) {
            self.resume_move(id, disk);
        }
        // While damage is repaired, or a move is announced, they say where the replica is.
        let is_under_repair = self.replicas.get(&id).is_some_and(Replica::is_under_repair);
        if is_under_repair || self.moves.get(&id).is_some_and(Move::is_announced) {
            return true;
        }
        // What is given up for want of room stays so until there is some.
        if disk.logs.get(id).is_some_and(|log| log.is_found_full) {
            self.leave_full(id, partition, step);
            return true;
        }
        self.misplaced.remove(&id);
        let is_recorded = partition.directory(self.life.0) == Some(directory);
        if is_recorded {
            disk.logs.delete_others(id);
        }
        if !is_recorded || self.waits_for_election(partition) {
            self.misplaced.insert(id, directory);
        }
        true
    }

    /// Leaves a partition in a full directory to others, if they can do without this replica.
    fn leave_full(&mut self, id: PartitionId, partition: &Partition, step: &mut NodeStep<'_>) {
        if partition.leader == Some(self.life.0) {
            step.observe(Observation::LeadsWithoutRoom {
                life: self.life,
                partition: id,
                epoch: partition.leader_epoch,
                partition_epoch: partition.partition_epoch,
                unconfirmed_ms: step.now_ms.saturating_sub(self.confirmed_ms),
                at_ms: step.now_ms,
            });
        }
        let stays = step.plant == Plant::FullLeaderStays;
        if !stays && partition.can_spare(self.life.0, self.leader_config.min_insync_replicas) {
            step.observe(Observation::GivenUpForRoom);
            self.report(id, directory_id::LOST);
        }
    }

    /// A new leader writes its epoch down before anything else.
    pub(super) fn has_room_to_lead(
        &self,
        id: PartitionId,
        partition: &Partition,
        disk: &Disk,
    ) -> bool {
        let is_full = disk.logs.get(id).is_some_and(|found| found.is_full);
        let begins = partition.leader == Some(self.life.0)
            && self
                .replicas
                .get(&id)
                .is_none_or(|it| it.led_epoch() < Some(partition.leader_epoch));
        !(is_full && begins)
    }

    /// A replica cannot be opened, or cannot lead, for want of room: that is tried again, and meanwhile somebody else is
    /// to lead, if anybody can.
    pub(super) fn on_no_room(
        &mut self,
        id: PartitionId,
        partition: &Partition,
        disk: &Disk,
        step: &mut NodeStep<'_>,
    ) {
        step.observe(Observation::ReplicaWithoutRoom);
        if partition.isr.iter().any(|member| *member != self.life.0) {
            let is_begun = !disk.logs.found(id).is_empty();
            let given_up = if is_begun { directory_id::LOST } else { directory_id::NOT_BEGUN };
            self.report(id, given_up);
        }
        if !self.waits_for_room {
            self.waits_for_room = true;
            step.after(ROOM_MS, NodeTimer::TryAgain);
        }
    }

    /// Nothing takes the place of a log that may be in a directory which is not in use.
    fn on_elsewhere(&mut self, id: PartitionId, partition: &Partition, step: &mut NodeStep<'_>) {
        step.observe(Observation::ReplicaOffline);
        let broker = self.life.0;
        let mut others =
            partition.isr.iter().chain(&partition.elr).filter(|other| **other != broker);
        if partition.isr.contains(&broker) && others.next().is_some() {
            self.report(id, directory_id::LOST);
        }
    }

    pub(crate) fn on_try_again(&mut self) {
        self.waits_for_room = false;
    }

    /// A directory answers EIO: its replicas are gone until the next start.
    pub(crate) fn on_directory_failed(&mut self, lost: Vec<PartitionId>, step: &mut NodeStep<'_>) {
        for id in lost {
            self.close_replica(id, step);
        }
    }
}
