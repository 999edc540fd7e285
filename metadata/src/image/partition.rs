//! One partition's registration: replicas, leader and epochs.
//!
//! Invariants: every replica has a directory; every change record bumps the partition epoch; a change that names a
//! leader, even the same one, bumps the leader epoch.

use bytestring::ByteString;
use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, PartitionIndex, none_if_minus_one, or_minus_one};
use klamm_protocol::messages::partition_change_record::PartitionChangeRecord;
use klamm_protocol::messages::partition_record::PartitionRecord;

use super::replay_error::ReplayError;
use crate::directory_id;
use crate::metadata_version::MetadataVersion;

/// In a change record: the leader stays, and so does the leader epoch.
pub const NO_LEADER_CHANGE: BrokerId = -2;
/// In a change record: the recovery state stays.
pub const NO_RECOVERY_STATE_CHANGE: i8 = -1;

/// Whether the leader still has to recover from an unclean election (KIP-704).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LeaderRecoveryState {
    /// The leader has recovered.
    #[default]
    Recovered,
    /// The leader was elected from outside the ISR.
    Recovering,
}

impl LeaderRecoveryState {
    /// The state with this value in records and requests.
    pub fn from_value(value: i8) -> Option<Self> {
        match value {
            0 => Some(Self::Recovered),
            1 => Some(Self::Recovering),
            _ => None,
        }
    }

    /// Its value in records and requests.
    pub fn value(self) -> i8 {
        match self {
            Self::Recovered => 0,
            Self::Recovering => 1,
        }
    }
}

/// The registration of one partition (Kafka's PartitionRegistration).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partition {
    /// Assigned brokers; the first one is the preferred leader.
    pub replicas: Vec<BrokerId>,
    /// The log directory of each replica, in the order of `replicas`.
    pub directories: Vec<Uuid>,
    /// In-sync replicas.
    pub isr: Vec<BrokerId>,
    /// Replicas that a reassignment will remove.
    pub removing_replicas: Vec<BrokerId>,
    /// Replicas that a reassignment has added.
    pub adding_replicas: Vec<BrokerId>,
    /// Replicas outside the ISR that have every committed record (KIP-966).
    pub elr: Vec<BrokerId>,
    /// The last leader, kept while the partition has none.
    pub last_known_elr: Vec<BrokerId>,
    /// The leader, if there is one.
    pub leader: Option<BrokerId>,
    /// Whether the leader still has to recover.
    pub leader_recovery_state: LeaderRecoveryState,
    /// Changes with every election.
    pub leader_epoch: LeaderEpoch,
    /// Changes with every change.
    pub partition_epoch: i32,
}

impl Partition {
    /// Decodes a PartitionRecord; `topic` is for errors only.
    pub fn from_record(topic: &ByteString, record: &PartitionRecord) -> Result<Self, ReplayError> {
        let named = Named { topic, partition: record.partition_id };
        let replicas = record.replicas.clone();
        let directories = named.directories(&record.directories, replicas.len())?;
        Ok(Self {
            replicas,
            directories,
            isr: record.isr.clone(),
            removing_replicas: record.removing_replicas.clone(),
            adding_replicas: record.adding_replicas.clone(),
            elr: record.eligible_leader_replicas.clone().unwrap_or_default(),
            last_known_elr: record.last_known_elr.clone().unwrap_or_default(),
            leader: none_if_minus_one(record.leader),
            leader_recovery_state: named.recovery_state(record.leader_recovery_state)?,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
        })
    }

    /// Whether a member of the ISR may leave it for a while without stopping writes with acks=all, or taking away the only
    /// replica in sync. `min_isr` is `min.insync.replicas`.
    pub fn can_spare(&self, broker: BrokerId, min_isr: usize) -> bool {
        let required = min_isr.min(self.replicas.len()).max(1);
        self.isr.contains(&broker) && self.isr.len() > required
    }

