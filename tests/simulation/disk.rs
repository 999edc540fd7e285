//! What a node keeps when it dies: the metadata log with `quorum-state` and a snapshot, the partitions'
//! logs with their checkpointed high watermarks, and whether it was stopped in order.

use crate::batch::{MetadataBatch, PartitionBatch, PartitionId, SnapshotFile};
use crate::log::Log;
use crate::random::Random;
use klamm_metadata::known_replica::LogEnd;
use klamm_protocol::Uuid;
use klamm_protocol::ids::Offset;
use klamm_replication::quorum::{Boot, LogPosition, Membership, StoredElection};
use klamm_replication::{EpochHistory, EpochStart, OffsetAndEpoch};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A partition's log, and the high watermark as last checkpointed.
#[derive(Debug, Default)]
pub(crate) struct PartitionDisk {
    pub(crate) log: Log<PartitionBatch>,
    pub(crate) epochs: EpochHistory,
    pub(crate) checkpoint: Offset,
    /// It lies in the second log directory.
    pub(crate) is_in_second: bool,
}

impl PartitionDisk {
    pub(crate) fn log_end(&self) -> LogEnd {
        let last_epoch = self.log.batches().last().map_or(-1, |batch| batch.leader_epoch);
        LogEnd { last_epoch, end: self.log.end() }
    }
}

/// A second log directory, which is away at times.
#[derive(Debug)]
pub(crate) struct Second {
    pub(crate) id: Uuid,
    pub(crate) is_away: bool,
    /// While it is away the configuration still names its path.
    pub(crate) is_named: bool,
    /// What lies in it is in use.
    pub(crate) is_settled: bool,
    /// What lies in it, while that is not in use.
    pub(crate) logs: BTreeMap<PartitionId, PartitionDisk>,
}

#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) directory: Uuid,
    pub(crate) metadata: Log<MetadataBatch>,
    election: Option<StoredElection>,
    /// The state of `quorum-state` before a write that was not synced.
    election_before: Option<StoredElection>,
    pub(crate) snapshot: Option<Rc<SnapshotFile>>,
    initial: Membership,
    pub(crate) partitions: BTreeMap<PartitionId, PartitionDisk>,
    pub(crate) second: Option<Second>,
    /// The broker epoch that an orderly stop has left.
    pub(crate) clean_broker_epoch: Option<i64>,
}

impl Disk {
    pub(crate) fn new(directory: Uuid, initial: Membership) -> Self {
        Self {
            directory,
            metadata: Log::default(),
            election: None,
            election_before: None,
            snapshot: None,
            initial,
            partitions: BTreeMap::new(),
            second: None,
            clean_broker_epoch: None,
        }
    }

    pub(crate) fn with_second(mut self, id: Uuid) -> Self {
        let logs = BTreeMap::new();
        self.second = Some(Second { id, is_away: false, is_named: true, is_settled: true, logs });
        self
    }

    /// The directories that are here.
    pub(crate) fn directory_ids(&self) -> Vec<Uuid> {
        let second = self.second.iter().filter(|second| !second.is_away);
        [self.directory].into_iter().chain(second.map(|second| second.id)).collect()
    }

    /// Whether the logs in a directory are in use.
    pub(crate) fn serves(&self, id: Uuid) -> bool {
        id == self.directory || self.second.as_ref().is_some_and(|it| it.id == id && it.is_settled)
    }

    /// The directory of a partition's log that is in use.
    pub(crate) fn directory_of(&self, partition: &PartitionDisk) -> Uuid {
        let second = self.second.as_ref().filter(|_| partition.is_in_second);
        second.map_or(self.directory, |second| second.id)
    }

    /// A partition's log, and the one in a directory that is away.
    pub(crate) fn logs(&self, id: PartitionId) -> impl Iterator<Item = &Log<PartitionBatch>> {
        let away = self.second.as_ref().and_then(|second| second.logs.get(&id));
        self.partitions.get(&id).into_iter().chain(away).map(|partition| &partition.log)
    }

