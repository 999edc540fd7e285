//! Opens the log directories at the start: which are used, which are formatted, and which wait for their disk.
//!
//! An empty directory beside ones in use may be a new disk, or the mount point of one that is not mounted. The metadata
//! decides: if it has a replica of this broker in a directory that is not mounted, no directory is formatted until the
//! operator does it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use klamm_log::disk::Disk;
use klamm_log::error::LogError;
use klamm_log::open_files::OpenFiles;
use klamm_metadata::directory_id;
use klamm_metadata::image::ClusterImage;
use klamm_protocol::Uuid;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::directory::{Directory, Owner, Slot};
use super::identity::check_owner;
use super::known::TopicsSeen;
use super::start::{Contents, Quorum, Start, decide};
use super::survey::{Survey, look_at};
use super::{LogManager, MAX_OPEN_SEGMENTS, StoreError};
use crate::config::BrokerConfig;
use crate::net::descriptors;

impl LogManager {
    /// Opens the directories of this node. If all of them are new, they are formatted for the configured cluster or, if
    /// this node is alone, for a new one.
    pub(crate) fn open(disk: &Arc<dyn Disk>, config: &BrokerConfig) -> Result<Self, StoreError> {
        let survey = Survey::take(disk.as_ref(), &config.storage)?;
        let found = survey.cluster_id();
        let known = config.cluster_id.clone().or(found);
        if let Some(cluster_id) = &known {
            for (directory, properties) in survey.directories.iter().zip(&survey.properties) {
                let Some(properties) = properties else { continue };
                check_owner(&directory.path, properties, cluster_id, config.node_id)?;
            }
        }
        let start = decide(&survey.directories, quorum(config))?;
        let metadata_dir = survey.directories[survey.metadata_place].path.clone();
        let cluster_id = match known {
            Some(cluster_id) => cluster_id,
            None if config.is_alone() => crate::random::uuid().to_string(),
            None => return Err(StoreError::NotFormatted { dir: metadata_dir }),
        };
        let owner = Owner { cluster_id, broker_id: config.node_id };
        let mut store = Self::without_directories(disk, config, owner, start);
        store.enter_metadata(&survey, start)?;
        store.enter(&survey, start)?;
        store.find_partitions()?;
        Ok(store)
    }

    fn without_directories(
        disk: &Arc<dyn Disk>,
        config: &BrokerConfig,
        owner: Owner,
        start: Start,
    ) -> Self {
        let threads = usize::try_from(config.storage.num_recovery_threads_per_data_dir);
        Self {
            slots: config.storage.log_dirs.iter().cloned().map(Slot::new).collect(),
            metadata_place: 0,
            metadata_home: None,
            disk: Arc::clone(disk),
            files: OpenFiles::new(descriptors::for_files(MAX_OPEN_SEGMENTS)),
            cluster_id: owner.cluster_id.as_str().into(),
            owner,
            start,
            places: Mutex::default(),
            doubles: Mutex::default(),
            unknown: Mutex::default(),
            topics: Mutex::default(),
            missed: Mutex::default(),
            futures: Mutex::default(),
            preferred: Mutex::default(),
            cordoned: Mutex::default(),
            deleted: Mutex::default(),
            undeleted: Mutex::default(),
            held_back: Arc::default(),
            room_news: Arc::default(),
            checkpoints: Mutex::default(),
            recovery_threads: threads.unwrap_or(1).max(1),
            node_failed: CancellationToken::new(),
        }
    }

    /// Opens the metadata directory, if it is none of `log.dirs`.
    fn enter_metadata(&mut self, survey: &Survey, start: Start) -> Result<(), StoreError> {
        self.metadata_place = survey.metadata_place;
        if self.metadata_place < self.slots.len() {
            return Ok(());
        }
        let directory = &survey.directories[survey.metadata_place];
        let is_new = directory.contents == Contents::Empty;
        assert!(!is_new || start == Start::Begin, "only what begins has nothing in it");
        let entered = match is_new {
            true => self.owner.found(&self.disk, &self.files, &directory.path)?,
            false => self.owner.enter(&self.disk, &self.files, &directory.path)?,
        };
        self.metadata_home = Some(entered);
        Ok(())
    }

