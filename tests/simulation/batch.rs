//! What the logs consist of. A batch is written once, by a leader, and shared by all who replicate it:
//! its bytes on the simulated wire are its number in the [`BatchStore`].

use crate::log::Extent;
use bytes::Bytes;
use klamm_coordinator::runtime::EncodedRecord as GroupRecord;
use klamm_protocol::batch::BatchHeader;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_protocol::metadata_record::MetadataRecord;
use klamm_replication::OffsetAndEpoch;
use klamm_replication::quorum::message::FetchedBatch;
use klamm_replication::quorum::{ControlChange, Membership};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A partition of the simulated cluster: an index into [`PARTITIONS`].
pub(crate) type PartitionId = usize;

pub(crate) const DATA_TOPIC: &str = "data";
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// Topic and index of each partition.
pub(crate) const PARTITIONS: [(&str, i32); 3] =
    [(DATA_TOPIC, 0), (DATA_TOPIC, 1), (OFFSETS_TOPIC, 0)];
/// The partition of the group coordinator.
pub(crate) const OFFSETS_PARTITION: PartitionId = 2;
/// How many partitions producers write to: the first ones.
pub(crate) const DATA_PARTITIONS: PartitionId = 2;

/// A batch of the metadata log.
#[derive(Debug)]
pub(crate) struct MetadataBatch {
    pub(crate) base_offset: Offset,
    pub(crate) next_offset: Offset,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) changes: Vec<(Offset, ControlChange)>,
    /// None for the control batch of an epoch's start.
    pub(crate) records: Option<Vec<MetadataRecord>>,
    number: u64,
}

impl Extent for MetadataBatch {
    fn base_offset(&self) -> Offset {
        self.base_offset
    }

    fn next_offset(&self) -> Offset {
        self.next_offset
    }
}

impl MetadataBatch {
    /// The batch as the quorum fetches it.
    pub(crate) fn fetched(&self) -> FetchedBatch {
        FetchedBatch {
            base_offset: self.base_offset,
            next_offset: self.next_offset,
            epoch: self.epoch,
            changes: self.changes.clone(),
            bytes: Bytes::copy_from_slice(&self.number.to_be_bytes()),
        }
    }
}

/// A snapshot of the metadata.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) id: OffsetAndEpoch,
    pub(crate) membership: Membership,
    pub(crate) records: Vec<MetadataRecord>,
}

/// A value that a producer sends once: the producer, and its number with that producer and partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Value {
    pub(crate) producer: i64,
    pub(crate) sequence: i32,
}

/// The records of a partition's batch.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    Values(Vec<Value>),
    Groups(Vec<GroupRecord>),
}

/// A batch of a partition.
#[derive(Debug)]
pub(crate) struct PartitionBatch {
    pub(crate) base_offset: Offset,
    pub(crate) leader_epoch: LeaderEpoch,
    /// Who wrote it: no two leaders write in one epoch.
    pub(crate) writer: (BrokerId, u64),
    pub(crate) header: BatchHeader,
    pub(crate) payload: Payload,
}

impl Extent for PartitionBatch {
    fn base_offset(&self) -> Offset {
        self.base_offset
    }

    fn next_offset(&self) -> Offset {
        self.header.next_offset()
    }
}

impl PartitionBatch {
    /// The value at an offset, if it is a producer's.
    pub(crate) fn value_at(&self, offset: Offset) -> Option<Value> {
        let Payload::Values(values) = &self.payload else { return None };
        values.get(usize::try_from(offset - self.base_offset).ok()?).copied()
    }
}

/// Every batch and snapshot of the metadata that was ever written, by what stands for its bytes.
#[derive(Debug, Default)]
pub(crate) struct BatchStore {
    batches: Vec<Rc<MetadataBatch>>,
    /// Records whose batch the quorum has been asked to append.
    announced: BTreeMap<Bytes, Vec<MetadataRecord>>,
    next_announcement: u64,
    snapshots: BTreeMap<OffsetAndEpoch, Rc<SnapshotFile>>,
}

impl BatchStore {
    /// What stands for these records until their batch has been appended.
    pub(crate) fn announce(&mut self, records: Vec<MetadataRecord>) -> Bytes {
        self.next_announcement += 1;
        let bytes = Bytes::copy_from_slice(&self.next_announcement.to_be_bytes());
        self.announced.insert(bytes.clone(), records);
        bytes
    }

    /// The records that were announced.
    pub(crate) fn announced(&mut self, bytes: &Bytes) -> Vec<MetadataRecord> {
        self.announced.remove(bytes).expect("the quorum appends what it was given, once")
    }

    /// A leader writes a batch.
    pub(crate) fn write(
        &mut self,
        (base_offset, next_offset): (Offset, Offset),
        epoch: LeaderEpoch,
        changes: Vec<(Offset, ControlChange)>,
        records: Option<Vec<MetadataRecord>>,
    ) -> Rc<MetadataBatch> {
        let number = u64::try_from(self.batches.len()).expect("a length");
        let batch =
            Rc::new(MetadataBatch { base_offset, next_offset, epoch, changes, records, number });
        self.batches.push(Rc::clone(&batch));
        batch
    }

    /// The batch that these bytes stand for.
    pub(crate) fn batch(&self, bytes: &Bytes) -> Rc<MetadataBatch> {
        let number = u64::from_be_bytes(bytes[..].try_into().expect("eight bytes"));
        Rc::clone(&self.batches[usize::try_from(number).expect("an index")])
    }

    pub(crate) fn keep_snapshot(&mut self, snapshot: &Rc<SnapshotFile>) {
        self.snapshots.insert(snapshot.id, Rc::clone(snapshot));
    }

    pub(crate) fn snapshot(&self, id: OffsetAndEpoch) -> Rc<SnapshotFile> {
        Rc::clone(&self.snapshots[&id])
    }
}