    /// The second directory goes away, while the node is down; false if there is none, or it is away.
    pub(crate) fn lose_second(&mut self, is_named: bool) -> bool {
        let Some(second) = self.second.as_mut().filter(|second| !second.is_away) else {
            return false;
        };
        (second.is_away, second.is_named, second.is_settled) = (true, is_named, false);
        let lost = self.partitions.extract_if(.., |_, partition| partition.is_in_second);
        second.logs.extend(lost);
        true
    }

    /// The second directory is back; false if it was not away.
    pub(crate) fn put_second_back(&mut self) -> bool {
        let away = self.second.as_mut().filter(|second| second.is_away);
        away.map(|second| second.is_away = false).is_some()
    }

    pub(crate) fn persist_election(&mut self, election: StoredElection) {
        self.election_before = self.election.replace(election);
    }

    /// A disk, or a driver, that lied about the last sync of `quorum-state`.
    pub(crate) fn lose_last_election(&mut self) {
        self.election = self.election_before.clone();
    }

    /// The power fails.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        self.metadata.crash(random);
        for partition in self.partitions.values_mut() {
            partition.log.crash(random);
        }
        self.recover();
    }

    /// The process ends in order: everything is synced.
    pub(crate) fn close(&mut self, broker_epoch: Option<i64>) {
        self.metadata.sync();
        self.partitions.values_mut().for_each(|partition| partition.log.sync());
        self.clean_broker_epoch = broker_epoch;
        self.recover();
    }

    /// A log that ends below its snapshot, or in an older epoch, begins anew behind it. Epochs follow from the log.
    fn recover(&mut self) {
        if let Some(OffsetAndEpoch { offset, epoch }) = self.snapshot.as_ref().map(|it| it.id) {
            let is_older = self.metadata.batches().last().is_some_and(|last| last.epoch < epoch);
            if is_older || self.metadata.end() < offset {
                self.metadata.start_at(offset);
            }
            self.metadata.delete_below(offset);
        }
        for partition in self.partitions.values_mut() {
            let batches = partition.log.batches().iter();
            let starts = batches.map(|batch| EpochStart {
                epoch: batch.leader_epoch,
                start_offset: batch.base_offset,
            });
            partition.epochs = EpochHistory::from_entries(starts);
            partition.checkpoint = partition.checkpoint.min(partition.log.end());
        }
    }

    /// What the quorum starts from.
    pub(crate) fn boot(&self) -> Boot {
        let snapshot = self.snapshot.as_deref();
        let mut membership = snapshot.map_or(&self.initial, |found| &found.membership).clone();
        let changes = self.metadata.batches().iter().flat_map(|batch| &batch.changes);
        for (offset, change) in changes {
            membership.apply(*offset, change.clone());
        }
        let starts = self.metadata.batches().iter();
        let starts =
            starts.map(|batch| EpochStart { epoch: batch.epoch, start_offset: batch.base_offset });
        let snapshot_id = snapshot.map(|found| found.id);
        Boot {
            election: self.election.clone(),
            log: LogPosition {
                start_offset: self.metadata.start(),
                end_offset: self.metadata.end(),
                flushed_offset: self.metadata.synced_end(),
                epochs: EpochHistory::from_entries(starts),
                earliest_snapshot: snapshot_id,
                latest_snapshot: snapshot_id,
                ..LogPosition::default()
            },
            membership,
        }
    }

    /// The id of a snapshot of everything below `end_offset`, if the log has the last of it.
    pub(crate) fn snapshot_id(&self, end_offset: Offset) -> Option<OffsetAndEpoch> {
        let batch = self.metadata.find(end_offset - 1)?;
        (batch.next_offset == end_offset).then(|| OffsetAndEpoch::new(end_offset, batch.epoch))
    }

    /// Puts a snapshot in place and deletes what it covers.
    pub(crate) fn put_snapshot(&mut self, snapshot: Rc<SnapshotFile>) {
        self.metadata.delete_below(snapshot.id.offset);
        self.snapshot = Some(snapshot);
    }

    /// Puts a snapshot in the place of the whole log.
    pub(crate) fn start_at_snapshot(&mut self, snapshot: Rc<SnapshotFile>) {
        self.metadata.start_at(snapshot.id.offset);
        self.snapshot = Some(snapshot);
    }
}
