//! Group commit: one thread for each log directory flushes the partitions that were appended to since its last turn.
//!
//! Everything that was appended to a partition while the disk was busy becomes durable with one `fdatasync`. A failed
//! sync is never retried: the directory goes offline. A flush that fails for lack of space or descriptors waits and is
//! tried again; of many waiting partitions the first that fails shows that something is still lacking.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use klamm_log::error::LogError;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::partition::Partition;
use super::room::DirectoryRoom;
use crate::owner::OwnerGuard;

/// The pause before waiting partitions are flushed again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

type Partitions = VecDeque<Arc<Partition>>;

#[derive(Debug, Default)]
struct Queue {
    dirty: Partitions,
    /// Partitions that nobody waits for, as after an election: flushed one by one while `dirty` is empty.
    later: Partitions,
    /// Partitions that could not be flushed for lack of space or descriptors; each is in the queue once.
    waiting: Partitions,
    retry_at: Option<Instant>,
    /// The lack has been logged.
    is_lack_logged: bool,
    stopping: bool,
}

/// The next work of the thread.
enum Work {
    Flush(Partitions),
    Retry(Partitions),
}

/// The flush queue of one log directory.
#[derive(Debug)]
pub(crate) struct Flusher {
    dir: PathBuf,
    /// Whether the directory has room.
    pub(crate) room: DirectoryRoom,
    node_failed: CancellationToken,
    queue: Mutex<Queue>,
    news: Condvar,
}

impl Flusher {
    /// Starts the thread of the log directory `dir`. A panic in it stops the node: acknowledgements would wait for ever.
    pub(crate) fn start(
        dir: PathBuf,
        room: DirectoryRoom,
        node_failed: CancellationToken,
    ) -> std::io::Result<(Arc<Self>, JoinHandle<()>)> {
        let queue = Mutex::default();
        let flusher = Arc::new(Self { dir, room, node_failed, queue, news: Condvar::new() });
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

    /// Queues a partition behind all that somebody waits for. If it is requested meanwhile, it is in both queues.
    pub(crate) fn request_later(&self, partition: Arc<Partition>) {
        self.lock().later.push_back(partition);
        self.news.notify_one();
    }

    /// Ends the thread when all queued partitions are flushed. Partitions that wait for room are flushed when their
    /// logs are closed.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancelled when the node must stop.
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

    /// Flushes a partition; returns false if it waits for room now.
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
        if !partition.flushing.begin_waiting() {
            return;
        }
        let mut queue = self.lock();
        if !std::mem::replace(&mut queue.is_lack_logged, true) {
            warn!("{}: not everything can be flushed for now: {lacking}", self.dir.display());
        }
        queue.waiting.push_back(partition);
        queue.retry_at.get_or_insert_with(|| Instant::now() + RETRY_PAUSE);
    }

    fn retry(&self, mut waiting: Partitions) {
        while let Some(partition) = waiting.pop_front() {
            partition.flushing.end_waiting();
            if !self.flush(partition) {
                break;
            }
        }
        let mut queue = self.lock();
        // The partition that has just failed comes last: it may be the only one that lacks anything.
        waiting.append(&mut queue.waiting);
        queue.waiting = waiting;
        if queue.waiting.is_empty() {
            queue.is_lack_logged = false;
            info!("{}: what could not be flushed is flushed", self.dir.display());
        }
    }

    /// Waits for work: the partitions queued since the last call, or those that wait for room when the pause is over.
    /// `None` ends the thread.
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
            if let Some(partition) = queue.later.pop_front() {
                return Some(Work::Flush(Partitions::from([partition])));
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

#[cfg(test)]
mod tests {
    use klamm_log::disk::MemoryDisk;

    use super::*;
    use crate::replica::log_manager::slow_disk;

    #[test]
    fn what_nobody_waits_for_is_flushed_one_by_one_and_behind_everything_else() {
        let store = slow_disk::start(&MemoryDisk::default());
        let partitions: [Arc<Partition>; 3] =
            std::array::from_fn(|topic| slow_disk::open(&store, &format!("topic-{topic}")));
        let [one, other, urgent] = partitions;
        // Without its thread.
        let flusher = Flusher {
            dir: PathBuf::new(),
            room: DirectoryRoom::new(Arc::default()),
            node_failed: CancellationToken::new(),
            queue: Mutex::default(),
            news: Condvar::new(),
        };
        flusher.request_later(Arc::clone(&one));
        flusher.request_later(Arc::clone(&other));
        flusher.request(Arc::clone(&urgent));
        flusher.stop();
        for expected in [urgent, one, other] {
            let Some(Work::Flush(next)) = flusher.next() else { panic!("there is work") };
            assert_eq!(next.len(), 1);
            assert!(Arc::ptr_eq(&next[0], &expected));
        }
        assert!(flusher.next().is_none(), "the thread ends when all is flushed");
        store.end_flushers();
    }
}
