//! Directories that come back while the node runs: a missing disk is mounted, or an operator has formatted a new one. A
//! directory that was in use and has failed does not come back before the next start: a failed sync is never retried.

use klamm_protocol::ids::TopicPartition;
use std::sync::Arc;

use klamm_log::partition_dir::{DirKind, PartitionDirName};
use klamm_protocol::Uuid;
use tracing::{error, info, warn};

use super::directory::Slot;
use super::start::Contents;
use super::survey::look_at;
use super::{LogManager, lock};
use crate::replica::partition::Partition;

impl LogManager {
    /// Checks the paths that are not in use, and opens those whose directory is there now. Their logs are used from
    /// [`Self::settle`] on. Blocks for the disk, and costs little when nothing has changed.
    pub(crate) fn look_again(&self) {
        for slot in self.slots.iter().filter(|slot| slot.directory.get().is_none()) {
            if self.is_back(slot) {
                self.take_back(slot);
            }
        }
    }

    /// Whether a path has a usable directory now. The reason against it is logged once.
    fn is_back(&self, slot: &Slot) -> bool {
        let Ok((contents, has_metadata_log, Some(properties))) =
            look_at(self.disk.as_ref(), &slot.path, false)
        else {
            return false;
        };
        let is_formatted = matches!(contents, Contents::Formatted | Contents::Used);
        let obstacle = if has_metadata_log {
            Some("there is a metadata log in it, and this node has one already")
        } else if properties.directory_id.is_some_and(|id| self.has(id)) {
            Some("it is a copy of another directory in log.dirs: their directory.id is the same")
        } else {
            None
        };
        match obstacle {
            Some(obstacle) => {
                if slot.is_news(obstacle) {
                    error!("{} is not used: {obstacle}", slot.path.display());
                }
                false
            }
            None => is_formatted,
        }
    }

    fn take_back(&self, slot: &Slot) {
        let path = slot.path.display();
        match self.take_into_use(slot, false) {
            Ok(()) => {
                let directory = slot.directory.get().expect("it was taken into use");
                info!("{path} is back, as directory {}", directory.id);
            }
            Err(failure) => {
                if slot.is_news(&failure.to_string()) {
                    error!("{path} cannot be used: {failure}");
                }
            }
        }
    }

    /// The directories that are back and whose logs have not been compared with the metadata yet.
    pub(crate) fn unsettled_ids(&self) -> Vec<Uuid> {
        self.in_use().filter(|(_, one)| !one.is_settled()).map(|(_, one)| one.id).collect()
    }

    /// Lists the partition directories of those of `ids` that are back.
    pub(crate) fn find_returned(&self, ids: &[Uuid]) {
        let returned = self.in_use().filter(|(_, one)| !one.is_found() && ids.contains(&one.id));
        for (place, directory) in returned {
            if let Err(failure) = self.find_in(place, directory) {
                error!("{} cannot be read: {failure}", directory.dir.path().display());
            }
        }
    }

    /// Closes the log of a partition and keeps it as `-stray`: the one that was found at `place` replaces it.
    pub(crate) fn displace(&self, partition: &Arc<Partition>, key: TopicPartition, place: usize) {
        let stopped = partition.stop();
        if let Some(future) = partition.take_future() {
            self.discard_future(partition, future);
        }
        let (topic, index) = (partition.topic(), partition.index());
        let from = lock(&self.places).insert(key, place);
        let (Some(mut log), Some(from)) = (stopped, from) else { return };
        let unique = crate::random::uuid();
        let marked = PartitionDirName::marked(topic, index, DirKind::Stray, unique);
        match log.rename_dir(&self.path_at(from).join(&marked)) {
            Ok(()) => {
                warn!(%topic, partition = index, "the log of {topic}-{index} is renamed to {marked} and not used: a log with its records is back")
            }
            Err(failure) => {
                error!(%topic, partition = index, "the log of {topic}-{index} cannot be renamed to -stray: {failure}")
            }
        }
    }
}
