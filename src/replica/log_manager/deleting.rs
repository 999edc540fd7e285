//! Deletes the logs of removed partitions: the directory is renamed at once, and removed after `file.delete.delay.ms`.
//! A rename or removal that fails for lack of room is tried again.

use bytestring::ByteString;
use klamm_log::error::LogError;
use klamm_log::log::Log;
use klamm_log::partition_dir::{DirKind, PartitionDirName};
use klamm_protocol::ids::PartitionIndex;
use klamm_protocol::ids::TopicPartition;
use tracing::{error, info, warn};

use super::{LogManager, lock};
use crate::clock;
use crate::replica::partition::Partition;

/// A log to delete whose directory is not renamed yet.
#[derive(Debug)]
pub(super) struct Undeleted {
    topic: ByteString,
    index: PartitionIndex,
    log: Log,
    place: usize,
    delay_ms: i64,
}

impl LogManager {
    /// Renames a partition's directory to `-delete` at once; its files are removed after `file.delete.delay.ms`.
    pub(crate) fn delete(&self, partition: &Partition) {
        let (topic, index) = (partition.topic(), partition.index());
        let stopped = partition.stop();
        if let Some(future) = partition.take_future() {
            self.discard_future(partition, future);
        }
        let Some(log) = stopped else { return };
        let Some(place) = lock(&self.places).remove(&TopicPartition::new(topic.clone(), index))
        else {
            return;
        };
        let delay_ms = partition.config().log.file_delete_delay_ms;
        self.delete_when_there_is_room(topic, index, (log, place, delay_ms));
        match self.finish_deletion(topic, index) {
            Ok(()) => info!(%topic, partition = index, "{topic}-{index} is deleted"),
            Err(failure) => {
                warn!(%topic, partition = index, "{topic}-{index} cannot be deleted for now: {failure}")
            }
        }
    }

    /// As [`Self::delete`], of a partition that could not be opened.
    pub(crate) fn delete_unopened(&self, topic: &ByteString, index: PartitionIndex) {
        self.forget_vanished(topic, index);
        let Some(place) = lock(&self.places).remove(&TopicPartition::new(topic.clone(), index))
        else {
            return;
        };
        lock(&self.at(place).checkpoints).forget(topic, index);
        match self.mark(place, topic, index, DirKind::Delete) {
            Ok(marked) => self.delete_later(0, place, marked),
            // It was never created.
            Err(error) if error.is_not_found() => {}
            Err(failure) => {
                error!(%topic, partition = index, "{topic}-{index} cannot be deleted: {failure}")
            }
        }
    }

    pub(super) fn delete_when_there_is_room(
        &self,
        topic: &ByteString,
        index: PartitionIndex,
        (log, place, delay_ms): (Log, usize, i64),
    ) {
        let undeleted = Undeleted { topic: topic.clone(), index, log, place, delay_ms };
        lock(&self.undeleted).push(undeleted);
    }

    /// Renames directories of deleted partitions that still have this name: a new partition needs it.
    pub(super) fn finish_deletion(
        &self,
        topic: &ByteString,
        index: PartitionIndex,
    ) -> Result<(), LogError> {
        let is_meant = |one: &Undeleted| one.topic == *topic && one.index == index;
        let mut undeleted = lock(&self.undeleted);
        while let Some(at) = undeleted.iter().position(is_meant) {
            let one = &mut undeleted[at];
            let unique = crate::random::uuid();
            let marked = PartitionDirName::marked(&one.topic, index, DirKind::Delete, unique);
            one.log.rename_dir(&self.path_at(one.place).join(&marked))?;
            let one = undeleted.swap_remove(at);
            self.delete_later(one.delay_ms, one.place, marked);
        }
        Ok(())
    }

    pub(super) fn delete_later(&self, delay_ms: i64, place: usize, name: String) {
        let due_ms = clock::now_ms().saturating_add(delay_ms);
        lock(&self.deleted).push((due_ms, place, name));
    }

    /// Removes the directories of partitions whose delay is over, and renames those that could not be renamed before.
    pub(crate) fn remove_deleted(&self, now_ms: i64) {
        let undeleted: Vec<_> =
            lock(&self.undeleted).iter().map(|one| (one.topic.clone(), one.index)).collect();
        for (topic, index) in undeleted {
            if self.finish_deletion(&topic, index).is_ok() {
                info!(%topic, partition = index, "{topic}-{index} is deleted");
            }
        }
        let due: Vec<_> = {
            let mut deleted = lock(&self.deleted);
            let (due, waiting) =
                std::mem::take(&mut *deleted).into_iter().partition(|(due, ..)| *due <= now_ms);
            *deleted = waiting;
            due
        };
        for (due_ms, place, name) in due {
            let Err(failure) = self.at(place).dir.remove_partition(&name) else {
                continue;
            };
            error!("{name} cannot be removed: {failure}");
            if failure.passes() {
                lock(&self.deleted).push((due_ms, place, name));
            }
        }
    }
}
