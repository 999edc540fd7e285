//! A partition's leader: the state of its followers, and the high watermark that follows from it (Kafka's `Partition`).
//!
//! Invariants: the high watermark never falls within a leadership and never exceeds the known log end of any member of
//! the maximal ISR, its flushed end if the topic has flush.before.ack. It does not move while the ISR is smaller than
//! min.insync.replicas (KIP-966).

pub(super) mod silence;

pub use silence::SILENCE_CHECKS;

use super::event::{
    AcksState, FetchProgress, FollowerFetch, LeaderConfig, LogEnds, NotEnoughReplicas, Registration,
};
use super::fetch_check::check_leader_epoch;
use super::isr::{CommittedIsr, IsrChange, IsrProposal, IsrState, ProposalOutcome};
use super::remote_replica::{BrokerStatus, RemoteReplica, broker_with_epoch};
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use std::collections::{BTreeMap, BTreeSet};

/// The leader of a partition, from the election of this broker until another one leads.
#[derive(Debug, Clone)]
pub struct LeaderState {
    config: LeaderConfig,
    leader_epoch: LeaderEpoch,
    partition_epoch: i32,
    epoch_start_offset: Offset,
    ends: LogEnds,
    high_watermark: Offset,
    isr: IsrState,
    followers: BTreeMap<BrokerId, RemoteReplica>,
}

impl LeaderState {
    /// Begins to lead. `high_watermark` is the last known one: as a follower, or from the checkpoint. The shell must
    /// add (`leader_epoch`, `log_end_offset`) to the log's epochs before it serves requests (KAFKA-7415).
    pub(super) fn new(
        config: LeaderConfig,
        registration: &Registration,
        ends: LogEnds,
        high_watermark: Offset,
        statuses: &BTreeMap<BrokerId, BrokerStatus>,
        now_ms: i64,
    ) -> Self {
        let mut leader = Self {
            config,
            leader_epoch: registration.leader_epoch,
            partition_epoch: registration.partition_epoch,
            epoch_start_offset: ends.log_end_offset,
            ends,
            high_watermark,
            isr: IsrState::committed(registration.isr.iter().copied().collect()),
            followers: BTreeMap::new(),
        };
        leader.high_watermark = high_watermark.min(leader.own_offset());
        leader.set_followers(&registration.replicas, statuses, now_ms);
        leader.advance_high_watermark(now_ms);
        leader
    }

    /// Applies newer metadata of the partition, which this broker still leads. If the epoch is new, returns its start
    /// offset, which the shell adds to the log's epochs.
    ///
    /// A registration with a partition epoch that an AlterPartition response had already, or an older one, is ignored:
    /// it does not decide about a proposal that was made since. (Kafka applies it again and forgets the proposal,
    /// although the controller may be committing it.)
    pub(super) fn on_registration(
        &mut self,
        registration: &Registration,
        statuses: &BTreeMap<BrokerId, BrokerStatus>,
        now_ms: i64,
    ) -> Option<Offset> {
        if registration.partition_epoch <= self.partition_epoch {
            return None;
        }
        self.partition_epoch = registration.partition_epoch;
        self.commit_isr(registration.isr.iter().copied().collect());
        self.set_followers(&registration.replicas, statuses, now_ms);
        let new_epoch = registration.leader_epoch > self.leader_epoch;
        if new_epoch {
            self.start_epoch(registration.leader_epoch, now_ms);
        }
        self.advance_high_watermark(now_ms);
        new_epoch.then_some(self.epoch_start_offset)
    }

    /// A broker's registration has changed or was removed.
    pub(super) fn on_broker_status(&mut self, id: BrokerId, status: Option<BrokerStatus>) {
        if let Some(follower) = self.followers.get_mut(&id) {
            follower.status = status;
        }
    }

    /// The configuration has changed. Returns the high watermark if it has moved.
    pub(super) fn on_config(&mut self, config: LeaderConfig, now_ms: i64) -> Option<Offset> {
        self.config = config;
        self.advance_high_watermark(now_ms)
    }

