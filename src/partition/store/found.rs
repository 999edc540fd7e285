//! What lies in the log directories at the start, and what becomes of it once the cluster's metadata are known.

use std::collections::btree_map::Entry;

use bytestring::ByteString;
use klamm_log::disk::DiskError;
use klamm_log::error::LogError;
use klamm_log::partition_dir::{DirKind, PartitionDirName};
use klamm_protocol::Uuid;
use klamm_protocol::ids::PartitionIndex;
use tracing::{error, warn};

use super::{LogStore, PlaceKey, StoreError, lock};
use crate::controller::metadata_log::METADATA_LOG_DIR;

impl LogStore {
    pub(super) fn find_partitions(&self) -> Result<(), StoreError> {
        for (place, directory) in self.directories.iter().enumerate() {
            let path = directory.dir.path();
            let entries = directory.dir.storage().disk.list(path).map_err(LogError::from)?;
            for name in entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name) {
                let Some(found) = PartitionDirName::parse(&name) else { continue };
                match found.kind {
                    DirKind::Current if name == METADATA_LOG_DIR => {}
                    DirKind::Current => {
                        let key = (ByteString::from(found.topic), found.partition);
                        match lock(&self.places).entry(key) {
                            Entry::Vacant(free) => drop(free.insert(place)),
                            Entry::Occupied(taken) => {
                                lock(&self.doubles).push((taken.key().clone(), place));
                            }
                        }
                    }
                    DirKind::Future => {
                        let key = (ByteString::from(found.topic), found.partition);
                        self.on_future_found(key, place, name);
                    }
                    DirKind::Delete => lock(&self.deleted).push((0, place, name)),
                    DirKind::Stray => warn!("{} is left alone", path.join(name).display()),
                }
            }
        }
        Ok(())
    }

    /// Settles what was found at the start, by the directory that the cluster has for a replica of this broker; `None`
    /// when it knows no such replica.
    ///
    /// Logs that the cluster does not know are set aside: their topics were deleted while the node was down, or the
    /// directory is another cluster's. So is the other of two logs of one partition.
    pub(crate) fn settle(&self, recorded: impl Fn(&str, PartitionIndex) -> Option<Uuid>) {
        self.settle_doubles(&recorded);
        let strays: Vec<_> = {
            let mut places = lock(&self.places);
            let is_known = |(topic, index): &PlaceKey| recorded(topic, *index).is_some();
            let strays = places.iter().filter(|(key, _)| !is_known(key));
            let strays: Vec<_> = strays.map(|(key, place)| (key.clone(), *place)).collect();
            places.retain(|key, _| is_known(key));
            strays
        };
        for (key, place) in strays {
            self.set_aside(&key, place, "no such replica is known");
        }
        self.settle_futures(recorded);
    }

    pub(super) fn set_aside(&self, (topic, index): &PlaceKey, place: usize, reason: &str) {
        match self.mark(place, topic, *index, DirKind::Stray) {
            Ok(name) => warn!("{topic}-{index} is kept as {name}: {reason}"),
            Err(failure) => error!("{topic}-{index} cannot be set aside: {failure}"),
        }
    }

    /// Renames a partition's directory, so that a new one of the name can take its place.
    pub(super) fn mark(
        &self,
        place: usize,
        topic: &str,
        index: PartitionIndex,
        kind: DirKind,
    ) -> Result<String, DiskError> {
        let directory = &self.directories[place].dir;
        let marked = PartitionDirName::marked(topic, index, kind, crate::random::uuid());
        let from = directory.path().join(PartitionDirName::current(topic, index));
        let disk = &directory.storage().disk;
        disk.rename(&from, &directory.path().join(&marked))?;
        disk.sync_dir(directory.path())?;
        Ok(marked)
    }
}
