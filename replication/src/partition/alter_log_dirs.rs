//! Decides how a replica moves to another log directory of its broker (KIP-113, KIP-858; Kafka's
//! `ReplicaAlterLogDirsThread`). The broker copies the log, and carries out the steps.
//!
//! The copy replaces the log only after the metadata has the new directory: if that directory fails later, the
//! controller knows that the replica was in it. While the new directory is reported and the log is still in the old
//! one, the move answers for the report: if the old directory fails, the controller must hear that the replica is in
//! that one.

use crate::divergence::{self, Comparison};
use crate::{EpochHistory, OffsetAndEpoch};
use klamm_protocol::ids::Offset;

/// The pause after an error.
const ERROR_PAUSE_MS: i64 = 1_000;
/// After this the new directory is reported again: the controller may have forgotten it, for example because the replica
/// was removed and came back.
const ANNOUNCE_AGAIN_MS: i64 = 1_000;

/// A move under way. Times are milliseconds of the steady clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Move {
    /// When the new directory was reported to the controller, if the metadata had another one then, and no other was
    /// reported since. Metadata that had it before may be older than a report of the log's directory that is under way.
    announced_ms: Option<i64>,
    not_before_ms: Option<i64>,
}

/// What a broker knows of the replica when it looks at a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovingReplica {
    /// The directory of the log is in use.
    pub is_source_online: bool,
    /// The directory of the copy is in use.
    pub is_target_online: bool,
    /// The replica's damaged records are being repaired.
    pub is_damaged: bool,
}

/// The next step of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveStep {
    /// The copy is given up. If the move is announced, the log's directory is reported again.
    Cancel,
    /// The log's directory is reported: it has failed, and the metadata may have the other one.
    Withdraw,
    Copy,
    Wait,
}

/// The directory that the metadata has for a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordedDirectory {
    /// The directory of the copy.
    New,
    Another,
    /// The metadata has no directories.
    NotSupported,
}

/// What follows a round of copying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterCopy {
    /// There is more to copy, or the metadata does not have the new directory yet.
    CopyOn,
    /// The new directory is reported to the controller.
    Announce,
    /// The copy replaces the log.
    Replace,
}

/// What a request to move a replica comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alteration {
    /// The move under way has another target.
    pub cancels: bool,
    pub begins: bool,
}

impl Move {
    /// Whether the directory reported to the controller is the move's target, not the current one.
    pub fn is_announced(&self) -> bool {
        self.announced_ms.is_some()
    }

    /// Another directory of the replica is reported to the controller than the move's target.
    pub fn on_other_report(&mut self) {
        self.announced_ms = None;
    }

    pub fn next_step(&mut self, replica: MovingReplica, now_ms: i64) -> MoveStep {
        if !replica.is_target_online {
            return MoveStep::Cancel;
        }
        if !replica.is_source_online && self.announced_ms.take().is_some() {
            return MoveStep::Withdraw;
        }
        let is_paused = self.not_before_ms.is_some_and(|end_ms| now_ms < end_ms);
        match !replica.is_source_online || replica.is_damaged || is_paused {
            true => MoveStep::Wait,
            false => MoveStep::Copy,
        }
    }

    /// A round of copying has ended. `is_level` is whether the copy ends where the log ended.
    pub fn on_copied(
        &mut self,
        is_level: bool,
        recorded: RecordedDirectory,
        now_ms: i64,
    ) -> AfterCopy {
        if !is_level {
            return AfterCopy::CopyOn;
        }
        match (recorded, self.announced_ms) {
            (RecordedDirectory::NotSupported, _) | (RecordedDirectory::New, Some(_)) => {
                AfterCopy::Replace
            }
            (RecordedDirectory::New, None) => AfterCopy::CopyOn,
            (RecordedDirectory::Another, Some(at_ms)) if now_ms < at_ms + ANNOUNCE_AGAIN_MS => {
                AfterCopy::CopyOn
            }
            (RecordedDirectory::Another, _) => {
                self.announced_ms = Some(now_ms);
                AfterCopy::Announce
            }
        }
    }

    /// Copying or replacing has failed.
    pub fn on_failed(&mut self, now_ms: i64) {
        self.not_before_ms = Some(now_ms + ERROR_PAUSE_MS);
    }

    /// A replica in directory `present` is to be in `wanted`, and may be moving to `target`.
    pub fn alter<D: Copy + PartialEq>(present: D, target: Option<D>, wanted: D) -> Alteration {
        let goes_there = target == Some(wanted);
        Alteration {
            cancels: target.is_some() && !goes_there,
            begins: present != wanted && !goes_there,
        }
    }
}

