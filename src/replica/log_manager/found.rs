//! Finds the partition directories in the log directories, and decides about each when the metadata is known.

use klamm_protocol::ids::TopicPartition;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bytestring::ByteString;
use klamm_log::disk::DiskError;
use klamm_log::error::LogError;
use klamm_log::partition_dir::{DirKind, PartitionDirName};
use klamm_log::partition_metadata;
use klamm_metadata::known_replica::{KnownReplica, LogEnd};
use klamm_protocol::Uuid;
use klamm_protocol::ids::PartitionIndex;
use tracing::{error, warn};

use super::directory::Directory;
use super::{LogManager, lock};
use crate::controller::metadata_log::METADATA_LOG_DIR;

/// The maximum number of unknown directories that one log line names.
const MAX_NAMED: usize = 5;

/// Looks up this broker's replica of a partition in the metadata.
pub(super) type Known<'a> = &'a dyn Fn(&str, PartitionIndex) -> Option<KnownReplica>;
/// Looks up the end of a partition's open log.
pub(super) type Opened<'a> = &'a dyn Fn(&TopicPartition) -> Option<LogEnd>;

impl LogManager {
    pub(super) fn find_partitions(&self) -> Result<(), LogError> {
        let mut new = self.in_use().filter(|(_, directory)| !directory.is_found());
        new.try_for_each(|(place, directory)| self.find_in(place, directory))
    }