    /// Opens the formatted directories; at the first start of a node also the empty ones, which it formats.
    fn enter(&self, survey: &Survey, start: Start) -> Result<(), StoreError> {
        for (place, slot) in self.slots.iter().enumerate() {
            let contents = survey.directories[place].contents;
            let entered = match contents {
                Contents::Formatted | Contents::Used => self.take_into_use(slot, false),
                Contents::Empty if start == Start::Begin => self.take_into_use(slot, true),
                Contents::Empty | Contents::Unreadable | Contents::Foreign => continue,
            };
            match entered {
                // As in Kafka the node starts without a failed data directory, but not without the metadata log.
                Err(StoreError::Log(LogError::Disk(failure))) if place != self.metadata_place => {
                    error!(
                        "the log directory {} failed and is not used: {failure}",
                        slot.path.display()
                    );
                }
                entered => entered?,
            }
        }
        Ok(())
    }

    pub(super) fn take_into_use(&self, slot: &Slot, is_new: bool) -> Result<(), StoreError> {
        let entered = match is_new {
            true => self.owner.found(&self.disk, &self.files, &slot.path)?,
            false => self.owner.enter(&self.disk, &self.files, &slot.path)?,
        };
        let (news, failed) = (Arc::clone(&self.room_news), self.node_failed.clone());
        let directory = Directory::open(entered, is_new, news, failed)?;
        let taken = slot.directory.set(directory);
        assert!(taken.is_ok(), "a path is taken into use once");
        Ok(())
    }

    /// The paths that may hold the bootstrap records that formatting has written.
    pub(crate) fn formatted_paths(&self) -> Vec<PathBuf> {
        let in_use = self.in_use().map(|(_, directory)| directory.dir.path());
        let home = self.metadata_home.iter().map(|(dir, _)| dir.path());
        in_use.chain(home).map(PathBuf::from).collect()
    }

    /// Directories in which the metadata has replicas of this broker, and which are not mounted.
    pub(crate) fn missed(&self, image: &ClusterImage) -> BTreeSet<Uuid> {
        let broker_id = self.owner.broker_id;
        let replicas = image.topics.replicated_on(broker_id);
        let recorded = replicas.filter_map(|(_, _, partition)| partition.directory(broker_id));
        recorded.filter(|id| !directory_id::is_reserved(*id) && !self.has(*id)).collect()
    }

    /// Decides by the local metadata log about the directories that were empty at the start. New directories are
    /// formatted. A directory that may be the mount point of a missing disk is not used. A directory that was emptied
    /// has lost its replicas.
    pub(crate) fn judge_empty(
        &self,
        seen: TopicsSeen,
        image: &ClusterImage,
    ) -> Result<(), StoreError> {
        self.expect(seen, image);
        self.find_emptied(image);
        let missed = self.missed(image);
        for slot in self.slots.iter().filter(|slot| slot.directory.get().is_none()) {
            let looked_at = look_at(self.disk.as_ref(), &slot.path, false);
            if !matches!(looked_at, Ok((Contents::Empty, false, None))) {
                continue;
            }
            let path = slot.path.display();
            if self.start == Start::GoOn && missed.is_empty() {
                match self.take_into_use(slot, true) {
                    Err(StoreError::Log(LogError::Disk(failure))) => {
                        error!("the log directory {path} failed and is not used: {failure}");
                    }
                    entered => entered?,
                }
            } else if missed.is_empty() {
                let fix = "klamm format --ignore-formatted";
                warn!("{path} is empty and not used: nothing here says that it is new. Run {fix}");
            } else {
                error!(
                    "{path} is empty and not used: this broker has replicas in {}, which no directory of log.dirs is. Is a \
                     disk not mounted? Mount it there, and it is used at once; if it is lost, format the new one explicitly \
                     (klamm format --ignore-formatted)",
                    ids(&missed)
                );
            }
        }
        self.write_missing_checkpoints();
        Ok(())
    }
}

pub(super) fn ids(ids: &BTreeSet<Uuid>) -> String {
    ids.iter().map(|id| format!("directory {id}")).collect::<Vec<_>>().join(", ")
}

fn quorum(config: &BrokerConfig) -> Quorum {
    match (config.roles.controller, config.is_only_controller()) {
        (false, _) => Quorum::Observer,
        (true, true) => Quorum::Alone,
        (true, false) => Quorum::Voter,
    }
}
