//! Opens logs: chooses the directory of a partition, and completes recovery (stray directories, flush, high watermark).

use klamm_protocol::ids::TopicPartition;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytestring::ByteString;
use klamm_log::error::{LogError, Severity};
use klamm_log::log::{Log, LogOptions};
use klamm_log::partition_dir::{DirKind, PartitionDirName};
use klamm_protocol::Uuid;
use klamm_protocol::ids::PartitionIndex;
use tracing::warn;

use super::{DirectoryStatus, LogManager, lock};
use crate::clock;
use crate::replica::partition::{Partition, PartitionConfig, PartitionHost};

/// A partition to open: topic, topic id, index, configuration.
pub(crate) type WantedPartition = (ByteString, Uuid, PartitionIndex, PartitionConfig);

/// A log that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{topic}-{index} cannot be opened: {source}")]
pub(crate) struct OpenError {
    pub(crate) topic: ByteString,
    pub(crate) topic_id: Uuid,
    pub(crate) index: PartitionIndex,
    pub(crate) source: OpenFailure,
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenFailure {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(
        "{} is of another topic of that name, which the metadata log of this node has never known, and is left as it is. \
         Go back to the metadata log that knows it, or move it out of the log directory and start again",
        dir.display()
    )]
    NameTaken { dir: PathBuf },
}

impl OpenFailure {
    pub(crate) fn severity(&self) -> Severity {
        match self {
            Self::Log(failure) => failure.severity(),
            Self::NameTaken { .. } => Severity::Partition,
        }
    }
}

