//! Two logs of one partition: a directory was copied, or came back after its replica had started empty in another
//! directory. One becomes the replica; the other is kept as `-stray` and never deleted.

use klamm_log::config::LogConfig;
use klamm_log::error::LogError;
use klamm_log::log::{Log, LogOptions};
use klamm_log::log_reader::LogView;
use klamm_log::partition_dir::PartitionDirName;
use klamm_metadata::known_replica::{KnownReplica, LogEnd};
use klamm_protocol::ids::TopicPartition;
use tracing::{error, warn};

use super::found::{Known, Opened};
use super::{LogManager, lock};
use crate::clock;

/// The last epoch and the end offset of an open log.
pub(crate) fn end_of(view: &LogView) -> LogEnd {
    let (epochs, end) = (view.leader_epochs(), view.log_end());
    // An epoch without records is not the epoch of the last record.
    let written = epochs.epoch_of(end - 1);
    let last = written.or_else(|| epochs.latest().map(|latest| latest.epoch));
    LogEnd { last_epoch: last, end }
}

impl LogManager {
    /// Keeps one of two logs of a partition. Returns the partitions whose open log must be replaced, with the place of
    /// the log that stays.
    pub(super) fn settle_doubles(
        &self,
        known: Known<'_>,
        opened: Opened<'_>,
    ) -> Vec<(TopicPartition, usize)> {
        let mut displaced = Vec::new();
        let doubles = std::mem::take(&mut *lock(&self.doubles));
        for (key, double) in doubles {
            let Some(place) = self.place_of(&key.topic, key.partition) else {
                lock(&self.places).insert(key, double);
                continue;
            };
            let Some(replica) = known(&key.topic, key.partition) else {
                self.judge(&key, double);
                continue;
            };
            let open = opened(&key);
            if self.keep_one(&key, &replica, [place, double], open) == double {
                match open {
                    Some(_) => displaced.push((key, double)),
                    None => drop(lock(&self.places).insert(key, double)),
                }
            }
        }
        displaced
    }

    /// Chooses one of two places, sets the other log aside unless it is open, and returns the place that stays.
    fn keep_one(
        &self,
        key: &TopicPartition,
        replica: &KnownReplica,
        places: [usize; 2],
        open: Option<LogEnd>,
    ) -> usize {
        let name = PartitionDirName::current(&key.topic, key.partition);
        let belongs = places.map(|place| {
            self.topic_id_at(place, &name).is_none_or(|found| found == replica.topic_id)
        });
        let (kept, ends) = match belongs {
            [true, false] | [false, false] => (0, None),
            [false, true] => (1, None),
            [true, true] => {
                let first = open.or_else(|| self.end_at(key, places[0]));
                let ends = [first, self.end_at(key, places[1])];
                (replica.choose(places.map(|place| self.at(place).id), ends), Some(ends))
            }
        };
        let other = 1 - kept;
        if let Some(ends) = ends {
            let described = |at: usize| {
                let path = self.dir_of(key, places[at]).display().to_string();
                ends[at].map_or(format!("{path} cannot be read"), |end| format!("{path} {end}"))
            };
            warn!(
                "two logs of one partition: {}, which stays, and {}",
                described(kept),
                described(other)
            );
        }
        if other == 0 && open.is_some() {
            // The caller closes the open log.
        } else if belongs[other] {
            self.set_aside(key, places[other], "another log directory has the partition as well");
        } else {
            self.judge(key, places[other]);
        }
        places[kept]
    }

    /// The last epoch and the end offset of a log that is not open; `None` if it cannot be read.
    pub(super) fn end_at(&self, key: &TopicPartition, place: usize) -> Option<LogEnd> {
        let end = self.read_end(key, place);
        end.inspect_err(|failure| {
            error!(
                "the end of the log in {} cannot be read: {failure}",
                self.dir_of(key, place).display()
            );
        })
        .ok()
    }

    fn read_end(&self, key: &TopicPartition, place: usize) -> Result<LogEnd, LogError> {
        let directory = self.at(place);
        let checkpointed = lock(&directory.checkpoints).of(&key.topic, key.partition);
        let options = LogOptions {
            config: LogConfig::default(),
            recovery_point: checkpointed.recovery_point,
            log_start: checkpointed.log_start,
            clean_shutdown: directory.was_left_in_order(),
            topic_id: None,
            now_ms: clock::now_ms(),
        };
        let log = Log::open(directory.dir.storage(), &self.dir_of(key, place), options)?;
        Ok(end_of(&log.view()))
    }
}
