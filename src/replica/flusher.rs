//! Group commit: one thread for each log directory syncs what has been appended since it last looked.
//!
//! Everything that was appended to a partition while the disk was busy becomes durable with one
//! `fdatasync`. A sync that fails is never repeated: the directory is reported as failed and serves
//! nothing any more. What cannot be written for lack of space or descriptors waits and is tried again; of many
//! that wait, one is enough to find out that something is still lacking.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use klamm_log::error::LogError;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::partition::Partition;
use crate::owner::OwnerGuard;

/// The pause before what waits for room is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

type Partitions = VecDeque<Arc<Partition>>;

#[derive(Debug, Default)]
struct Queue {
    dirty: Partitions,
    /// They could not be flushed for lack of something; each is here once.
    waiting: Partitions,
    retry_at: Option<Instant>,
    /// The log says that something waits.
    told: bool,
    stopping: bool,
}

/// What the thread is to do next.
enum Work {
    Flush(Partitions),
    Retry(Partitions),
}

/// Where partitions of one log directory ask for a sync.
#[derive(Debug)]
pub(crate) struct Flusher {
    dir: PathBuf,
    node_failed: CancellationToken,
    queue: Mutex<Queue>,
    news: Condvar,
}

impl Flusher {
    /// Starts the thread of the log directory `dir`. A panic in it stops the node: acknowledgements would wait for ever.
    pub(crate) fn start(
        dir: PathBuf,
        node_failed: CancellationToken,
    ) -> std::io::Result<(Arc<Self>, JoinHandle<()>)> {
        let queue = Mutex::default();
        let flusher = Arc::new(Self { dir, node_failed, queue, news: Condvar::new() });
        let running = Arc::clone(&flusher);
        let thread = std::thread::Builder::new()
            .name("log-flusher".to_owned())
            .spawn(move || running.run())?;
        Ok((flusher, thread))
    }

    /// Queues a partition that has something to sync. It is queued once at a time: see
    /// [`Partition::request_flush`].
    pub(crate) fn request(&self, partition: Arc<Partition>) {
        self.lock().dirty.push_back(partition);
        self.news.notify_one();
    }

    /// Ends the thread once everything that is queued has been synced. What waits for room is left to the closing of
    /// the logs.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancelled when the node cannot go on.
    pub(crate) fn node_failed(&self) -> &CancellationToken {
        &self.node_failed
    }

    fn run(&self) {
        let what = format!("the flusher of {}", self.dir.display());
        let _owner = OwnerGuard::of(what, &self.node_failed);
        while let Some(work) = self.next() {
            match work {
                Work::Flush(dirty) => {
                    for partition in dirty {
                        self.flush(partition);
                    }
                }
                Work::Retry(waiting) => self.retry(waiting),
            }
        }
    }

    /// Whether nothing of the partition waits any more.
    fn flush(&self, partition: Arc<Partition>) -> bool {
        match partition.flush() {
            Ok(()) => true,
            Err(lacking) if lacking.passes() => {
                self.wait_for_room(partition, &lacking);
                false
            }
            Err(failure) => {
                error!("log directory {} goes offline: {failure}", self.dir.display());
                partition.fail();
                true
            }
        }
    }

    fn wait_for_room(&self, partition: Arc<Partition>, lacking: &LogError) {
        if !partition.begin_waiting() {
            return;
        }
        let mut queue = self.lock();
        if !std::mem::replace(&mut queue.told, true) {
            warn!("{}: not everything can be flushed for now: {lacking}", self.dir.display());
        }
        queue.waiting.push_back(partition);
        queue.retry_at.get_or_insert_with(|| Instant::now() + RETRY_PAUSE);
    }

    fn retry(&self, mut waiting: Partitions) {
        while let Some(partition) = waiting.pop_front() {
            partition.end_waiting();
            if !self.flush(partition) {
                break;
            }
        }
        let mut queue = self.lock();
        // Whoever has failed just now comes last: it may be the only one that lacks anything.
        waiting.append(&mut queue.waiting);
        queue.waiting = waiting;
        if queue.waiting.is_empty() {
            queue.told = false;
            info!("{}: what could not be flushed is flushed", self.dir.display());
        }
    }

    /// Everything that has been queued since the last call, or what waits for room when its pause is over; waits for
    /// something.
    fn next(&self) -> Option<Work> {
        let mut queue = self.lock();
        loop {
            let pause = queue.retry_at.map(|due| due.saturating_duration_since(Instant::now()));
            if pause.is_some_and(|pause| pause.is_zero()) {
                queue.retry_at = None;
                return Some(Work::Retry(std::mem::take(&mut queue.waiting)));
            }
            if !queue.dirty.is_empty() {
                return Some(Work::Flush(std::mem::take(&mut queue.dirty)));
            }
            if queue.stopping {
                return None;
            }
            queue = match pause {
                Some(pause) => {
                    let waited = self.news.wait_timeout(queue, pause);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.news.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}
