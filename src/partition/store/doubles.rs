//! Two logs of one partition: a directory was copied, or came back after its replica had begun anew elsewhere. One is the
//! replica, the other is kept as `-stray` and never deleted.

use klamm_log::config::LogConfig;
use klamm_log::error::LogError;
use klamm_log::log::{Log, LogOptions};
use klamm_log::log_reader::LogView;
use klamm_log::partition_dir::PartitionDirName;
use klamm_protocol::ids::{LeaderEpoch, Offset};
use tracing::{error, warn};

use super::found::{Known, Opened};
use super::known::KnownReplica;
use super::{LogStore, PlaceKey, lock};
use crate::clock;

/// How far a log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogEnd {
    last_epoch: LeaderEpoch,
    end: Offset,
}

impl LogEnd {
    pub(crate) fn of_view(view: &LogView) -> Self {
        let (epochs, end) = (view.leader_epochs(), view.log_end());
        // An epoch in which nothing was written says nothing of the records.
        let written = epochs.epoch_of(end - 1);
        let last = written.or_else(|| epochs.latest().map(|latest| latest.epoch));
        Self { last_epoch: last.unwrap_or(-1), end }
    }

    fn has_records(self) -> bool {
        self.end > 0
    }
}

impl std::fmt::Display for LogEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ends at offset {} in epoch {}", self.end, self.last_epoch)
    }
}

/// Which of two logs is the replica.
///
/// The one in the recorded directory, as long as the cluster counts on it: it is what was acknowledged. Where nobody
/// does, or where it never had a record, the one that goes further. One that cannot be read has no end.
fn choose(recorded: Option<usize>, is_counted_on: bool, ends: [Option<LogEnd>; 2]) -> usize {
    if let Some(recorded) = recorded
        && is_counted_on
        && ends[recorded].is_none_or(LogEnd::has_records)
    {
        return recorded;
    }
    let rank = |at: usize| ends[at].map(|end| (end.has_records(), end));
    match rank(0).cmp(&rank(1)) {
        std::cmp::Ordering::Less => 1,
        std::cmp::Ordering::Greater => 0,
        std::cmp::Ordering::Equal => recorded.unwrap_or(0),
    }
}

impl LogStore {
    /// Of two logs of a partition one stays. Returns those whose open log has to give way, with the place of the other.
    pub(super) fn settle_doubles(
        &self,
        known: Known<'_>,
        opened: Opened<'_>,
    ) -> Vec<(PlaceKey, usize)> {
        let mut displaced = Vec::new();
        for (key, double) in std::mem::take(&mut *lock(&self.doubles)) {
            let Some(place) = self.place_of(&key.0, key.1) else {
                lock(&self.places).insert(key, double);
                continue;
            };
            let Some(replica) = known(&key.0, key.1) else {
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

    /// Decides between two places, puts the other log away unless it is open, and returns the one that stays.
    fn keep_one(
        &self,
        key: &PlaceKey,
        replica: &KnownReplica,
        places: [usize; 2],
        open: Option<LogEnd>,
    ) -> usize {
        let name = PartitionDirName::current(&key.0, key.1);
        let belongs = places.map(|place| {
            self.topic_id_at(place, &name).is_none_or(|found| found == replica.topic_id)
        });
        let (kept, ends) = match belongs {
            [true, false] | [false, false] => (0, None),
            [false, true] => (1, None),
            [true, true] => {
                let first = open.or_else(|| self.end_at(key, places[0]));
                let ends = [first, self.end_at(key, places[1])];
                let is_recorded = |place: &usize| self.at(*place).id == replica.directory;
                let recorded = places.iter().position(is_recorded);
                (choose(recorded, replica.is_counted_on, ends), Some(ends))
            }
        };
        let other = 1 - kept;
        if let Some(ends) = ends {
            let told = |at: usize| {
                let path = self.dir_of(key, places[at]).display().to_string();
                ends[at].map_or(format!("{path} cannot be read"), |end| format!("{path} {end}"))
            };
            warn!("two logs of one partition: {}, which stays, and {}", told(kept), told(other));
        }
        if other == 0 && open.is_some() {
            // Whoever has it open closes it.
        } else if belongs[other] {
            self.set_aside(key, places[other], "another log directory has the partition as well");
        } else {
            self.judge(key, places[other]);
        }
        places[kept]
    }

    /// How far the log of a partition goes that nobody has open.
    pub(super) fn end_at(&self, key: &PlaceKey, place: usize) -> Option<LogEnd> {
        let end = self.read_end(key, place);
        end.inspect_err(|failure| {
            error!("{} cannot be compared: {failure}", self.dir_of(key, place).display());
        })
        .ok()
    }

    fn read_end(&self, key: &PlaceKey, place: usize) -> Result<LogEnd, LogError> {
        let directory = self.at(place);
        let checkpointed = lock(&directory.checkpoints).of(&key.0, key.1);
        let options = LogOptions {
            config: LogConfig::default(),
            recovery_point: checkpointed.recovery_point,
            log_start: checkpointed.log_start,
            clean_shutdown: directory.was_left_in_order(),
            topic_id: None,
            now_ms: clock::now_ms(),
        };
        let log = Log::open(directory.dir.storage(), &self.dir_of(key, place), options)?;
        Ok(LogEnd::of_view(&log.view()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(last_epoch: LeaderEpoch, end: Offset) -> Option<LogEnd> {
        Some(LogEnd { last_epoch, end })
    }

    #[test]
    fn the_recorded_log_stays_as_long_as_it_is_counted_on_and_has_records() {
        assert_eq!(choose(Some(0), true, [end(3, 10), end(9, 99)]), 0);
        assert_eq!(choose(Some(1), true, [end(9, 99), end(3, 10)]), 1);
        // What cannot be read may be what was acknowledged: the replica is offline rather than an older one.
        assert_eq!(choose(Some(1), true, [end(9, 99), None]), 1);
    }

    #[test]
    fn an_empty_log_never_stands_in_for_one_with_records() {
        for recorded in [None, Some(0), Some(1)] {
            for is_counted_on in [false, true] {
                assert_eq!(choose(recorded, is_counted_on, [end(9, 0), end(0, 1)]), 1);
                assert_eq!(choose(recorded, is_counted_on, [end(0, 1), end(9, 0)]), 0);
            }
        }
    }

    #[test]
    fn where_nobody_counts_on_it_the_log_that_goes_further_stays() {
        assert_eq!(choose(Some(0), false, [end(3, 10), end(4, 5)]), 1);
        assert_eq!(choose(Some(0), false, [end(4, 5), end(4, 6)]), 1);
        assert_eq!(choose(None, true, [end(4, 7), end(4, 6)]), 0);
        assert_eq!(choose(Some(0), false, [None, end(0, 0)]), 1);
    }

    #[test]
    fn of_two_equal_logs_the_recorded_one_stays() {
        assert_eq!(choose(Some(1), false, [end(4, 6), end(4, 6)]), 1);
        assert_eq!(choose(None, false, [end(4, 6), end(4, 6)]), 0);
        assert_eq!(choose(Some(1), true, [end(0, 0), end(0, 0)]), 1);
    }
}
