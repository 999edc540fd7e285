//! The quorum's state of its log: start, end and flushed offset, epochs and snapshots. The shell owns the bytes.
//!
//! Invariant: start <= flushed <= end; when a snapshot replaces the log, all three move to its end.

use super::effect::FlushTicket;
use crate::divergence::{self, Comparison};
use crate::{EpochHistory, OffsetAndEpoch};
use klamm_protocol::ids::{LeaderEpoch, Offset};

/// The kind of a leader's answer to a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FetchPosition {
    Valid,
    Diverging(OffsetAndEpoch),
    Snapshot(OffsetAndEpoch),
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogPosition {
    pub start_offset: Offset,
    pub end_offset: Offset,
    /// All records below are on disk. At boot: `end_offset` if the shell has synced the recovered log, else
    /// `start_offset`.
    pub flushed_offset: Offset,
    /// All records below are known to be committed. At boot: the last one that the previous process has stored, which
    /// may be behind.
    pub committed_offset: Offset,
    pub epochs: EpochHistory,
    /// The oldest and the newest snapshot, without the bootstrap snapshot 0-0.
    pub earliest_snapshot: Option<OffsetAndEpoch>,
    pub latest_snapshot: Option<OffsetAndEpoch>,
    /// The number of truncations, by which outdated flush tickets are detected. 0 at boot.
    pub truncations: u64,
}

impl LogPosition {
    /// The epoch of the last record; without records that of the snapshot, or 0.
    pub fn last_epoch(&self) -> LeaderEpoch {
        let snapshot_epoch = || self.latest_snapshot.map_or(0, |snapshot| snapshot.epoch);
        self.epochs.latest_epoch().unwrap_or_else(snapshot_epoch)
    }

    /// Whether the log never had a record.
    pub fn is_empty(&self) -> bool {
        self.end_offset == 0 && self.latest_snapshot.is_none()
    }

    pub fn end(&self) -> OffsetAndEpoch {
        OffsetAndEpoch::new(self.end_offset, self.last_epoch())
    }

    /// The end of the committed records as far as this node knows; the log is never truncated below it. Snapshots only
    /// have committed records, and only committed records are deleted at the start of the log.
    pub(super) fn known_committed(&self) -> Offset {
        let in_snapshot = self.latest_snapshot.map_or(0, |snapshot| snapshot.offset);
        let known = self.committed_offset.max(in_snapshot).max(self.start_offset);
        // Records that a power failure has removed from the end were not synced here, so this node had not acknowledged
        // them.
        known.min(self.end_offset)
    }

    pub(super) fn append(&mut self, epoch: LeaderEpoch, next_offset: Offset) {
        assert!(next_offset > self.end_offset, "a batch holds at least one record");
        self.epochs.assign(epoch, self.end_offset);
        self.end_offset = next_offset;
    }

    pub(super) fn truncate(&mut self, end_offset: Offset) {
        assert!(end_offset <= self.end_offset, "truncation never lengthens the log");
        self.end_offset = end_offset;
        self.flushed_offset = self.flushed_offset.min(end_offset);
        self.epochs.truncate_from_end(end_offset);
        self.truncations += 1;
    }

    /// The log has been replaced by a snapshot.
    pub(super) fn start_at_snapshot(&mut self, id: OffsetAndEpoch) {
        *self = Self {
            start_offset: id.offset,
            end_offset: id.offset,
            flushed_offset: id.offset,
            committed_offset: id.offset,
            epochs: EpochHistory::default(),
            earliest_snapshot: Some(id),
            latest_snapshot: Some(id),
            truncations: self.truncations + 1,
        };
    }

    pub(super) fn flush_ticket(&self) -> FlushTicket {
        FlushTicket { end_offset: self.end_offset, truncations: self.truncations }
    }

    /// Applies a flush; returns whether it advanced the flushed offset.
    pub(super) fn flushed(&mut self, ticket: FlushTicket) -> bool {
        if ticket.truncations != self.truncations || ticket.end_offset <= self.flushed_offset {
            return false;
        }
        self.flushed_offset = ticket.end_offset;
        true
    }

