//! The quorum leader: the progress of the replicas, and the high watermark that follows from it. (Kafka:
//! `LeaderState`.)
//!
//! Invariants: the high watermark of an epoch is unknown until a record of that epoch is committed; then it never
//! falls. Only records on disk count: a follower's fetch offset (it syncs before its next fetch) and this node's own
//! flushed offset, not its log end.

use super::voter_change::PendingChange;
use super::voters::{ReplicaKey, VoterSet};
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use std::collections::{BTreeMap, BTreeSet};

/// An observer that has not fetched for this long is removed (KIP-595).
pub const OBSERVER_SESSION_TIMEOUT_MS: i64 = 300_000;
/// The maximum number of observers. Beyond it the one with the oldest fetch is removed: observers choose their ids, so
/// the number needs a bound.
pub const MAX_OBSERVERS: usize = 4_096;

/// The progress of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub key: ReplicaKey,
    /// The end of its log on disk; None before its first fetch in this epoch.
    pub end_offset: Option<Offset>,
    pub last_fetch_ms: Option<i64>,
    /// The last time at which it had all records of the leader.
    pub last_caught_up_ms: Option<i64>,
    /// The leader's log end when the replica last fetched.
    leader_end_offset: Option<Offset>,
}

impl Progress {
    const fn new(key: ReplicaKey) -> Self {
        Self {
            key,
            end_offset: None,
            last_fetch_ms: None,
            last_caught_up_ms: None,
            leader_end_offset: None,
        }
    }

    /// The leader's own progress: always caught up.
    pub(super) fn of_leader(&self, now_ms: i64, end_offset: Offset) -> Self {
        Self {
            end_offset: Some(end_offset),
            last_fetch_ms: Some(now_ms),
            last_caught_up_ms: Some(now_ms),
            ..*self
        }
    }

    /// A replica that fetches at the log end which the leader had at its previous fetch had caught up at that time,
    /// although the leader has appended since.
    fn on_fetch(&mut self, now_ms: i64, fetch_offset: Offset, leader_end_offset: Offset) {
        if fetch_offset >= leader_end_offset {
            self.last_caught_up_ms = self.last_caught_up_ms.max(Some(now_ms));
        } else if self.leader_end_offset.is_some_and(|end| end > 0 && fetch_offset >= end) {
            self.last_caught_up_ms = self.last_caught_up_ms.max(self.last_fetch_ms);
        }
        self.leader_end_offset = Some(leader_end_offset);
        self.last_fetch_ms = self.last_fetch_ms.max(Some(now_ms));
        self.end_offset = Some(fetch_offset);
    }
}

/// The leader role in one epoch.
#[derive(Debug, Clone)]
pub(super) struct LeaderState {
    pub(super) epoch: LeaderEpoch,
    pub(super) epoch_start_offset: Offset,
    pub(super) high_watermark: Option<Offset>,
    /// Whether `BecameLeader` was returned.
    pub(super) announced: bool,
    pub(super) begin_quorum_epoch_deadline_ms: i64,
    pub(super) check_quorum_deadline_ms: i64,
    /// The pending change of the voter set.
    pub(super) pending_change: Option<PendingChange>,
    /// Whether the removal of this node from the voters is committed: then it must resign.
    pub(super) removed: bool,
    /// Before kraft.version 1: the voters, with the directory ids and supported versions that they have sent so far.
    pub(super) volatile_voters: Option<VoterSet>,
    local: ReplicaKey,
    voters: BTreeMap<BrokerId, Progress>,
    observers: BTreeMap<ReplicaKey, Progress>,
    fetched_voters: BTreeSet<BrokerId>,
}

impl LeaderState {
    pub(super) fn new(
        local: ReplicaKey,
        epoch: LeaderEpoch,
        epoch_start_offset: Offset,
        voters: &VoterSet,
        now_ms: i64,
    ) -> Self {
        let mut leader = Self {
            epoch,
            epoch_start_offset,
            high_watermark: None,
            announced: false,
            begin_quorum_epoch_deadline_ms: now_ms,
            check_quorum_deadline_ms: i64::MAX,
            pending_change: None,
            removed: false,
            volatile_voters: None,
            local,
            voters: BTreeMap::new(),
            observers: BTreeMap::new(),
            fetched_voters: BTreeSet::new(),
        };
        leader.set_voters(voters);
        leader
    }

