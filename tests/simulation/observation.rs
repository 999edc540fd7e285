//! What the invariants are told about: everything that somebody outside of a node could come to rely on.

use crate::batch::{MetadataBatch, PartitionBatch, PartitionId, Value};
use bytestring::ByteString;
use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_replication::quorum::Anomaly;
use std::rc::Rc;

/// A process: a node and which of its lives.
pub(crate) type Life = (BrokerId, u64);

#[derive(Debug, Clone)]
pub(crate) enum Observation {
    /// A node has written the first batch of an epoch of the metadata log.
    QuorumLed { life: Life, epoch: LeaderEpoch },
    /// A node is the active controller.
    ControllerActive { life: Life, epoch: LeaderEpoch },
    /// A node may replay this batch of the metadata log.
    MetadataCommitted { life: Life, batch: Rc<MetadataBatch> },
    /// A node has replayed the metadata log up to here.
    MetadataApplied { life: Life, end_offset: Offset },
    /// A node has cut its metadata log.
    MetadataCut { life: Life, end_offset: Offset, applied: Offset },
    /// A node cannot write to its metadata log because there is no room.
    MetadataWithoutRoom,
    /// A node has begun its metadata anew with a leader's snapshot.
    SnapshotLoaded,
    /// A node has met a message that no correct peer sends.
    Contradiction { life: Life, anomaly: Anomaly },
    /// A majority of the voters, so many besides the leader, was last heard from so long ago, by the leader's clock.
    QuorumSilent { life: Life, others: usize, silent_ms: i64 },
    /// A leader says that a change of the voters is done: the one at this offset.
    VotersChanged { life: Life, offset: Offset },
    /// A node begins to lead a partition.
    PartitionLed { life: Life, partition: PartitionId, epoch: LeaderEpoch },
    /// A replica has written a batch.
    Written { life: Life, partition: PartitionId, batch: Rc<PartitionBatch> },
    /// The high watermark of a replica is here.
    HighWatermark {
        life: Life,
        partition: PartitionId,
        epoch: LeaderEpoch,
        leads: bool,
        offset: Offset,
    },
    /// A replica is not opened: its directory is not there.
    ReplicaOffline,
    /// A replica cannot be opened, or cannot lead, because there is no room.
    ReplicaWithoutRoom,
    /// A replica with damaged records leaves the ISR.
    DamagedReplicaLeaves,
    /// Damaged records are cut off, to be fetched again.
    DamageCut { broker: BrokerId, partition: PartitionId },
    /// The directory of a copy is reported to the controller.
    MoveAnnounced,
    /// A replica is in another log directory now.
    ReplicaMoved { broker: BrokerId, partition: PartitionId, directory: Uuid },
    /// A move between log directories is cancelled.
    MoveCancelled,
    /// The log's directory has failed when the copy's was reported already.
    MoveWithdrawn,
    /// A batch is not written because there is no room.
    BatchWithoutRoom,
    /// A replica in a full directory leaves its partition to others.
    GivenUpForRoom,
    /// A node does not serve a fetch of a follower, because it has no open log of the partition.
    FetchRefused { life: Life, partition: PartitionId, follower: BrokerId, at_ms: i64 },
    /// A leader has counted a follower's fetch, of this life of its broker.
    FetchCounted { partition: PartitionId, follower: BrokerId, broker_epoch: Option<i64> },
    /// The high watermark of a leader waits at `committed`, while a sufficient part of the ISR has everything below
    /// `reached`. The controller has last answered this broker so long ago.
    Waiting {
        life: Life,
        partition: PartitionId,
        epoch: LeaderEpoch,
        partition_epoch: i32,
        committed: Offset,
        reached: Offset,
        unconfirmed_ms: i64,
        at_ms: i64,
    },
    /// A leader's directory is full. The controller has last answered this broker so long ago.
    LeadsWithoutRoom {
        life: Life,
        partition: PartitionId,
        epoch: LeaderEpoch,
        partition_epoch: i32,
        unconfirmed_ms: i64,
        at_ms: i64,
    },
    /// A leader wants this follower out of the ISR.
    ShrinkProposed { life: Life, partition: PartitionId, follower: BrokerId, at_ms: i64 },
    /// A follower has cut its log.
    PartitionCut,
    /// A leader has recognised a batch that it has already.
    BatchRepeated,
    /// A node has read a partition's producers from the log again.
    ProducersRebuilt { life: Life, partition: PartitionId, equal: bool },
    /// A leader answers a produce with acks=all.
    Acknowledged {
        life: Life,
        partition: PartitionId,
        epoch: LeaderEpoch,
        offset: Offset,
        value: Value,
    },
    /// The leader of an epoch has told a producer that its next sequence does not follow its last.
    SequenceRefused { partition: PartitionId, epoch: LeaderEpoch, value: Value },
    /// A consumer was given a value.
    Consumed { partition: PartitionId, offset: Offset, value: Option<Value> },
    /// A consumer was told how far a partition reaches; when it asked, it knew that it did so far.
    LatestShown { partition: PartitionId, reached: Offset, latest: Offset },
    /// The coordinator lets a member join the group that comes after so many that had its name and were deleted.
    Joined { member: ByteString, deletions: usize },
    /// A member of the group was given its partitions.
    Assigned { member: ByteString, generation: i32, partitions: Vec<PartitionId> },
    /// The coordinator acknowledges an offset that a member of this generation commits.
    OffsetCommitted { generation: i32, partition: PartitionId, offset: Offset },
    /// A coordinator deletes a committed offset. Nobody asks for that, and no offset is old.
    OffsetDeleted,
    /// A coordinator deletes a group without members and offsets: the next one begins with the first generation.
    GroupDeleted,
    /// A member asks where to begin, right after it got its assignment.
    OffsetsAsked { member: ByteString, generation: i32, partitions: Vec<PartitionId> },
    /// The member was given a committed offset; -1 for none.
    OffsetShown { member: ByteString, partition: PartitionId, offset: Offset },
}

