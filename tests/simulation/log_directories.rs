//! A node's log directories, the logs of partitions in them, and which of those the running broker has in use.
//!
//! A directory may be away (not mounted, a mistyped path), have failed (EIO until the next start), or have no room.
//! What lies in one that is not online stays there as it is. Beside logs there are copies, which are to replace the log
//! of a partition in another directory (KIP-113).

use crate::batch::{PartitionBatch, PartitionId};
use crate::log::Log;
use crate::random::Random;
use klamm_protocol::Uuid;
use klamm_protocol::ids::Offset;
use klamm_replication::partition::LogRange;
use klamm_replication::{EpochHistory, EpochStart};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A partition's log, and the high watermark as last checkpointed.
#[derive(Debug, Default)]
pub(crate) struct PartitionDisk {
    pub(crate) log: Log<PartitionBatch>,
    pub(crate) epochs: EpochHistory,
    pub(crate) checkpoint: Offset,
    /// Nothing can be written where it lies.
    pub(crate) is_full: bool,
    /// The broker has found that, and appends nothing before there is room.
    pub(crate) is_found_full: bool,
    /// The base offset of a batch that cannot be read any more.
    pub(crate) damaged: Option<Offset>,
}

impl PartitionDisk {
    /// Epochs follow from the log.
    fn recover(&mut self) {
        let batches = self.log.batches().iter();
        let starts = batches
            .map(|batch| EpochStart { epoch: batch.leader_epoch, start_offset: batch.base_offset });
        self.epochs = EpochHistory::from_entries(starts);
        self.checkpoint = self.checkpoint.min(self.log.end());
        self.damaged = self.damaged.filter(|at| *at < self.log.end());
    }

    /// The batches from `offset` on that end at or below `end_offset`, at most so many, and none that is damaged: if that
    /// is the first one, where it is.
    pub(crate) fn read(
        &self,
        offset: Offset,
        end_offset: Offset,
        max: usize,
    ) -> Result<Vec<Rc<PartitionBatch>>, Offset> {
        let mut batches = self.log.read(offset, end_offset, max);
        let is_damaged = |batch: &Rc<PartitionBatch>| Some(batch.base_offset) == self.damaged;
        match batches.iter().position(is_damaged) {
            Some(0) => Err(batches[0].base_offset),
            Some(at) => {
                batches.truncate(at);
                Ok(batches)
            }
            None => Ok(batches),
        }
    }

    pub(crate) fn append(&mut self, batch: Rc<PartitionBatch>) {
        self.epochs.assign(batch.leader_epoch, batch.base_offset);
        self.log.append(batch);
    }

    pub(crate) fn truncate(&mut self, end: Offset) {
        self.log.truncate(end);
        self.epochs.truncate_from_end(end);
        self.damaged = self.damaged.filter(|at| *at < end);
    }

    /// The records of the log.
    pub(crate) fn range(&self) -> LogRange<'_> {
        LogRange { epochs: &self.epochs, start: self.log.start(), end: self.log.end() }
    }

    /// What was not synced is lost, as far as it has not reached the disk by itself.
    fn crash(&mut self, random: &mut Random) {
        self.log.crash(random);
        self.recover();
    }
}

/// Whether a directory can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Availability {
    Online,
    /// It is not where the configuration says.
    Away,
    /// It has answered EIO, and is not tried again before the next start.
    Failed,
}

#[derive(Debug)]
struct LogDirectory {
    id: Uuid,
    availability: Availability,
    is_full: bool,
    /// The running node has seen which logs are in it. They may have become unreadable since.
    is_listed: bool,
    logs: BTreeMap<PartitionId, PartitionDisk>,
    copies: BTreeMap<PartitionId, PartitionDisk>,
    /// The broker epoch that an orderly stop has left.
    clean_broker_epoch: Option<i64>,
}

impl LogDirectory {
    fn new(id: Uuid) -> Self {
        Self {
            id,
            availability: Availability::Online,
            is_full: false,
            is_listed: true,
            logs: BTreeMap::new(),
            copies: BTreeMap::new(),
            clean_broker_epoch: None,
        }
    }