    /// Sets the voter set in force. The progress of a replica is kept when it becomes a voter or an observer.
    pub(super) fn set_voters(&mut self, voters: &VoterSet) {
        let mut former = std::mem::take(&mut self.voters);
        for voter in voters.iter() {
            let known = former.remove(&voter.key.id);
            let same = known.filter(|progress| progress.key.matches(&voter.key));
            let observed = self.observers.remove(&voter.key);
            let mut progress = same.or(observed).unwrap_or(Progress::new(voter.key));
            progress.key = voter.key;
            self.voters.insert(voter.key.id, progress);
        }
        self.observers.extend(former.into_values().map(|progress| (progress.key, progress)));
        self.fetched_voters.retain(|id| self.voters.contains_key(id));
    }

    /// Records this node's flushed offset. Returns the high watermark if it has moved.
    pub(super) fn on_flushed(&mut self, flushed_offset: Offset) -> Option<Offset> {
        let own = self.voters.get_mut(&self.local.id)?;
        own.end_offset = Some(flushed_offset);
        self.advance_high_watermark()
    }

    /// Records a fetch at a valid position. Returns the high watermark if it has moved.
    ///
    /// A fetch offset below an earlier one replaces it (KAFKA-12181): the replica has lost records, and they must not
    /// count any more.
    pub(super) fn on_fetch(
        &mut self,
        now_ms: i64,
        replica: ReplicaKey,
        fetch_offset: Offset,
        leader_end_offset: Offset,
    ) -> Option<Offset> {
        let progress = self.progress_mut(replica);
        progress.on_fetch(now_ms, fetch_offset, leader_end_offset);
        self.voter(&replica)?;
        self.advance_high_watermark()
    }

    /// Records a Fetch or FetchSnapshot of a voter. Returns whether a majority has sent one since the last time, so
    /// that the check-quorum timer restarts.
    pub(super) fn on_contact(&mut self, replica: &ReplicaKey) -> bool {
        // Observers do not count, even if they were voters before.
        if self.voter(replica).is_none() {
            return false;
        }
        self.fetched_voters.insert(replica.id);
        let own_vote = usize::from(self.voters.contains_key(&self.local.id));
        if self.fetched_voters.len() < self.majority() - own_vote {
            return false;
        }
        self.fetched_voters.clear();
        true
    }

    pub(super) fn voter(&self, key: &ReplicaKey) -> Option<&Progress> {
        self.voters.get(&key.id).filter(|progress| progress.key.matches(key))
    }

    pub(super) fn voters(&self) -> impl Iterator<Item = &Progress> {
        self.voters.values()
    }

    pub(super) fn other_voters(&self) -> impl Iterator<Item = &Progress> {
        self.voters.values().filter(|progress| progress.key.id != self.local.id)
    }

    pub(super) fn observer(&self, key: &ReplicaKey) -> Option<&Progress> {
        self.observers.get(key)
    }

    pub(super) fn observers(&self) -> impl Iterator<Item = &Progress> {
        self.observers.values()
    }

    pub(super) fn is_only_voter(&self) -> bool {
        self.voters.len() == 1 && self.voters.contains_key(&self.local.id)
    }

    /// The other voters as successors, those with the longest logs first.
    pub(super) fn preferred_successors(&self) -> Vec<ReplicaKey> {
        let mut others: Vec<_> = self.other_voters().collect();
        others.sort_by_key(|progress| (std::cmp::Reverse(progress.end_offset), progress.key));
        others.into_iter().map(|progress| progress.key).collect()
    }

