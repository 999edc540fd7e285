//! The controller: who leads, who is in sync. What it decides brokers hear of later.

use super::{Brokers, Plant};
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;
use klamm_replication::partition::{CommittedIsr, IsrProposal};

impl Brokers {
    pub(super) fn alter_partition(
        &mut self,
        from: BrokerId,
        proposal: &IsrProposal,
    ) -> Result<CommittedIsr, ErrorCode> {
        if proposal.leader_epoch < self.registration.leader_epoch || self.leader != Some(from) {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if proposal.partition_epoch < self.registration.partition_epoch {
            return Err(ErrorCode::InvalidUpdateVersion);
        }
        let eligible = |(id, epoch): &(BrokerId, Option<i64>)| {
            let status = &self.statuses[id];
            let is_alive = !status.fenced || self.plant == Plant::FencedReplicaTaken;
            let is_this_life = epoch.is_none_or(|epoch| epoch == status.broker_epoch);
            is_alive && (is_this_life || self.plant == Plant::BrokerEpochNotChecked)
        };
        if !proposal.new_isr.iter().all(eligible) {
            return Err(ErrorCode::IneligibleReplica);
        }
        self.registration.isr = proposal.new_isr.iter().map(|(id, _)| *id).collect();
        self.registration.partition_epoch += 1;
        Ok(CommittedIsr {
            leader_epoch: self.registration.leader_epoch,
            partition_epoch: self.registration.partition_epoch,
            isr: self.registration.isr.iter().copied().collect(),
        })
    }

    /// Takes a broker out of the ISR, unless it is the last, and finds another leader. Of one that is neither the
    /// partition knows nothing.
    pub(super) fn elect_without(&mut self, id: BrokerId) {
        let before = self.registration.clone();
        if self.registration.isr != [id] {
            self.registration.isr.retain(|member| *member != id);
        }
        if self.leader == Some(id) {
            let statuses = &self.statuses;
            let mut isr = self.registration.isr.iter().copied();
            self.leader = isr.find(|member| !statuses[member].fenced);
            self.registration.leader_epoch += 1;
        }
        if self.registration != before {
            self.registration.partition_epoch += 1;
        }
    }

    pub(super) fn move_leadership(&mut self) {
        let next = self.any();
        let able = self.registration.isr.contains(&next) && !self.statuses[&next].fenced;
        if able && self.leader.is_some() {
            self.leader = Some(next);
            self.registration.leader_epoch += 1;
            self.registration.partition_epoch += 1;
        }
    }
}
