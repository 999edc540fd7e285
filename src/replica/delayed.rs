//! Who waits for a partition to move: acks=all producers for its high watermark, fetchers for its disk,
//! fetches for records.
//!
//! What moves the partition, an append, a flush or a follower's fetch, wakes them directly; no thread polls.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use klamm_protocol::ids::Offset;
use tokio::sync::Notify;

/// One request that waits for several partitions to reach an offset each.
#[derive(Debug)]
pub(crate) struct Countdown {
    left: AtomicUsize,
    done: Notify,
}

impl Countdown {
    /// A countdown that nobody has been added to yet. It cannot end before [`Self::seal`].
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(1), done: Notify::new() })
    }

    fn add(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    fn finish_one(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }

    /// All partitions have been added: from now on the countdown can end.
    pub(crate) fn seal(&self) {
        self.finish_one();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// Waits until every partition has got there or has given up.
    pub(crate) async fn over(&self) {
        while !self.is_over() {
            self.done.notified().await;
        }
    }
}

/// Those who wait for one partition to reach an offset, in the order of the offsets.
#[derive(Debug, Default)]
pub(crate) struct OffsetWaiters {
    queue: VecDeque<(Offset, Arc<Countdown>)>,
}

impl OffsetWaiters {
    /// Waits for `offset` to be reached. Offsets never fall from call to call: they are log end offsets,
    /// taken under the partition's lock, and a truncation ends all waiting.
    pub(crate) fn add(&mut self, offset: Offset, countdown: &Arc<Countdown>) {
        countdown.add();
        self.queue.push_back((offset, Arc::clone(countdown)));
    }

    pub(crate) fn on_reached(&mut self, reached: Offset) {
        while self.queue.front().is_some_and(|(offset, _)| *offset <= reached) {
            if let Some((_, countdown)) = self.queue.pop_front() {
                countdown.finish_one();
            }
        }
    }

    /// Nobody needs to wait any longer: the partition has failed, moved or gone.
    pub(crate) fn give_up(&mut self) {
        self.on_reached(Offset::MAX);
    }
}

/// A fetch that waits for any of its partitions.
#[derive(Debug, Default)]
pub(crate) struct FetchWaiter {
    wake: Notify,
    watermark: Notify,
}

impl FetchWaiter {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Waits until a partition has moved since the last call.
    pub(crate) async fn moved(&self) {
        self.wake.notified().await;
    }

    /// Waits until the high watermark of a partition has moved, of which a follower is to hear.
    pub(crate) async fn watermark_moved(&self) {
        self.watermark.notified().await;
    }
}

/// The fetches that wait for one partition. A fetch that is over leaves a dead entry, which goes
/// with the next wake-up or when the dead outnumber the living.
#[derive(Debug, Default)]
pub(crate) struct FetchWaiters {
    waiters: Vec<Weak<FetchWaiter>>,
    prune_at: usize,
}

impl FetchWaiters {
    pub(crate) fn add(&mut self, waiter: &Arc<FetchWaiter>) {
        if self.waiters.len() >= self.prune_at {
            self.waiters.retain(|waiter| waiter.strong_count() > 0);
            self.prune_at = (2 * self.waiters.len()).max(16);
        }
        self.waiters.push(Arc::downgrade(waiter));
    }

    /// The high watermark has moved. There is nothing to read, so all go on waiting.
    pub(crate) fn tell_of_watermark(&self) {
        for waiter in &self.waiters {
            if let Some(waiter) = waiter.upgrade() {
                waiter.watermark.notify_one();
            }
        }
    }

    pub(crate) fn wake(&mut self) {
        for waiter in self.waiters.drain(..) {
            if let Some(waiter) = waiter.upgrade() {
                waiter.wake.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_countdown_ends_when_it_is_sealed_and_every_partition_got_there() {
        let countdown = Countdown::new();
        let mut waiters = OffsetWaiters::default();
        waiters.add(5, &countdown);
        waiters.add(7, &countdown);
        waiters.on_reached(6);
        countdown.seal();
        assert!(!countdown.is_over());
        waiters.on_reached(7);
        assert!(countdown.is_over());
    }

    #[test]
    fn fetches_that_are_over_do_not_pile_up() {
        let mut waiters = FetchWaiters::default();
        let living = FetchWaiter::new();
        waiters.add(&living);
        for _ in 0..10_000 {
            waiters.add(&FetchWaiter::new());
        }
        assert!(waiters.waiters.len() <= 16, "{}", waiters.waiters.len());
        assert!(waiters.waiters.iter().any(|waiter| waiter.strong_count() > 0));
    }
}