    pub(super) fn find_in(&self, place: usize, directory: &Directory) -> Result<(), LogError> {
        let path = directory.dir.path();
        let entries = directory.dir.storage().disk.list(path).map_err(LogError::from)?;
        let mut logs = BTreeSet::new();
        let mut deleted: BTreeMap<_, BTreeSet<Uuid>> = BTreeMap::new();
        for name in entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name) {
            if name == METADATA_LOG_DIR {
                continue;
            }
            let Some(found) = PartitionDirName::parse(&name) else { continue };
            if matches!(found.kind, DirKind::Current | DirKind::Future) {
                logs.insert((found.topic.clone(), found.partition));
            }
            let key = TopicPartition::new(ByteString::from(found.topic), found.partition);
            match found.kind {
                DirKind::Current => match lock(&self.places).entry(key) {
                    Entry::Vacant(free) => drop(free.insert(place)),
                    Entry::Occupied(taken) => {
                        lock(&self.doubles).push((taken.key().clone(), place));
                    }
                },
                DirKind::Future => {
                    lock(&self.futures).entry(key).or_default().push((place, name));
                }
                DirKind::Delete => {
                    let of = deleted.entry((key.topic.to_string(), key.partition)).or_default();
                    of.extend(self.topic_id_at(place, &name));
                    lock(&self.deleted).push((0, place, name));
                }
                DirKind::Stray => {
                    warn!("{} is a stray log: it is kept and not used", path.join(name).display())
                }
            }
        }
        lock(&directory.checkpoints).set_found(logs, &deleted);
        self.find_vanished(directory);
        directory.set_found();
        Ok(())
    }

    /// Compares the logs found in newly used directories with the metadata's replicas of this broker. Returns the
    /// partitions whose open log must be replaced by one that was found, with its place.
    ///
    /// Logs of removed replicas are set aside as `-stray`, and so is the other of two logs of one partition. Logs of
    /// topics that the metadata has never known are left where they are.
    pub(crate) fn settle(
        &self,
        known: Known<'_>,
        opened: Opened<'_>,
    ) -> Vec<(TopicPartition, usize)> {
        let displaced = self.settle_doubles(known, opened);
        let is_new = |place: usize| {
            let directory = self.at(place);
            directory.is_found() && !directory.is_settled()
        };
        let unclaimed: Vec<_> = {
            let mut places = lock(&self.places);
            let unclaimed =
                places.iter().filter(|(TopicPartition { topic, partition: index }, place)| {
                    is_new(**place) && known(topic, *index).is_none()
                });
            let unclaimed: Vec<_> = unclaimed.map(|(key, place)| (key.clone(), *place)).collect();
            places
                .retain(|key, place| !is_new(*place) || known(&key.topic, key.partition).is_some());
            unclaimed
        };
        for (key, place) in unclaimed {
            self.judge(&key, place);
        }
        self.settle_futures(known);
        self.settle_vanished(known);
        self.report_unknown(&is_new);
        let found = self.in_use().filter(|(_, directory)| directory.is_found());
        found.for_each(|(_, directory)| directory.set_settled());
        displaced
    }

    /// Decides about a log of which the metadata has no replica on this broker: set aside if its topic was known, else
    /// left alone.
    pub(super) fn judge(&self, key: &TopicPartition, place: usize) {
        match self.topic_id_at(place, &PartitionDirName::current(&key.topic, key.partition)) {
            Some(id) if self.has_seen(id) => {
                self.set_aside(key, place, "the cluster has no such replica here any more");
            }
            _ => drop(lock(&self.unknown).insert((key.clone(), place))),
        }
    }

    /// The topic id in a partition directory's `partition.metadata`, if there is one.
    pub(super) fn topic_id_at(&self, place: usize, name: &str) -> Option<Uuid> {
        let dir = &self.at(place).dir;
        let read = partition_metadata::read(self.disk.as_ref(), &dir.path().join(name));
        read.unwrap_or_else(|failure| {
            error!("the topic id of {name} cannot be read: {failure}");
            None
        })
    }

    fn report_unknown(&self, is_new: &dyn Fn(usize) -> bool) {
        let unknown = lock(&self.unknown);
        let unknown = unknown.iter().filter(|(_, place)| is_new(*place));
        let paths: Vec<PathBuf> = unknown.map(|(key, place)| self.dir_of(key, *place)).collect();
        if paths.is_empty() {
            return;
        }
        let named = paths.iter().take(MAX_NAMED).map(|path| path.display().to_string());
        let named = named.collect::<Vec<_>>().join(", ");
        let more = if paths.len() > MAX_NAMED { " and others" } else { "" };
        warn!(
            "{} partition directories are of topics that the metadata log of this node has never known. They are left as they \
             are: {named}{more}. If the metadata log was moved or lost, go back to the one that knows them; if they are of no \
             use, remove them",
            paths.len()
        );
    }

    pub(super) fn dir_of(
        &self,
        TopicPartition { topic, partition: index }: &TopicPartition,
        place: usize,
    ) -> PathBuf {
        self.path_at(place).join(PartitionDirName::current(topic, *index))
    }

    pub(super) fn set_aside(
        &self,
        TopicPartition { topic, partition: index }: &TopicPartition,
        place: usize,
        reason: &str,
    ) {
        match self.mark(place, topic, *index, DirKind::Stray) {
            Ok(name) => {
                warn!(%topic, partition = index, "the log of {topic}-{index} is renamed to {name} and not used: {reason}")
            }
            Err(failure) => {
                error!(%topic, partition = index, "the log of {topic}-{index} cannot be renamed to -stray: {failure}")
            }
        }
    }

    /// Renames a partition's directory to `-delete` or `-stray`, so that a new one of the same name can be created.
    pub(super) fn mark(
        &self,
        place: usize,
        topic: &str,
        index: PartitionIndex,
        kind: DirKind,
    ) -> Result<String, DiskError> {
        let directory = self.at(place);
        let path = directory.dir.path();
        let marked = PartitionDirName::marked(topic, index, kind, crate::random::uuid());
        let from = path.join(PartitionDirName::current(topic, index));
        let disk = &directory.dir.storage().disk;
        let parent = disk.open_dir(path)?;
        disk.rename(&from, &path.join(&marked))?;
        parent.sync()?;
        lock(&directory.checkpoints).forget(topic, index);
        Ok(marked)
    }
}
