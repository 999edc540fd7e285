//! When and by whom the log of a partition is flushed: the flusher of its directory, what is queued there, and the last
//! flush.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::Partition;
use crate::clock;
use crate::replica::flusher::Flusher;

/// The sync that is queued at the flusher.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Queued {
    None,
    /// Nobody waits for it.
    Later,
    Now,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Flushing {
    /// The flusher of the log's directory.
    flusher: RwLock<Arc<Flusher>>,
    /// A [`Queued`].
    queued: AtomicU8,
    /// When the log was last synced, or opened.
    last_flush_ms: AtomicI64,
    /// The flusher waits for room on the disk to flush the log.
    waits_for_room: AtomicBool,
}

impl Flushing {
    pub(super) fn new(flusher: Arc<Flusher>) -> Self {
        Self {
            flusher: RwLock::new(flusher),
            queued: AtomicU8::new(Queued::None as u8),
            last_flush_ms: AtomicI64::new(clock::now_ms()),
            waits_for_room: AtomicBool::new(false),
        }
    }

    fn flusher(&self) -> Arc<Flusher> {
        Arc::clone(&self.flusher.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the log's directory is full: nothing is appended until there is room.
    pub(super) fn is_full(&self) -> bool {
        self.flusher.read().unwrap_or_else(PoisonError::into_inner).room.is_full()
    }

    /// An append to the log found no space.
    pub(super) fn on_full(&self) {
        self.flusher().room.on_full();
    }

    /// The log lies in another directory now.
    pub(super) fn set_flusher(&self, flusher: Arc<Flusher>) {
        *self.flusher.write().unwrap_or_else(PoisonError::into_inner) = flusher;
    }

    /// Queues a sync of the log, unless one is queued already.
    pub(super) fn request(&self, partition: &Arc<Partition>) {
        let now = Queued::Now as u8;
        if self.queued.swap(now, Ordering::AcqRel) != now {
            self.flusher().request(Arc::clone(partition));
        }
    }

    /// Queues a sync that nobody waits for, unless one is queued already.
    pub(super) fn request_later(&self, partition: &Arc<Partition>) {
        let (none, later) = (Queued::None as u8, Queued::Later as u8);
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        if self.queued.compare_exchange(none, later, success, failure).is_ok() {
            self.flusher().request_later(Arc::clone(partition));
        }
    }

    /// The flusher begins to flush. An append after this point queues another flush.
    pub(super) fn on_begun(&self) {
        self.queued.store(Queued::None as u8, Ordering::Release);
    }

    pub(super) fn on_done(&self, now_ms: i64) {
        self.last_flush_ms.store(now_ms, Ordering::Relaxed);
    }

    /// The time since the last flush.
    pub(super) fn age_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.last_flush_ms.load(Ordering::Relaxed))
    }

    /// Notes that a flush waits for room. Returns false if that was noted before.
    pub(crate) fn begin_waiting(&self) -> bool {
        !self.waits_for_room.swap(true, Ordering::AcqRel)
    }

    /// The waiting flush is tried again.
    pub(crate) fn end_waiting(&self) {
        self.waits_for_room.store(false, Ordering::Release);
    }
}
