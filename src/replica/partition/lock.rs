//! The locks of a partition. Who holds one owns what it guards: a panic meanwhile stops the node (`crate::owner`), and
//! nobody sees what it has left half-changed.
//!
//! Whoever unlocks the replica carries out its effects: this is the only place that sets the log's high watermark, wakes
//! who waits and tells the watchers, so nobody can forget to.

use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use klamm_protocol::ids::Offset;
use klamm_replication::partition::Effect;

use super::{FutureReplica, Partition, State};
use crate::owner;

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

/// Something of a partition, locked.
pub(super) struct Locked<'a, T: Guarded> {
    /// There until the drop.
    guarded: Option<MutexGuard<'a, T>>,
    holder: Holder<'a>,
    /// The last high watermark that the watchers have not been told of.
    moved: Option<Offset>,
}

impl<'a, T: Guarded> Locked<'a, T> {
    fn new(guarded: MutexGuard<'a, T>, partition: &'a Partition) -> Self {
        Self { guarded: Some(guarded), holder: Holder(partition), moved: None }
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
    /// # Panics
    /// After a panic under the lock.
    pub(super) fn lock(&self) -> Locked<'_, State> {
        let guarded = self.state.lock().expect("no panic has left the partition half-changed");
        Locked::new(guarded, self)
    }

    /// # Panics
    /// After a panic under the lock.
    pub(super) fn lock_future(&self) -> Locked<'_, Option<FutureReplica>> {
        let guarded = self.future.lock().expect("no panic has left the copy half-changed");
        Locked::new(guarded, self)
    }

    /// Whether a panic has left it half-changed. Its logs are not to be closed, but recovered by the next start.
    pub(crate) fn is_broken(&self) -> bool {
        self.state.is_poisoned() || self.future.is_poisoned()
    }
}
