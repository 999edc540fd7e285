//! What a partition's leader knows about its followers, and what is therefore committed
//! (Kafka's `Partition`).
//!
//! Invariants: the high watermark never falls within a leadership and never exceeds what a member of the
//! maximal ISR is known to hold, on disk if the topic flushes before it acknowledges. It stands
//! still while the ISR is smaller than min.insync.replicas (KIP-966).

use super::event::{
    AcksState, FetchProgress, FollowerFetch, LeaderConfig, LogEnds, NotEnoughReplicas, Registration,
};
use super::fetch_check::check_leader_epoch;
use super::isr::{CommittedIsr, IsrChange, IsrProposal, IsrState, ProposalOutcome};
use super::replica::{BrokerStatus, RemoteReplica, broker_with_epoch};
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use std::collections::{BTreeMap, BTreeSet};

/// The leader of a partition, from one election of this broker to the next of another.
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
    /// Takes leadership up. `high_watermark` is the last one known: of this broker's following, or
    /// the checkpoint. The shell must put (`leader_epoch`, `log_end_offset`) into the log's epochs
    /// before it serves anything (KAFKA-7415).
    pub fn new(
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

    /// The metadata has something newer about the partition, which this broker still leads.
    /// Returns the start offset if the epoch is new: it belongs into the log's epochs.
    ///
    /// A registration that the controller has answered already, or an older one, is passed over: it
    /// says nothing about the proposal that may have been made since. (Kafka takes the answered one
    /// in once more and forgets the proposal, though the controller may be committing it.)
    pub fn on_registration(
        &mut self,
        registration: &Registration,
        statuses: &BTreeMap<BrokerId, BrokerStatus>,
        now_ms: i64,
    ) -> Option<Offset> {
        if registration.partition_epoch <= self.partition_epoch {
            return None;
        }
        self.partition_epoch = registration.partition_epoch;
        let before = self.isr.isr().clone();
        self.isr.commit(registration.isr.iter().copied().collect());
        self.set_followers(&registration.replicas, statuses, now_ms);
        for id in before.difference(self.isr.isr()) {
            if let Some(follower) = self.followers.get_mut(id) {
                follower.on_taken_out_of_isr();
            }
        }
        let new_epoch = registration.leader_epoch > self.leader_epoch;
        if new_epoch {
            self.start_epoch(registration.leader_epoch, now_ms);
        }
        self.advance_high_watermark(now_ms);
        new_epoch.then_some(self.epoch_start_offset)
    }

    /// A broker's registration has changed, or is gone.
    pub fn on_broker_status(&mut self, id: BrokerId, status: Option<BrokerStatus>) {
        if let Some(follower) = self.followers.get_mut(&id) {
            follower.status = status;
        }
    }

    /// The configuration has changed. Returns the high watermark if that moved it.
    pub fn on_config(&mut self, config: LeaderConfig, now_ms: i64) -> Option<Offset> {
        self.config = config;
        self.advance_high_watermark(now_ms)
    }

    /// Whether an acks=all batch may be appended at all.
    pub fn check_min_isr(&self) -> Result<(), NotEnoughReplicas> {
        let required = self.effective_min_isr();
        if self.isr.isr().len() < required {
            return Err(NotEnoughReplicas { isr: self.isr.isr().clone(), required });
        }
        Ok(())
    }

    /// The log now ends at `log_end_offset`. Returns the high watermark if that moved it.
    pub fn on_appended(&mut self, log_end_offset: Offset, now_ms: i64) -> Option<Offset> {
        assert!(log_end_offset >= self.ends.log_end_offset, "a leader never truncates its log");
        self.ends.log_end_offset = log_end_offset;
        self.advance_high_watermark(now_ms)
    }

    /// Everything below `flushed_offset` is on disk. Returns the high watermark if that moved it.
    pub fn on_flushed(&mut self, flushed_offset: Offset, now_ms: i64) -> Option<Offset> {
        self.ends.flushed_offset = self.ends.flushed_offset.max(flushed_offset);
        self.advance_high_watermark(now_ms)
    }

    /// Records a follower's fetch.
    ///
    /// A fetch at an offset proves that the follower holds every record below it. No other event
    /// carries that proof, so call this only for a fetch whose position has been found valid.
    pub fn on_follower_fetch(&mut self, fetch: FollowerFetch) -> Result<FetchProgress, ErrorCode> {
        check_leader_epoch(fetch.current_leader_epoch, self.leader_epoch)?;
        let log_end_offset = self.ends.log_end_offset;
        let Some(follower) = self.followers.get_mut(&fetch.follower) else {
            return Err(unknown_replica(&fetch));
        };
        if fetch.fetch_offset > log_end_offset {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let known_epoch = follower.status.map_or(-1, |status| status.broker_epoch);
        if fetch.broker_epoch != -1 && fetch.broker_epoch < known_epoch {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let log_start_moved = fetch.log_start_offset > follower.log_start_offset;
        follower.on_fetch(&fetch, log_end_offset);
        let proposal = self.propose_expansion(fetch.follower);
        let high_watermark = self.advance_high_watermark(fetch.now_ms);
        Ok(FetchProgress { high_watermark, proposal, log_start_moved })
    }

    /// Proposes to drop the followers that have not caught up for `replica.lag.time.max.ms`. To be
    /// called every half of that time.
    pub fn on_isr_check(&mut self, now_ms: i64) -> Option<IsrProposal> {
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

    /// The controller has answered a proposal, or has not (`Err`).
    pub fn on_proposal_answered(
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
        self.isr.commit(committed.isr);
        ProposalOutcome::Committed
    }

    /// Whether an acks=all produce that ended at `required_offset` (exclusive) may be answered.
    pub fn acks_state(&self, required_offset: Offset) -> AcksState {
        if self.high_watermark < required_offset {
            return AcksState::Waiting;
        }
        if self.isr.maximal_len() < self.effective_min_isr() {
            return AcksState::NotEnoughReplicas;
        }
        AcksState::Replicated
    }

    /// Whether a client may be told of the log's end: not before this epoch has committed
    /// something, or an offset could go backwards after an election (KIP-207).
    pub fn check_offsets_available(&self) -> Result<(), ErrorCode> {
        match self.epoch_start_offset > self.high_watermark {
            true => Err(ErrorCode::OffsetNotAvailable),
            false => Ok(()),
        }
    }

    /// The offset below which no live replica holds records: what DeleteRecords waits for.
    pub fn low_watermark(&self, log_start_offset: Offset) -> Offset {
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

    /// Whether a replica is missing from the ISR (metric `UnderReplicated`).
    pub fn is_under_replicated(&self) -> bool {
        self.isr.isr().len() < self.followers.len() + 1
    }

    /// Metric `UnderMinIsr`.
    pub fn is_under_min_isr(&self) -> bool {
        self.isr.isr().len() < self.effective_min_isr()
    }

    /// Metric `AtMinIsr`.
    pub fn is_at_min_isr(&self) -> bool {
        self.isr.isr().len() == self.effective_min_isr()
    }

    /// min.insync.replicas, but never more than there are replicas (KIP-966).
    fn effective_min_isr(&self) -> usize {
        self.config.min_insync_replicas.min(self.followers.len() + 1)
    }

    /// What of the own log may be committed.
    fn own_offset(&self) -> Offset {
        match self.config.flush_before_ack {
            true => self.ends.flushed_offset.min(self.ends.log_end_offset),
            false => self.ends.log_end_offset,
        }
    }

    fn start_epoch(&mut self, leader_epoch: LeaderEpoch, now_ms: i64) {
        // Somebody else may have led an epoch in between, whom the followers have cut their logs for.
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

    /// A follower joins the ISR when it holds all that is committed and has reached this epoch:
    /// before that its log may still diverge.
    fn propose_expansion(&mut self, id: BrokerId) -> Option<IsrProposal> {
        let follower = self.followers.get(&id)?;
        let in_sync =
            follower.log_end_offset >= Some(self.high_watermark.max(self.epoch_start_offset));
        let possible = self.isr.pending().is_none() && !self.isr.isr().contains(&id);
        if !possible || !in_sync || !follower.is_isr_eligible() {
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

    /// The smallest offset that the maximal ISR holds. A follower that has caught up and may join
    /// is waited for as well, or it would fall behind again each time it is about to.
    fn advance_high_watermark(&mut self, now_ms: i64) -> Option<Offset> {
        let mut reached = self.own_offset();
        if reached <= self.high_watermark || self.is_under_min_isr() {
            return None;
        }
        let lag_ms = self.config.replica_lag_time_max_ms;
        let log_end_offset = self.ends.log_end_offset;
        for (id, follower) in &self.followers {
            let counts = self.isr.is_in_maximal_isr(*id)
                || (follower.is_caught_up(log_end_offset, now_ms, lag_ms)
                    && follower.is_isr_eligible());
            if counts {
                reached = reached.min(follower.log_end_offset.unwrap_or(-1));
            }
        }
        if reached <= self.high_watermark {
            return None;
        }
        self.high_watermark = reached;
        Some(reached)
    }
}

fn unknown_replica(fetch: &FollowerFetch) -> ErrorCode {
    match fetch.current_leader_epoch {
        -1 => ErrorCode::NotLeaderOrFollower,
        _ => ErrorCode::UnknownLeaderEpoch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG_MS: i64 = 30_000;

    fn config() -> LeaderConfig {
        LeaderConfig {
            broker_id: 1,
            min_insync_replicas: 1,
            replica_lag_time_max_ms: LAG_MS,
            flush_before_ack: true,
        }
    }

    fn registration(replicas: &[BrokerId], isr: &[BrokerId]) -> Registration {
        Registration {
            leader_epoch: 5,
            partition_epoch: 7,
            replicas: replicas.to_vec(),
            isr: isr.to_vec(),
        }
    }

    fn ends(log_end_offset: Offset, flushed_offset: Offset) -> LogEnds {
        LogEnds { log_end_offset, flushed_offset }
    }

    fn statuses() -> BTreeMap<BrokerId, BrokerStatus> {
        let unfenced = |broker_epoch| BrokerStatus {
            broker_epoch,
            fenced: false,
            in_controlled_shutdown: false,
        };
        BTreeMap::from([(2, unfenced(20)), (3, unfenced(30)), (4, unfenced(40))])
    }

    fn leader_of(replicas: &[BrokerId], isr: &[BrokerId], end: Offset) -> LeaderState {
        let registration = registration(replicas, isr);
        LeaderState::new(config(), &registration, ends(end, end), 0, &statuses(), 0)
    }

    fn fetch(follower: BrokerId, fetch_offset: Offset) -> FollowerFetch {
        FollowerFetch {
            follower,
            broker_epoch: i64::from(follower) * 10,
            current_leader_epoch: 5,
            fetch_offset,
            log_start_offset: 0,
            now_ms: 1000,
        }
    }

    fn high_watermark(leader: &mut LeaderState, fetch: FollowerFetch) -> Option<Offset> {
        leader.on_follower_fetch(fetch).unwrap().high_watermark
    }

    #[test]
    fn a_single_replica_commits_what_it_has_flushed() {
        let mut leader = leader_of(&[1], &[1], 0);
        assert_eq!(leader.on_appended(3, 0), None);
        assert_eq!(leader.acks_state(3), AcksState::Waiting);
        assert_eq!(leader.on_flushed(2, 0), Some(2));
        assert_eq!(leader.on_flushed(3, 0), Some(3));
        assert_eq!(leader.acks_state(3), AcksState::Replicated);
    }

    #[test]
    fn without_flush_before_ack_a_single_replica_commits_what_it_has_appended() {
        let unflushed = LeaderConfig { flush_before_ack: false, ..config() };
        let registration = registration(&[1], &[1]);
        let mut leader = LeaderState::new(unflushed, &registration, ends(4, 0), 0, &statuses(), 0);
        assert_eq!(leader.high_watermark(), 4);
        assert_eq!(leader.on_appended(6, 0), Some(6));
        assert_eq!(leader.on_config(config(), 0), None);
        assert_eq!(leader.on_appended(9, 0), None);
        assert_eq!(leader.on_flushed(8, 0), Some(8));
        assert_eq!(leader.on_config(unflushed, 0), Some(9));
    }

    #[test]
    fn an_elected_single_replica_has_committed_its_log_at_once() {
        let leader = leader_of(&[1], &[1], 8);
        assert_eq!((leader.high_watermark(), leader.epoch_start_offset()), (8, 8));
        assert_eq!(leader.check_offsets_available(), Ok(()));
    }

    #[test]
    fn a_checkpointed_high_watermark_beyond_the_log_is_cut_to_what_is_on_disk() {
        let registration = registration(&[1], &[1]);
        let leader = LeaderState::new(config(), &registration, ends(9, 6), 20, &statuses(), 0);
        assert_eq!(leader.high_watermark(), 6);
    }

    #[test]
    fn high_watermark_waits_for_the_slowest_in_sync_follower() {
        let mut leader = leader_of(&[1, 2, 3], &[1, 2, 3], 10);
        assert_eq!(high_watermark(&mut leader, fetch(2, 10)), None);
        assert_eq!(high_watermark(&mut leader, fetch(3, 7)), Some(7));
        assert_eq!(leader.on_follower_fetch(fetch(3, 11)), Err(ErrorCode::OffsetOutOfRange));
        assert_eq!(high_watermark(&mut leader, fetch(3, 10)), Some(10));
    }

    #[test]
    fn the_leaders_own_unflushed_records_are_not_committed_by_its_followers() {
        let mut leader = leader_of(&[1, 2], &[1, 2], 0);
        leader.on_appended(5, 0);
        assert_eq!(high_watermark(&mut leader, fetch(2, 5)), None);
        assert_eq!(leader.on_flushed(4, 0), Some(4));
    }

    #[test]
    fn a_follower_outside_the_isr_that_lags_is_not_waited_for() {
        let mut leader = leader_of(&[1, 2, 3], &[1, 2], 10);
        let late = FollowerFetch { now_ms: LAG_MS + 1, ..fetch(2, 10) };
        assert_eq!(high_watermark(&mut leader, late), Some(10));
    }

    #[test]
    fn a_follower_that_the_controller_has_taken_out_is_not_waited_for_until_it_fetches_again() {
        let mut leader = leader_of(&[1, 2, 3], &[1, 2, 3], 10);
        leader.on_follower_fetch(fetch(2, 10)).unwrap();
        assert_eq!(high_watermark(&mut leader, fetch(3, 10)), Some(10));
        let without = Registration { partition_epoch: 9, ..registration(&[1, 2, 3], &[1, 3]) };
        leader.on_registration(&without, &statuses(), 1000);
        let now_ms = LAG_MS + 500;
        leader.on_appended(12, now_ms);
        leader.on_flushed(12, now_ms);
        let other = FollowerFetch { now_ms, ..fetch(3, 12) };
        assert_eq!(high_watermark(&mut leader, other), Some(12));
        leader.on_follower_fetch(fetch(2, 12)).unwrap();
        assert!(leader.isr().pending().is_some(), "it may join again");
    }

    #[test]
    fn a_caught_up_follower_that_may_join_is_waited_for() {
        let mut leader = leader_of(&[1, 2, 3], &[1, 2], 10);
        leader.on_follower_fetch(fetch(3, 10)).unwrap();
        let rejected = leader.isr().pending().unwrap().clone();
        leader.on_proposal_answered(&rejected, Err(ErrorCode::OperationNotAttempted), 1000);
        leader.on_appended(12, 1000);
        leader.on_flushed(12, 1000);
        assert_eq!(high_watermark(&mut leader, fetch(2, 12)), Some(10));
        let fenced = BrokerStatus { fenced: true, ..statuses()[&3] };
        leader.on_broker_status(3, Some(fenced));
        assert_eq!(high_watermark(&mut leader, fetch(2, 12)), Some(12));
    }

    #[test]
    fn the_high_watermark_stands_still_below_min_insync_replicas() {
        let strict = LeaderConfig { min_insync_replicas: 2, ..config() };
        let alone = registration(&[1, 2, 3], &[1]);
        let mut leader = LeaderState::new(strict, &alone, ends(5, 5), 0, &statuses(), 0);
        assert_eq!(leader.on_flushed(5, LAG_MS + 1), None);
        let error = leader.check_min_isr().unwrap_err();
        assert_eq!((error.code(), error.required), (ErrorCode::NotEnoughReplicas, 2));
        assert!(leader.is_under_min_isr() && leader.is_under_replicated());
    }

    #[test]
    fn min_insync_replicas_never_asks_for_more_than_there_are_replicas() {
        let strict = LeaderConfig { min_insync_replicas: 3, ..config() };
        let registration = registration(&[1], &[1]);
        let leader = LeaderState::new(strict, &registration, ends(5, 5), 0, &statuses(), 0);
        assert_eq!(leader.check_min_isr(), Ok(()));
        assert_eq!(leader.acks_state(5), AcksState::Replicated);
        assert!(leader.is_at_min_isr());
    }

    #[test]
    fn an_append_that_outlives_its_isr_is_told_so() {
        let strict = LeaderConfig { min_insync_replicas: 2, ..config() };
        let both = registration(&[1, 2], &[1, 2]);
        let mut leader = LeaderState::new(strict, &both, ends(5, 5), 0, &statuses(), 0);
        assert_eq!(high_watermark(&mut leader, fetch(2, 5)), Some(5));
        let alone = Registration { partition_epoch: 8, ..registration(&[1, 2], &[1]) };
        leader.on_registration(&alone, &statuses(), 0);
        assert_eq!(leader.acks_state(5), AcksState::NotEnoughReplicas);
        assert_eq!(leader.acks_state(6), AcksState::Waiting);
    }

    #[test]
    fn a_pending_expansion_holds_the_high_watermark_back() {
        // R7: the controller may have committed the expansion already.
        let mut leader = leader_of(&[1, 2], &[1], 10);
        let proposal = leader.on_follower_fetch(fetch(2, 10)).unwrap().proposal.unwrap();
        assert_eq!(proposal.new_isr, [(1, -1), (2, 20)]);
        assert_eq!((proposal.leader_epoch, proposal.partition_epoch), (5, 7));
        leader.on_appended(12, LAG_MS * 2);
        assert_eq!(leader.on_flushed(12, LAG_MS * 2), None);
        assert_eq!(leader.high_watermark(), 10);
        let committed = CommittedIsr { leader_epoch: 5, partition_epoch: 8, isr: [1, 2].into() };
        let (outcome, moved) = leader.on_proposal_answered(&proposal, Ok(committed), LAG_MS * 2);
        assert_eq!((outcome, moved), (ProposalOutcome::Committed, None));
        assert_eq!(high_watermark(&mut leader, fetch(2, 12)), Some(12));
    }

    #[test]
    fn a_pending_shrink_takes_effect_only_when_committed() {
        let mut leader = leader_of(&[1, 2], &[1, 2], 10);
        assert_eq!(leader.on_isr_check(LAG_MS), None);
        let proposal = leader.on_isr_check(LAG_MS + 1).unwrap();
        assert_eq!(proposal.change, IsrChange::Shrink([2].into()));
        assert_eq!(leader.on_isr_check(LAG_MS + 1), None);
        assert_eq!(leader.high_watermark(), 0);
        let committed = CommittedIsr { leader_epoch: 5, partition_epoch: 8, isr: [1].into() };
        let (outcome, moved) = leader.on_proposal_answered(&proposal, Ok(committed), LAG_MS + 1);
        assert_eq!((outcome, moved), (ProposalOutcome::Committed, Some(10)));
        assert_eq!(leader.partition_epoch(), 8);
    }

    #[test]
    fn a_follower_joins_only_from_the_start_of_the_epoch_on() {
        let mut leader = leader_of(&[1, 2], &[1], 10);
        let below = leader.on_follower_fetch(fetch(2, 9)).unwrap();
        assert_eq!(below.proposal, None);
        let reached = leader.on_follower_fetch(fetch(2, 10)).unwrap();
        assert!(reached.proposal.is_some());
    }

    #[test]
    fn a_follower_that_is_fenced_leaving_or_another_incarnation_is_not_proposed() {
        // R5 and R6.
        let unfit = [
            BrokerStatus { fenced: true, ..statuses()[&2] },
            BrokerStatus { in_controlled_shutdown: true, ..statuses()[&2] },
            BrokerStatus { broker_epoch: 19, ..statuses()[&2] },
        ];
        for status in unfit.map(Some).into_iter().chain([None]) {
            let mut leader = leader_of(&[1, 2], &[1], 10);
            leader.on_broker_status(2, status);
            assert_eq!(
                leader.on_follower_fetch(fetch(2, 10)).unwrap().proposal,
                None,
                "{status:?}"
            );
        }
        let mut leader = leader_of(&[1, 2], &[1], 10);
        let nameless = FollowerFetch { broker_epoch: -1, ..fetch(2, 10) };
        assert!(leader.on_follower_fetch(nameless).unwrap().proposal.is_some());
    }

    #[test]
    fn fetches_of_the_wrong_epoch_replica_or_incarnation_are_refused_and_not_counted() {
        let mut leader = leader_of(&[1, 2], &[1, 2], 10);
        let cases = [
            (
                FollowerFetch { current_leader_epoch: 4, ..fetch(2, 10) },
                ErrorCode::FencedLeaderEpoch,
            ),
            (
                FollowerFetch { current_leader_epoch: 6, ..fetch(2, 10) },
                ErrorCode::UnknownLeaderEpoch,
            ),
            (fetch(9, 10), ErrorCode::UnknownLeaderEpoch),
            (
                FollowerFetch { current_leader_epoch: -1, ..fetch(9, 10) },
                ErrorCode::NotLeaderOrFollower,
            ),
            (FollowerFetch { broker_epoch: 19, ..fetch(2, 10) }, ErrorCode::NotLeaderOrFollower),
        ];
        for (fetch, expected) in cases {
            assert_eq!(leader.on_follower_fetch(fetch), Err(expected), "{fetch:?}");
        }
        assert_eq!(leader.high_watermark(), 0);
    }

    #[test]
    fn a_new_epoch_of_the_same_leader_starts_at_the_log_end_and_keeps_the_high_watermark() {
        let mut leader = leader_of(&[1, 2], &[1, 2], 10);
        high_watermark(&mut leader, fetch(2, 8));
        let newer =
            Registration { leader_epoch: 6, partition_epoch: 8, ..registration(&[1, 2], &[1, 2]) };
        assert_eq!(leader.on_registration(&newer, &statuses(), 0), Some(10));
        assert_eq!(leader.high_watermark(), 8);
        assert_eq!(leader.check_offsets_available(), Err(ErrorCode::OffsetNotAvailable));
        let next = FollowerFetch { current_leader_epoch: 6, ..fetch(2, 10) };
        assert_eq!(high_watermark(&mut leader, next), Some(10));
        assert_eq!(leader.check_offsets_available(), Ok(()));
    }

    #[test]
    fn after_a_missed_epoch_a_follower_counts_only_from_its_next_fetch_on() {
        let mut leader = leader_of(&[1, 2], &[1, 2], 10);
        high_watermark(&mut leader, fetch(2, 8));
        leader.on_appended(12, 0);
        leader.on_flushed(12, 0);
        assert_eq!(high_watermark(&mut leader, fetch(2, 10)), Some(10));
        // Of epoch 6 this broker never heard; in it the follower may have cut its log back to 8.
        let newer =
            Registration { leader_epoch: 7, partition_epoch: 9, ..registration(&[1, 2], &[1, 2]) };
        leader.on_registration(&newer, &statuses(), 0);
        leader.on_appended(13, 0);
        assert_eq!(leader.on_flushed(13, 0), None);
        let (_, follower) = leader.followers().next().unwrap();
        assert_eq!(follower.log_end_offset, None);
        let next = FollowerFetch { current_leader_epoch: 7, ..fetch(2, 12) };
        assert_eq!(high_watermark(&mut leader, next), Some(12));
    }

    #[test]
    fn an_older_registration_than_the_controllers_answer_is_passed_over() {
        // R4: the answer to AlterPartition overtakes the metadata.
        let mut leader = leader_of(&[1, 2], &[1], 10);
        let proposal = leader.on_follower_fetch(fetch(2, 10)).unwrap().proposal.unwrap();
        let committed = CommittedIsr { leader_epoch: 5, partition_epoch: 8, isr: [1, 2].into() };
        leader.on_proposal_answered(&proposal, Ok(committed), 0);
        assert_eq!(leader.on_registration(&registration(&[1, 2], &[1]), &statuses(), 0), None);
        assert_eq!(leader.isr().isr().len(), 2);
    }

    #[test]
    fn metadata_that_repeat_an_answer_do_not_forget_the_next_proposal() {
        // Found by the cluster simulation: the high watermark passed a replica that was joining.
        let mut leader = leader_of(&[1, 2, 3], &[1], 10);
        let first = leader.on_follower_fetch(fetch(2, 10)).unwrap().proposal.unwrap();
        let committed = CommittedIsr { leader_epoch: 5, partition_epoch: 8, isr: [1, 2].into() };
        leader.on_proposal_answered(&first, Ok(committed), 0);
        let second = leader.on_follower_fetch(fetch(3, 10)).unwrap().proposal.unwrap();
        let repeated = Registration { partition_epoch: 8, ..registration(&[1, 2, 3], &[1, 2]) };
        assert_eq!(leader.on_registration(&repeated, &statuses(), 0), None);
        assert_eq!(leader.isr().pending(), Some(&second));
        assert!(leader.isr().is_in_maximal_isr(3));
    }

    #[test]
    fn an_answer_of_another_epoch_does_not_change_the_isr() {
        let mut leader = leader_of(&[1, 2], &[1], 10);
        let proposal = leader.on_follower_fetch(fetch(2, 10)).unwrap().proposal.unwrap();
        let stale = CommittedIsr { leader_epoch: 4, partition_epoch: 8, isr: [1, 2].into() };
        let (outcome, _) = leader.on_proposal_answered(&proposal, Ok(stale), 0);
        assert_eq!(outcome, ProposalOutcome::AwaitMetadata);
        assert_eq!((leader.isr().isr().len(), leader.isr().maximal_len()), (1, 2));
    }

    #[test]
    fn a_removed_replica_is_forgotten_and_the_low_watermark_is_that_of_live_replicas() {
        let mut leader = leader_of(&[1, 2, 3], &[1, 2, 3], 10);
        leader.on_follower_fetch(FollowerFetch { log_start_offset: 4, ..fetch(2, 10) }).unwrap();
        leader.on_follower_fetch(FollowerFetch { log_start_offset: 2, ..fetch(3, 10) }).unwrap();
        assert_eq!(leader.low_watermark(6), 2);
        let fewer = Registration { partition_epoch: 8, ..registration(&[1, 2], &[1, 2]) };
        leader.on_registration(&fewer, &statuses(), 0);
        assert_eq!(leader.low_watermark(6), 4);
        leader.on_broker_status(2, None);
        assert_eq!(leader.low_watermark(6), 6);
    }
}