/// The records of a log: its epochs, where it starts and where it ends.
#[derive(Debug, Clone, Copy)]
pub struct LogRange<'l> {
    pub epochs: &'l EpochHistory,
    pub start: Offset,
    pub end: Offset,
}

/// How a copy is truncated before copying continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alignment {
    TruncateTo(Offset),
    TruncateFullyAndStartAt(Offset),
}

/// Compares a copy with its log, as a leader does with a follower's: the log may have been truncated since the last
/// copy, also by an earlier process.
pub fn align(copy: LogRange<'_>, log: LogRange<'_>) -> Option<Alignment> {
    let (mut epochs, mut end) = (copy.epochs.clone(), copy.end);
    let mut diverges = false;
    while let Some(diverging) = divergence_of(&epochs, end, log) {
        diverges = true;
        end = divergence::truncation_offset(&epochs, end, diverging);
        epochs.truncate_from_end(end);
    }
    if !(log.start..=log.end).contains(&end) {
        return Some(Alignment::TruncateFullyAndStartAt(log.start));
    }
    diverges.then_some(Alignment::TruncateTo(end))
}

fn divergence_of(epochs: &EpochHistory, end: Offset, log: LogRange<'_>) -> Option<OffsetAndEpoch> {
    let latest = epochs.latest_epoch()?;
    // The log has no later epoch to answer for.
    let asked = latest.min(log.epochs.latest_epoch()?);
    match divergence::compare(log.epochs.end_offset_for(asked, log.end), end, latest) {
        Comparison::Diverging(diverging) => Some(diverging),
        Comparison::Prefix | Comparison::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::RecordedDirectory::{Another, New, NotSupported};
    use super::*;
    use crate::EpochStart;
    use klamm_protocol::ids::LeaderEpoch;

    const WELL: MovingReplica =
        MovingReplica { is_source_online: true, is_target_online: true, is_damaged: false };

    #[test]
    fn a_copy_that_is_level_replaces_the_log_only_when_the_metadata_has_its_directory() {
        let mut moving = Move::default();
        assert_eq!(moving.next_step(WELL, 0), MoveStep::Copy);
        assert_eq!(moving.on_copied(false, Another, 0), AfterCopy::CopyOn);
        assert!(!moving.is_announced());
        assert_eq!(moving.on_copied(true, Another, 0), AfterCopy::Announce);
        assert!(moving.is_announced());
        assert_eq!(moving.on_copied(true, Another, 0), AfterCopy::CopyOn);
        assert_eq!(moving.on_copied(false, New, 0), AfterCopy::CopyOn);
        assert_eq!(moving.on_copied(true, New, 0), AfterCopy::Replace);
        assert_eq!(Move::default().on_copied(true, NotSupported, 0), AfterCopy::Replace);
    }

    #[test]
    fn metadata_from_before_the_last_report_of_the_logs_directory_say_nothing() {
        // An earlier process has announced the move, and this one has reported where the log is.
        let mut moving = Move::default();
        assert_eq!(moving.on_copied(true, New, 0), AfterCopy::CopyOn);
        assert_eq!(moving.on_copied(true, Another, 0), AfterCopy::Announce);
        moving.on_other_report();
        assert_eq!(moving.on_copied(true, New, 0), AfterCopy::CopyOn);
        assert_eq!(moving.on_copied(true, Another, 0), AfterCopy::Announce);
        assert_eq!(moving.on_copied(true, New, 0), AfterCopy::Replace);
    }

    #[test]
    fn an_announcement_that_the_controller_has_forgotten_is_repeated() {
        let mut moving = Move::default();
        assert_eq!(moving.on_copied(true, Another, 0), AfterCopy::Announce);
        assert_eq!(moving.on_copied(true, Another, ANNOUNCE_AGAIN_MS - 1), AfterCopy::CopyOn);
        assert_eq!(moving.on_copied(true, Another, ANNOUNCE_AGAIN_MS), AfterCopy::Announce);
        assert_eq!(moving.on_copied(true, Another, ANNOUNCE_AGAIN_MS + 1), AfterCopy::CopyOn);
    }

    #[test]
    fn a_move_whose_target_has_failed_is_cancelled_whatever_else_is_wrong() {
        for is_source_online in [false, true] {
            let replica = MovingReplica { is_source_online, is_target_online: false, ..WELL };
            assert_eq!(Move::default().next_step(replica, 0), MoveStep::Cancel);
        }
    }

    #[test]
    fn an_announcement_is_withdrawn_once_when_the_directory_of_the_log_fails() {
        let failed = MovingReplica { is_source_online: false, ..WELL };
        let mut moving = Move::default();
        assert_eq!(moving.next_step(failed, 0), MoveStep::Wait);
        assert_eq!(moving.on_copied(true, Another, 0), AfterCopy::Announce);
        assert_eq!(moving.next_step(failed, 1), MoveStep::Withdraw);
        assert!(!moving.is_announced());
        assert_eq!(moving.next_step(failed, 2), MoveStep::Wait);
    }

    #[test]
    fn a_move_waits_after_an_error_and_while_its_replica_is_repaired() {
        let mut moving = Move::default();
        let damaged = MovingReplica { is_damaged: true, ..WELL };
        assert_eq!(moving.next_step(damaged, 0), MoveStep::Wait);
        moving.on_failed(5);
        assert_eq!(moving.next_step(WELL, 5 + ERROR_PAUSE_MS - 1), MoveStep::Wait);
        assert_eq!(moving.next_step(WELL, 5 + ERROR_PAUSE_MS), MoveStep::Copy);
    }

    #[test]
    fn a_request_begins_ends_or_redirects_a_move() {
        let alteration = |cancels, begins| Alteration { cancels, begins };
        assert_eq!(Move::alter(0, None, 1), alteration(false, true));
        assert_eq!(Move::alter(0, None, 0), alteration(false, false));
        assert_eq!(Move::alter(0, Some(1), 1), alteration(false, false));
        assert_eq!(Move::alter(0, Some(1), 0), alteration(true, false));
        assert_eq!(Move::alter(0, Some(1), 2), alteration(true, true));
    }

    fn history(entries: &[(LeaderEpoch, Offset)]) -> EpochHistory {
        EpochHistory::from_entries(
            entries.iter().map(|&(epoch, start_offset)| EpochStart { epoch, start_offset }),
        )
    }

    /// Aligns a copy that ends at an offset with a log between two.
    fn aligned(
        (copy, end): (&[(LeaderEpoch, Offset)], Offset),
        (log, start, log_end): (&[(LeaderEpoch, Offset)], Offset, Offset),
    ) -> Option<Alignment> {
        let (copy, log) = (history(copy), history(log));
        let copy = LogRange { epochs: &copy, start: 0, end };
        align(copy, LogRange { epochs: &log, start, end: log_end })
    }

    #[test]
    fn a_copy_that_is_a_prefix_stays() {
        assert_eq!(aligned((&[], 0), (&[], 0, 0)), None);
        assert_eq!(aligned((&[], 0), (&[(1, 0)], 0, 9)), None);
        assert_eq!(aligned((&[(1, 0)], 5), (&[(1, 0), (2, 7)], 0, 9)), None);
        assert_eq!(aligned((&[(1, 0), (2, 7)], 9), (&[(1, 0), (2, 7)], 0, 9)), None);
    }

    #[test]
    fn a_copy_of_truncated_records_is_truncated() {
        let cut_to = |end| Some(Alignment::TruncateTo(end));
        assert_eq!(aligned((&[(1, 0)], 9), (&[(1, 0)], 0, 5)), cut_to(5));
        assert_eq!(aligned((&[(1, 0)], 9), (&[(1, 0), (2, 5)], 0, 20)), cut_to(5));
        assert_eq!(aligned((&[(1, 0), (2, 7)], 9), (&[(1, 0)], 0, 5)), cut_to(5));
        assert_eq!(aligned((&[(1, 0), (2, 7)], 9), (&[(1, 0), (3, 8)], 0, 12)), cut_to(7));
        assert_eq!(aligned((&[(1, 0), (3, 7)], 10), (&[(1, 0), (2, 5), (4, 9)], 0, 12)), cut_to(5));
    }

    #[test]
    fn a_copy_outside_of_the_log_begins_anew() {
        let anew_at = |start| Some(Alignment::TruncateFullyAndStartAt(start));
        assert_eq!(aligned((&[(1, 0)], 4), (&[(1, 5)], 5, 9)), anew_at(5));
        assert_eq!(aligned((&[(1, 0)], 9), (&[], 5, 5)), anew_at(5));
        assert_eq!(aligned((&[], 0), (&[], 5, 5)), anew_at(5));
    }
}
