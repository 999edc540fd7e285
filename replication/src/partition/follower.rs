//! Decides what a follower does with the answers to its fetches (Kafka's `AbstractFetcherThread` and
//! `ReplicaFetcherThread`).
//!
//! Invariants: the log is truncated by epochs, never to a high watermark (KIP-101); the fetch offset acknowledges the
//! records before it, so with flush.before.ack it is the flushed offset; the high watermark never exceeds the
//! follower's log end.

use crate::{EpochHistory, OffsetAndEpoch, divergence};
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};

/// A follower in one leader epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowerState {
    /// None while the partition has no leader.
    pub leader_id: Option<BrokerId>,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
    high_watermark: Offset,
    /// The leader has refused this epoch: no fetch before newer metadata comes.
    awaits_metadata: bool,
    /// The number of the latest fetch. Only its answer counts, once: a late divergence would truncate records that have
    /// been fetched, and committed, since.
    latest_fetch: u64,
    answered: bool,
}

/// The fields of the next fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextFetch {
    /// Not on the wire: goes back into [`FetchedPartition::number`].
    pub number: u64,
    pub current_leader_epoch: LeaderEpoch,
    pub fetch_offset: Offset,
    /// None for an empty log: the leader does not compare epochs.
    pub last_fetched_epoch: Option<LeaderEpoch>,
}

/// The answer for this partition, without its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchedPartition {
    pub error: ErrorCode,
    /// The number of the fetch that this answers.
    pub number: u64,
    /// The leader epoch of the fetch.
    pub current_leader_epoch: LeaderEpoch,
    /// The offset of the fetch.
    pub fetch_offset: Offset,
    pub diverging: Option<OffsetAndEpoch>,
    pub high_watermark: Offset,
    pub log_start_offset: Offset,
}

/// The action that an answer requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Append the records byte for byte, flush them if the topic requires it, then raise the log start to
    /// `log_start_offset`, call `on_appended`, and fetch again.
    Append { log_start_offset: Offset },
    /// Truncate the log to this end and fetch again.
    TruncateTo(Offset),
    /// The fetch offset is not in the leader's log: request the leader's log start and end (ListOffsets) and call
    /// `on_leader_range`.
    FindLeaderRange,
    /// Delete all records and start at the leader's log start.
    TruncateFullyAndStartAt(Offset),
    /// Leader and metadata disagree: do not fetch before the metadata has changed.
    AwaitMetadata,
    /// Fetch again after a pause.
    BackOff,
    /// The answer is not to the latest fetch, or is of an earlier epoch.
    Ignore,
}

impl FollowerState {
    /// Begins to follow. `high_watermark` is the last known one, or the checkpoint.
    pub(super) fn new(
        leader_id: Option<BrokerId>,
        leader_epoch: LeaderEpoch,
        partition_epoch: i32,
        high_watermark: Offset,
    ) -> Self {
        Self {
            leader_id,
            leader_epoch,
            partition_epoch,
            high_watermark,
            awaits_metadata: false,
            latest_fetch: 0,
            answered: true,
        }
    }

    /// The fetch to send; None before newer metadata comes. The answer to an earlier fetch is ignored.
    pub(super) fn next_fetch(
        &mut self,
        fetch_offset: Offset,
        epochs: &EpochHistory,
    ) -> Option<NextFetch> {
        if self.awaits_metadata {
            return None;
        }
        self.latest_fetch += 1;
        self.answered = false;
        Some(NextFetch {
            number: self.latest_fetch,
            current_leader_epoch: self.leader_epoch,
            fetch_offset,
            last_fetched_epoch: epochs.latest_epoch(),
        })
    }

    /// The answer to the fetch under way does not count any more.
    pub(super) fn forget_fetch(&mut self) {
        self.answered = true;
        self.awaits_metadata = false;
    }

