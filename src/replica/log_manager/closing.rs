//! Closes the log directories: logs closed, offset checkpoints written, and the mark of a clean shutdown.
//!
//! A directory gets the mark only if every log in it was closed; a failure in one does not affect the others.

use std::sync::Arc;

use klamm_log::log::Log;
use klamm_protocol::ids::{Offset, PartitionIndex};
use tracing::error;

use super::directory::Directory;
use super::{LogManager, lock};
use crate::replica::partition::Partition;

/// A log that has been closed, with or without success.
struct Closed {
    key: (String, PartitionIndex),
    place: usize,
    in_order: bool,
    /// `None` for a copy.
    recovery_point: Option<Offset>,
    high_watermark: Offset,
    log_start: Offset,
}

impl LogManager {
    /// Closes all logs and marks a clean shutdown in each directory without failure.
    pub(crate) fn close(&self, partitions: &[Arc<Partition>], broker_epoch: Option<i64>) {
        self.end_flushers();
        let closed: Vec<Closed> =
            partitions.iter().flat_map(|partition| self.close_logs(partition)).collect();
        for (place, directory) in self.in_use() {
            let here = || closed.iter().filter(|closed| closed.place == place);
            let mut offsets = lock(&directory.checkpoints).of_unopened();
            for closed in here().filter(|closed| closed.in_order) {
                offsets[0].extend(closed.recovery_point.map(|at| (closed.key.clone(), at)));
                offsets[1].insert(closed.key.clone(), closed.high_watermark);
                offsets[2].insert(closed.key.clone(), closed.log_start);
            }
            let in_order = here().all(|closed| closed.in_order) && is_verified(directory);
            let left = directory.write_checkpoints(offsets).and_then(|()| match in_order {
                true => directory.dir.mark_clean_shutdown(broker_epoch),
                false => Ok(()),
            });
            if let Err(failure) = left {
                error!(
                    "{} gets no mark of a clean shutdown, the next start recovers its logs: {failure}",
                    directory.dir.path().display()
                );
            }
        }
    }

    pub(in crate::replica) fn end_flushers(&self) {
        for (_, directory) in self.in_use() {
            directory.flusher.stop();
            let thread = lock(&directory.flusher_thread).take();
            if thread.is_some_and(|thread| thread.join().is_err()) {
                error!("the flusher of {} panicked", directory.dir.path().display());
            }
        }
    }

    /// Closes the log of a partition, and its copy if it is moving to another directory.
    fn close_logs(&self, partition: &Partition) -> Vec<Closed> {
        let (topic, index) = (partition.topic(), partition.index());
        let close = |log: Log, place: usize, is_copy: bool| {
            let (log_start, high_watermark, end) =
                (log.log_start(), log.high_watermark(), log.log_end());
            let outcome = log.close();
            if let Err(failure) = &outcome {
                error!(%topic, partition = index, "{topic}-{index} is not closed: {failure}");
            }
            Closed {
                key: (topic.to_string(), index),
                place,
                in_order: outcome.is_ok(),
                recovery_point: (!is_copy).then_some(end),
                high_watermark,
                log_start,
            }
        };
        if partition.is_broken() {
            error!(%topic, partition = index, "{topic}-{index} is not closed: a panic has left it half-changed");
            let of = |place: usize| Closed {
                key: (topic.to_string(), index),
                place,
                in_order: false,
                recovery_point: None,
                high_watermark: 0,
                log_start: 0,
            };
            return self.in_use().map(|(place, _)| of(place)).collect();
        }
        let log = partition.stop();
        let future = partition.take_future();
        let place = self.place_of(topic, index);
        let log = log.zip(place).map(|(log, place)| close(log, place, false));
        let future = future.map(|future| close(future.log, future.place, true));
        log.into_iter().chain(future).collect()
    }
}

/// Whether every log is verified: the last shutdown was clean, or this run has opened, and so recovered, all of them.
fn is_verified(directory: &Directory) -> bool {
    directory.was_left_in_order() || lock(&directory.checkpoints).are_all_opened()
}