    /// The partition after a change; `topic` is for errors only.
    pub fn merge(
        &self,
        topic: &ByteString,
        change: &PartitionChangeRecord,
    ) -> Result<Self, ReplayError> {
        let named = Named { topic, partition: change.partition_id };
        let or =
            |new: &Option<Vec<BrokerId>>, old: &Vec<BrokerId>| new.as_ref().unwrap_or(old).clone();
        let replicas = or(&change.replicas, &self.replicas);
        let directories = change.directories.as_ref().unwrap_or(&self.directories);
        let directories = named.directories(directories, replicas.len())?;
        let (leader, leader_epoch) = match change.leader {
            NO_LEADER_CHANGE => (self.leader, self.leader_epoch),
            leader => (none_if_minus_one(leader), self.leader_epoch.wrapping_add(1)),
        };
        let leader_recovery_state = match change.leader_recovery_state {
            NO_RECOVERY_STATE_CHANGE => self.leader_recovery_state,
            value => named.recovery_state(value)?,
        };
        Ok(Self {
            replicas,
            directories,
            isr: or(&change.isr, &self.isr),
            removing_replicas: or(&change.removing_replicas, &self.removing_replicas),
            adding_replicas: or(&change.adding_replicas, &self.adding_replicas),
            elr: or(&change.eligible_leader_replicas, &self.elr),
            last_known_elr: or(&change.last_known_elr, &self.last_known_elr),
            leader,
            leader_recovery_state,
            leader_epoch,
            partition_epoch: self.partition_epoch.wrapping_add(1),
        })
    }

    /// The record that creates this partition in its current state.
    ///
    /// ELR fields are left out if empty, to save space, and if the feature is off.
    pub fn to_record(
        &self,
        topic_id: Uuid,
        partition: PartitionIndex,
        version: MetadataVersion,
        elr_enabled: bool,
    ) -> PartitionRecord {
        let elr =
            |members: &Vec<BrokerId>| (elr_enabled && !members.is_empty()).then(|| members.clone());
        PartitionRecord {
            partition_id: partition,
            topic_id,
            replicas: self.replicas.clone(),
            isr: self.isr.clone(),
            removing_replicas: self.removing_replicas.clone(),
            adding_replicas: self.adding_replicas.clone(),
            leader: or_minus_one(self.leader),
            leader_recovery_state: self.leader_recovery_state.value(),
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            directories: if version.is_directory_assignment_supported() {
                self.directories.clone()
            } else {
                Vec::new()
            },
            eligible_leader_replicas: elr(&self.elr),
            last_known_elr: elr(&self.last_known_elr),
        }
    }

    /// Whether the partition has a leader.
    pub fn has_leader(&self) -> bool {
        self.leader.is_some()
    }

    /// Whether the first replica leads.
    pub fn has_preferred_leader(&self) -> bool {
        self.leader == self.replicas.first().copied()
    }

    /// Whether a reassignment is under way.
    pub fn is_reassigning(&self) -> bool {
        !self.removing_replicas.is_empty() || !self.adding_replicas.is_empty()
    }

    /// The log directory of a replica.
    pub fn directory(&self, replica: BrokerId) -> Option<Uuid> {
        let index = self.replicas.iter().position(|id| *id == replica)?;
        self.directories.get(index).copied()
    }
}

/// The partition that an error is about.
struct Named<'a> {
    topic: &'a ByteString,
    partition: PartitionIndex,
}

impl Named<'_> {
    /// Directories that are absent, or all `MIGRATING`, are from before directory ids.
    fn directories(&self, given: &[Uuid], replicas: usize) -> Result<Vec<Uuid>, ReplayError> {
        if given.iter().all(|dir| *dir == directory_id::MIGRATING) {
            return Ok(vec![directory_id::MIGRATING; replicas]);
        }
        if given.len() != replicas {
            return Err(ReplayError::DirectoriesMismatch {
                topic: self.topic.clone(),
                partition: self.partition,
                replicas,
                directories: given.len(),
            });
        }
        Ok(given.to_vec())
    }

    fn recovery_state(&self, state: i8) -> Result<LeaderRecoveryState, ReplayError> {
        LeaderRecoveryState::from_value(state).ok_or_else(|| {
            ReplayError::UnknownLeaderRecoveryState {
                topic: self.topic.clone(),
                partition: self.partition,
                state,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_of_the_isr_is_spared_where_enough_others_are_in_sync() {
        let known = |isr: &[BrokerId]| Partition {
            replicas: vec![1, 2, 3],
            isr: isr.to_vec(),
            ..Partition::default()
        };
        assert!(known(&[1, 2, 3]).can_spare(2, 2));
        assert!(!known(&[1, 2]).can_spare(2, 2), "acks=all would find too few");
        assert!(known(&[1, 2]).can_spare(2, 1));
        assert!(!known(&[2]).can_spare(2, 1), "nobody else is in sync");
        assert!(!known(&[1, 3]).can_spare(2, 1), "nobody counts on it");
        assert!(!known(&[1, 2, 3]).can_spare(2, 5), "acks=all needs every one");
    }
}