impl Observation {
    /// What kind of thing was seen.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::QuorumLed { .. } => "elections of a quorum leader",
            Self::ControllerActive { .. } => "active controllers",
            Self::MetadataCommitted { .. } => "metadata batches committed",
            Self::MetadataApplied { .. } => "metadata applied",
            Self::MetadataCut { .. } => "metadata logs cut",
            Self::MetadataWithoutRoom => "metadata without room",
            Self::SnapshotLoaded => "snapshots loaded",
            Self::Contradiction { .. } => "contradictions",
            Self::QuorumSilent { .. } => "looks at the quorum",
            Self::VotersChanged { .. } => "changes of voters",
            Self::PartitionLed { .. } => "elections of a partition leader",
            Self::Written { .. } => "batches written",
            Self::HighWatermark { .. } => "high watermarks moved",
            Self::ReplicaOffline => "looks at a replica that is offline",
            Self::ReplicaWithoutRoom => "replicas without room",
            Self::DamagedReplicaLeaves => "damaged replicas that leave",
            Self::DamageCut { .. } => "damage cut off",
            Self::MoveAnnounced => "moves announced",
            Self::ReplicaMoved { .. } => "moves between directories",
            Self::MoveCancelled => "moves cancelled",
            Self::MoveWithdrawn => "moves withdrawn",
            Self::BatchWithoutRoom => "batches without room",
            Self::GivenUpForRoom => "replicas given up for room",
            Self::FetchRefused { .. } => "fetches refused",
            Self::FetchCounted { .. } => "fetches counted",
            Self::Waiting { .. } => "looks at a high watermark that waits",
            Self::LeadsWithoutRoom { .. } => "looks at a leader without room",
            Self::ShrinkProposed { .. } => "shrinks proposed",
            Self::PartitionCut => "partition logs cut",
            Self::BatchRepeated => "repeated batches recognised",
            Self::ProducersRebuilt { .. } => "producers compared",
            Self::Acknowledged { .. } => "values acknowledged",
            Self::SequenceRefused { .. } => "sequences refused",
            Self::Consumed { .. } => "values consumed",
            Self::LatestShown { .. } => "latest offsets shown",
            Self::Joined { .. } => "joins of a group",
            Self::Assigned { .. } => "assignments",
            Self::OffsetCommitted { .. } => "offsets committed",
            Self::OffsetDeleted => "offsets deleted",
            Self::GroupDeleted => "groups deleted",
            Self::OffsetsAsked { .. } => "offsets asked for",
            Self::OffsetShown { .. } => "offsets shown",
        }
    }
}
