//! How a leader finds that a follower's log diverges, and how the follower truncates its own (KIP-101, KIP-279,
//! KIP-595).
//!
//! Logs are compared by (epoch, end offset of the epoch), never by high watermark: a restart can set the high watermark
//! back, and truncation to it would remove committed records.

use crate::{EpochHistory, OffsetAndEpoch};
use klamm_protocol::ids::{LeaderEpoch, Offset};

/// The leader's comparison of its log with a fetch at `fetch_offset` after a record of `last_fetched_epoch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The follower's log is a prefix of the leader's.
    Prefix,
    /// The follower's log diverges at or before this end offset of this epoch.
    Diverging(OffsetAndEpoch),
    /// The leader has no epoch as late as the follower's.
    Unknown,
}

/// Compares a follower's log end with the leader's epochs (Kafka's `Partition.readRecords`).
///
/// `epoch_end` is the leader's answer to [`EpochHistory::end_offset_for`] `last_fetched_epoch`.
pub fn compare(
    epoch_end: Option<OffsetAndEpoch>,
    fetch_offset: Offset,
    last_fetched_epoch: LeaderEpoch,
) -> Comparison {
    match epoch_end {
        None => Comparison::Unknown,
        Some(end) if end.epoch < last_fetched_epoch || end.offset < fetch_offset => {
            Comparison::Diverging(end)
        }
        Some(_) => Comparison::Prefix,
    }
}

/// The offset to which a follower truncates its log when its leader has answered with `diverging`.
///
/// If the follower lacks the leader's epoch, its own next lower epoch may diverge as well, so it keeps all of that one
/// and fetches again: several rounds may be needed.
pub fn truncation_offset(
    epochs: &EpochHistory,
    log_end_offset: Offset,
    diverging: OffsetAndEpoch,
) -> Offset {
    match epochs.end_offset_for(diverging.epoch, log_end_offset) {
        Some(own) if own.epoch == diverging.epoch => own.offset.min(diverging.offset),
        Some(own) => own.offset.min(log_end_offset),
        None => diverging.offset.min(log_end_offset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EpochStart;

    fn history(entries: &[(LeaderEpoch, Offset)]) -> EpochHistory {
        EpochHistory::from_entries(
            entries.iter().map(|&(epoch, start_offset)| EpochStart { epoch, start_offset }),
        )
    }

    #[test]
    fn a_log_that_is_a_prefix_is_served() {
        let leader = history(&[(1, 0), (2, 10)]);
        assert_eq!(compare(leader.end_offset_for(1, 20), 10, 1), Comparison::Prefix);
        assert_eq!(compare(leader.end_offset_for(2, 20), 15, 2), Comparison::Prefix);
        assert_eq!(compare(leader.end_offset_for(2, 20), 20, 2), Comparison::Prefix);
    }

    #[test]
    fn a_longer_epoch_and_an_unknown_epoch_diverge() {
        let leader = history(&[(1, 0), (3, 10)]);
        assert_eq!(
            compare(leader.end_offset_for(1, 20), 12, 1),
            Comparison::Diverging(OffsetAndEpoch::new(10, 1))
        );
        assert_eq!(
            compare(leader.end_offset_for(2, 20), 12, 2),
            Comparison::Diverging(OffsetAndEpoch::new(10, 1))
        );
        assert_eq!(compare(leader.end_offset_for(4, 20), 12, 4), Comparison::Unknown);
    }

    #[test]
    fn a_follower_with_the_same_epoch_cuts_to_the_shorter_end_of_it() {
        let follower = history(&[(1, 0), (2, 12)]);
        assert_eq!(truncation_offset(&follower, 15, OffsetAndEpoch::new(10, 1)), 10);
        assert_eq!(truncation_offset(&follower, 15, OffsetAndEpoch::new(14, 1)), 12);
    }

    #[test]
    fn two_fast_leader_changes_need_two_rounds_and_never_cut_the_common_prefix() {
        // R2: the follower holds epochs 1 and 3, the leader epochs 1, 2 and 4; they agree below 5.
        let leader = history(&[(1, 0), (2, 5), (4, 9)]);
        let mut follower = history(&[(1, 0), (3, 7)]);
        let Comparison::Diverging(first) = compare(leader.end_offset_for(3, 12), 10, 3) else {
            panic!()
        };
        assert_eq!(first, OffsetAndEpoch::new(9, 2));
        let end = truncation_offset(&follower, 10, first);
        assert_eq!(end, 7);
        follower.truncate_from_end(end);
        let Comparison::Diverging(second) = compare(leader.end_offset_for(1, 12), end, 1) else {
            panic!()
        };
        let end = truncation_offset(&follower, end, second);
        assert_eq!(end, 5);
        follower.truncate_from_end(end);
        assert_eq!(compare(leader.end_offset_for(1, 12), end, 1), Comparison::Prefix);
    }
}
