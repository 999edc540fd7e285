//! How requests wait for partitions: acks=all produce requests for the high watermark, fetchers for the flush, fetches
//! for records.
//!
//! The replica of each partition knows what they wait for (`klamm_replication::partition::Replica`). The append, flush
//! or follower's fetch that completes a wait wakes the request directly; no thread polls.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::Notify;

/// One request that waits until each of several partitions has reached an offset.
#[derive(Debug)]
pub(crate) struct Countdown {
    left: AtomicUsize,
    done: Notify,
}

impl Countdown {
    /// A countdown without partitions. It cannot end before [`Self::seal`].
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(1), done: Notify::new() })
    }

    /// Adds a partition to wait for.
    pub(crate) fn ticket(self: &Arc<Self>) -> CountdownTicket {
        self.left.fetch_add(1, Ordering::Relaxed);
        CountdownTicket(Arc::clone(self))
    }

    fn finish_one(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }

    /// All partitions have been added: the countdown may end now.
    pub(crate) fn seal(&self) {
        self.finish_one();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// Waits until every partition has reached its offset or has dropped its ticket.
    pub(crate) async fn over(&self) {
        while !self.is_over() {
            self.done.notified().await;
        }
    }
}

/// One partition's part in a countdown. Dropping it counts the partition as done.
#[derive(Debug)]
pub(crate) struct CountdownTicket(Arc<Countdown>);

impl Drop for CountdownTicket {
    fn drop(&mut self) {
        self.0.finish_one();
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

    /// Waits until a partition may have records, since the last call.
    pub(crate) async fn moved(&self) {
        self.wake.notified().await;
    }

    /// Waits until the high watermark of a partition has moved. A waiting follower's fetch is answered with the new
    /// one.
    pub(crate) async fn watermark_moved(&self) {
        self.watermark.notified().await;
    }
}

/// A waiting fetch, as registered with one of its partitions. The fetch may have ended.
#[derive(Debug)]
pub(crate) struct WaitingFetch(Weak<FetchWaiter>);

impl WaitingFetch {
    pub(crate) fn of(waiter: &Arc<FetchWaiter>) -> Self {
        Self(Arc::downgrade(waiter))
    }

    /// The high watermark has moved. There are no new records, so the fetch itself decides how long it still waits.
    pub(crate) fn tell_of_watermark(&self) {
        if let Some(waiter) = self.0.upgrade() {
            waiter.watermark.notify_one();
        }
    }

    /// There may be something to read.
    pub(crate) fn wake(&self) {
        if let Some(waiter) = self.0.upgrade() {
            waiter.wake.notify_one();
        }
    }
}

impl klamm_replication::partition::FetchWaiter for WaitingFetch {
    fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_countdown_ends_when_it_is_sealed_and_every_partition_got_there() {
        let countdown = Countdown::new();
        let (one, other) = (countdown.ticket(), countdown.ticket());
        drop(one);
        countdown.seal();
        assert!(!countdown.is_over());
        drop(other);
        assert!(countdown.is_over());
    }
}