    pub(super) fn forget_silent_observers(&mut self, now_ms: i64) {
        let local = self.local;
        self.observers.retain(|key, progress| {
            let silent_ms = progress.last_fetch_ms.map(|last| now_ms.saturating_sub(last));
            *key == local
                || silent_ms.is_some_and(|silent_ms| silent_ms < OBSERVER_SESSION_TIMEOUT_MS)
        });
    }

    pub(super) fn next_deadline_ms(&self) -> i64 {
        let change_ms = self.pending_change.as_ref().map_or(i64::MAX, |change| change.deadline_ms);
        if self.is_only_voter() {
            return change_ms;
        }
        self.begin_quorum_epoch_deadline_ms.min(self.check_quorum_deadline_ms).min(change_ms)
    }

    fn progress_mut(&mut self, replica: ReplicaKey) -> &mut Progress {
        if self.voter(&replica).is_some() {
            return self.voters.get_mut(&replica.id).expect("the voter was just looked up");
        }
        if !self.observers.contains_key(&replica) && self.observers.len() >= MAX_OBSERVERS {
            self.forget_most_silent_observer();
        }
        self.observers.entry(replica).or_insert(Progress::new(replica))
    }

    fn forget_most_silent_observer(&mut self) {
        let most_silent = self.observers.values().min_by_key(|progress| progress.last_fetch_ms);
        if let Some(key) = most_silent.map(|progress| progress.key) {
            self.observers.remove(&key);
        }
    }

    fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Advances the high watermark to the offset that a majority of the voters has on disk. A record of an earlier
    /// epoch is committed only together with one of this epoch (Raft, section 5.4.2).
    fn advance_high_watermark(&mut self) -> Option<Offset> {
        let mut ends: Vec<Option<Offset>> =
            self.voters.values().map(|progress| progress.end_offset).collect();
        ends.sort_unstable_by(|left, right| right.cmp(left));
        let reached = ends[ends.len() / 2]?;
        if reached <= self.epoch_start_offset || Some(reached) <= self.high_watermark {
            return None;
        }
        self.high_watermark = Some(reached);
        self.high_watermark
    }
}

#[cfg(test)]
mod tests {
    use super::super::voters::Address;
    use super::*;
    use klamm_protocol::Uuid;

    fn key(id: BrokerId) -> ReplicaKey {
        ReplicaKey::new(id, Uuid::from_bytes([u8::try_from(id).unwrap(); 16]))
    }

    fn voters(ids: &[BrokerId]) -> VoterSet {
        VoterSet::from_static(
            &"CONTROLLER".into(),
            ids.iter().map(|&id| (id, Address { host: "localhost".into(), port: 9093 })),
        )
    }

    fn leader_with_voters(ids: &[BrokerId], epoch_start_offset: Offset) -> LeaderState {
        LeaderState::new(key(1), 5, epoch_start_offset, &voters(ids), 0)
    }

    #[test]
    fn the_only_voter_commits_what_it_has_flushed() {
        let mut leader = leader_with_voters(&[1], 10);
        assert_eq!(leader.on_flushed(10), None);
        assert_eq!(leader.on_flushed(11), Some(11));
        assert_eq!(leader.on_flushed(11), None);
    }

    #[test]
    fn a_majority_on_disk_commits_even_what_the_leader_itself_has_not_flushed() {
        let mut leader = leader_with_voters(&[1, 2, 3], 10);
        assert_eq!(leader.on_fetch(0, key(2), 14, 14), None);
        assert_eq!(leader.on_fetch(0, key(3), 12, 14), Some(12));
        assert_eq!(leader.on_flushed(14), Some(14));
    }

    #[test]
    fn records_of_earlier_epochs_commit_only_with_one_of_this_epoch() {
        let mut leader = leader_with_voters(&[1, 2, 3], 10);
        leader.on_flushed(11);
        assert_eq!(leader.on_fetch(0, key(2), 10, 11), None);
        assert_eq!(leader.on_fetch(0, key(2), 11, 11), Some(11));
    }

