//! What a node keeps when it dies: the metadata log with `quorum-state` and a snapshot, and its log directories.

use crate::batch::{MetadataBatch, SnapshotFile};
use crate::log::Log;
use crate::log_directories::LogDirectories;
use crate::random::Random;
use klamm_protocol::Uuid;
use klamm_protocol::ids::Offset;
use klamm_replication::quorum::{Boot, LogPosition, Membership, StoredElection};
use klamm_replication::{EpochHistory, EpochStart, OffsetAndEpoch};
use std::rc::Rc;

#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) metadata: Log<MetadataBatch>,
    election: Option<StoredElection>,
    /// The state of `quorum-state` before a write that was not synced.
    election_before: Option<StoredElection>,
    pub(crate) snapshot: Option<Rc<SnapshotFile>>,
    initial: Membership,
    pub(crate) logs: LogDirectories,
}

impl Disk {
    pub(crate) fn new(directories: impl IntoIterator<Item = Uuid>, initial: Membership) -> Self {
        Self {
            metadata: Log::default(),
            election: None,
            election_before: None,
            snapshot: None,
            initial,
            logs: LogDirectories::new(directories),
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
        self.logs.crash(random);
        self.recover();
    }

    /// The process ends in order: everything is synced.
    pub(crate) fn close(&mut self, broker_epoch: Option<i64>) {
        self.metadata.sync();
        self.logs.close(broker_epoch);
        self.recover();
    }

    /// A log that ends below its snapshot, or in an older epoch, begins anew behind it.
    fn recover(&mut self) {
        if let Some(OffsetAndEpoch { offset, epoch }) = self.snapshot.as_ref().map(|it| it.id) {
            let is_older = self.metadata.batches().last().is_some_and(|last| last.epoch < epoch);
            if is_older || self.metadata.end() < offset {
                self.metadata.start_at(offset);
            }
            self.metadata.delete_below(offset);
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