    /// Whether an acks=all batch may be appended at all.
    pub(super) fn check_min_isr(&self) -> Result<(), NotEnoughReplicas> {
        let required = self.effective_min_isr();
        if self.isr.isr().len() < required {
            return Err(NotEnoughReplicas { isr: self.isr.isr().clone(), required });
        }
        Ok(())
    }

    /// The log now ends at `log_end_offset`. Returns the high watermark if it has moved.
    pub(super) fn on_appended(&mut self, log_end_offset: Offset, now_ms: i64) -> Option<Offset> {
        assert!(log_end_offset >= self.ends.log_end_offset, "a leader never truncates its log");
        self.ends.log_end_offset = log_end_offset;
        self.advance_high_watermark(now_ms)
    }

    /// All records below `flushed_offset` are on disk. Returns the high watermark if it has moved.
    pub(super) fn on_flushed(&mut self, flushed_offset: Offset, now_ms: i64) -> Option<Offset> {
        self.ends.flushed_offset = self.ends.flushed_offset.max(flushed_offset);
        self.advance_high_watermark(now_ms)
    }

    /// Checks that the fetching broker has a replica of this partition. If it names the current epoch, its metadata may
    /// be newer than this broker's.
    pub(super) fn check_follower(
        &self,
        id: BrokerId,
        current_leader_epoch: Option<LeaderEpoch>,
    ) -> Result<(), ErrorCode> {
        match (self.followers.contains_key(&id), current_leader_epoch) {
            (true, _) => Ok(()),
            (false, None) => Err(ErrorCode::NotLeaderOrFollower),
            (false, Some(_)) => Err(ErrorCode::UnknownLeaderEpoch),
        }
    }

