//! One replica of a partition on one broker: its role, its high watermark, and the requests that wait for either
//! (Kafka's `Partition` with its purgatories).
//!
//! Pure. The shell owns the log: it reports appends and flushes to the replica, and carries out every [`Effect`] that
//! [`Replica::poll_effect`] returns before it releases the replica's lock.
//!
//! Invariants: the high watermark of a leader never falls within an epoch; only a leader has waiting produces, and only
//! a leader acknowledges. A change of role releases the requests that waited for the old one.

mod deletion;
mod effect;
mod fetch;
mod following;
mod produce;
#[cfg(test)]
mod tests;

pub use effect::Effect;
pub use fetch::{FetchedLog, ListIsolation, PartitionFetch, Reader, VisibleEnds};
pub use produce::{AppendRefused, Awaited};

use super::delayed::{FetchWaiter, FetchWaiters, OffsetWaiters};
use super::event::{LeaderConfig, LogEnds, Registration};
use super::fetch_check::check_leader_epoch;
use super::follower::FollowerState;
use super::isr::{CommittedIsr, IsrProposal, ProposalOutcome};
use super::leader::{LeaderState, silence};
use super::remote_replica::BrokerStatus;
use super::role::Role;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use std::collections::BTreeMap;

/// See the module. `P` is a waiter for an offset, `F` a waiting fetch.
#[derive(Debug)]
pub struct Replica<P, F> {
    role: Role,
    /// The state that the shell got last.
    announced: Announced,
    /// Produces with acks=all, which wait for the high watermark.
    produces: OffsetWaiters<P>,
    /// Waiters for the flush.
    flushes: OffsetWaiters<P>,
    /// Consumers' fetches, which wait for the high watermark or the last stable offset.
    consumers: FetchWaiters<F>,
    /// Followers' fetches, which wait for records, committed or not.
    followers: FetchWaiters<F>,
    /// DeleteRecords requests, which wait for the log starts of all replicas.
    deletions: FetchWaiters<F>,
}

/// The high watermark that the shell got last, and the epoch if this broker led.
#[derive(Debug, Clone, Copy)]
struct Announced {
    high_watermark: Offset,
    led_epoch: Option<LeaderEpoch>,
}

impl<P, F: FetchWaiter> Replica<P, F> {
    /// A replica whose log has just been opened, with the checkpointed high watermark.
    pub fn new(high_watermark: Offset) -> Self {
        Self {
            role: Role::None { high_watermark },
            announced: Announced { high_watermark, led_epoch: None },
            produces: OffsetWaiters::default(),
            flushes: OffsetWaiters::default(),
            consumers: FetchWaiters::default(),
            followers: FetchWaiters::default(),
            deletions: FetchWaiters::default(),
        }
    }

    pub fn role(&self) -> &Role {
        &self.role
    }

    pub fn leader(&self) -> Option<&LeaderState> {
        match &self.role {
            Role::Leader(leader) => Some(leader),
            Role::None { .. } | Role::Follower(_) => None,
        }
    }

    pub fn follower(&self) -> Option<&FollowerState> {
        match &self.role {
            Role::Follower(follower) => Some(follower),
            Role::None { .. } | Role::Leader(_) => None,
        }
    }

    pub fn is_leader(&self) -> bool {
        self.leader().is_some()
    }

    /// Records below are committed, as far as this replica knows.
    pub fn high_watermark(&self) -> Offset {
        self.role.high_watermark()
    }

    /// The leader's epoch, after comparison with the one in the request, if it has one. The comparison comes before the
    /// check of the role, because a follower too can refuse an older or newer epoch.
    pub fn check_epoch(
        &self,
        requested: Option<LeaderEpoch>,
        leader_only: bool,
    ) -> Result<LeaderEpoch, ErrorCode> {
        let epoch = self.role.leader_epoch().ok_or(ErrorCode::NotLeaderOrFollower)?;
        check_leader_epoch(requested, epoch)?;
        match leader_only && !self.is_leader() {
            true => Err(ErrorCode::NotLeaderOrFollower),
            false => Ok(epoch),
        }
    }

    /// In the cluster metadata this broker leads. Returns the start offset of a new epoch: the shell adds it to the
    /// log's epochs before it serves requests (KAFKA-7415).
    #[must_use = "the start of the epoch belongs into the log"]
    pub fn lead(
        &mut self,
        config: LeaderConfig,
        registration: &Registration,
        ends: LogEnds,
        statuses: &BTreeMap<BrokerId, BrokerStatus>,
        now_ms: i64,
    ) -> Option<Offset> {
        let started = match &mut self.role {
            Role::Leader(leader) => leader.on_registration(registration, statuses, now_ms),
            Role::None { .. } | Role::Follower(_) => {
                let known = self.role.high_watermark();
                let leader = LeaderState::new(config, registration, ends, known, statuses, now_ms);
                self.role = Role::Leader(leader);
                Some(ends.log_end_offset)
            }
        };
        self.deletions.release_all();
        if started.is_some() {
            // Waiting fetches with the old epoch get the error at once.
            self.wake_fetches();
        }
        started
    }

