//! The log directories of this node and the logs in them: opening, deleting, checkpoints, closing.

#[cfg(test)]
mod broken;
mod checkpoints;
mod closing;
mod deleting;
mod directory;
mod doubles;
mod found;
mod futures;
mod identity;
mod known;
#[cfg(test)]
mod lacking;
mod logs;
mod opening;
mod returns;
mod room;
#[cfg(test)]
pub(super) mod slow_disk;
mod start;
mod survey;
mod vanished;

use klamm_protocol::ids::TopicPartition;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytestring::ByteString;
use klamm_log::disk::{Disk, DiskSpace};
use klamm_log::error::LogError;
use klamm_log::file_name::FileKind;
use klamm_log::log::LogStorage;
use klamm_log::log_dir::{LastShutdown, LogDir};
use klamm_log::open_files::OpenFiles;
use klamm_log::partition_dir::PartitionDirName;
use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, Offset, PartitionIndex};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use self::deleting::Undeleted;
use self::directory::{Directory, Owner, Slot};
pub(crate) use self::doubles::end_of;
pub(crate) use self::futures::may_be_elsewhere;
use self::known::Topics;
pub(crate) use self::known::TopicsSeen;
pub(crate) use self::logs::OpenError;
pub(crate) use self::room::{full_places, has_room_again, is_full};
pub use self::start::LayoutError;
use self::start::Start;
use super::flusher::Flusher;
use super::held_back::HeldBack;
use super::partition::Partition;

/// The maximum number of segment files held open for reading. Others are opened again when they are read.
const MAX_OPEN_SEGMENTS: usize = 4096;

/// The suffix of the copy of a damaged segment.
const DAMAGED_SUFFIX: &str = ".damaged";

/// Why the data directories cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(
        "{} belongs to cluster {found}, this node is of cluster {expected}: use another log.dirs, \
         or the configuration of that cluster",
        dir.display()
    )]
    ForeignCluster { dir: PathBuf, found: String, expected: String },
    #[error(
        "{} belongs to node {found}, this is node {expected}: set node.id={found}, or use another \
         log.dirs",
        dir.display()
    )]
    ForeignNode { dir: PathBuf, found: BrokerId, expected: BrokerId },
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(
        "{} belongs to no cluster yet, and the configuration names other nodes: all of them need the same cluster id. \
         Run klamm format -t <cluster id> -c <configuration file> on each, with one id from klamm random-uuid, or set \
         CLUSTER_ID in the environment",
        dir.display()
    )]
    NotFormatted { dir: PathBuf },
    #[error("cannot start a thread for {}: {source}", dir.display())]
    Thread { dir: PathBuf, source: std::io::Error },
}

/// A log directory as DescribeLogDirs reports it.
#[derive(Debug)]
pub(crate) struct DirectoryStatus {
    pub(crate) path: PathBuf,
    /// `None` when the directory is offline.
    pub(crate) space: Option<DiskSpace>,
}

impl DirectoryStatus {
    /// The absolute path, by which clients name the directory.
    pub(crate) fn absolute_path(&self) -> String {
        // Only a process without a working directory has no absolute paths.
        let path = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        path.to_string_lossy().into_owned()
    }
}

/// All log directories.
#[derive(Debug)]
pub(crate) struct LogManager {
    /// In the order of `log.dirs`. A place is an index into them, valid until the process ends.
    slots: Vec<Slot>,
    /// The place of the metadata log; `slots.len()` if there is a `metadata_home`.
    metadata_place: usize,
    /// The directory of the metadata log, if it is none of `log.dirs`.
    metadata_home: Option<(LogDir, Uuid)>,
    disk: Arc<dyn Disk>,
    files: Arc<OpenFiles>,
    owner: Owner,
    start: Start,
    cluster_id: ByteString,
    /// The directory of each partition, as an index of `slots`.
    places: Mutex<BTreeMap<TopicPartition, usize>>,
    /// Other directories in which a partition was found as well.
    doubles: Mutex<Vec<(TopicPartition, usize)>>,
    /// Directories of partitions whose topics the metadata has never known. They are left where they are.
    unknown: Mutex<BTreeSet<(TopicPartition, usize)>>,
    topics: Mutex<Topics>,
    /// Replicas whose directories are not mounted, by directory.
    missed: Mutex<BTreeSet<(Uuid, String, PartitionIndex)>>,
    /// Future replicas (KIP-113) that were found, with the names of their directories.
    futures: Mutex<BTreeMap<TopicPartition, Vec<(usize, String)>>>,
    /// The directory for a partition that this broker does not have yet; at most [`futures::MAX_PREFERENCES`].
    preferred: Mutex<BTreeMap<TopicPartition, usize>>,
    /// Which of `slots` take no new replicas (KIP-1066).
    cordoned: Mutex<Vec<bool>>,
    /// Directories of deleted partitions, to be removed after their delay.
    deleted: Mutex<Vec<(i64, usize, String)>>,
    /// Logs of deleted partitions whose directories could not be renamed yet.
    undeleted: Mutex<Vec<Undeleted>>,
    /// The partitions that it opens report here when a follower holds back their high watermark.
    pub(crate) held_back: Arc<HeldBack>,
    /// A directory has become full.
    pub(crate) room_news: Arc<Notify>,
    /// Held while checkpoints are collected and written: an older state must not replace a newer one.
    checkpoints: Mutex<()>,
    recovery_threads: usize,
    node_failed: CancellationToken,
}

