//! The offset checkpoints of a directory, how far its logs are synced, committed and deleted: Kafka's
//! `recovery-point-offset-checkpoint`, `replication-offset-checkpoint` and `log-start-offset-checkpoint`.
//!
//! One writer at a time: an older state must not replace a newer one. A recovery point on disk is never above what is
//! synced.

use klamm_protocol::ids::TopicPartition;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_log::checkpoint::{self, PartitionOffsets};
use klamm_log::error::LogError;
use klamm_log::log_dir::LogDir;
use klamm_protocol::Uuid;
use klamm_protocol::ids::{LeaderEpoch, Offset, PartitionIndex};
use tracing::error;

use super::directory::Directory;
use super::{LogManager, lock};
use crate::clock;
use crate::replica::partition::{Cut, Partition};

/// The files, in the order of the offset arrays below.
const NAMES: [&str; 3] =
    [checkpoint::RECOVERY_POINT, checkpoint::HIGH_WATERMARK, checkpoint::LOG_START];

/// The checkpoints of the last run for the logs in a directory. An entry applies to the log that was found, not to a
/// later one of the same name: it is dropped when that log is opened or removed. Until then it is written again.
#[derive(Debug)]
pub(super) struct Checkpoints {
    recovery_points: PartitionOffsets,
    log_starts: PartitionOffsets,
    high_watermarks: PartitionOffsets,
    /// Logs that were found and not opened by this run.
    unopened: BTreeSet<(String, PartitionIndex)>,
    /// Logs that have entries and were not found, with the topics of which a log of that name was being deleted here.
    /// Their entries are written again: they are the next start's only evidence.
    vanished: BTreeMap<(String, PartitionIndex), BTreeSet<Uuid>>,
    /// None of the files existed. Every start writes them in every directory.
    are_missing: bool,
}

/// The entries of one log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checkpointed {
    pub(super) recovery_point: Offset,
    pub(super) log_start: Offset,
    pub(super) high_watermark: Option<Offset>,
}

impl Checkpoints {
    /// Reads the files. A damaged one counts as missing.
    pub(super) fn read(dir: &LogDir) -> Result<Self, LogError> {
        let mut are_missing = true;
        for name in NAMES {
            are_missing &= !dir.has_checkpoint(name)?;
        }
        Ok(Self {
            are_missing,
            recovery_points: dir.read_checkpoint_or_none(checkpoint::RECOVERY_POINT)?,
            log_starts: dir.read_checkpoint_or_none(checkpoint::LOG_START)?,
            high_watermarks: dir.read_checkpoint_or_none(checkpoint::HIGH_WATERMARK)?,
            unopened: BTreeSet::new(),
            vanished: BTreeMap::new(),
        })
    }

    /// Stores which logs are in the directory and which are being deleted. A log with an entry that is in neither has
    /// vanished.
    pub(super) fn set_found(
        &mut self,
        found: BTreeSet<(String, PartitionIndex)>,
        deleted: &BTreeMap<(String, PartitionIndex), BTreeSet<Uuid>>,
    ) {
        let all = [&self.recovery_points, &self.log_starts, &self.high_watermarks];
        let vanished = all.into_iter().flat_map(BTreeMap::keys).filter(|key| !found.contains(key));
        let of = |key: &(String, PartitionIndex)| deleted.get(key).cloned().unwrap_or_default();
        self.vanished = vanished.map(|key| (key.clone(), of(key))).collect();
        self.unopened = found;
    }

    /// Whether none of the files existed when the node started.
    pub(super) fn are_missing(&self) -> bool {
        self.are_missing
    }

    /// Whether the directory has neither checkpoints nor logs: it is new, or was emptied.
    pub(super) fn is_directory_bare(&self) -> bool {
        self.are_missing && self.unopened.is_empty()
    }

    /// Whether the log of a topic's partition was here, is not, and was not deleted.
    pub(super) fn has_vanished(&self, topic: &str, index: PartitionIndex, topic_id: Uuid) -> bool {
        let deleted = self.vanished.get(&(topic.to_owned(), index));
        deleted.is_some_and(|deleted| !deleted.contains(&topic_id))
    }

    /// Notes that a log which must have been in this directory is missing.
    pub(super) fn set_vanished(&mut self, topic: String, index: PartitionIndex) {
        let key = (topic, index);
        self.recovery_points.entry(key.clone()).or_insert(0);
        self.vanished.entry(key).or_default();
    }

    /// Drops the entries of vanished logs that `is_kept` rejects.
    pub(super) fn retain_vanished(&mut self, is_kept: impl Fn(&str, PartitionIndex) -> bool) {
        let dropped = self.vanished.extract_if(.., |(topic, index), _| !is_kept(topic, *index));
        let dropped: Vec<_> = dropped.collect();
        dropped.into_iter().for_each(|((topic, index), _)| self.forget(&topic, index));
    }

    pub(super) fn of(&self, topic: &str, index: PartitionIndex) -> Checkpointed {
        let key = (topic.to_owned(), index);
        Checkpointed {
            recovery_point: self.recovery_points.get(&key).copied().unwrap_or(0),
            log_start: self.log_starts.get(&key).copied().unwrap_or(0),
            high_watermark: self.high_watermarks.get(&key).copied(),
        }
    }