    /// Decides the action for an answer. `epochs` and `log_end_offset` are of the follower's log; after a truncation
    /// call `on_cut`.
    pub(super) fn on_fetched(
        &mut self,
        answer: &FetchedPartition,
        epochs: &EpochHistory,
        log_end_offset: Offset,
    ) -> Follow {
        let expected = !self.answered
            && answer.number == self.latest_fetch
            && answer.current_leader_epoch == self.leader_epoch
            && answer.fetch_offset == log_end_offset;
        if !expected {
            return Follow::Ignore;
        }
        self.answered = true;
        match (answer.error, answer.diverging) {
            (ErrorCode::None, Some(diverging)) => {
                Follow::TruncateTo(divergence::truncation_offset(epochs, log_end_offset, diverging))
            }
            (ErrorCode::None, None) => Follow::Append { log_start_offset: answer.log_start_offset },
            (ErrorCode::OffsetOutOfRange, _) => Follow::FindLeaderRange,
            (ErrorCode::FencedLeaderEpoch, _) => {
                self.awaits_metadata = true;
                Follow::AwaitMetadata
            }
            // UNKNOWN_LEADER_EPOCH and NOT_LEADER_OR_FOLLOWER are normal for a short time while the leader's metadata
            // is older than the follower's.
            _ => Follow::BackOff,
        }
    }

    /// The leader's log covers `leader_start ..= leader_end`, and the fetch offset was outside.
    pub(super) fn on_leader_range(
        &mut self,
        leader_start: Offset,
        leader_end: Offset,
        log_end_offset: Offset,
    ) -> Follow {
        if leader_end < log_end_offset {
            // Only an unclean election makes a replica with a shorter log the leader: its log counts now.
            Follow::TruncateTo(leader_end)
        } else if log_end_offset < leader_start {
            Follow::TruncateFullyAndStartAt(leader_start)
        } else {
            Follow::BackOff
        }
    }

    /// The log has been truncated to this range. Removed records were not committed, or will be fetched again.
    pub(super) fn on_cut(&mut self, log_start_offset: Offset, log_end_offset: Offset) {
        assert!(log_start_offset <= log_end_offset, "a log does not end before it starts");
        self.high_watermark = self.high_watermark.clamp(log_start_offset, log_end_offset);
    }

    /// The answer's records have been appended. Returns the high watermark if it has moved.
    pub(super) fn on_appended(
        &mut self,
        leader_high_watermark: Offset,
        log_end_offset: Offset,
    ) -> Option<Offset> {
        let reached = leader_high_watermark.min(log_end_offset);
        if reached <= self.high_watermark {
            return None;
        }
        self.high_watermark = reached;
        Some(reached)
    }

    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EpochStart;

    /// A follower that has sent its first fetch.
    fn follower() -> FollowerState {
        let mut follower = FollowerState::new(Some(1), 5, 9, 3);
        assert!(follower.next_fetch(10, &epochs()).is_some());
        follower
    }

    fn epochs() -> EpochHistory {
        EpochHistory::from_entries([
            EpochStart { epoch: 2, start_offset: 0 },
            EpochStart { epoch: 4, start_offset: 6 },
        ])
    }

    fn answer(error: ErrorCode) -> FetchedPartition {
        FetchedPartition {
            error,
            number: 1,
            current_leader_epoch: 5,
            fetch_offset: 10,
            diverging: None,
            high_watermark: 8,
            log_start_offset: 1,
        }
    }

    #[test]
    fn a_fetch_names_the_log_end_and_the_epoch_of_the_last_record() {
        let fetch = follower().next_fetch(10, &epochs()).unwrap();
        assert_eq!((fetch.fetch_offset, fetch.last_fetched_epoch), (10, Some(4)));
        let fetch = follower().next_fetch(0, &EpochHistory::default()).unwrap();
        assert_eq!((fetch.current_leader_epoch, fetch.last_fetched_epoch), (5, None));
    }

    #[test]
    fn the_high_watermark_is_the_leaders_but_never_beyond_the_own_log() {
        let mut follower = follower();
        let follow = follower.on_fetched(&answer(ErrorCode::None), &epochs(), 10);
        assert_eq!(follow, Follow::Append { log_start_offset: 1 });
        assert_eq!(follower.on_appended(8, 7), Some(7));
        assert_eq!(follower.on_appended(6, 12), None);
        assert_eq!(follower.on_appended(20, 12), Some(12));
    }