impl LogManager {
    /// The directories in use, with their places.
    fn in_use(&self) -> impl Iterator<Item = (usize, &Directory)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(place, slot)| Some((place, slot.directory.get()?)))
    }

    /// The directories that new replicas may be put into.
    fn settled(&self) -> impl Iterator<Item = (usize, &Directory)> {
        self.in_use().filter(|(_, directory)| directory.is_settled())
    }

    /// The directory at a place.
    fn at(&self, place: usize) -> &Directory {
        self.slots[place].directory.get().expect("only directories in use are places")
    }

    /// Whether a path of `log.dirs` is not in use, because its disk is missing.
    pub(crate) fn has_idle(&self) -> bool {
        self.slots.iter().any(|slot| slot.directory.get().is_none())
    }

    /// Whether any directory has a partition.
    pub(crate) fn has_partitions(&self) -> bool {
        !lock(&self.places).is_empty()
    }

    /// The open segment files. Idle ones may be closed.
    pub(crate) fn open_files(&self) -> &OpenFiles {
        &self.files
    }

    pub(crate) fn cluster_id(&self) -> &ByteString {
        &self.cluster_id
    }

    /// The ids of the directories that can be used, in the order of `log.dirs`.
    pub(crate) fn directory_ids(&self) -> Vec<Uuid> {
        self.in_use().filter(|(_, one)| one.is_online()).map(|(_, one)| one.id).collect()
    }

    /// The ids of the directories whose paths `is_wanted` accepts, including those that have failed since the start.
    pub(crate) fn directory_ids_where(&self, is_wanted: impl Fn(&Path) -> bool) -> Vec<Uuid> {
        let wanted = self.in_use().filter(|(_, directory)| is_wanted(directory.dir.path()));
        wanted.map(|(_, directory)| directory.id).collect()
    }

    /// The storage of the metadata log.
    pub(crate) fn metadata_storage(&self) -> &LogStorage {
        match &self.metadata_home {
            Some((dir, _)) => dir.storage(),
            None => self.at(self.metadata_place).dir.storage(),
        }
    }

    /// The id of the directory of the metadata log.
    pub(crate) fn metadata_directory_id(&self) -> Uuid {
        match &self.metadata_home {
            Some((_, id)) => *id,
            None => self.at(self.metadata_place).id,
        }
    }

    /// How the last run ended, with its broker epoch; unclean if the directories differ.
    pub(crate) fn last_shutdown(&self) -> LastShutdown {
        let shutdowns = self.in_use().filter_map(|(_, directory)| directory.last_shutdown);
        shutdowns
            .reduce(|one, other| if one == other { one } else { LastShutdown::Unclean })
            .unwrap_or(LastShutdown::Unclean)
    }

    /// Cancelled when the node must stop.
    pub(crate) fn node_failed(&self) -> &CancellationToken {
        &self.node_failed
    }

    /// Whether any directory is online.
    pub(crate) fn any_online(&self) -> bool {
        self.in_use().any(|(_, directory)| directory.is_online())
    }

    /// The directories that are not usable: not found at the start, or failed since.
    pub(crate) fn failed_directories(&self) -> Vec<&Path> {
        let is_failed = |slot: &&Slot| slot.directory.get().is_none_or(|one| !one.is_online());
        self.slots.iter().filter(is_failed).map(|slot| slot.path.as_path()).collect()
    }

    /// Each of [`Self::failed_directories`], with the reason and what to do.
    pub(crate) fn why_failed(&self) -> Vec<String> {
        let why = |slot: &Slot| {
            let path = slot.path.display();
            match slot.directory.get() {
                None => Some(format!("{path} (it is used as soon as it is there)")),
                Some(directory) => directory.dir.health().failure().map(|cause| {
                    format!("{path} ({cause}; it is used again after the next start)")
                }),
            }
        };
        self.slots.iter().filter_map(why).collect()
    }

    /// The ids of the directories that have failed since the start, for heartbeats.
    pub(crate) fn failed_directory_ids(&self) -> Vec<Uuid> {
        self.in_use().filter(|(_, one)| !one.is_online()).map(|(_, one)| one.id).collect()
    }

    pub(crate) fn directories(&self) -> Vec<DirectoryStatus> {
        let status = |slot: &Slot| DirectoryStatus {
            path: slot.path.clone(),
            space: slot.directory.get().and_then(|directory| directory.dir.space().ok()),
        };
        self.slots.iter().map(status).collect()
    }

    /// The path of the log directory that has a partition.
    pub(crate) fn directory_of(&self, topic: &ByteString, index: PartitionIndex) -> Option<&Path> {
        let place = lock(&self.places).get(&TopicPartition::new(topic.clone(), index)).copied()?;
        Some(self.path_at(place))
    }

    /// The id of the log directory that has a partition.
    pub(crate) fn directory_id_for(
        &self,
        topic: &ByteString,
        index: PartitionIndex,
    ) -> Option<Uuid> {
        let place = lock(&self.places).get(&TopicPartition::new(topic.clone(), index)).copied()?;
        Some(self.at(place).id)
    }

    /// Keeps a copy of a damaged segment beside the log, for later analysis.
    pub(crate) fn keep_damaged(&self, partition: &Partition, segment: Offset) {
        let (topic, index) = (partition.topic(), partition.index());
        let Some(directory) = self.directory_of(topic, index) else { return };
        let name = FileKind::Log.name(segment);
        let damaged = directory.join(PartitionDirName::current(topic, index)).join(&name);
        let kept = damaged.with_file_name(format!("{name}{DAMAGED_SUFFIX}"));
        // The copy needs two descriptors, and does not go through `Disk`, which would close idle files itself.
        self.files.close_idle();
        match std::fs::copy(&damaged, &kept) {
            Ok(_) => warn!("a copy of the damaged segment is kept as {}", kept.display()),
            Err(failure) => {
                error!("the damaged segment {} cannot be copied: {failure}", damaged.display())
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
