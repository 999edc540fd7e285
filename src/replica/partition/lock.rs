//! The locks of a partition. Who holds one owns what it guards: a panic meanwhile stops the node (`crate::owner`), and
//! nobody sees what it has left half-changed.

use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;

use super::{FutureReplica, Partition, State};
use crate::owner;

/// Something of a partition, locked.
pub(super) struct Locked<'a, T> {
    guarded: MutexGuard<'a, T>,
    partition: &'a Partition,
}

impl<T> Deref for Locked<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guarded
    }
}

impl<T> DerefMut for Locked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guarded
    }
}

impl<T> Drop for Locked<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Partition { topic, index, node_failed, .. } = self.partition;
            owner::stop_node(&format!("whoever held {topic}-{index}"), node_failed);
        }
    }
}

impl Partition {
    /// # Panics
    /// After a panic under the lock.
    pub(super) fn lock(&self) -> Locked<'_, State> {
        let guarded = self.state.lock().expect("no panic has left the partition half-changed");
        Locked { guarded, partition: self }
    }

    /// # Panics
    /// After a panic under the lock.
    pub(super) fn lock_future(&self) -> Locked<'_, Option<FutureReplica>> {
        let guarded = self.future.lock().expect("no panic has left the copy half-changed");
        Locked { guarded, partition: self }
    }

    /// Whether a panic has left it half-changed. Its logs are not to be closed, but recovered by the next start.
    pub(crate) fn is_broken(&self) -> bool {
        self.state.is_poisoned() || self.future.is_poisoned()
    }
}