    /// Records a follower's fetch.
    ///
    /// A fetch at an offset proves that the follower has every record below it. No other event proves it, so call this
    /// only for a fetch at a valid position.
    pub(super) fn on_follower_fetch(
        &mut self,
        fetch: FollowerFetch,
    ) -> Result<FetchProgress, ErrorCode> {
        check_leader_epoch(fetch.current_leader_epoch, self.leader_epoch)?;
        let log_end_offset = self.ends.log_end_offset;
        self.check_follower(fetch.follower, fetch.current_leader_epoch)?;
        let follower = self.followers.get_mut(&fetch.follower).expect("it has just been found");
        if fetch.fetch_offset > log_end_offset {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        if let (Some(epoch), Some(status)) = (fetch.broker_epoch, follower.status)
            && epoch < status.broker_epoch
        {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let log_start_moved = fetch.log_start_offset > follower.log_start_offset;
        follower.on_fetch(&fetch, log_end_offset);
        let proposal = self.propose_expansion(fetch.follower, fetch.now_ms);
        let high_watermark = self.advance_high_watermark(fetch.now_ms);
        Ok(FetchProgress { high_watermark, proposal, log_start_moved })
    }

    /// Proposes to remove the followers that have not caught up for `replica.lag.time.max.ms`. Call it twice in that
    /// time.
    pub(super) fn on_isr_check(&mut self, now_ms: i64) -> Option<IsrProposal> {
        if self.isr.pending().is_some() {
            return None;
        }
        let lag_ms = self.config.replica_lag_time_max_ms;
        let log_end_offset = self.ends.log_end_offset;
        let lags = |id: &BrokerId| {
            let follower = self.followers.get(id);
            *id != self.config.broker_id
                && !follower
                    .is_some_and(|follower| follower.is_caught_up(log_end_offset, now_ms, lag_ms))
        };
        let lagging: BTreeSet<BrokerId> = self.isr.isr().iter().copied().filter(lags).collect();
        if lagging.is_empty() {
            return None;
        }
        let kept = self.isr.isr().difference(&lagging).copied().collect();
        Some(self.propose(kept, IsrChange::Shrink(lagging)))
    }

    /// The controller has answered a proposal; `Err` is a refusal, or no answer.
    pub(super) fn on_proposal_answered(
        &mut self,
        proposal: &IsrProposal,
        answer: Result<CommittedIsr, ErrorCode>,
        now_ms: i64,
    ) -> (ProposalOutcome, Option<Offset>) {
        if self.isr.pending() != Some(proposal) {
            return (ProposalOutcome::Superseded, None);
        }
        let outcome = match answer {
            Err(error) => self.isr.on_proposal_failed(proposal, error),
            Ok(committed) => self.on_isr_committed(committed),
        };
        (outcome, self.advance_high_watermark(now_ms))
    }

    fn on_isr_committed(&mut self, committed: CommittedIsr) -> ProposalOutcome {
        let stale = committed.leader_epoch != self.leader_epoch
            || committed.partition_epoch < self.partition_epoch;
        if stale {
            return ProposalOutcome::AwaitMetadata;
        }
        self.partition_epoch = committed.partition_epoch;
        self.commit_isr(committed.isr);
        ProposalOutcome::Committed
    }

    fn commit_isr(&mut self, isr: BTreeSet<BrokerId>) {
        for removed in self.isr.isr().difference(&isr) {
            if let Some(follower) = self.followers.get_mut(removed) {
                follower.on_taken_out_of_isr();
            }
        }
        self.isr.commit(isr);
    }

    /// Whether an acks=all produce that ended at `required_offset` (exclusive) may be answered.
    pub(super) fn acks_state(&self, required_offset: Offset) -> AcksState {
        if self.high_watermark < required_offset {
            return AcksState::Waiting;
        }
        if self.isr.maximal_len() < self.effective_min_isr() {
            return AcksState::NotEnoughReplicas;
        }
        AcksState::Replicated
    }

    /// Whether ListOffsets may return the latest offset: not before this epoch has committed a record, or the offset
    /// could go backwards after an election (KIP-207).
    pub(super) fn check_offsets_available(&self) -> Result<(), ErrorCode> {
        match self.epoch_start_offset > self.high_watermark {
            true => Err(ErrorCode::OffsetNotAvailable),
            false => Ok(()),
        }
    }

    /// The offset below which no live replica has records. DeleteRecords waits for it.
    pub(super) fn low_watermark(&self, log_start_offset: Offset) -> Offset {
        let alive =
            |follower: &&RemoteReplica| follower.status.is_some_and(|status| !status.fenced);
        let followers = self.followers.values().filter(alive);
        followers.map(|follower| follower.log_start_offset).fold(log_start_offset, Offset::min)
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    pub fn partition_epoch(&self) -> i32 {
        self.partition_epoch
    }

    pub fn epoch_start_offset(&self) -> Offset {
        self.epoch_start_offset
    }

    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    pub fn isr(&self) -> &IsrState {
        &self.isr
    }

    pub fn followers(&self) -> impl Iterator<Item = (BrokerId, &RemoteReplica)> {
        self.followers.iter().map(|(id, follower)| (*id, follower))
    }

    /// Metric `UnderMinIsr`.
    pub fn is_under_min_isr(&self) -> bool {
        self.isr.isr().len() < self.effective_min_isr()
    }

    /// min.insync.replicas, at most the number of replicas (KIP-966).
    fn effective_min_isr(&self) -> usize {
        self.config.min_insync_replicas.min(self.followers.len() + 1)
    }

    /// The end of the leader's own log that counts for the high watermark.
    fn own_offset(&self) -> Offset {
        match self.config.flush_before_ack {
            true => self.ends.flushed_offset.min(self.ends.log_end_offset),
            false => self.ends.log_end_offset,
        }
    }

    fn start_epoch(&mut self, leader_epoch: LeaderEpoch, now_ms: i64) {
        // Another broker may have led an epoch in between, and the followers may have truncated their logs for it.
        let has_missed_epochs = leader_epoch > self.leader_epoch + 1;
        self.leader_epoch = leader_epoch;
        self.epoch_start_offset = self.ends.log_end_offset;
        for (id, follower) in &mut self.followers {
            let in_sync = self.isr.isr().contains(id);
            if has_missed_epochs {
                *follower = RemoteReplica::new(in_sync, follower.status, now_ms);
            }
            follower.on_leader_epoch(in_sync, self.epoch_start_offset, now_ms);
        }
    }

    fn set_followers(
        &mut self,
        replicas: &[BrokerId],
        statuses: &BTreeMap<BrokerId, BrokerStatus>,
        now_ms: i64,
    ) {
        self.followers.retain(|id, _| replicas.contains(id));
        for &id in replicas.iter().filter(|id| **id != self.config.broker_id) {
            let in_sync = self.isr.isr().contains(&id);
            let status = statuses.get(&id).copied();
            let new = || RemoteReplica::new(in_sync, status, now_ms);
            self.followers.entry(id).or_insert_with(new).status = status;
        }
    }

    /// Proposes a follower for the ISR when it has all committed records and has reached this epoch: before that its
    /// log may still diverge.
    fn propose_expansion(&mut self, id: BrokerId, now_ms: i64) -> Option<IsrProposal> {
        let follower = self.followers.get(&id)?;
        let in_sync =
            follower.log_end_offset >= Some(self.high_watermark.max(self.epoch_start_offset));
        let possible = self.isr.pending().is_none() && !self.isr.isr().contains(&id);
        if !possible || !in_sync || !self.may_join(follower, now_ms) {
            return None;
        }
        let mut isr = self.isr.isr().clone();
        isr.insert(id);
        Some(self.propose(isr, IsrChange::Expand(id)))
    }

    fn propose(&mut self, isr: BTreeSet<BrokerId>, change: IsrChange) -> IsrProposal {
        let with_epoch = |id: BrokerId| broker_with_epoch(id, self.followers.get(&id));
        let proposal = IsrProposal {
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            new_isr: isr.into_iter().map(with_epoch).collect(),
            change,
        };
        self.isr.propose(proposal.clone());
        proposal
    }

    /// The in-sync follower in the consumer's rack with the highest log end, as the consumer's preferred read replica
    /// (KIP-392; Kafka's `RackAwareReplicaSelector`).
    pub fn preferred_read_replica(
        &self,
        fetch_offset: Offset,
        is_near: impl Fn(BrokerId) -> bool,
    ) -> Option<BrokerId> {
        let near = self.followers().filter(|(id, follower)| {
            let holds = follower.log_start_offset <= fetch_offset
                && follower.log_end_offset >= Some(fetch_offset);
            let alive = follower.status.is_some_and(|status| !status.fenced);
            is_near(*id) && holds && alive && self.isr.isr().contains(id)
        });
        let furthest = near.max_by_key(|(_, at)| (at.log_end_offset, at.last_caught_up_ms));
        furthest.map(|(id, _)| id)
    }

    /// Advances the high watermark to the smallest log end in the maximal ISR. A caught-up follower that may join the
    /// ISR counts too, or it would fall behind again each time it is about to join.
    fn advance_high_watermark(&mut self, now_ms: i64) -> Option<Offset> {
        let mut reached = self.own_offset();
        if reached <= self.high_watermark || self.is_under_min_isr() {
            return None;
        }
        for (id, follower) in &self.followers {
            if self.counts(*id, follower, now_ms) {
                // The high watermark waits for the first fetch of each of them.
                reached = reached.min(follower.log_end_offset?);
            }
        }
        if reached <= self.high_watermark {
            return None;
        }
        self.high_watermark = reached;
        self.assert_high_watermark_is_held();
        Some(reached)
    }

    /// Whether the high watermark waits for the follower.
    fn counts(&self, id: BrokerId, follower: &RemoteReplica, now_ms: i64) -> bool {
        let (end, lag_ms) = (self.ends.log_end_offset, self.config.replica_lag_time_max_ms);
        self.isr.is_in_maximal_isr(id)
            || (follower.is_caught_up(end, now_ms, lag_ms) && self.may_join(follower, now_ms))
    }

    /// Asserts the invariant of a high watermark that has just moved.
    fn assert_high_watermark_is_held(&self) {
        let high_watermark = self.high_watermark;
        assert!(
            high_watermark <= self.own_offset(),
            "the high watermark {high_watermark} exceeds what the leader holds: {:?}",
            self.ends
        );
        for member in self.isr.isr().iter().filter(|id| **id != self.config.broker_id) {
            let held = self.followers.get(member).and_then(|follower| follower.log_end_offset);
            assert!(
                held >= Some(high_watermark),
                "the high watermark {high_watermark} exceeds what in-sync replica {member} holds: {held:?}"
            );
        }
    }
}

#[cfg(test)]
mod tests;
