//! The locks of a partition. Who holds one owns what it guards: a panic meanwhile stops the node (`crate::owner`), and
//! nobody sees what it has left half-changed.
//!
//! Whoever unlocks the replica carries out its effects: this is the only place that sets the log's high watermark, wakes
//! who waits and tells the watchers, so nobody can forget to.
//!
//! Most holders keep the lock for microseconds. Some keep it for as long as the disk takes, because nothing may be appended
//! meanwhile: truncation, the exchange of directories, retention, and the roll of a compacted log. They take it with
//! [`Partition::lock_for_disk`], on a thread that may block, and who meets the lock then waits as [`blocking::in_place`] does:
//! a disk that syncs for seconds costs the requests that need the partition, and no other.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

use klamm_log::log::Log;
use klamm_protocol::ids::Offset;
use klamm_replication::partition::Effect;

use super::{FutureReplica, Partition, State};
use crate::{blocking, owner};

/// What a lock of a partition guards.
pub(super) trait Guarded {
    /// Leaves nothing undone. Returns the high watermark if it has moved.
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
                        // The log raises it to its start.
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
            owner::stop_node(&format!("whoever held {topic}-{index}"), node_failed);
        }
    }
}

/// Counts a holder of the lock who waits for the disk, from before the lock is taken until after it is released.
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

/// Something of a partition, locked.
pub(super) struct Locked<'a, T: Guarded> {
    /// There until the drop.
    guarded: Option<MutexGuard<'a, T>>,
    holder: Holder<'a>,
    /// The last high watermark that the watchers do not know yet.
    moved: Option<Offset>,
    /// Dropped last.
    disk: Option<DiskHolder<'a>>,
}

impl<'a, T: Guarded> Locked<'a, T> {
    fn new(guarded: MutexGuard<'a, T>, partition: &'a Partition) -> Self {
        Self { guarded: Some(guarded), holder: Holder(partition), moved: None, disk: None }
    }

    /// Carries out now what is done at the latest when this is dropped, for whoever wants to see the outcome.
    pub(super) fn settle(&mut self) {
        let partition = self.holder.0;
        self.moved = (**self).settle(partition).or(self.moved);
    }
}

impl<T: Guarded> Deref for Locked<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guarded.as_ref().expect("it is unlocked by the drop alone")
    }
}

impl<T: Guarded> DerefMut for Locked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guarded.as_mut().expect("it is unlocked by the drop alone")
    }
}

impl<T: Guarded> Drop for Locked<'_, T> {
    fn drop(&mut self) {
        // After a panic the state may be half-changed: no effect is carried out, and the mutex is poisoned.
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

    /// For an append: as [`Self::lock_for_disk`], and where blocking is allowed, if the log says that it may sync.
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

    /// The copy's lock, which [`super::future`] holds while it copies.
    ///
    /// # Panics
    /// After a panic under the lock.
    pub(super) fn lock_future(&self) -> Locked<'_, Option<FutureReplica>> {
        let guarded = self.future.lock().expect("no panic has left the copy half-changed");
        Locked::new(guarded, self)
    }

    /// Who finds the lock free pays for one attempt. One sync may still be waited for on a worker: that of a holder who announces
    /// itself between the look at the count and the wait, and takes the lock first.
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

    /// Whether a panic has left it half-changed. Its logs are not to be closed, but recovered by the next start.
    pub(crate) fn is_broken(&self) -> bool {
        self.state.is_poisoned() || self.future.is_poisoned()
    }
}