    /// Drops the entries of a log that is open now or was removed.
    pub(super) fn forget(&mut self, topic: &str, index: PartitionIndex) {
        let key = (topic.to_owned(), index);
        self.unopened.remove(&key);
        self.vanished.remove(&key);
        for offsets in [&mut self.recovery_points, &mut self.log_starts, &mut self.high_watermarks]
        {
            offsets.remove(&key);
        }
    }

    /// The recovery points, high watermarks and log starts of logs that were not opened or have vanished.
    pub(super) fn of_unopened(&self) -> [PartitionOffsets; 3] {
        [&self.recovery_points, &self.high_watermarks, &self.log_starts].map(Clone::clone)
    }

    /// Whether every log that was found has been opened, and so recovered.
    pub(super) fn are_all_opened(&self) -> bool {
        self.unopened.is_empty()
    }
}

impl LogManager {
    /// Writes the offset checkpoints, so that recovery after a crash has little to verify.
    pub(crate) fn write_checkpoints(&self, partitions: &[Arc<Partition>]) {
        self.write_checkpoints_in(|_| true, partitions);
    }

    /// Writes the files in directories that had none, with the entries of vanished logs.
    pub(super) fn write_missing_checkpoints(&self) {
        self.write_checkpoints_in(|directory| lock(&directory.checkpoints).are_missing(), &[]);
    }

    fn write_checkpoints_in(
        &self,
        is_wanted: impl Fn(&Directory) -> bool,
        partitions: &[Arc<Partition>],
    ) {
        let _writing = lock(&self.checkpoints);
        for (place, directory) in self.in_use().filter(|(_, directory)| is_wanted(directory)) {
            if let Err(failure) = self.write_checkpoints_of(place, partitions, None) {
                let path = directory.dir.path().display();
                error!("the checkpoints of {path} are not written: {failure}");
            }
        }
    }

    /// Truncates the log of a follower in this epoch. Blocks for the disk.
    ///
    /// The recovery point on disk is lowered first: after a crash, recovery would trust one above the truncation,
    /// although records appended since may not be synced.
    pub(crate) fn cut(
        &self,
        partitions: &[Arc<Partition>],
        partition: &Partition,
        epoch: LeaderEpoch,
        cut: Cut,
    ) -> Result<(), LogError> {
        let _writing = lock(&self.checkpoints);
        let key = TopicPartition::new(partition.topic().clone(), partition.index());
        let place = lock(&self.places).get(&key).copied();
        if let Some(place) = place {
            self.write_checkpoints_of(place, partitions, Some((&key, cut.end())))?;
        }
        partition.cut(epoch, cut)
    }

    /// Writes the checkpoints of one directory. `lowered` is a partition and an upper limit for its recovery point.
    pub(super) fn write_checkpoints_of(
        &self,
        place: usize,
        partitions: &[Arc<Partition>],
        lowered: Option<(&TopicPartition, Offset)>,
    ) -> Result<(), LogError> {
        let mut offsets = lock(&self.at(place).checkpoints).of_unopened();
        for partition in partitions {
            let key = TopicPartition::new(partition.topic().clone(), partition.index());
            if lock(&self.places).get(&key) != Some(&place) {
                continue;
            }
            let Ok(mut ends) = partition
                .with_log(|log| [log.recovery_point(), log.high_watermark(), log.log_start()])
            else {
                continue;
            };
            if let Some((_, end)) = lowered.filter(|(lowered, _)| **lowered == key) {
                ends[0] = ends[0].min(end);
            }
            for (offsets, end) in offsets.iter_mut().zip(ends) {
                offsets.insert((key.topic.to_string(), key.partition), end);
            }
        }
        add_futures(place, partitions, &mut offsets);
        self.at(place).write_checkpoints(offsets)
    }
}

impl Directory {
    /// Recovery points, high watermarks, log starts.
    pub(super) fn write_checkpoints(
        &self,
        mut offsets: [PartitionOffsets; 3],
    ) -> Result<(), LogError> {
        // A log start of 0 needs no entry.
        offsets[2].retain(|_, start| *start > 0);
        for (name, offsets) in NAMES.into_iter().zip(&offsets) {
            self.dir.write_checkpoint(name, offsets)?;
        }
        clock::on_checkpoints_written(self.dir.path());
        Ok(())
    }
}

/// Adds the future replicas in a directory. They have no recovery point: after an unclean shutdown all of one is
/// verified.
fn add_futures(place: usize, partitions: &[Arc<Partition>], offsets: &mut [PartitionOffsets; 3]) {
    for partition in partitions {
        let ends = partition.with_future(|future| {
            let ends = (future.log.high_watermark(), future.log.log_start());
            (future.place == place).then_some(ends)
        });
        if let Some((high_watermark, start)) = ends.flatten() {
            let key = (partition.topic().to_string(), partition.index());
            offsets[1].insert(key.clone(), high_watermark);
            offsets[2].insert(key, start);
        }
    }
}