    /// The kind of answer to a fetch (Kafka's `RaftLog.validateOffsetAndEpoch`). An empty follower loads the snapshot,
    /// if there is one, instead of the whole log.
    pub(super) fn fetch_position(
        &self,
        fetch_offset: Offset,
        last_fetched_epoch: LeaderEpoch,
    ) -> FetchPosition {
        if fetch_offset == 0
            && let Some(snapshot) = self.latest_snapshot
        {
            return FetchPosition::Snapshot(snapshot);
        }
        if self.start_offset == 0 && fetch_offset == 0 {
            return FetchPosition::Valid;
        }
        if let (Some(earliest), Some(latest)) = (self.earliest_snapshot, self.latest_snapshot)
            && (fetch_offset < self.start_offset
                || (fetch_offset == self.start_offset && last_fetched_epoch != earliest.epoch)
                || last_fetched_epoch < earliest.epoch)
        {
            return FetchPosition::Snapshot(latest);
        }
        let epoch_end = self.epochs.end_offset_for(last_fetched_epoch, self.end_offset);
        match divergence::compare(epoch_end, fetch_offset, last_fetched_epoch) {
            Comparison::Prefix => FetchPosition::Valid,
            Comparison::Diverging(end) => FetchPosition::Diverging(end),
            Comparison::Unknown => FetchPosition::Diverging(self.end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EpochStart;

    fn log(epochs: &[(LeaderEpoch, Offset)], end_offset: Offset) -> LogPosition {
        LogPosition {
            end_offset,
            flushed_offset: end_offset,
            epochs: EpochHistory::from_entries(
                epochs.iter().map(|&(epoch, start_offset)| EpochStart { epoch, start_offset }),
            ),
            ..LogPosition::default()
        }
    }

    #[test]
    fn a_ticket_from_before_a_truncation_proves_nothing() {
        let mut position = log(&[(1, 0)], 5);
        position.append(1, 10);
        let old = position.flush_ticket();
        position.truncate(6);
        position.append(2, 10);
        assert!(!position.flushed(old));
        assert_eq!(position.flushed_offset, 5);
        assert!(position.flushed(position.flush_ticket()));
        assert_eq!(position.flushed_offset, 10);
    }

    #[test]
    fn truncation_takes_the_flushed_offset_and_the_epochs_with_it() {
        let mut position = log(&[(1, 0), (2, 5)], 10);
        position.truncate(5);
        assert_eq!((position.end(), position.flushed_offset), (OffsetAndEpoch::new(5, 1), 5));
    }

    #[test]
    fn an_empty_log_after_a_snapshot_ends_in_the_epoch_of_the_snapshot() {
        let snapshot = OffsetAndEpoch::new(10, 4);
        let position = LogPosition {
            start_offset: 10,
            end_offset: 10,
            flushed_offset: 10,
            earliest_snapshot: Some(snapshot),
            latest_snapshot: Some(snapshot),
            ..LogPosition::default()
        };
        assert_eq!(position.end(), snapshot);
    }

    #[test]
    fn a_fetch_is_compared_with_epochs_and_sent_to_the_snapshot_when_it_is_below_the_log() {
        let mut position = log(&[(3, 10), (5, 20)], 30);
        position.start_offset = 10;
        position.earliest_snapshot = Some(OffsetAndEpoch::new(10, 2));
        position.latest_snapshot = Some(OffsetAndEpoch::new(25, 5));
        let latest = FetchPosition::Snapshot(OffsetAndEpoch::new(25, 5));
        let cases = [
            (0, 0, latest),
            (9, 2, latest),
            (10, 1, latest),
            (10, 2, FetchPosition::Valid),
            (15, 1, latest),
            (15, 3, FetchPosition::Valid),
            (25, 3, FetchPosition::Diverging(OffsetAndEpoch::new(20, 3))),
            (25, 4, FetchPosition::Diverging(OffsetAndEpoch::new(20, 3))),
            (30, 5, FetchPosition::Valid),
            (31, 5, FetchPosition::Diverging(OffsetAndEpoch::new(30, 5))),
        ];
        for (offset, epoch, expected) in cases {
            assert_eq!(position.fetch_position(offset, epoch), expected, "{offset} {epoch}");
        }
    }

    #[test]
    fn an_empty_follower_of_a_log_without_snapshots_starts_at_zero() {
        assert_eq!(log(&[(1, 0)], 5).fetch_position(0, 0), FetchPosition::Valid);
    }
}
