//! The log directories of this node and the logs in them: opening, deleting, checkpoints, closing.

mod checkpoints;
mod closing;
mod deleting;
mod found;
mod futures;
mod identity;
#[cfg(test)]
mod lacking;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytestring::ByteString;
use klamm_log::disk::{Disk, DiskSpace};
use klamm_log::error::LogError;
use klamm_log::file_name::FileKind;
use klamm_log::log::{Log, LogOptions, LogStorage};
use klamm_log::log_dir::{LastShutdown, LogDir};
use klamm_log::meta_properties::MetaProperties;
use klamm_log::open_files::OpenFiles;
use klamm_log::partition_dir::{DirKind, PartitionDirName};
use klamm_metadata::directory_id;
use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, Offset, PartitionIndex};
use tracing::{error, warn};

use self::checkpoints::Checkpoints;
use self::deleting::Undeleted;
use self::identity::{check_identity, format, look_into};
use super::flusher::Flusher;
use super::handle::{Partition, PartitionConfig};
use crate::clock;
use crate::config::BrokerConfig;
use crate::net::descriptors;

/// Segment files that are held open for reading: what is not used lately is opened again.
const MAX_OPEN_SEGMENTS: usize = 4096;

/// Behind the name of a damaged segment's copy.
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
    #[error(
        "{} holds files but no meta.properties: it is not a Kafka data directory. Use an empty \
         directory, or format this one (klamm format --ignore-formatted)",
        dir.display()
    )]
    NotADataDirectory { dir: PathBuf },
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

/// One log directory in use.
#[derive(Debug)]
struct Directory {
    dir: LogDir,
    id: Uuid,
    last_shutdown: LastShutdown,
    checkpoints: Mutex<Checkpoints>,
    flusher: Arc<Flusher>,
    flusher_thread: Mutex<Option<JoinHandle<()>>>,
}

/// What describes a log directory to clients.
#[derive(Debug)]
pub(crate) struct DirectoryStatus {
    pub(crate) path: PathBuf,
    /// `None` when the directory is offline.
    pub(crate) space: Option<DiskSpace>,
}

impl DirectoryStatus {
    /// The directory as clients name it.
    pub(crate) fn absolute_path(&self) -> String {
        // Only a process without a working directory has no absolute paths.
        let path = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        path.to_string_lossy().into_owned()
    }
}

/// All log directories.
#[derive(Debug)]
pub(crate) struct LogStore {
    directories: Vec<Directory>,
    /// Those that could not be used at the start.
    unusable: Vec<PathBuf>,
    cluster_id: ByteString,
    broker_id: BrokerId,
    /// Where each partition lies, as an index into `directories`.
    places: Mutex<BTreeMap<PlaceKey, usize>>,
    /// Other directories in which a partition was found as well.
    doubles: Mutex<Vec<(PlaceKey, usize)>>,
    /// Copies that were found at the start, with the names of their directories.
    futures: Mutex<BTreeMap<PlaceKey, (usize, String)>>,
    /// Where a partition is to lie once it comes here; at most [`futures::MAX_PREFERENCES`].
    preferred: Mutex<BTreeMap<PlaceKey, usize>>,
    /// Which of `directories` take no new replicas (KIP-1066).
    cordoned: Mutex<Vec<bool>>,
    /// Directories of deleted partitions, to be removed after their delay.
    deleted: Mutex<Vec<(i64, usize, String)>>,
    /// Logs of deleted partitions whose directories could not be renamed yet.
    undeleted: Mutex<Vec<Undeleted>>,
    files: Arc<OpenFiles>,
    /// Held while checkpoints are taken and written: an older one must not replace a newer.
    checkpoints: Mutex<()>,
    recovery_threads: usize,
}

/// A partition by the name of its directory.
type PlaceKey = (ByteString, PartitionIndex);

/// A partition that is to be opened.
pub(crate) type WantedPartition = (ByteString, Uuid, PartitionIndex, PartitionConfig);

/// A log that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{topic}-{index} cannot be opened: {source}")]
pub(crate) struct OpenError {
    pub(crate) topic: ByteString,
    pub(crate) topic_id: Uuid,
    pub(crate) index: PartitionIndex,
    pub(crate) source: LogError,
}

