//! Group commit: one thread for each log directory syncs what has been appended since it last looked.
//!
//! Everything that was appended to a partition while the disk was busy becomes durable with one
//! `fdatasync`. A sync that fails is never repeated: the directory is reported as failed and serves
//! nothing any more.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tracing::error;

use super::handle::Partition;

#[derive(Debug, Default)]
struct Queue {
    dirty: VecDeque<Arc<Partition>>,
    stopping: bool,
}

/// Where partitions of one log directory ask for a sync.
#[derive(Debug)]
pub(crate) struct Flusher {
    dir: PathBuf,
    queue: Mutex<Queue>,
    news: Condvar,
}

impl Flusher {
    /// Starts the thread of the log directory `dir`.
    pub(crate) fn start(dir: PathBuf) -> std::io::Result<(Arc<Self>, JoinHandle<()>)> {
        let flusher = Arc::new(Self { dir, queue: Mutex::default(), news: Condvar::new() });
        let running = Arc::clone(&flusher);
        let thread = std::thread::Builder::new()
            .name("log-flusher".to_owned())
            .spawn(move || running.run())?;
        Ok((flusher, thread))
    }

    /// Queues a partition that has something to sync. It is queued once at a time: see
    /// [`Partition::needs_flush`].
    pub(crate) fn request(&self, partition: Arc<Partition>) {
        self.lock().dirty.push_back(partition);
        self.news.notify_one();
    }

    /// Ends the thread once everything that is queued has been synced.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some(dirty) = self.next() {
            for partition in dirty {
                if let Err(failure) = partition.flush() {
                    error!("log directory {} goes offline: {failure}", self.dir.display());
                    partition.fail();
                }
            }
        }
    }

    /// Everything that has been queued since the last call; waits for something.
    fn next(&self) -> Option<VecDeque<Arc<Partition>>> {
        let mut queue = self.lock();
        loop {
            if !queue.dirty.is_empty() {
                return Some(std::mem::take(&mut queue.dirty));
            }
            if queue.stopping {
                return None;
            }
            queue = self.news.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
