//! The role of this broker for a partition: leader, follower, or none yet.
//!
//! Only the cluster metadata changes roles. A change of role releases the requests that wait for the old role.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;
use klamm_replication::partition::{
    BrokerStatus, CommittedIsr, IsrProposal, ProposalOutcome, Registration,
};

use super::{Partition, State, log_ends};
use crate::clock;

/// The brokers' states in the cluster metadata.
pub(crate) type BrokerStatuses = BTreeMap<BrokerId, BrokerStatus>;

impl Partition {
    /// In the cluster metadata, this broker leads the partition.
    pub(crate) fn lead(self: &Arc<Self>, registration: &Registration, statuses: &BrokerStatuses) {
        let now_ms = clock::now_ms();
        let config = self.config().leader_config(self.broker_id);
        let mut state = self.lock();
        let State { log: Some(log), replica } = &mut *state else { return };
        if replica.lead(config, registration, log_ends(log), statuses, now_ms).is_some() {
            log.assign_epoch(registration.leader_epoch);
        }
        drop(state);
        // The new leader epoch must reach the disk soon, but nobody waits for it: after the start of a node with many
        // partitions the first produces must not wait for all of them.
        self.flushing.request_later(self);
    }

    /// In the cluster metadata, `leader_id` leads the partition, or no broker. Returns whether the replica's fetcher has
    /// to change.
    pub(crate) fn follow(&self, leader_id: Option<BrokerId>, registration: &Registration) -> bool {
        let mut state = self.lock();
        state.log.is_some() && state.replica.follow(leader_id, registration)
    }

    /// A broker's registration has changed or was removed. The change may let a follower join the ISR.
    pub(crate) fn on_broker_status(&self, id: BrokerId, status: Option<BrokerStatus>) {
        self.lock().replica.on_broker_status(id, status);
    }

    /// Proposes to remove the followers that have been behind for too long. A leader that cannot serve fetches proposes
    /// nothing: it cannot judge them.
    pub(crate) fn check_isr(&self, now_ms: i64) -> Option<IsrProposal> {
        if !self.can_serve_followers() {
            return None;
        }
        self.lock().replica.on_isr_check(now_ms)
    }

    /// Looks for silent followers that hold back the high watermark, and proposes to remove them. Reports the partition
    /// again if the high watermark still waits. `is_confirmed`: the controller answers this
    /// broker.
    pub(crate) fn check_silence(&self, is_confirmed: bool, now_ms: i64) -> Option<IsrProposal> {
        // Before the lock is taken: its release reports again.
        self.held_back.on_checked();
        let mut state = self.lock();
        if !self.can_serve_followers() {
            state.replica.forgive_silence();
            return None;
        }
        state.replica.on_silence_check(is_confirmed, now_ms)
    }

    /// Whether nothing can be committed here for now, because a follower is silent.
    pub(crate) fn is_stalled(&self) -> bool {
        // Most partitions are never held back: skip the lock.
        self.held_back.is_reported() && self.lock().replica.is_stalled(clock::now_ms())
    }

    /// Whether the proposal still has to be sent to the controller.
    pub(crate) fn is_proposing(&self, proposal: &IsrProposal) -> bool {
        self.lock().replica.is_proposing(proposal)
    }

    /// The controller has answered a proposal, or the request failed (`Err`).
    pub(crate) fn on_proposal_answered(
        &self,
        proposal: &IsrProposal,
        answer: Result<CommittedIsr, ErrorCode>,
    ) -> ProposalOutcome {
        self.lock().replica.on_proposal_answered(proposal, answer, clock::now_ms())
    }
}
