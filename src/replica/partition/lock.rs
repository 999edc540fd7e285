//! The locks of a partition. The holder of a lock owns what it guards. A panic of the holder stops the node
//! (`crate::owner`), and no other thread sees a half-changed state.
//!
//! The release of the replica's lock performs the replica's effects. This is the only place that sets the log's high
//! watermark, wakes waiting requests and notifies the watchers, so no caller can forget it.
//!
//! Most holders keep the lock for microseconds. Some keep it while the disk works, because no record may be appended
//! meanwhile: truncation, the replacement by a future log, retention, and the roll of a compacted log. They take it
//! with [`Partition::lock_for_disk`], on a thread that may block. A thread that then finds the lock taken waits as
//! [`blocking::in_place`] does. So a sync of seconds delays only the requests that need this partition.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

use klamm_log::log::Log;
use klamm_protocol::ids::Offset;
use klamm_replication::partition::Effect;

use super::{FutureReplica, Partition, State};
use crate::{blocking, owner};

/// State behind a lock of a partition.
pub(super) trait Guarded {
    /// Performs all pending effects. Returns the high watermark if it has moved.
    fn settle(&mut self, partition: &Partition) -> Option<Offset>;
}

impl Guarded for State {
    fn settle(&mut self, partition: &Partition) -> Option<Offset> {
        let Self { log, replica } = self;
        let mut moved = None;
        while let Some(effect) = replica.poll_effect() {
            match effect {
                Effect::SetHighWatermark(high_watermark) => {
                    if let Some(log) = log {
                        // If the log starts above it, the log uses its start offset instead.
                        let set = log.set_high_watermark(high_watermark);
                        assert!(
                            set >= high_watermark,
                            "the high watermark {high_watermark} exceeds the end {set} of the log"
                        );
                    }
                    for fetch in replica.waiting_followers() {
                        fetch.tell_of_watermark();
                    }
                    moved = Some(high_watermark);
                }
                Effect::Finish(ticket) => drop(ticket),
                Effect::Wake(fetch) => fetch.wake(),
            }
        }
        if replica.is_held_back() {
            partition.held_back.report(partition.key());
        }
        let leads = replica.is_leader();
        if partition.leads.load(Ordering::Relaxed) != leads {
            partition.leads.store(leads, Ordering::Release);
        }
        moved
    }
}

impl Guarded for Option<FutureReplica> {
    fn settle(&mut self, _: &Partition) -> Option<Offset> {
        None
    }
}

/// Stops the node if a panic drops it.
struct Holder<'a>(&'a Partition);

impl Drop for Holder<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Partition { topic, index, node_failed, .. } = self.0;
            owner::stop_node(&format!("the holder of the lock of {topic}-{index}"), node_failed);
        }
    }
}

/// Counts a thread that takes the lock to wait for the disk, from before it takes the lock until after the release.
struct DiskHolder<'a>(&'a AtomicUsize);

impl<'a> DiskHolder<'a> {
    fn count(holders: &'a AtomicUsize) -> Self {
        holders.fetch_add(1, Ordering::AcqRel);
        Self(holders)
    }
}

impl Drop for DiskHolder<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A lock of a partition, held.
pub(super) struct Locked<'a, T: Guarded> {
    /// `Some` until the drop.
    guarded: Option<MutexGuard<'a, T>>,
    holder: Holder<'a>,
    /// The last high watermark that the watchers have not received yet.
    moved: Option<Offset>,
    /// Dropped last: after the lock is released.
    disk: Option<DiskHolder<'a>>,
}

impl<'a, T: Guarded> Locked<'a, T> {
    fn new(guarded: MutexGuard<'a, T>, partition: &'a Partition) -> Self {
        Self { guarded: Some(guarded), holder: Holder(partition), moved: None, disk: None }
    }

    /// Performs the pending effects now, for a holder that needs their outcome. Otherwise the drop performs them.
    pub(super) fn settle(&mut self) {
        let partition = self.holder.0;
        self.moved = (**self).settle(partition).or(self.moved);
    }
}

impl<T: Guarded> Deref for Locked<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guarded.as_ref().expect("only the drop unlocks it")
    }
}

impl<T: Guarded> DerefMut for Locked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guarded.as_mut().expect("only the drop unlocks it")
    }
}

impl<T: Guarded> Drop for Locked<'_, T> {
    fn drop(&mut self) {
        // After a panic the state may be half-changed: the effects are not performed, and the mutex is poisoned.
        if !std::thread::panicking() {
            self.settle();
            drop(self.guarded.take());
            self.holder.0.announce(self.moved);
        }
    }
}

impl Partition {
    /// For work that does not wait for the disk.
    ///
    /// # Panics
    /// After a panic under the lock.
    pub(super) fn lock(&self) -> Locked<'_, State> {
        Locked::new(self.acquire(&self.state), self)
    }

    /// For work that waits for the disk: on a thread that may block.
    ///
    /// # Panics
    /// After a panic under the lock.
    pub(super) fn lock_for_disk(&self) -> Locked<'_, State> {
        let disk = DiskHolder::count(&self.disk_holders);
        let mut locked = self.lock();
        locked.disk = Some(disk);
        locked
    }

    /// Takes the lock for an append. If `may_sync` says that the append may sync, takes it as [`Self::lock_for_disk`]
    /// does and lets the append block.
    ///
    /// # Panics
    /// After a panic under the lock.
    pub(super) fn lock_to_append<'a, R>(
        &'a self,
        may_sync: impl FnOnce(&Log) -> bool,
        append: impl FnOnce(Locked<'a, State>) -> R,
    ) -> R {
        let state = self.lock();
        if state.log.as_ref().is_some_and(may_sync) {
            drop(state);
            blocking::in_place(|| append(self.lock_for_disk()))
        } else {
            append(state)
        }
    }

    /// The lock of the future log. [`super::future`] holds it while it copies.
    ///
    /// # Panics
    /// After a panic under the lock.
    pub(super) fn lock_future(&self) -> Locked<'_, Option<FutureReplica>> {
        let guarded = self.future.lock().expect("no panic has left the copy half-changed");
        Locked::new(guarded, self)
    }

    /// Tries the lock once, so that a free lock costs little. A runtime worker may still wait for one sync: if a holder
    /// announces itself after this has read the count, and takes the lock first.
    fn acquire<'a>(&self, mutex: &'a Mutex<State>) -> MutexGuard<'a, State> {
        let acquired = match mutex.try_lock() {
            Ok(guarded) => return guarded,
            Err(TryLockError::Poisoned(poisoned)) => Err(poisoned),
            Err(TryLockError::WouldBlock) if self.disk_holders.load(Ordering::Acquire) > 0 => {
                blocking::in_place(|| mutex.lock())
            }
            Err(TryLockError::WouldBlock) => mutex.lock(),
        };
        acquired.expect("no panic has left the partition half-changed")
    }

    /// Whether a panic has left the state half-changed. Then its logs must not be closed: the next start recovers them.
    pub(crate) fn is_broken(&self) -> bool {
        self.state.is_poisoned() || self.future.is_poisoned()
    }
}
