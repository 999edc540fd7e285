//! Who this broker is for a partition: its leader, a follower, or not told yet.
//!
//! The cluster metadata alone changes roles. A role is dropped with everything that waited for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch};
use klamm_replication::partition::{
    BrokerStatus, CommittedIsr, FollowerState, IsrProposal, LeaderState, LogEnds, ProposalOutcome,
    Registration,
};

use super::Partition;
use crate::clock;

/// See the module.
#[derive(Debug)]
pub(super) enum Role {
    None,
    Leader(LeaderState),
    Follower(FollowerState),
}

impl Role {
    /// The epoch of the leader, whoever that is.
    pub(super) fn leader_epoch(&self) -> Option<LeaderEpoch> {
        match self {
            Self::None => None,
            Self::Leader(leader) => Some(leader.leader_epoch()),
            Self::Follower(follower) => Some(follower.leader_epoch),
        }
    }
}

/// Brokers as the cluster metadata has them.
pub(crate) type BrokerStatuses = BTreeMap<BrokerId, BrokerStatus>;

impl Partition {
    /// The cluster metadata says that this broker leads the partition.
    pub(crate) fn lead(self: &Arc<Self>, registration: &Registration, statuses: &BrokerStatuses) {
        let now_ms = clock::now_ms();
        let config = self.config().leader_config(self.broker_id);
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(log) = &mut state.log else { return };
        let is_new_epoch = match &mut state.role {
            Role::Leader(leader) => {
                leader.on_registration(registration, statuses, now_ms).is_some()
            }
            Role::None | Role::Follower(_) => {
                let ends =
                    LogEnds { log_end_offset: log.log_end(), flushed_offset: log.flushed_offset() };
                let known = log.high_watermark();
                let leader = LeaderState::new(config, registration, ends, known, statuses, now_ms);
                state.role = Role::Leader(leader);
                true
            }
        };
        if is_new_epoch {
            log.assign_epoch(registration.leader_epoch);
        }
        let moved = state.leader().map(LeaderState::high_watermark);
        let moved = state.on_high_watermark(moved);
        state.deletions.wake();
        if is_new_epoch {
            // Fetches that name the old epoch are told so at once.
            state.wake_fetches();
        }
        drop(guard);
        self.announce(moved);
        self.leads.store(true, Ordering::Release);
        // The start of the epoch has to be on disk before long.
        self.request_flush();
    }

    /// The cluster metadata says that `leader_id` leads the partition, or -1 that nobody does. Says whether
    /// that is news to whoever fetches for this replica.
    pub(crate) fn follow(&self, leader_id: BrokerId, registration: &Registration) -> bool {
        self.leads.store(false, Ordering::Release);
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(log) = &state.log else { return false };
        if let Role::Follower(follower) = &mut state.role
            && (follower.leader_id, follower.leader_epoch) == (leader_id, registration.leader_epoch)
        {
            follower.partition_epoch = registration.partition_epoch;
            return false;
        }
        state.role = Role::Follower(FollowerState::new(
            leader_id,
            registration.leader_epoch,
            registration.partition_epoch,
            log.high_watermark(),
        ));
        state.give_up_waiting();
        true
    }

    /// A broker's registration has changed, or is gone. If it fetches here it may join the ISR now.
    pub(crate) fn on_broker_status(&self, id: BrokerId, status: Option<BrokerStatus>) {
        let mut state = self.lock();
        if let Some(leader) = state.leader_mut() {
            leader.on_broker_status(id, status);
            state.followers.wake();
            // Replicas that are gone are not waited for.
            state.deletions.wake();
        }
    }

    /// Looks for followers that have been behind for too long. A leader that cannot serve them does not know.
    pub(crate) fn check_isr(&self, now_ms: i64) -> Option<IsrProposal> {
        if !self.can_serve_followers() {
            return None;
        }
        self.lock().leader_mut()?.on_isr_check(now_ms)
    }

    /// Whether the controller still has to be asked for this.
    pub(crate) fn is_proposing(&self, proposal: &IsrProposal) -> bool {
        self.lock().leader().is_some_and(|leader| leader.isr().pending() == Some(proposal))
    }

    /// The controller has answered a proposal, or has not (`Err`).
    pub(crate) fn on_proposal_answered(
        &self,
        proposal: &IsrProposal,
        answer: Result<CommittedIsr, ErrorCode>,
    ) -> ProposalOutcome {
        let mut state = self.lock();
        let Some(leader) = state.leader_mut() else { return ProposalOutcome::Superseded };
        let (outcome, moved) = leader.on_proposal_answered(proposal, answer, clock::now_ms());
        let moved = state.on_high_watermark(moved);
        // Another follower that waits here may be the next to join. One that was refused is proposed with its next fetch.
        if outcome != ProposalOutcome::Rejected {
            state.followers.wake();
        }
        drop(state);
        self.announce(moved);
        outcome
    }
}
