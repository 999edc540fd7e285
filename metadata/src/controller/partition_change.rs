//! Builds the record of a requested partition change: completes a reassignment, maintains the eligible leader replicas,
//! elects a leader, bumps epochs where necessary (Kafka's PartitionChangeBuilder).
//!
//! Invariant: without a change there is no record, because every record bumps the partition epoch.

mod election;

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, PartitionIndex, none_if_minus_one, or_minus_one};
use klamm_protocol::messages::partition_change_record::PartitionChangeRecord;
use klamm_protocol::metadata_record::MetadataRecord;

use super::reassignment::Reassignment;
use crate::image::partition::{
    LeaderRecoveryState, NO_LEADER_CHANGE, NO_RECOVERY_STATE_CHANGE, Partition,
};
use crate::metadata_version::MetadataVersion;

/// Which replicas an election may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Election {
    /// The first replica if it can lead, else as `Online`.
    Preferred,
    /// The current leader if it can stay, else the first replica that is in sync.
    Online,
    /// As `Online`, and if no replica is in sync, any that is alive: this may lose records.
    Unclean,
}

/// The state of the cluster that the builder uses.
#[derive(Clone, Copy)]
pub struct ChangeContext<'a> {
    /// Whether a replica of this partition could lead it now.
    pub is_acceptable_leader: &'a dyn Fn(BrokerId) -> bool,
    /// The directory of a new replica on a broker.
    pub default_dir: &'a dyn Fn(BrokerId) -> Uuid,
    /// The finalized metadata.version.
    pub version: MetadataVersion,
    /// The topic's effective min.insync.replicas.
    pub min_isr: usize,
    /// Whether eligible leader replicas are enabled (KIP-966).
    pub elr_enabled: bool,
}

impl std::fmt::Debug for ChangeContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangeContext")
            .field("version", &self.version)
            .field("min_isr", &self.min_isr)
            .field("elr_enabled", &self.elr_enabled)
            .finish_non_exhaustive()
    }
}

/// A partition change. Set the targets, then call [`PartitionChange::build`].
#[derive(Debug)]
pub struct PartitionChange<'a> {
    partition: &'a Partition,
    topic_id: Uuid,
    index: PartitionIndex,
    context: ChangeContext<'a>,
    directories: BTreeMap<BrokerId, Uuid>,
    elr: Vec<BrokerId>,
    /// The target ISR.
    pub isr: Vec<BrokerId>,
    /// The target replicas.
    pub replicas: Vec<BrokerId>,
    /// The replicas that the reassignment will remove.
    pub removing: Vec<BrokerId>,
    /// The replicas that the reassignment has added.
    pub adding: Vec<BrokerId>,
    /// Replicas on brokers that registered after an unclean shutdown: they may lack committed records.
    pub unclean_shutdown_replicas: Vec<BrokerId>,
    /// The kind of election.
    pub election: Election,
    /// The target leader recovery state.
    pub leader_recovery_state: LeaderRecoveryState,
}

impl<'a> PartitionChange<'a> {
    /// A change without targets; building it still elects a leader if necessary.
    pub fn new(
        partition: &'a Partition,
        topic_id: Uuid,
        index: PartitionIndex,
        context: ChangeContext<'a>,
    ) -> Self {
        let directories = partition.replicas.iter().copied().zip(partition.directories.clone());
        Self {
            partition,
            topic_id,
            index,
            context,
            directories: directories.collect(),
            elr: partition.elr.clone(),
            isr: partition.isr.clone(),
            replicas: partition.replicas.clone(),
            removing: partition.removing_replicas.clone(),
            adding: partition.adding_replicas.clone(),
            unclean_shutdown_replicas: Vec::new(),
            election: Election::Online,
            leader_recovery_state: partition.leader_recovery_state,
        }
    }

    /// Sets the directory of a replica.
    pub fn set_directory(&mut self, broker: BrokerId, directory: Uuid) {
        self.directories.insert(broker, directory);
    }

    /// The record, or none without a change. The order of the steps matters.
    pub fn build(mut self) -> Option<MetadataRecord> {
        let mut record = PartitionChangeRecord {
            topic_id: self.topic_id,
            partition_id: self.index,
            ..Default::default()
        };
        self.complete_reassignment();
        self.update_target_elr();
        self.elect(&mut record);
        self.bump_leader_epoch_for_lost_replica(&mut record);
        self.set_elr(&mut record);
        self.set_isr(&mut record);
        self.bump_leader_epoch_for_isr_shrink(&mut record);
        self.set_last_known_leader(&mut record);
        self.set_assignment(&mut record);
        if self.leader_recovery_state != self.partition.leader_recovery_state {
            record.leader_recovery_state = self.leader_recovery_state.value();
        }
        (!is_no_op(&record)).then(|| MetadataRecord::PartitionChange(record))
    }

