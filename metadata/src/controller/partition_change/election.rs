//! The election of a partition's leader.

use klamm_protocol::ids::{BrokerId, or_minus_one};
use klamm_protocol::messages::partition_change_record::PartitionChangeRecord;

use super::{Election, PartitionChange};
use crate::image::partition::LeaderRecoveryState;

/// An elected leader; `unclean` if it may lack committed records.
struct Elected {
    leader: BrokerId,
    unclean: bool,
}

impl PartitionChange<'_> {
    /// Elects a leader and adds a change of leader to the record.
    pub(super) fn elect(&mut self, record: &mut PartitionChangeRecord) {
        let elected = self.choose();
        let leader = elected.as_ref().map(|elected| elected.leader);
        if leader == self.partition.leader {
            return;
        }
        record.leader = or_minus_one(leader);
        let Some(elected) = elected else { return };
        if self.elr.contains(&elected.leader) {
            self.isr = vec![elected.leader];
            self.elr.retain(|id| *id != elected.leader);
        }
        if elected.unclean {
            record.isr = Some(vec![elected.leader]);
            if self.partition.leader_recovery_state != LeaderRecoveryState::Recovering {
                record.leader_recovery_state = LeaderRecoveryState::Recovering.value();
            }
        }
    }

    /// The new leader; none if no replica can lead.
    fn choose(&self) -> Option<Elected> {
        let clean = |leader| Some(Elected { leader, unclean: false });
        let unclean = |leader| Some(Elected { leader, unclean: true });
        let preferred = match self.election {
            Election::Preferred => self.replicas.first().copied(),
            Election::Online | Election::Unclean => None,
        };
        if let Some(preferred) = preferred.filter(|id| self.can_lead(*id)) {
            return clean(preferred);
        }
        if let Some(current) = self.partition.leader.filter(|id| self.can_lead(*id)) {
            return clean(current);
        }
        if let Some(online) = self.replicas.iter().copied().find(|id| self.can_lead(*id)) {
            return clean(online);
        }
        if let Some(last_known) = self.last_known_leader() {
            return unclean(last_known);
        }
        if self.election == Election::Unclean {
            let acceptable = |id: &BrokerId| (self.context.is_acceptable_leader)(*id);
            if let Some(alive) = self.replicas.iter().copied().find(acceptable) {
                return unclean(alive);
            }
        }
        None
    }

    /// Whether the replica has every committed record and is alive.
    fn can_lead(&self, id: BrokerId) -> bool {
        let complete = self.isr.contains(&id) || (self.isr.is_empty() && self.elr.contains(&id));
        complete && (self.context.is_acceptable_leader)(id)
    }

    /// Without ISR and ELR, the last leader is the most likely to have all records.
    fn last_known_leader(&self) -> Option<BrokerId> {
        if !self.context.elr_enabled || !self.elr.is_empty() || !self.isr.is_empty() {
            return None;
        }
        match self.partition.last_known_elr.as_slice() {
            [only] => Some(*only).filter(|id| (self.context.is_acceptable_leader)(*id)),
            _ => None,
        }
    }
}
