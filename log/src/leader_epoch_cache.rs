//! The start offset of each leader epoch in a log (Kafka's `LeaderEpochFileCache`, KIP-101 and KIP-279).
//!
//! Invariant: epochs and start offsets both rise strictly. The log writes it to `leader-epoch-checkpoint`; recovery
//! restores a lost entry from the batch headers above the recovery point.

use klamm_protocol::ids::{LeaderEpoch, Offset};
use std::collections::BTreeMap;

/// An epoch and one of its offsets: the start or the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochOffset {
    pub epoch: LeaderEpoch,
    pub offset: Offset,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaderEpochCache {
    starts: BTreeMap<LeaderEpoch, Offset>,
}

impl LeaderEpochCache {
    /// A cache from the entries of a file; in a conflict the later entry wins.
    pub fn from_entries(entries: impl IntoIterator<Item = (LeaderEpoch, Offset)>) -> Self {
        let mut cache = Self::default();
        for (epoch, offset) in entries {
            cache.assign(epoch, offset);
        }
        cache
    }

    /// The epochs with their start offsets, oldest first.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (LeaderEpoch, Offset)> {
        self.starts.iter().map(|(epoch, offset)| (*epoch, *offset))
    }

    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    pub fn earliest(&self) -> Option<EpochOffset> {
        self.entries().next().map(|(epoch, offset)| EpochOffset { epoch, offset })
    }

    pub fn latest(&self) -> Option<EpochOffset> {
        let (epoch, offset) = self.starts.last_key_value()?;
        Some(EpochOffset { epoch: *epoch, offset: *offset })
    }

    /// Adds `epoch` with its start `offset`; returns whether that is a change. Contradicting entries (a later epoch, or
    /// one that begins later) are dropped.
    pub fn assign(&mut self, epoch: LeaderEpoch, offset: Offset) -> bool {
        assert!(epoch >= 0 && offset >= 0, "epochs and offsets are not negative");
        let is_news =
            self.latest().is_none_or(|latest| latest.epoch != epoch || offset < latest.offset);
        if is_news {
            self.starts.retain(|known, start| *known < epoch && *start < offset);
            self.starts.insert(epoch, offset);
        }
        is_news
    }

    /// The end offset of an epoch: the largest known epoch not above `requested`, and the start offset of the next
    /// epoch, or the log end. `None` if no epoch is known, or `requested` is newer than all.
    pub fn end_offset_for(&self, requested: LeaderEpoch, log_end: Offset) -> Option<EpochOffset> {
        let latest = self.latest()?;
        if requested > latest.epoch {
            return None;
        }
        if requested == latest.epoch {
            return Some(EpochOffset { epoch: requested, offset: log_end });
        }
        let mut after = self.starts.range(requested + 1..);
        let (_, end) = after.next().expect("the latest epoch is above the requested one");
        // The epoch is older than all known ones: its records are deleted, and it ends at the first known start.
        let floor = self.starts.range(..=requested).next_back();
        let epoch = floor.map_or(requested, |(epoch, _)| *epoch);
        Some(EpochOffset { epoch, offset: *end })
    }

    /// The epoch of the record at an offset.
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        let mut below = self.entries().take_while(|(_, start)| *start <= offset);
        below.by_ref().last().map(|(epoch, _)| epoch)
    }

    /// Drops the epochs that begin at or above the new log end; returns whether there were any.
    pub fn truncate_from_end(&mut self, log_end: Offset) -> bool {
        let before = self.starts.len();
        self.starts.retain(|_, start| *start < log_end);
        self.starts.len() != before
    }

    /// The log now begins at `log_start`: the epoch of that offset begins there. Returns whether that is a change.
    pub fn truncate_from_start(&mut self, log_start: Offset) -> bool {
        let Some(epoch) = self.epoch_of(log_start) else { return false };
        let before = self.clone();
        self.starts.retain(|known, _| *known >= epoch);
        self.starts.insert(epoch, log_start);
        *self != before
    }

    pub fn clear(&mut self) {
        self.starts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> LeaderEpochCache {
        LeaderEpochCache::from_entries([(2, 10), (4, 20), (7, 35)])
    }

    fn at(epoch: LeaderEpoch, offset: Offset) -> Option<EpochOffset> {
        Some(EpochOffset { epoch, offset })
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_begins() {
        let cache = cache();
        assert_eq!(cache.end_offset_for(7, 50), at(7, 50));
        assert_eq!(cache.end_offset_for(4, 50), at(4, 35));
        assert_eq!(cache.end_offset_for(5, 50), at(4, 35), "an epoch without records");
        assert_eq!(cache.end_offset_for(1, 50), at(1, 10), "older than all");
        assert_eq!(cache.end_offset_for(8, 50), None, "newer than all");
        assert_eq!(cache.end_offset_for(-2, 50), at(-2, 10), "older than all, as Kafka answers");
        assert_eq!(LeaderEpochCache::default().end_offset_for(0, 50), None);
    }

    #[test]
    fn the_newest_word_replaces_what_contradicts_it() {
        let mut cache = cache();
        assert!(!cache.assign(7, 40), "the epoch already began");
        assert!(cache.assign(8, 35), "epoch 7 had no records");
        assert_eq!(cache.entries().collect::<Vec<_>>(), [(2, 10), (4, 20), (8, 35)]);
        assert!(cache.assign(3, 15));
        assert_eq!(cache.entries().collect::<Vec<_>>(), [(2, 10), (3, 15)]);
    }

    #[test]
    fn offsets_belong_to_epochs() {
        let cache = cache();
        assert_eq!(cache.epoch_of(9), None);
        assert_eq!(cache.epoch_of(10), Some(2));
        assert_eq!(cache.epoch_of(34), Some(4));
        assert_eq!(cache.epoch_of(1000), Some(7));
    }

    #[test]
    fn truncation_keeps_the_epoch_of_what_remains() {
        let mut cache = cache();
        assert!(cache.truncate_from_start(25));
        assert_eq!(cache.entries().collect::<Vec<_>>(), [(4, 25), (7, 35)]);
        assert!(!cache.truncate_from_start(25));
        assert!(!cache.truncate_from_start(3));
        assert!(cache.truncate_from_end(35));
        assert!(!cache.truncate_from_end(35));
        assert_eq!(cache.entries().collect::<Vec<_>>(), [(4, 25)]);
    }
}
