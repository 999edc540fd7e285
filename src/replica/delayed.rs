//! How requests wait for partitions to move: acks=all producers for the high watermark, fetchers for the disk,
//! fetches for records.
//!
//! For what they wait the replica of each partition knows (`klamm_replication::partition::Replica`). What moves it, an
//! append, a flush or a follower's fetch, wakes them directly; no thread polls.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

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

    /// Waits for one more.
    pub(crate) fn ticket(self: &Arc<Self>) -> CountdownTicket {
        self.left.fetch_add(1, Ordering::Relaxed);
        CountdownTicket(Arc::clone(self))
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

/// One partition's part in a countdown. Whoever drops it has let the countdown go on.
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

    /// Waits until a partition has moved since the last call.
    pub(crate) async fn moved(&self) {
        self.wake.notified().await;
    }

    /// Waits until the high watermark of a partition has moved, of which a follower is to hear.
    pub(crate) async fn watermark_moved(&self) {
        self.watermark.notified().await;
    }
}

/// A fetch as one of the partitions knows it that it waits for. It may be over.
#[derive(Debug)]
pub(crate) struct WaitingFetch(Weak<FetchWaiter>);

impl WaitingFetch {
    pub(crate) fn of(waiter: &Arc<FetchWaiter>) -> Self {
        Self(Arc::downgrade(waiter))
    }

    /// The high watermark has moved. There is nothing to read, so it goes on waiting.
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