impl LogStore {
    /// Locks and identifies the directories. A new one is formatted as part of the configured cluster, or of
    /// the one that the others belong to, or, if the node is alone, of a new one.
    pub(crate) fn open(disk: &Arc<dyn Disk>, config: &BrokerConfig) -> Result<Self, StoreError> {
        let (paths, broker_id) = (&config.storage.log_dirs, config.node_id);
        let recovery_threads =
            usize::try_from(config.storage.num_recovery_threads_per_data_dir).unwrap_or(1);
        let files = OpenFiles::new(descriptors::for_files(MAX_OPEN_SEGMENTS));
        let mut dirs = Vec::new();
        let mut unusable = Vec::new();
        for path in paths {
            match look_into(disk, &files, path) {
                Ok(found) => dirs.push(found),
                // The others can do without it, as in Kafka; without the metadata log nothing can be done.
                Err(LogError::Disk(failure)) if *path != config.storage.metadata_log_dir => {
                    error!("{} is out of use: {failure}", path.display());
                    unusable.push(path.clone());
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        let found = dirs.iter().find_map(|(_, properties)| properties.as_ref()?.cluster_id.clone());
        let cluster_id = match config.cluster_id.clone().or(found) {
            Some(cluster_id) => cluster_id,
            None if config.is_alone() => crate::random::uuid().to_string(),
            None => return Err(StoreError::NotFormatted { dir: paths[0].clone() }),
        };
        let directories = dirs
            .into_iter()
            .map(|(dir, properties)| Directory::open(dir, properties, &cluster_id, broker_id))
            .collect::<Result<Vec<_>, _>>()?;
        let store = Self {
            directories,
            unusable,
            cluster_id: cluster_id.into(),
            broker_id,
            places: Mutex::default(),
            doubles: Mutex::default(),
            futures: Mutex::default(),
            preferred: Mutex::default(),
            cordoned: Mutex::default(),
            deleted: Mutex::default(),
            undeleted: Mutex::default(),
            files,
            checkpoints: Mutex::default(),
            recovery_threads: recovery_threads.max(1),
        };
        store.find_partitions()?;
        Ok(store)
    }

    /// The segment files that are open, of which idle ones may be closed.
    pub(crate) fn open_files(&self) -> &OpenFiles {
        &self.files
    }

    pub(crate) fn cluster_id(&self) -> &ByteString {
        &self.cluster_id
    }

    /// The ids of the directories, in the order of `log.dirs`.
    pub(crate) fn directory_ids(&self) -> Vec<Uuid> {
        self.directories.iter().map(|directory| directory.id).collect()
    }

    /// The ids of the directories in whose paths `is_wanted` is interested, also of those that have failed since the start.
    pub(crate) fn directory_ids_where(&self, is_wanted: impl Fn(&Path) -> bool) -> Vec<Uuid> {
        let wanted = self.directories.iter().filter(|directory| is_wanted(directory.dir.path()));
        wanted.map(|directory| directory.id).collect()
    }

    /// What opening a log in this directory takes; the first one if it is not one of `log.dirs`.
    pub(crate) fn storage_of(&self, path: &Path) -> &LogStorage {
        let directory = self.directories.iter().find(|directory| directory.dir.path() == path);
        directory.unwrap_or(&self.directories[0]).dir.storage()
    }

    pub(crate) fn directory_id_of(&self, path: &Path) -> Uuid {
        let directory = self.directories.iter().find(|directory| directory.dir.path() == path);
        directory.unwrap_or(&self.directories[0]).id
    }

    /// Whether every directory was left in order by the last run, and its broker epoch.
    pub(crate) fn last_shutdown(&self) -> LastShutdown {
        let shutdowns = self.directories.iter().map(|directory| directory.last_shutdown);
        shutdowns
            .reduce(|one, other| if one == other { one } else { LastShutdown::Unclean })
            .expect("there is at least one log directory")
    }

    /// Whether any directory can still be used.
    pub(crate) fn any_online(&self) -> bool {
        self.directories.iter().any(|directory| directory.dir.health().failure().is_none())
    }

    /// The directories that cannot be used, since the start or since they have failed.
    pub(crate) fn failed_directories(&self) -> Vec<&Path> {
        let failed = self.directories.iter().filter(|one| one.dir.health().failure().is_some());
        let failed = failed.map(|directory| directory.dir.path());
        failed.chain(self.unusable.iter().map(PathBuf::as_path)).collect()
    }

    /// Whether a replica in this directory may be in one that could not be used at the start. It is not to begin
    /// anew elsewhere: that would take its records, which may be the only ones, out of the cluster.
    pub(crate) fn is_out_of_reach(&self, directory: Uuid) -> bool {
        !self.unusable.is_empty()
            && !directory_id::is_reserved(directory)
            && self.directories.iter().all(|known| known.id != directory)
    }

    /// The ids of those that have failed in this life of the process, for heartbeats.
    pub(crate) fn failed_directory_ids(&self) -> Vec<Uuid> {
        let failed = self.directories.iter().filter(|one| one.dir.health().failure().is_some());
        failed.map(|directory| directory.id).collect()
    }

    pub(crate) fn directories(&self) -> Vec<DirectoryStatus> {
        let status = |directory: &Directory| DirectoryStatus {
            path: directory.dir.path().to_path_buf(),
            space: directory.dir.space().ok(),
        };
        let unusable = |path: &PathBuf| DirectoryStatus { path: path.clone(), space: None };
        self.directories.iter().map(status).chain(self.unusable.iter().map(unusable)).collect()
    }

    /// Where a partition lies.
    pub(crate) fn directory_of(&self, topic: &ByteString, index: PartitionIndex) -> Option<&Path> {
        let place = lock(&self.places).get(&(topic.clone(), index)).copied()?;
        Some(self.directories[place].dir.path())
    }

    /// The id of the directory that a partition lies in.
    pub(crate) fn directory_id_for(
        &self,
        topic: &ByteString,
        index: PartitionIndex,
    ) -> Option<Uuid> {
        let place = lock(&self.places).get(&(topic.clone(), index)).copied()?;
        Some(self.directories[place].id)
    }

    /// Opens logs, several at a time: after an unclean shutdown each has to be verified.
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
        let failed = |source| OpenError { topic: topic.clone(), topic_id, index, source };
        self.finish_deletion(&topic, index).map_err(failed)?;
        self.promote_found(&topic, index).map_err(failed)?;
        let place = self.place_for(&topic, index);
        let directory = &self.directories[place];
        let mut checkpointed = lock(&directory.checkpoints).get(&topic, index);
        let options = LogOptions {
            config: config.log.clone(),
            recovery_point: checkpointed.recovery_point,
            log_start: checkpointed.log_start,
            clean_shutdown: directory.last_shutdown != LastShutdown::Unclean,
            topic_id: Some(topic_id),
            now_ms: clock::now_ms(),
        };
        let path = directory.dir.path().join(PartitionDirName::current(&topic, index));
        let mut log = match Log::open(directory.dir.storage(), &path, options.clone()) {
            // A deleted topic of the same name left it behind.
            Err(LogError::InconsistentTopicId { .. }) => {
                let marked = self.mark(place, &topic, index, DirKind::Stray);
                warn!("{topic}-{index} of a deleted topic is kept as {:?}", marked);
                marked.map_err(|error| failed(error.into()))?;
                // What is written down is that log's.
                lock(&directory.checkpoints).forget(&topic, index);
                checkpointed = lock(&directory.checkpoints).get(&topic, index);
                let options = LogOptions { recovery_point: 0, log_start: 0, ..options };
                Log::open(directory.dir.storage(), &path, options).map_err(failed)?
            }
            opened => opened.map_err(failed)?,
        };
        if let Some(truncated) = log.report().truncated {
            warn!(
                "{topic}-{index}: the damaged end was cut off at offset {} ({} bytes{})",
                truncated.offset,
                truncated.bytes,
                if truncated.below_recovery_point { ", though they had been synced" } else { "" }
            );
        }
        // What recovery has kept counts from now on, also for acknowledgements: make sure of it before
        // anyone asks where the log ends.
        if log.flushed_offset() < log.log_end() {
            log.flush().map_err(failed)?;
        }
        if let Some(high_watermark) = checkpointed.high_watermark {
            log.set_high_watermark(high_watermark);
        }
        lock(&directory.checkpoints).forget(&topic, index);
        let identity = (topic, topic_id, index);
        let flusher = Arc::clone(&directory.flusher);
        Ok(Partition::new(identity, self.broker_id, config, log, flusher))
    }

    /// Keeps new replicas out of the directories that are cordoned now.
    pub(crate) fn cordon(&self, is_cordoned: impl Fn(&DirectoryStatus) -> bool) {
        *lock(&self.cordoned) = self.directories().iter().map(is_cordoned).collect();
    }

    /// Where the partition is, or is wanted, or the online directory with the fewest partitions; one that is
    /// cordoned only if there is no other.
    fn place_for(&self, topic: &ByteString, index: PartitionIndex) -> usize {
        let mut places = lock(&self.places);
        if let Some(place) = places.get(&(topic.clone(), index)) {
            return *place;
        }
        let wanted = lock(&self.preferred).remove(&(topic.clone(), index));
        if let Some(place) = wanted.filter(|place| self.is_online(*place)) {
            places.insert((topic.clone(), index), place);
            return place;
        }
        let mut counts = vec![0_usize; self.directories.len()];
        for place in places.values() {
            counts[*place] += 1;
        }
        let online = |place: &usize| self.is_online(*place);
        let cordoned = lock(&self.cordoned);
        let rank = |place: &usize| (cordoned.get(*place) == Some(&true), counts[*place]);
        let place = (0..counts.len()).filter(online).min_by_key(rank);
        let place = place.unwrap_or(0);
        places.insert((topic.clone(), index), place);
        place
    }

    /// Keeps a copy of a damaged segment beside the log, for whoever wants to know what has happened.
    pub(crate) fn keep_damaged(&self, partition: &Partition, segment: Offset) {
        let (topic, index) = (partition.topic(), partition.index());
        let Some(directory) = self.directory_of(topic, index) else { return };
        let name = FileKind::Log.name(segment);
        let damaged = directory.join(PartitionDirName::current(topic, index)).join(&name);
        let kept = damaged.with_file_name(format!("{name}{DAMAGED_SUFFIX}"));
        // The copy takes two descriptors past the seam to the disk.
        self.files.close_idle();
        match std::fs::copy(&damaged, &kept) {
            Ok(_) => warn!("the damaged segment is kept as {}", kept.display()),
            Err(failure) => error!("{} is not kept: {failure}", damaged.display()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Directory {
    fn open(
        dir: LogDir,
        properties: Option<MetaProperties>,
        cluster_id: &str,
        broker_id: BrokerId,
    ) -> Result<Self, StoreError> {
        let properties = match properties {
            Some(properties) => check_identity(&dir, properties, cluster_id, broker_id)?,
            None => format(&dir, cluster_id, broker_id)?,
        };
        let thread = |source| StoreError::Thread { dir: dir.path().to_path_buf(), source };
        let (flusher, flusher_thread) = Flusher::start(dir.path().to_path_buf()).map_err(thread)?;
        Ok(Self {
            id: properties.directory_id.unwrap_or_default(),
            last_shutdown: dir.take_last_shutdown()?,
            checkpoints: Mutex::new(Checkpoints::read(&dir)?),
            flusher,
            flusher_thread: Mutex::new(Some(flusher_thread)),
            dir,
        })
    }
}

#[cfg(test)]
mod tests {
    use klamm_log::disk::{Fault, MemoryDisk, Operation};
    use klamm_metadata::config_def::BrokerConfigs;

    use super::*;
    use crate::partition::settings::partition_config;

    #[test]
    fn new_replicas_stay_out_of_cordoned_directories_while_there_are_others() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let config = BrokerConfig::from_pairs([("log.dirs", "/one,/two")]).unwrap();
        let store = LogStore::open(&disk, &config).unwrap();
        let configs = BrokerConfigs::new(BTreeMap::new()).unwrap();
        let place = |index| {
            let config = partition_config(&configs, "t", &BTreeMap::new());
            let wanted = vec![("t".into(), Uuid::from_bytes([7; 16]), index, config)];
            assert!(store.open_all(wanted).iter().all(Result::is_ok));
            store.directory_of(&"t".into(), index).unwrap().display().to_string()
        };
        assert_eq!([place(0), place(1)], ["/one", "/two"]);
        store.cordon(|directory| directory.path.ends_with("one"));
        assert_eq!([place(2), place(3)], ["/two", "/two"]);
        assert_eq!(place(0), "/one", "who is there already stays");
        store.cordon(|_| true);
        assert_eq!(place(4), "/one", "where else");
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_done_without_unless_the_metadata_log_is_there() {
        let disk = MemoryDisk::default();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let pairs = [("log.dirs", "/one,/two"), ("metadata.log.dir", "/two")];
        let config = BrokerConfig::from_pairs(pairs).unwrap();
        let lost = LogStore::open(&shared, &config).unwrap().directories[0].id;
        disk.fail_next(Operation::Lock, Fault::Io);
        let store = LogStore::open(&shared, &config).unwrap();
        assert_eq!(store.failed_directories(), [Path::new("/one")]);
        assert_eq!((store.directories().len(), store.directory_ids().len()), (2, 1));
        assert!(store.is_out_of_reach(lost));
        assert!(!store.is_out_of_reach(store.directory_ids()[0]));
        assert!(!store.is_out_of_reach(directory_id::UNASSIGNED));
        drop(store);
        let config = BrokerConfig::from_pairs([("log.dirs", "/one,/two")]).unwrap();
        disk.fail_next(Operation::Lock, Fault::Io);
        LogStore::open(&shared, &config).unwrap_err();
    }
}
