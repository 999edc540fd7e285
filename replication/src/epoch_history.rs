//! The start offset of each leader epoch of a log (Kafka's `LeaderEpochFileCache`), in memory.
//!
//! Invariant: epochs and start offsets rise strictly from entry to entry. The log keeps the durable copy in
//! `leader-epoch-checkpoint`; this one is for the pure state machines.

use crate::OffsetAndEpoch;
use klamm_protocol::ids::{LeaderEpoch, Offset};

/// The first offset written in a leader epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    pub epoch: LeaderEpoch,
    pub start_offset: Offset,
}

/// The epochs of a log in the order in which they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochHistory {
    entries: Vec<EpochStart>,
}

impl EpochHistory {
    /// A history from the entries of a checkpoint, in any order.
    pub fn from_entries(entries: impl IntoIterator<Item = EpochStart>) -> Self {
        let mut history = Self::default();
        for entry in entries {
            history.assign(entry.epoch, entry.start_offset);
        }
        history
    }

    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// Adds an epoch whose records begin at `start_offset`; a known epoch keeps its start.
    ///
    /// Entries that contradict the new one are dropped, as in Kafka: an entry with a later epoch or offset is of
    /// records that were truncated.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) {
        if self.latest_epoch() == Some(epoch) {
            return;
        }
        while let Some(last) = self.entries.last() {
            if last.epoch < epoch && last.start_offset < start_offset {
                break;
            }
            self.entries.pop();
        }
        self.entries.push(EpochStart { epoch, start_offset });
    }

    /// Removes the epochs that start at or after `end_offset`, the new end of the log.
    pub fn truncate_from_end(&mut self, end_offset: Offset) {
        self.entries.retain(|entry| entry.start_offset < end_offset);
    }

    /// Removes epochs that ended before `start_offset`, the new start of the log; the epoch of `start_offset` is kept
    /// and now starts there.
    pub fn truncate_from_start(&mut self, start_offset: Offset) {
        let before = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        if before == 0 {
            return;
        }
        self.entries.drain(..before - 1);
        self.entries[0].start_offset = start_offset;
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The largest epoch not above `epoch`, and its end offset: the start of the next epoch or, for the latest,
    /// `log_end_offset`. None if the log has no answer (an epoch later than its latest, or no epochs at all).
    ///
    /// For an epoch before the first known one the answer is that epoch itself, ending where the first known one
    /// starts: its records are deleted, so they cannot diverge.
    pub fn end_offset_for(
        &self,
        epoch: LeaderEpoch,
        log_end_offset: Offset,
    ) -> Option<OffsetAndEpoch> {
        if self.latest_epoch()? == epoch {
            return Some(OffsetAndEpoch::new(log_end_offset, epoch));
        }
        let next = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let end_offset = self.entries.get(next)?.start_offset;
        let floor = if next == 0 { epoch } else { self.entries[next - 1].epoch };
        Some(OffsetAndEpoch::new(end_offset, floor))
    }

    /// The epoch of the record at `offset`; None below the first known epoch.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let next = self.entries.partition_point(|entry| entry.start_offset <= offset);
        next.checked_sub(1).map(|index| self.entries[index].epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(entries: &[(LeaderEpoch, Offset)]) -> EpochHistory {
        EpochHistory::from_entries(
            entries.iter().map(|&(epoch, start_offset)| EpochStart { epoch, start_offset }),
        )
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_starts_and_the_latest_at_the_log_end() {
        let epochs = history(&[(1, 0), (3, 10), (4, 20)]);
        assert_eq!(epochs.end_offset_for(1, 30), Some(OffsetAndEpoch::new(10, 1)));
        assert_eq!(epochs.end_offset_for(4, 30), Some(OffsetAndEpoch::new(30, 4)));
    }

    #[test]
    fn an_unknown_epoch_is_answered_with_the_largest_one_below_it() {
        let epochs = history(&[(1, 0), (3, 10), (4, 20)]);
        assert_eq!(epochs.end_offset_for(2, 30), Some(OffsetAndEpoch::new(10, 1)));
        assert_eq!(epochs.end_offset_for(0, 30), Some(OffsetAndEpoch::new(0, 0)));
        assert_eq!(epochs.end_offset_for(5, 30), None);
        assert_eq!(EpochHistory::default().end_offset_for(0, 0), None);
    }

    #[test]
    fn truncation_forgets_epochs_that_start_at_or_after_the_new_end() {
        let mut epochs = history(&[(1, 0), (3, 10), (4, 20)]);
        epochs.truncate_from_end(20);
        assert_eq!(epochs.latest_epoch(), Some(3));
        epochs.truncate_from_end(10);
        assert_eq!(epochs.latest_epoch(), Some(1));
        epochs.truncate_from_end(0);
        assert_eq!(epochs.latest_epoch(), None);
    }

    #[test]
    fn a_new_log_start_keeps_the_epoch_it_lies_in() {
        let mut epochs = history(&[(1, 0), (3, 10), (4, 20)]);
        epochs.truncate_from_start(15);
        assert_eq!(epochs, history(&[(3, 15), (4, 20)]));
        epochs.truncate_from_start(20);
        assert_eq!(epochs, history(&[(4, 20)]));
    }

    #[test]
    fn an_entry_that_contradicts_the_new_one_is_dropped() {
        let mut epochs = history(&[(1, 0), (3, 10)]);
        epochs.assign(4, 10);
        assert_eq!(epochs, history(&[(1, 0), (4, 10)]));
        epochs.assign(4, 15);
        assert_eq!(epochs, history(&[(1, 0), (4, 10)]));
    }

    #[test]
    fn the_epoch_of_an_offset_is_that_of_the_last_start_at_or_below_it() {
        let epochs = history(&[(1, 5), (3, 10)]);
        assert_eq!(epochs.epoch_at(4), None);
        assert_eq!(epochs.epoch_at(9), Some(1));
        assert_eq!(epochs.epoch_at(10), Some(3));
    }
}
