//! What a node keeps when it dies: the metadata log with `quorum-state` and a snapshot, the partitions'
//! logs with their checkpointed high watermarks, and whether it was stopped in order.

use crate::batch::{MetadataBatch, PartitionBatch, PartitionId, SnapshotFile};
use crate::log::Log;
use crate::random::Random;
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
            clean_broker_epoch: None,
        }
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