    #[test]
    fn the_high_watermark_never_falls() {
        let mut leader = leader_with_voters(&[1, 2, 3], 0);
        leader.on_flushed(9);
        assert_eq!(leader.on_fetch(0, key(2), 9, 9), Some(9));
        assert_eq!(leader.on_fetch(0, key(2), 4, 9), None);
        assert_eq!(leader.high_watermark, Some(9));
    }

    #[test]
    fn observers_and_strangers_with_a_voters_id_commit_nothing() {
        let known = VoterSet::new(voters(&[1, 2, 3]).iter().cloned().map(|mut voter| {
            voter.key = key(voter.key.id);
            voter
        }));
        let mut leader = LeaderState::new(key(1), 5, 0, &known, 0);
        leader.on_flushed(9);
        let stranger = ReplicaKey::new(2, Uuid::from_bytes([77; 16]));
        assert_eq!(leader.on_fetch(0, stranger, 9, 9), None);
        assert_eq!(leader.on_fetch(0, key(8), 9, 9), None);
        assert_eq!(leader.observers().count(), 2);
        assert_eq!(leader.on_fetch(0, key(2), 9, 9), Some(9));
    }

    #[test]
    fn contact_with_a_majority_restarts_check_quorum() {
        let mut leader = leader_with_voters(&[1, 2, 3, 4, 5], 0);
        assert!(!leader.on_contact(&key(2)));
        assert!(!leader.on_contact(&key(2)));
        assert!(!leader.on_contact(&key(9)));
        assert!(leader.on_contact(&key(3)));
        assert!(!leader.on_contact(&key(3)));
    }

    #[test]
    fn an_observer_does_not_restart_check_quorum_after_voters_were_removed() {
        let mut leader = leader_with_voters(&[1, 2, 3, 4], 0);
        assert!(!leader.on_contact(&key(2)));
        leader.set_voters(&voters(&[1, 2, 3]));
        assert!(!leader.on_contact(&key(4)));
        assert!(leader.on_contact(&key(3)));
    }

    #[test]
    fn a_replica_has_caught_up_at_its_previous_fetch_when_it_reaches_the_end_of_then() {
        let mut leader = leader_with_voters(&[1, 2, 3], 0);
        leader.on_fetch(100, key(2), 5, 8);
        assert_eq!(leader.voter(&key(2)).unwrap().last_caught_up_ms, None);
        leader.on_fetch(200, key(2), 8, 12);
        assert_eq!(leader.voter(&key(2)).unwrap().last_caught_up_ms, Some(100));
        leader.on_fetch(300, key(2), 12, 12);
        assert_eq!(leader.voter(&key(2)).unwrap().last_caught_up_ms, Some(300));
    }

    #[test]
    fn successors_are_ordered_by_how_much_they_hold() {
        let mut leader = leader_with_voters(&[1, 2, 3, 4], 0);
        leader.on_fetch(0, key(3), 9, 9);
        leader.on_fetch(0, key(2), 7, 9);
        let ids: Vec<_> = leader.preferred_successors().iter().map(|key| key.id).collect();
        assert_eq!(ids, [3, 2, 4]);
    }

    #[test]
    fn the_number_of_observers_is_bounded_and_silent_ones_are_forgotten() {
        let mut leader = leader_with_voters(&[1], 0);
        for id in 0..=MAX_OBSERVERS {
            let id = BrokerId::try_from(id).unwrap() + 100;
            leader.on_fetch(i64::from(id), ReplicaKey { id, directory_id: None }, 0, 0);
        }
        assert_eq!(leader.observers().count(), MAX_OBSERVERS);
        assert!(leader.observers().all(|progress| progress.key.id != 100));
        leader.forget_silent_observers(100_000_000);
        assert_eq!(leader.observers().count(), 0);
    }

    #[test]
    fn progress_survives_becoming_a_voter() {
        let mut leader = leader_with_voters(&[1], 0);
        leader.on_fetch(5, ReplicaKey { id: 2, directory_id: None }, 3, 9);
        leader.set_voters(&voters(&[1, 2]));
        assert_eq!(leader.voter(&key(2)).unwrap().end_offset, Some(3));
        assert_eq!(leader.observers().count(), 0);
    }
}
