//! The end of a life of the log directories: logs closed, offsets written down, a mark that all is in order.
//!
//! A directory gets the mark only when everything in it was closed; what fails in one is not held against the others.

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_log::checkpoint::PartitionOffsets;
use klamm_log::log::Log;
use klamm_log::log_dir::LastShutdown;
use klamm_protocol::ids::{Offset, PartitionIndex};
use tracing::error;

use super::{LogStore, lock};
use crate::partition::handle::Partition;

/// A log that has been closed, in order or not.
struct Closed {
    key: (String, PartitionIndex),
    place: usize,
    in_order: bool,
    /// `None` for a copy.
    recovery_point: Option<Offset>,
    high_watermark: Offset,
    log_start: Offset,
}

impl LogStore {
    /// Closes all logs and marks the directories as left in order.
    pub(crate) fn close(&self, partitions: &[Arc<Partition>], broker_epoch: i64) {
        self.end_flushers();
        let closed: Vec<Closed> =
            partitions.iter().flat_map(|partition| self.close_logs(partition)).collect();
        for (place, directory) in self.directories.iter().enumerate() {
            let here = || closed.iter().filter(|closed| closed.place == place);
            let mut offsets: [PartitionOffsets; 3] = Default::default();
            for closed in here().filter(|closed| closed.in_order) {
                offsets[0].extend(closed.recovery_point.map(|at| (closed.key.clone(), at)));
                offsets[1].insert(closed.key.clone(), closed.high_watermark);
                offsets[2].insert(closed.key.clone(), closed.log_start);
            }
            self.add_unopened(place, &mut offsets);
            let in_order = here().all(|closed| closed.in_order)
                && (directory.last_shutdown != LastShutdown::Unclean
                    || self.is_all_of(place, here().map(|closed| &closed.key)));
            let left = directory.write_checkpoints(offsets).and_then(|()| match in_order {
                true => directory.dir.mark_clean_shutdown(broker_epoch),
                false => Ok(()),
            });
            if let Err(failure) = left {
                error!("{} is not left in order: {failure}", directory.dir.path().display());
            }
        }
    }

    /// Whether these are all the logs in a directory. One that could not be opened after an unclean shutdown has not
    /// been verified.
    fn is_all_of<'a>(
        &self,
        place: usize,
        closed: impl Iterator<Item = &'a (String, PartitionIndex)>,
    ) -> bool {
        let closed: BTreeSet<(&str, PartitionIndex)> =
            closed.map(|(topic, index)| (topic.as_str(), *index)).collect();
        let places = lock(&self.places);
        let mut here = places.iter().filter(|(_, found)| **found == place);
        here.all(|((topic, index), _)| closed.contains(&(&**topic, *index)))
    }

    pub(super) fn end_flushers(&self) {
        for directory in &self.directories {
            directory.flusher.stop();
            let thread = lock(&directory.flusher_thread).take();
            if thread.is_some_and(|thread| thread.join().is_err()) {
                error!("the flusher of {} panicked", directory.dir.path().display());
            }
        }
    }

    /// The log of a partition, and its copy if it is on its way to another directory.
    fn close_logs(&self, partition: &Partition) -> Vec<Closed> {
        let (topic, index) = (partition.topic(), partition.index());
        let close = |log: Log, place: usize, is_copy: bool| {
            let (log_start, high_watermark, end) =
                (log.log_start(), log.high_watermark(), log.log_end());
            let outcome = log.close();
            if let Err(failure) = &outcome {
                error!("{topic}-{index} is not closed: {failure}");
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
        let log = partition.stop();
        let future = partition.take_future();
        let place = self.place_of(topic, index);
        let log = log.zip(place).map(|(log, place)| close(log, place, false));
        let future = future.map(|future| close(future.log, future.place, true));
        log.into_iter().chain(future).collect()
    }
}