impl LogManager {
    /// Opens logs on several threads: after an unclean shutdown each has to be recovered.
    pub(crate) fn open_all(
        &self,
        wanted: Vec<WantedPartition>,
    ) -> Vec<Result<Arc<Partition>, OpenError>> {
        let threads = self.recovery_threads.min(wanted.len());
        if threads <= 1 {
            return wanted.into_iter().map(|wanted| self.open_partition(wanted)).collect();
        }
        let queue = Mutex::new(wanted.into_iter());
        let opened = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let Some(next) = lock(&queue).next() else { break };
                        let result = self.open_partition(next);
                        lock(&opened).push(result);
                    }
                });
            }
        });
        opened.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_partition(
        &self,
        (topic, topic_id, index, config): WantedPartition,
    ) -> Result<Arc<Partition>, OpenError> {
        let failed = |source| {
            let topic = topic.clone();
            OpenError { topic, topic_id, index, source: OpenFailure::Log(source) }
        };
        self.finish_deletion(&topic, index).map_err(failed)?;
        self.promote_found(&topic, index).map_err(failed)?;
        self.forget_vanished(&topic, index);
        let (place, mut log) = loop {
            let Some(place) = self.place_for(&topic, index) else {
                let dir = self.left_alone(&topic, index).unwrap_or_default();
                let source = OpenFailure::NameTaken { dir };
                return Err(OpenError { topic, topic_id, index, source });
            };
            match self.open_log(place, (&topic, topic_id, index), &config) {
                // The directory is of a deleted topic of the same name.
                Err(LogError::InconsistentTopicId { found, .. }) if self.has_seen(found) => {
                    let marked = self.mark(place, &topic, index, DirKind::Stray);
                    let marked = marked.map_err(|error| failed(error.into()))?;
                    warn!(%topic, partition = index, "the log of {topic}-{index} is of a deleted topic and renamed to {marked}");
                }
                Err(LogError::InconsistentTopicId { .. }) => {
                    let key = TopicPartition::new(topic.clone(), index);
                    lock(&self.places).remove(&key);
                    lock(&self.unknown).insert((key, place));
                }
                opened => break (place, opened.map_err(failed)?),
            }
        };
        let directory = self.at(place);
        if let Some(truncated) = log.report().truncated {
            warn!(
                %topic, partition = index, "{topic}-{index}: recovery truncated the damaged end of the log at offset {} ({} bytes{})",
                truncated.offset,
                truncated.bytes,
                if truncated.below_recovery_point { ", though they had been flushed" } else { "" }
            );
        }
        // Records that recovery has kept count as appended from now on, also for acknowledgements: flush them before
        // the log end is used.
        if log.flushed_offset() < log.log_end() {
            log.flush().map_err(failed)?;
        }
        let mut checkpoints = lock(&directory.checkpoints);
        if let Some(high_watermark) = checkpoints.of(&topic, index).high_watermark {
            log.set_high_watermark(high_watermark);
        }
        checkpoints.forget(&topic, index);
        drop(checkpoints);
        let identity = (topic, topic_id, index);
        let flusher = Arc::clone(&directory.flusher);
        let held_back = Arc::clone(&self.held_back);
        let host = PartitionHost { broker_id: self.owner.broker_id, held_back };
        Ok(Partition::new(identity, host, config, log, flusher))
    }

    fn open_log(
        &self,
        place: usize,
        (topic, topic_id, index): (&str, Uuid, PartitionIndex),
        config: &PartitionConfig,
    ) -> Result<Log, LogError> {
        let directory = self.at(place);
        let checkpointed = lock(&directory.checkpoints).of(topic, index);
        let options = LogOptions {
            config: config.log.clone(),
            recovery_point: checkpointed.recovery_point,
            log_start: checkpointed.log_start,
            clean_shutdown: directory.was_left_in_order(),
            topic_id: Some(topic_id),
            now_ms: clock::now_ms(),
        };
        let path = directory.dir.path().join(PartitionDirName::current(topic, index));
        Log::open(directory.dir.storage(), &path, options)
    }

    /// Whether the partition's directory exists, readable or not.
    pub(crate) fn is_begun(&self, topic: &ByteString, index: PartitionIndex) -> bool {
        let name = PartitionDirName::current(topic, index).to_string();
        self.directory_of(topic, index).is_some_and(|dir| dir.join(name).is_dir())
    }

    /// Sets which directories are cordoned: they get a new replica only if there is no other.
    pub(crate) fn cordon(&self, is_cordoned: impl Fn(&DirectoryStatus) -> bool) {
        *lock(&self.cordoned) = self.directories().iter().map(is_cordoned).collect();
    }

    /// The place of the partition: where it is, else its preferred directory, else the online directory with the fewest
    /// partitions, a cordoned or full one only if there is no other. `None` if every directory has an unknown directory
    /// of that name.
    fn place_for(&self, topic: &ByteString, index: PartitionIndex) -> Option<usize> {
        let key = TopicPartition::new(topic.clone(), index);
        let mut places = lock(&self.places);
        if let Some(place) = places.get(&key) {
            return Some(*place);
        }
        let unknown = lock(&self.unknown);
        let is_free = |place: usize| !unknown.contains(&(key.clone(), place));
        let wanted = lock(&self.preferred).remove(&key);
        let wanted = wanted.filter(|place| self.is_online(*place) && is_free(*place));
        let place = wanted.or_else(|| {
            let mut counts = vec![0_usize; self.slots.len()];
            for place in places.values() {
                counts[*place] += 1;
            }
            let cordoned = lock(&self.cordoned);
            let rank = |place: &usize| {
                let is_full = self.at(*place).flusher.room.is_full();
                (is_full, cordoned.get(*place) == Some(&true), counts[*place])
            };
            let usable = |online: bool| {
                let fits = self.settled().filter(move |(_, one)| !online || one.is_online());
                fits.map(|(place, _)| place).filter(|place| is_free(*place))
            };
            usable(true).min_by_key(rank).or_else(|| usable(false).next())
        })?;
        places.insert(key, place);
        Some(place)
    }

    /// A directory with the partition's name, of a topic that the metadata has never known.
    fn left_alone(&self, topic: &ByteString, index: PartitionIndex) -> Option<PathBuf> {
        let unknown = lock(&self.unknown);
        let (key, place) =
            unknown.iter().find(|(key, _)| key.topic == *topic && key.partition == index)?;
        Some(self.dir_of(key, *place))
    }
}