    fn complete_reassignment(&mut self) {
        let reassignment = Reassignment {
            replicas: self.replicas.clone(),
            removing: self.removing.clone(),
            adding: self.adding.clone(),
        };
        if let Some(completed) = reassignment.completed_by(&self.isr) {
            self.isr = completed.isr;
            self.replicas = completed.replicas;
            self.removing.clear();
            self.adding.clear();
        }
    }

    /// A replica that leaves an ISR below min.insync.replicas still has every committed record, because none is
    /// committed below that size, unless an unclean shutdown lost its unsynced writes. A broker that is no longer a
    /// replica cannot lead, so unlike in Kafka it leaves the ELR too: as its only member it would prevent every
    /// election.
    fn update_target_elr(&mut self) {
        if !self.context.elr_enabled {
            return;
        }
        if self.isr.len() >= self.context.min_isr {
            self.elr.clear();
            return;
        }
        let candidates: BTreeSet<BrokerId> =
            self.elr.iter().chain(&self.partition.isr).copied().collect();
        self.elr = candidates
            .into_iter()
            .filter(|id| self.replicas.contains(id) && !self.isr.contains(id))
            .filter(|id| !self.unclean_shutdown_replicas.contains(id))
            .collect();
    }

    /// Followers must notice the removal of a replica even if the leader stays.
    fn bump_leader_epoch_for_lost_replica(&self, record: &mut PartitionChangeRecord) {
        let keeps_all = self.partition.replicas.iter().all(|id| self.replicas.contains(id));
        if record.leader == NO_LEADER_CHANGE && !keeps_all {
            record.leader = or_minus_one(self.partition.leader);
        }
    }

    fn bump_leader_epoch_for_isr_shrink(&self, record: &mut PartitionChangeRecord) {
        if !self.context.version.is_leader_epoch_bump_required_on_isr_shrink()
            || record.leader != NO_LEADER_CHANGE
        {
            return;
        }
        let Some(isr) = &record.isr else { return };
        if !self.partition.isr.iter().all(|id| isr.contains(id)) {
            record.leader = or_minus_one(self.partition.leader);
        }
    }

    fn set_elr(&mut self, record: &mut PartitionChangeRecord) {
        let unclean = record.isr.is_some();
        if unclean || !self.context.elr_enabled {
            self.elr.clear();
        }
        if self.elr != self.partition.elr {
            record.eligible_leader_replicas = Some(self.elr.clone());
        }
    }

    /// An empty ISR is only valid with eligible leader replicas.
    fn set_isr(&self, record: &mut PartitionChangeRecord) {
        let may_be_empty = self.context.elr_enabled;
        if record.isr.is_none()
            && (!self.isr.is_empty() || may_be_empty)
            && self.isr != self.partition.isr
        {
            record.isr = Some(self.isr.clone());
        }
    }

    fn set_last_known_leader(&self, record: &mut PartitionChangeRecord) {
        if !self.context.elr_enabled {
            return;
        }
        let leader = match record.leader {
            NO_LEADER_CHANGE => return,
            leader => none_if_minus_one(leader),
        };
        let is_known = !self.partition.last_known_elr.is_empty();
        match leader {
            // -1 if the partition had no leader before.
            None if !is_known => {
                record.last_known_elr = Some(vec![or_minus_one(self.partition.leader)]);
            }
            Some(_) if is_known => record.last_known_elr = Some(Vec::new()),
            _ => {}
        }
    }

    fn set_assignment(&self, record: &mut PartitionChangeRecord) {
        let changed = |new: &Vec<BrokerId>, old: &Vec<BrokerId>| (new != old).then(|| new.clone());
        if !self.replicas.is_empty() {
            if self.context.version.is_directory_assignment_supported() {
                let of = |id: &BrokerId| self.directories.get(id).copied();
                let directories: Vec<Uuid> = self
                    .replicas
                    .iter()
                    .map(|id| of(id).unwrap_or_else(|| (self.context.default_dir)(*id)))
                    .collect();
                record.directories =
                    (directories != self.partition.directories).then_some(directories);
            }
            record.replicas = changed(&self.replicas, &self.partition.replicas);
        }
        record.removing_replicas = changed(&self.removing, &self.partition.removing_replicas);
        record.adding_replicas = changed(&self.adding, &self.partition.adding_replicas);
    }
}

fn is_no_op(record: &PartitionChangeRecord) -> bool {
    record.leader == NO_LEADER_CHANGE
        && record.leader_recovery_state == NO_RECOVERY_STATE_CHANGE
        && record.isr.is_none()
        && record.eligible_leader_replicas.is_none()
        && record.last_known_elr.is_none()
        && record.replicas.is_none()
        && record.removing_replicas.is_none()
        && record.adding_replicas.is_none()
        && record.directories.is_none()
}

#[cfg(test)]
mod tests;
