//! The role of this broker for a partition: leader, follower, or none yet.
//!
//! The cluster metadata alone changes roles. A role is dropped with everything that waited for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;
use klamm_replication::partition::{
    BrokerStatus, CommittedIsr, IsrProposal, ProposalOutcome, Registration,
};

use super::{Partition, State, log_ends};
use crate::clock;

/// Brokers as the cluster metadata has them.
pub(crate) type BrokerStatuses = BTreeMap<BrokerId, BrokerStatus>;

impl Partition {
    /// The cluster metadata says that this broker leads the partition.
    pub(crate) fn lead(self: &Arc<Self>, registration: &Registration, statuses: &BrokerStatuses) {
        let now_ms = clock::now_ms();
        let config = self.config().leader_config(self.broker_id);
        let mut state = self.lock();
        let State { log: Some(log), replica } = &mut *state else { return };
        if replica.lead(config, registration, log_ends(log), statuses, now_ms).is_some() {
            log.assign_epoch(registration.leader_epoch);
        }
        drop(state);
        // The start of the epoch has to be on disk before long.
        self.request_flush();
    }

    /// The cluster metadata says that `leader_id` leads the partition, or -1 that nobody does. Says whether
    /// that is news to whoever fetches for this replica.
    pub(crate) fn follow(&self, leader_id: BrokerId, registration: &Registration) -> bool {
        let mut state = self.lock();
        state.log.is_some() && state.replica.follow(leader_id, registration)
    }

    /// A broker's registration has changed, or is gone. If it fetches here it may join the ISR now.
    pub(crate) fn on_broker_status(&self, id: BrokerId, status: Option<BrokerStatus>) {
        self.lock().replica.on_broker_status(id, status);
    }

    /// Looks for followers that have been behind for too long. A leader that cannot serve them does not know.
    pub(crate) fn check_isr(&self, now_ms: i64) -> Option<IsrProposal> {
        if !self.can_serve_followers() {
            return None;
        }
        self.lock().replica.on_isr_check(now_ms)
    }

    /// Whether the controller still has to be asked for this.
    pub(crate) fn is_proposing(&self, proposal: &IsrProposal) -> bool {
        self.lock().replica.is_proposing(proposal)
    }

    /// The controller has answered a proposal, or has not (`Err`).
    pub(crate) fn on_proposal_answered(
        &self,
        proposal: &IsrProposal,
        answer: Result<CommittedIsr, ErrorCode>,
    ) -> ProposalOutcome {
        self.lock().replica.on_proposal_answered(proposal, answer, clock::now_ms())
    }
}
