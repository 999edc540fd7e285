//! A bound on the segment files that are open at once. It tracks when each was used; the segments own their handles and
//! close them on request.
//!
//! A segment with unsynced bytes keeps its handle: closing it could lose a write error that only this handle reports.
//! So the bound applies to idle segments, including active ones without unsynced bytes and empty ones.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// An owner of a file handle that can be closed.
pub(crate) trait Evict: Send + Sync {
    /// The time of the last use, by [`OpenFiles::tick`]; `None` if it must not be closed now.
    fn last_used(&self) -> Option<u64>;

    /// Closes the handle; returns false if it is in use after all.
    fn evict(&self) -> bool;
}

/// The open segment files of all log directories of a process.
pub struct OpenFiles {
    limit: usize,
    clock: AtomicU64,
    count: AtomicUsize,
    open: Mutex<Vec<Weak<dyn Evict>>>,
}

impl fmt::Debug for OpenFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFiles")
            .field("limit", &self.limit)
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}

impl OpenFiles {
    /// Allows `limit` idle segment files to stay open.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.max(1),
            clock: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            open: Mutex::new(Vec::new()),
        })
    }

    /// The approximate number of open segment files.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The next tick of the use counter.
    pub(crate) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a newly opened file and closes the least recently used ones above the limit.
    pub(crate) fn opened(&self, file: Weak<dyn Evict>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push(file);
        self.count.store(open.len(), Ordering::Relaxed);
        drop(open);
        self.trim();
    }

    /// Closes the least recently used files above the limit, after some have become idle.
    pub(crate) fn trim(&self) {
        let victims = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.len() <= self.limit { return } else { self.take_oldest(&mut open) }
        };
        self.evict(victims);
    }

    /// Closes the older of the idle files, after the process ran out of file descriptors.
    pub fn close_idle(&self) {
        let victims = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            self.take_oldest(&mut open)
        };
        self.evict(victims);
    }

    /// Called without the lock: closing a file is a system call.
    fn evict(&self, victims: Vec<Arc<dyn Evict>>) {
        for victim in victims.iter().filter(|victim| !victim.evict()) {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.push(Arc::downgrade(victim));
        }
    }

    /// Removes the older quarter of the idle files, or more if the limit requires it, so that one sort serves many
    /// opens.
    fn take_oldest(&self, open: &mut Vec<Weak<dyn Evict>>) -> Vec<Arc<dyn Evict>> {
        let mut alive = open.drain(..).filter_map(|file| file.upgrade()).collect::<Vec<_>>();
        // Cached keys: the times of use change during the sort, which needs one order.
        alive.sort_by_cached_key(|file| file.last_used().unwrap_or(u64::MAX));
        let busy = alive.iter().filter(|file| file.last_used().is_none()).count();
        let idle = alive.len().saturating_sub(busy);
        let excess = alive.len().saturating_sub(self.limit);
        let kept = alive.split_off(idle.div_ceil(4).max(excess).min(idle));
        open.extend(kept.iter().map(Arc::downgrade));
        self.count.store(open.len(), Ordering::Relaxed);
        alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct File {
        used: Option<u64>,
        evicted: AtomicUsize,
    }

    impl Evict for File {
        fn last_used(&self) -> Option<u64> {
            self.used
        }

        fn evict(&self) -> bool {
            self.evicted.fetch_add(1, Ordering::Relaxed);
            true
        }
    }

    fn file(used: Option<u64>) -> Arc<File> {
        Arc::new(File { used, evicted: AtomicUsize::new(0) })
    }

    #[test]
    fn the_oldest_idle_files_are_closed_and_busy_ones_stay() {
        let files = OpenFiles::new(4);
        let all = [file(Some(3)), file(None), file(Some(1)), file(Some(2)), file(Some(4))];
        for file in &all {
            let weak: Weak<File> = Arc::downgrade(file);
            files.opened(weak);
        }
        let evicted = all.map(|file| file.evicted.load(Ordering::Relaxed));
        assert_eq!(evicted, [0, 0, 1, 0, 0]);
        assert_eq!(files.count(), 4);
    }

    #[test]
    fn files_that_are_gone_do_not_count() {
        let files = OpenFiles::new(2);
        for n in 0..10 {
            let weak: Weak<File> = Arc::downgrade(&file(Some(n)));
            files.opened(weak);
        }
        assert!(files.count() <= 2);
    }
}
