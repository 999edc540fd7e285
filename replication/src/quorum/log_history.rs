//! The quorum's state from control records (voters, kraft.version), by their offset. (Kafka: `LogHistory`,
//! `KRaftControlRecordStateMachine`.)
//!
//! Invariant: the latest value in the log is in force, committed or not (KIP-853). Older values are kept, so that
//! truncation restores them and a snapshot can have the value at its end.

use super::voters::VoterSet;
use klamm_protocol::ids::Offset;
use std::collections::BTreeMap;

/// A value that is changed by records of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogHistory<T> {
    initial: T,
    by_offset: BTreeMap<Offset, T>,
}

impl<T> LogHistory<T> {
    /// A history with an initial value from outside the log.
    pub fn new(initial: T) -> Self {
        Self { initial, by_offset: BTreeMap::new() }
    }

    /// Adds the value of the record at `offset`.
    pub fn add(&mut self, offset: Offset, value: T) {
        self.by_offset.insert(offset, value);
    }

    /// The value in force.
    pub fn latest(&self) -> &T {
        self.by_offset.last_key_value().map_or(&self.initial, |(_, value)| value)
    }

    /// The offset of the value in force; None if it comes from outside the log.
    pub fn latest_offset(&self) -> Option<Offset> {
        self.by_offset.last_key_value().map(|(offset, _)| *offset)
    }

    /// The value in force before the latest record; None if the log has no such record.
    pub fn previous(&self) -> Option<&T> {
        let (latest_offset, _) = self.by_offset.last_key_value()?;
        Some(self.at(latest_offset - 1))
    }

    /// The value in force after the record at `offset`.
    pub fn at(&self, offset: Offset) -> &T {
        self.by_offset.range(..=offset).next_back().map_or(&self.initial, |(_, value)| value)
    }

    /// The log now ends at `end_offset`: removes later values.
    pub fn truncate_from_end(&mut self, end_offset: Offset) {
        self.by_offset.split_off(&end_offset);
    }

    /// A snapshot up to `start_offset` exists: of the values before it only the last is kept.
    pub fn truncate_from_start(&mut self, start_offset: Offset) {
        let kept = self.by_offset.split_off(&start_offset);
        let before = std::mem::replace(&mut self.by_offset, kept);
        if let Some((offset, value)) = before.into_iter().next_back() {
            self.by_offset.insert(offset, value);
        }
    }
}

/// The change of a control record.
#[derive(Debug, Clone, PartialEq)]
pub enum ControlChange {
    Voters(VoterSet),
    /// The level of the feature kraft.version.
    KRaftVersion(i16),
}

/// The voters and the kraft.version of the quorum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    pub voters: LogHistory<VoterSet>,
    pub kraft_version: LogHistory<i16>,
}

impl Membership {
    /// The offset of values from the bootstrap snapshot 0-0: formatting has written them, no leader yet.
    pub const BOOTSTRAP_OFFSET: Offset = -1;

    /// The initial membership: the voters of `controller.quorum.voters`, or none with
    /// `controller.quorum.bootstrap.servers`, at kraft.version 0.
    pub fn new(configured: VoterSet) -> Self {
        Self { voters: LogHistory::new(configured), kraft_version: LogHistory::new(0) }
    }

    /// Applies a control record of the log or (at the snapshot's last offset) of a snapshot.
    pub fn apply(&mut self, offset: Offset, change: ControlChange) {
        match change {
            ControlChange::Voters(voters) => self.voters.add(offset, voters),
            ControlChange::KRaftVersion(level) => self.kraft_version.add(offset, level),
        }
    }

    pub(super) fn truncate_from_end(&mut self, end_offset: Offset) {
        self.voters.truncate_from_end(end_offset);
        self.kraft_version.truncate_from_end(end_offset);
    }

    pub(super) fn truncate_from_start(&mut self, start_offset: Offset) {
        self.voters.truncate_from_start(start_offset);
        self.kraft_version.truncate_from_start(start_offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncation_brings_the_older_value_back() {
        let mut history = LogHistory::new("configured");
        history.add(5, "five");
        history.add(9, "nine");
        assert_eq!(
            (*history.latest(), *history.at(8), *history.at(4)),
            ("nine", "five", "configured")
        );
        assert_eq!(history.previous(), Some(&"five"));
        history.truncate_from_end(9);
        assert_eq!((*history.latest(), history.previous()), ("five", Some(&"configured")));
        history.truncate_from_end(5);
        assert_eq!((*history.latest(), history.latest_offset()), ("configured", None));
        assert_eq!(history.previous(), None);
    }

    #[test]
    fn a_snapshot_keeps_the_value_in_force_at_its_end() {
        let mut history = LogHistory::new("configured");
        history.add(5, "five");
        history.add(9, "nine");
        history.truncate_from_start(9);
        assert_eq!((*history.at(8), history.latest_offset()), ("five", Some(9)));
        history.truncate_from_start(100);
        assert_eq!((*history.at(8), *history.latest()), ("configured", "nine"));
    }

    #[test]
    fn what_formatting_wrote_is_older_than_the_first_record() {
        let mut membership = Membership::new(VoterSet::default());
        membership.apply(Membership::BOOTSTRAP_OFFSET, ControlChange::KRaftVersion(1));
        membership.truncate_from_end(0);
        assert_eq!(*membership.kraft_version.latest(), 1);
        assert_eq!(membership.kraft_version.latest_offset(), Some(Membership::BOOTSTRAP_OFFSET));
    }
}
