//! The deadlines of a shard's groups. Scheduling a timer that is already set moves it.

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;

/// What happens when a deadline has come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The session of a member, or of a member that was given an id and has not joined yet.
    Session { group_id: ByteString, member_id: ByteString },
    /// The end of a group's join phase, or of one round of its initial delay.
    Join { group_id: ByteString },
    /// The end of the wait for the members' SyncGroup requests.
    Sync { group_id: ByteString },
}

/// All deadlines of a shard, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_deadline: BTreeSet<(i64, Timer)>,
    deadlines: BTreeMap<Timer, i64>,
}

impl Timers {
    pub(crate) fn schedule(&mut self, timer: Timer, deadline_ms: i64) {
        if let Some(earlier) = self.deadlines.insert(timer.clone(), deadline_ms) {
            self.by_deadline.remove(&(earlier, timer.clone()));
        }
        self.by_deadline.insert((deadline_ms, timer));
    }

    pub(crate) fn cancel(&mut self, timer: Timer) {
        if let Some(deadline_ms) = self.deadlines.remove(&timer) {
            self.by_deadline.remove(&(deadline_ms, timer));
        }
    }

    /// Takes the earliest timer whose deadline is not after `now_ms`.
    pub(crate) fn pop_due(&mut self, now_ms: i64) -> Option<Timer> {
        if self.next_deadline_ms()? > now_ms {
            return None;
        }
        let (_, timer) = self.by_deadline.pop_first()?;
        self.deadlines.remove(&timer);
        Some(timer)
    }

    #[cfg(test)]
    pub(crate) fn is_set(&self, timer: &Timer) -> bool {
        self.deadlines.contains_key(timer)
    }

    pub(crate) fn next_deadline_ms(&self) -> Option<i64> {
        self.by_deadline.first().map(|(deadline_ms, _)| *deadline_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(group: &str) -> Timer {
        Timer::Join { group_id: ByteString::from(group) }
    }

    #[test]
    fn timers_fire_in_the_order_of_their_deadlines() {
        let mut timers = Timers::default();
        timers.schedule(join("late"), 20);
        timers.schedule(join("early"), 10);
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(timers.pop_due(20), Some(join("early")));
        assert_eq!(timers.pop_due(20), Some(join("late")));
        assert_eq!(timers.next_deadline_ms(), None);
    }

    #[test]
    fn scheduling_again_moves_the_deadline_and_cancelling_removes_it() {
        let mut timers = Timers::default();
        timers.schedule(join("g"), 10);
        timers.schedule(join("g"), 30);
        assert_eq!(timers.pop_due(29), None);
        timers.cancel(join("g"));
        assert_eq!(timers.pop_due(30), None);
    }
}