    /// In the cluster metadata `leader_id` leads, or no broker. Returns whether the replica's fetcher has to change.
    pub fn follow(&mut self, leader_id: Option<BrokerId>, registration: &Registration) -> bool {
        let Registration { leader_epoch, partition_epoch, .. } = *registration;
        if let Role::Follower(follower) = &mut self.role
            && (follower.leader_id, follower.leader_epoch) == (leader_id, leader_epoch)
        {
            follower.partition_epoch = partition_epoch;
            return false;
        }
        let known = self.role.high_watermark();
        let follower = FollowerState::new(leader_id, leader_epoch, partition_epoch, known);
        self.role = Role::Follower(follower);
        self.give_up_waiting();
        true
    }

    /// The log has been closed or deleted, or its directory has failed.
    pub fn stop(&mut self) {
        self.role = Role::None { high_watermark: self.role.high_watermark() };
        self.give_up_waiting();
    }

    /// The configuration has changed.
    pub fn on_config(&mut self, config: LeaderConfig, now_ms: i64) {
        if let Role::Leader(leader) = &mut self.role {
            leader.on_config(config, now_ms);
        }
    }

    /// A broker's registration has changed or was removed. If the broker follows this replica, it may join the ISR now.
    pub fn on_broker_status(&mut self, id: BrokerId, status: Option<BrokerStatus>) {
        if let Role::Leader(leader) = &mut self.role {
            leader.on_broker_status(id, status);
            self.followers.release_all();
            // DeleteRecords does not wait for replicas of removed brokers.
            self.deletions.release_all();
        }
    }

    /// Looks for followers to remove from the ISR.
    #[must_use = "the controller is to be asked"]
    pub fn on_isr_check(&mut self, now_ms: i64) -> Option<IsrProposal> {
        match &mut self.role {
            Role::Leader(leader) => leader.on_isr_check(now_ms),
            Role::None { .. } | Role::Follower(_) => None,
        }
    }

    /// Whether the high watermark waits for a follower: call [`Self::on_silence_check`],
    /// [`SILENCE_CHECKS`](super::SILENCE_CHECKS) times in `failover.follower.silence.ms`, until it does not.
    pub fn is_held_back(&self) -> bool {
        self.leader().is_some_and(LeaderState::is_held_back)
    }

    /// Looks for followers to remove from the ISR because they are silent. If the controller has not answered this
    /// broker for that long either (`is_confirmed`), another broker may lead by now: gives up the produces that wait, so
    /// that their clients look for it.
    #[must_use = "the controller is to be asked"]
    pub fn on_silence_check(&mut self, is_confirmed: bool, now_ms: i64) -> Option<IsrProposal> {
        let Role::Leader(leader) = &mut self.role else { return None };
        let proposal = leader.on_silence_check(now_ms);
        if !is_confirmed && leader.is_stalled(now_ms) {
            self.produces.release_all();
        }
        proposal
    }

    /// Instead of [`Self::on_silence_check`], while the leader cannot serve its followers.
    pub fn forgive_silence(&mut self) {
        if let Role::Leader(leader) = &mut self.role {
            silence::forgive(leader);
        }
    }

    /// Whether nothing can be committed before a silent follower is heard from again, or has left the ISR.
    pub fn is_stalled(&self, now_ms: i64) -> bool {
        self.leader().is_some_and(|leader| leader.is_stalled(now_ms))
    }

    /// Whether the proposal is still pending.
    pub fn is_proposing(&self, proposal: &IsrProposal) -> bool {
        self.leader().is_some_and(|leader| leader.isr().pending() == Some(proposal))
    }

    /// The controller has answered a proposal; `Err` is a refusal, or no answer.
    pub fn on_proposal_answered(
        &mut self,
        proposal: &IsrProposal,
        answer: Result<CommittedIsr, ErrorCode>,
        now_ms: i64,
    ) -> ProposalOutcome {
        let Role::Leader(leader) = &mut self.role else { return ProposalOutcome::Superseded };
        let (outcome, _) = leader.on_proposal_answered(proposal, answer, now_ms);
        // Another follower with a waiting fetch may be the next to join. A refused one is proposed again with its next
        // fetch.
        if outcome != ProposalOutcome::Rejected {
            self.followers.release_all();
        }
        outcome
    }

    /// Releases all waiters, because their condition cannot be met on this broker: the role has changed, the disk has
    /// failed, or the log was truncated.
    pub fn give_up_waiting(&mut self) {
        self.produces.release_all();
        self.flushes.release_all();
        self.deletions.release_all();
        self.wake_fetches();
    }

    /// Wakes all waiting fetches, which read again.
    pub fn wake_fetches(&mut self) {
        self.consumers.release_all();
        self.followers.release_all();
    }
}