    #[test]
    fn a_restart_before_the_new_high_watermark_is_known_cuts_nothing_that_is_committed() {
        // R1: the follower knows high watermark 3 of 10 committed records; the leader does not diverge.
        let mut follower = follower();
        let follow = follower.on_fetched(&answer(ErrorCode::None), &epochs(), 10);
        assert_eq!(follow, Follow::Append { log_start_offset: 1 });
    }

    #[test]
    fn divergence_cuts_by_epoch() {
        for (diverging, end) in [(OffsetAndEpoch::new(4, 2), 4), (OffsetAndEpoch::new(9, 3), 6)] {
            let mut follower = follower();
            let answer = FetchedPartition { diverging: Some(diverging), ..answer(ErrorCode::None) };
            assert_eq!(follower.on_fetched(&answer, &epochs(), 10), Follow::TruncateTo(end));
            follower.on_cut(0, end);
            assert_eq!(follower.high_watermark(), 3);
        }
    }

    #[test]
    fn a_log_that_is_already_short_enough_does_not_truncate_for_ever() {
        // KAFKA-10706: the epochs shrink with the log, so the next fetch names an earlier epoch.
        let mut follower = follower();
        let mut epochs = epochs();
        let diverging = FetchedPartition {
            diverging: Some(OffsetAndEpoch::new(9, 3)),
            ..answer(ErrorCode::None)
        };
        let Follow::TruncateTo(end) = follower.on_fetched(&diverging, &epochs, 10) else {
            panic!()
        };
        epochs.truncate_from_end(end);
        assert_eq!(follower.next_fetch(end, &epochs).unwrap().last_fetched_epoch, Some(2));
    }

    #[test]
    fn an_offset_outside_the_leaders_log_is_answered_by_its_range() {
        let mut follower = follower();
        let out = answer(ErrorCode::OffsetOutOfRange);
        assert_eq!(follower.on_fetched(&out, &epochs(), 10), Follow::FindLeaderRange);
        assert_eq!(follower.on_leader_range(50, 90, 10), Follow::TruncateFullyAndStartAt(50));
        assert_eq!(follower.on_leader_range(0, 7, 10), Follow::TruncateTo(7));
        assert_eq!(follower.on_leader_range(0, 20, 10), Follow::BackOff);
        assert_eq!(follower.on_leader_range(0, 2, 10), Follow::TruncateTo(2));
        follower.on_cut(0, 2);
        assert_eq!(follower.high_watermark(), 2);
    }

    #[test]
    fn a_log_that_begins_anew_has_committed_what_is_before_it() {
        let mut follower = follower();
        assert_eq!(follower.on_leader_range(50, 90, 10), Follow::TruncateFullyAndStartAt(50));
        follower.on_cut(50, 50);
        assert_eq!(follower.high_watermark(), 50);
    }

    #[test]
    fn epoch_errors_wait() {
        let mut unknown = follower();
        let answered = unknown.on_fetched(&answer(ErrorCode::UnknownLeaderEpoch), &epochs(), 10);
        assert_eq!(answered, Follow::BackOff);
        assert!(unknown.next_fetch(10, &epochs()).is_some());
        let mut fenced = follower();
        let answered = fenced.on_fetched(&answer(ErrorCode::FencedLeaderEpoch), &epochs(), 10);
        assert_eq!(answered, Follow::AwaitMetadata);
        assert_eq!(fenced.next_fetch(10, &epochs()), None);
    }

    #[test]
    fn only_the_answer_to_the_latest_fetch_counts_and_only_once() {
        let mut follower = follower();
        let good = answer(ErrorCode::None);
        let other_epoch = FetchedPartition { current_leader_epoch: 4, ..good };
        let other_offset = FetchedPartition { fetch_offset: 9, ..good };
        let abandoned = FetchedPartition { number: 0, ..good };
        for late in [other_epoch, other_offset, abandoned] {
            assert_eq!(follower.on_fetched(&late, &epochs(), 10), Follow::Ignore, "{late:?}");
        }
        assert_ne!(follower.on_fetched(&good, &epochs(), 10), Follow::Ignore);
        assert_eq!(follower.on_fetched(&good, &epochs(), 10), Follow::Ignore);
    }
}
