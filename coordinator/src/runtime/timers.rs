//! The deadlines of a shard. Scheduling a timer that is already set moves it.

use std::collections::{BTreeMap, BTreeSet};

/// All deadlines of a shard, in milliseconds of the steady clock. `T` identifies a timer.
#[derive(Debug)]
pub struct Timers<T> {
    by_deadline: BTreeSet<(i64, T)>,
    deadlines: BTreeMap<T, i64>,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { by_deadline: BTreeSet::new(), deadlines: BTreeMap::new() }
    }
}

impl<T: Clone + Ord> Timers<T> {
    pub(crate) fn schedule(&mut self, timer: T, deadline_ms: i64) {
        if let Some(earlier) = self.deadlines.insert(timer.clone(), deadline_ms) {
            self.by_deadline.remove(&(earlier, timer.clone()));
        }
        self.by_deadline.insert((deadline_ms, timer));
    }

    pub(crate) fn cancel(&mut self, timer: &T) {
        if let Some((timer, deadline_ms)) = self.deadlines.remove_entry(timer) {
            self.by_deadline.remove(&(deadline_ms, timer));
        }
    }

    /// Takes the earliest timer whose deadline is not after `now_ms`.
    pub(super) fn pop_due(&mut self, now_ms: i64) -> Option<T> {
        if self.next_deadline_ms()? > now_ms {
            return None;
        }
        let (_, timer) = self.by_deadline.pop_first()?;
        self.deadlines.remove(&timer);
        Some(timer)
    }

    #[cfg(test)]
    pub(crate) fn is_set(&self, timer: &T) -> bool {
        self.deadlines.contains_key(timer)
    }

    pub(super) fn next_deadline_ms(&self) -> Option<i64> {
        self.by_deadline.first().map(|(deadline_ms, _)| *deadline_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_the_order_of_their_deadlines() {
        let mut timers = Timers::default();
        timers.schedule("late", 20);
        timers.schedule("early", 10);
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(timers.pop_due(20), Some("early"));
        assert_eq!(timers.pop_due(20), Some("late"));
        assert_eq!(timers.next_deadline_ms(), None);
    }

    #[test]
    fn scheduling_again_moves_the_deadline_and_cancelling_removes_it() {
        let mut timers = Timers::default();
        timers.schedule("g", 10);
        timers.schedule("g", 30);
        assert_eq!(timers.pop_due(29), None);
        timers.cancel(&"g");
        assert_eq!(timers.pop_due(30), None);
    }
}
