//! Who waits for a replica, as data (Kafka's `DelayedProduce`, `DelayedFetch` and `DelayedDeleteRecords`).
//!
//! The shell says what a waiter is and how it is woken. Waiters that need not wait any longer are released here and
//! taken out one by one, so that nothing is allocated for them.

use klamm_protocol::ids::Offset;
use std::collections::VecDeque;

/// The queue of fetches is looked through for those that are over when it has grown to this.
const PRUNE_AT_LEAST: usize = 16;

/// Those who wait for an offset to be reached, in the order of the offsets.
#[derive(Debug)]
pub(super) struct OffsetWaiters<P> {
    queue: VecDeque<(Offset, P)>,
    /// So many at the front need not wait any longer.
    released: usize,
}

impl<P> Default for OffsetWaiters<P> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), released: 0 }
    }
}

impl<P> OffsetWaiters<P> {
    /// Mostly the offset is the log's end. Of a batch that the producer has sent again it is an earlier one.
    pub(super) fn add(&mut self, offset: Offset, waiter: P) {
        let later = self.queue.iter().rev().take_while(|(queued, _)| *queued > offset).count();
        let at = (self.queue.len() - later).max(self.released);
        self.queue.insert(at, (offset, waiter));
    }

    /// Everything below `reached` is there.
    pub(super) fn release_to(&mut self, reached: Offset) {
        while self.queue.get(self.released).is_some_and(|(offset, _)| *offset <= reached) {
            self.released += 1;
        }
    }

    /// What is waited for will not come, or not here.
    pub(super) fn release_all(&mut self) {
        self.released = self.queue.len();
    }

    /// The next one that need not wait any longer.
    pub(super) fn pop_released(&mut self) -> Option<P> {
        self.released = self.released.checked_sub(1)?;
        self.queue.pop_front().map(|(_, waiter)| waiter)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// A fetch that waits for any of several partitions.
pub trait FetchWaiter {
    /// Whether the fetch has been answered: its entries with the other partitions are dead.
    fn is_over(&self) -> bool;
}

/// The fetches that wait for one partition. A fetch that is over leaves a dead entry, which goes with the next wake-up
/// or when the dead outnumber the living.
#[derive(Debug)]
pub(super) struct FetchWaiters<F> {
    waiters: VecDeque<F>,
    /// So many at the front are to read again.
    released: usize,
    prune_at: usize,
}

impl<F> Default for FetchWaiters<F> {
    fn default() -> Self {
        Self { waiters: VecDeque::new(), released: 0, prune_at: 0 }
    }
}

impl<F: FetchWaiter> FetchWaiters<F> {
    pub(super) fn add(&mut self, waiter: F) {
        if self.waiters.len() >= self.prune_at && self.released == 0 {
            self.waiters.retain(|waiter| !waiter.is_over());
            self.prune_at = (2 * self.waiters.len()).max(PRUNE_AT_LEAST);
        }
        self.waiters.push_back(waiter);
    }

    /// There may be something to read.
    pub(super) fn release_all(&mut self) {
        self.released = self.waiters.len();
    }

    /// The next one that is to read again.
    pub(super) fn pop_released(&mut self) -> Option<F> {
        self.released = self.released.checked_sub(1)?;
        self.waiters.pop_front()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &F> {
        self.waiters.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    fn released<P>(waiters: &mut OffsetWaiters<P>) -> Vec<P> {
        std::iter::from_fn(|| waiters.pop_released()).collect()
    }

    #[test]
    fn waiters_are_released_when_their_offset_is_reached() {
        let mut waiters = OffsetWaiters::default();
        waiters.add(5, "first");
        waiters.add(7, "second");
        waiters.release_to(4);
        assert_eq!(released(&mut waiters), [""; 0]);
        waiters.release_to(6);
        assert_eq!(released(&mut waiters), ["first"]);
        waiters.release_all();
        assert_eq!(released(&mut waiters), ["second"]);
        assert!(waiters.is_empty());
    }

    #[test]
    fn a_repeated_batch_waits_for_its_own_offset() {
        let mut waiters = OffsetWaiters::default();
        waiters.add(7, "new");
        waiters.add(5, "repeated");
        waiters.release_to(5);
        assert_eq!(released(&mut waiters), ["repeated"]);
        waiters.release_to(7);
        waiters.add(3, "late");
        assert_eq!(released(&mut waiters), ["new"], "what is released stays in front");
    }

    #[derive(Clone)]
    struct Fetch(Rc<Cell<bool>>);

    impl FetchWaiter for Fetch {
        fn is_over(&self) -> bool {
            self.0.get()
        }
    }

    fn fetch(is_over: bool) -> Fetch {
        Fetch(Rc::new(Cell::new(is_over)))
    }

    #[test]
    fn fetches_that_are_over_do_not_pile_up() {
        let mut waiters = FetchWaiters::default();
        waiters.add(fetch(false));
        for _ in 0..10_000 {
            waiters.add(fetch(true));
        }
        assert!(waiters.iter().count() <= 16, "{}", waiters.iter().count());
        assert!(waiters.iter().any(|waiter| !waiter.is_over()));
    }

    #[test]
    fn who_begins_to_wait_after_a_wake_up_is_not_woken_by_it() {
        let mut waiters = FetchWaiters::default();
        waiters.add(fetch(true));
        waiters.release_all();
        waiters.add(fetch(false));
        assert!(waiters.pop_released().is_some_and(|first| first.is_over()));
        assert!(waiters.pop_released().is_none());
    }
}