    /// What was not synced is lost.
    fn crash(&mut self, random: &mut Random) {
        let logs = self.logs.values_mut().chain(self.copies.values_mut());
        logs.for_each(|log| log.crash(random));
    }
}

#[derive(Debug)]
pub(crate) struct LogDirectories {
    /// The first one has the metadata log as well: it is never away by itself.
    directories: Vec<LogDirectory>,
    /// Where the log of each partition lies that the broker has opened.
    in_use: BTreeMap<PartitionId, usize>,
}

impl LogDirectories {
    pub(crate) fn new(ids: impl IntoIterator<Item = Uuid>) -> Self {
        let directories = ids.into_iter().map(LogDirectory::new).collect();
        Self { directories, in_use: BTreeMap::new() }
    }

    pub(crate) fn count(&self) -> usize {
        self.directories.len()
    }

    /// The directory with the metadata log.
    pub(crate) fn first(&self) -> Uuid {
        self.directories[0].id
    }

    /// Whether the metadata log has no room.
    pub(crate) fn is_first_full(&self) -> bool {
        self.directories[0].is_full
    }

    pub(crate) fn with(&self, availability: Availability) -> impl Iterator<Item = Uuid> + use<'_> {
        let directories = self.directories.iter();
        let found = directories.filter(move |directory| directory.availability == availability);
        found.map(|directory| directory.id)
    }

    pub(crate) fn is_online(&self, id: Uuid) -> bool {
        self.with(Availability::Online).any(|online| online == id)
    }

    pub(crate) fn are_all_online(&self) -> bool {
        self.with(Availability::Online).count() == self.directories.len()
    }

    /// The node looks which logs are in its directories.
    pub(crate) fn list(&mut self) {
        let online = |directory: &&mut LogDirectory| directory.availability == Availability::Online;
        self.directories.iter_mut().filter(online).for_each(|directory| directory.is_listed = true);
    }

    /// Whether the node knows of every log that it has.
    pub(crate) fn are_all_listed(&self) -> bool {
        self.directories.iter().all(|directory| directory.is_listed)
    }

    /// The directory in which the node has seen a log of the partition, and which has failed since.
    pub(crate) fn failed_with(&self, partition: PartitionId) -> Option<Uuid> {
        let failed = self.directories.iter().find(|directory| {
            directory.availability == Availability::Failed
                && directory.is_listed
                && directory.logs.contains_key(&partition)
        });
        failed.map(|directory| directory.id)
    }

    /// Whether the node has the directory, be it of use now or not.
    pub(crate) fn has(&self, id: Uuid) -> bool {
        self.directories.iter().any(|directory| directory.id == id)
    }

    // The logs in use.

    pub(crate) fn get(&self, partition: PartitionId) -> Option<&PartitionDisk> {
        let at = *self.in_use.get(&partition)?;
        self.directories[at].logs.get(&partition)
    }

    pub(crate) fn get_mut(&mut self, partition: PartitionId) -> Option<&mut PartitionDisk> {
        let at = *self.in_use.get(&partition)?;
        self.directories[at].logs.get_mut(&partition)
    }

    /// Where the log of a partition lies that is in use.
    pub(crate) fn directory_of(&self, partition: PartitionId) -> Option<Uuid> {
        self.in_use.get(&partition).map(|at| self.directories[*at].id)
    }

    pub(crate) fn in_use(&self) -> impl Iterator<Item = (PartitionId, Uuid, &PartitionDisk)> {
        self.in_use.iter().map(|(partition, at)| {
            let directory = &self.directories[*at];
            (*partition, directory.id, &directory.logs[partition])
        })
    }

    // All logs, and what becomes of them.

    /// Every log of a partition on the node's disks, wherever it lies.
    pub(crate) fn all(&self, partition: PartitionId) -> impl Iterator<Item = &PartitionDisk> {
        self.directories.iter().filter_map(move |directory| directory.logs.get(&partition))
    }

    /// The directories in which a broker finds a log of the partition now.
    pub(crate) fn found(&self, partition: PartitionId) -> Vec<Uuid> {
        let online = self.directories.iter();
        let online = online.filter(|directory| directory.availability == Availability::Online);
        let holders = online.filter(|directory| directory.logs.contains_key(&partition));
        holders.map(|directory| directory.id).collect()
    }

    /// The broker looks at the directories that it has found full. Returns whether any still is, and the partitions that
    /// have room again.
    pub(crate) fn look_for_room(&mut self) -> (bool, Vec<PartitionId>) {
        let (mut is_any_full, mut have_room) = (false, Vec::new());
        for directory in &mut self.directories {
            if !directory.logs.values().any(|log| log.is_found_full) {
                continue;
            }
            is_any_full |= directory.is_full;
            for (id, log) in &mut directory.logs {
                log.is_found_full = directory.is_full;
                if !directory.is_full {
                    have_room.push(*id);
                }
            }
        }
        (is_any_full, have_room)
    }

    // Copies.

    /// The directory in which a broker finds a copy of the partition's log now.
    pub(crate) fn copy_in(&self, partition: PartitionId) -> Option<Uuid> {
        let online = self.with(Availability::Online);
        online.into_iter().find(|id| self.directories[self.at(*id)].copies.contains_key(&partition))
    }

    /// The log in use, and its copy in a directory.
    pub(crate) fn log_and_copy(
        &mut self,
        partition: PartitionId,
        id: Uuid,
    ) -> Option<(&PartitionDisk, &mut PartitionDisk)> {
        let (from, to) = (*self.in_use.get(&partition)?, self.at(id));
        let [source, target] = self.directories.get_disjoint_mut([from, to]).ok()?;
        Some((source.logs.get(&partition)?, target.copies.get_mut(&partition)?))
    }

    pub(crate) fn begin_copy(&mut self, partition: PartitionId, id: Uuid) {
        let at = self.at(id);
        self.directories[at].copies.insert(partition, PartitionDisk::default());
    }

    /// Deletes the copies of a partition, as far as they can be seen.
    pub(crate) fn discard_copies(&mut self, partition: PartitionId) {
        let online = |directory: &&mut LogDirectory| directory.availability == Availability::Online;
        for directory in self.directories.iter_mut().filter(online) {
            directory.copies.remove(&partition);
        }
    }

    /// The copy in a directory is the log from now on.
    pub(crate) fn replace_with_copy(&mut self, partition: PartitionId, id: Uuid) {
        self.delete(partition);
        self.open(partition, id);
    }

    /// Whether something can be written in a directory.
    pub(crate) fn has_room(&self, id: Uuid) -> bool {
        self.directories.iter().any(|directory| directory.id == id && !directory.is_full)
    }

    /// Opens the log of a partition in a directory. If there is none, a copy takes its place, or an empty one.
    pub(crate) fn open(&mut self, partition: PartitionId, id: Uuid) {
        let at = self.at(id);
        let directory = &mut self.directories[at];
        assert_eq!(directory.availability, Availability::Online, "nothing else is opened");
        let is_full = directory.is_full;
        let copy = directory.copies.remove(&partition).unwrap_or_default();
        let log = directory.logs.entry(partition);
        log.or_insert_with(|| PartitionDisk { is_full, ..copy });
        self.in_use.insert(partition, at);
    }

    /// The log is not used any more, and stays.
    pub(crate) fn close_log(&mut self, partition: PartitionId) {
        self.in_use.remove(&partition);
    }

    /// Deletes the logs of a partition that are not in use, as far as they can be seen.
    pub(crate) fn delete_others(&mut self, partition: PartitionId) {
        let kept = self.in_use.get(&partition).copied();
        for (at, directory) in self.directories.iter_mut().enumerate() {
            if directory.availability == Availability::Online && Some(at) != kept {
                directory.logs.remove(&partition);
            }
        }
    }

    /// Deletes the logs of a partition, as far as they can be seen.
    pub(crate) fn delete(&mut self, partition: PartitionId) {
        self.in_use.remove(&partition);
        self.delete_others(partition);
    }

    // The node's life.

    /// The node starts: a directory that had failed is tried again. Returns the broker epoch that an orderly stop has
    /// left, if all directories tell of the same one.
    pub(crate) fn start(&mut self) -> Option<i64> {
        self.in_use.clear();
        let mut stops = Vec::new();
        for directory in &mut self.directories {
            directory.is_listed = directory.availability != Availability::Away;
            directory.logs.values_mut().for_each(|log| log.is_found_full = false);
            match directory.availability {
                Availability::Away => continue,
                Availability::Failed => directory.availability = Availability::Online,
                Availability::Online => {}
            }
            stops.push(directory.clean_broker_epoch.take());
        }
        let first = stops.first().copied().flatten();
        first.filter(|epoch| stops.iter().all(|other| *other == Some(*epoch)))
    }

    /// The power fails.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        self.directories.iter_mut().for_each(|directory| directory.crash(random));
    }

    /// The process ends in order: everything is synced.
    pub(crate) fn close(&mut self, broker_epoch: Option<i64>) {
        let online = |directory: &&mut LogDirectory| directory.availability == Availability::Online;
        for directory in self.directories.iter_mut().filter(online) {
            for log in directory.logs.values_mut().chain(directory.copies.values_mut()) {
                log.log.sync();
                log.recover();
            }
            directory.clean_broker_epoch = broker_epoch;
        }
    }

    // What goes wrong with directories.

    /// A directory is not there any more, or is back. Returns its id if that changes anything.
    pub(crate) fn set_away(&mut self, at: usize, is_away: bool) -> Option<Uuid> {
        use Availability::{Away, Online};
        let (from, to) = if is_away { (Online, Away) } else { (Away, Online) };
        let directory = &mut self.directories[at];
        if directory.availability != from {
            return None;
        }
        directory.availability = to;
        directory.is_listed = false;
        Some(directory.id)
    }

    /// A directory answers EIO. Returns the partitions that were in use there.
    pub(crate) fn fail(&mut self, at: usize, random: &mut Random) -> Vec<PartitionId> {
        let directory = &mut self.directories[at];
        if directory.availability != Availability::Online {
            return Vec::new();
        }
        directory.availability = Availability::Failed;
        directory.crash(random);
        let lost: Vec<PartitionId> =
            self.in_use.iter().filter(|(_, in_use)| **in_use == at).map(|(id, _)| *id).collect();
        lost.iter().for_each(|partition| self.close_log(*partition));
        lost
    }

    /// An empty directory takes the place of one.
    pub(crate) fn replace(&mut self, at: usize, id: Uuid) {
        self.in_use.retain(|_, in_use| *in_use != at);
        self.directories[at] = LogDirectory::new(id);
    }

    /// A directory is full, or has room again.
    pub(crate) fn set_full(&mut self, at: usize, is_full: bool) {
        let directory = &mut self.directories[at];
        directory.is_full = is_full;
        directory.logs.values_mut().for_each(|log| log.is_full = is_full);
    }

    /// A batch of a log in use cannot be read any more.
    pub(crate) fn damage(&mut self, partition: PartitionId, base_offset: Offset) {
        let log = self.get_mut(partition).expect("it is in use");
        log.damaged = Some(base_offset);
    }

    pub(crate) fn is_any_damaged(&self) -> bool {
        let mut logs = self.directories.iter().flat_map(|directory| directory.logs.values());
        logs.any(|log| log.damaged.is_some())
    }

    pub(crate) fn is_any_copied(&self) -> bool {
        self.directories.iter().any(|directory| !directory.copies.is_empty())
    }

    /// Which of the node's directories this is.
    pub(crate) fn at(&self, id: Uuid) -> usize {
        let found = self.directories.iter().position(|directory| directory.id == id);
        found.expect("a directory of this node")
    }
}
