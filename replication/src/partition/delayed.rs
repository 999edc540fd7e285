//! The requests that wait for a replica (Kafka's `DelayedProduce`, `DelayedFetch` and `DelayedDeleteRecords`).
//!
//! The shell defines the waiter and wakes it. Completed waiters are marked as released here and popped one by one,
//! without an allocation.

use klamm_protocol::ids::Offset;
use std::collections::VecDeque;

/// The minimum length of the queue of fetches at which ended ones are removed.
const PRUNE_AT_LEAST: usize = 16;

/// Waiters for an offset, in the order of the offsets.
#[derive(Debug)]
pub(super) struct OffsetWaiters<P> {
    queue: VecDeque<(Offset, P)>,
    /// The number of released waiters at the front.
    released: usize,
}

impl<P> Default for OffsetWaiters<P> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), released: 0 }
    }
}

impl<P> OffsetWaiters<P> {
    /// The offset is usually the log's end; for a duplicate batch it is an earlier one.
    pub(super) fn add(&mut self, offset: Offset, waiter: P) {
        let later = self.queue.iter().rev().take_while(|(queued, _)| *queued > offset).count();
        let at = (self.queue.len() - later).max(self.released);
        self.queue.insert(at, (offset, waiter));
    }

    /// Releases the waiters for offsets up to `reached`.
    pub(super) fn release_to(&mut self, reached: Offset) {
        while self.queue.get(self.released).is_some_and(|(offset, _)| *offset <= reached) {
            self.released += 1;
        }
    }

    /// Releases all waiters: their offsets will not be reached on this broker.
    pub(super) fn release_all(&mut self) {
        self.released = self.queue.len();
    }

    /// The next released waiter.
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
    /// Whether the fetch has been answered, so that its entries with other partitions are obsolete.
    fn is_over(&self) -> bool;
}

/// The fetches that wait for one partition. A fetch that was answered leaves an obsolete entry, which is removed at the
/// next wake-up or when more than half are obsolete.
#[derive(Debug)]
pub(super) struct FetchWaiters<F> {
    waiters: VecDeque<F>,
    /// The number of fetches at the front that read again.
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

    /// Releases all fetches, because there may be new records.
    pub(super) fn release_all(&mut self) {
        self.released = self.waiters.len();
    }

    /// The next fetch that reads again.
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
