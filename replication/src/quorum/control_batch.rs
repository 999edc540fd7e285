//! The quorum's control records: the first batch of a leader's epoch, changes of voters, and decoding them (KIP-595,
//! KIP-853).
//!
//! LeaderChange is written as version 0, also at kraft.version 1: version 1 makes Apache Kafka 4.3.1 and its
//! dump tool fail.

use super::log_history::{ControlChange, Membership};
use super::message::FetchedBatch;
use super::voters::{Address, Endpoints, KRaftVersionRange, ReplicaKey, Voter, VoterSet};
use bytes::Bytes;
use klamm_protocol::batch::{BatchError, BatchHeader, Batches, RecordBatch};
use klamm_protocol::control_record::{ControlRecord, ControlRecordError, quorum_batch};
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_protocol::messages::k_raft_version_record::KRaftVersionRecord;
use klamm_protocol::messages::leader_change_message::{self, LeaderChangeMessage};
use klamm_protocol::messages::voters_record::{self, VotersRecord};

/// The maximum decompressed size of a control batch: the size limit of a batch of the metadata log.
const MAX_CONTROL_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The contents of the first batch of an epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochStartBatch {
    pub leader_id: BrokerId,
    pub voter_ids: Vec<BrokerId>,
    pub granting_voter_ids: Vec<BrokerId>,
    pub timestamp_ms: i64,
    /// The kraft.version and the voters, if the log does not have them yet or they have changed.
    pub membership: Option<(i16, VoterSet)>,
}

/// The batch that a leader appends to change the voter set, kraft.version, or both.
#[derive(Debug, Clone, PartialEq)]
pub struct MembershipBatch {
    pub kraft_version: Option<i16>,
    pub voters: Option<VoterSet>,
    pub timestamp_ms: i64,
}

/// Why a control batch of the quorum cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum ControlBatchError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("control record at offset {offset}: {source}")]
    Record { offset: Offset, source: ControlRecordError },
    /// The log of the quorum is never compacted: each offset of a batch has its record.
    #[error(
        "a batch of {record_count} records at offset {base_offset} ends {last_offset_delta} behind it"
    )]
    Offsets { base_offset: Offset, last_offset_delta: i32, record_count: i32 },
}

impl EpochStartBatch {
    /// The number of records in the batch.
    pub fn record_count(&self) -> u32 {
        if self.membership.is_some() { 3 } else { 1 }
    }

    /// Encodes the batch.
    pub fn encode(
        &self,
        base_offset: Offset,
        epoch: LeaderEpoch,
    ) -> Result<RecordBatch, ControlRecordError> {
        let mut records = vec![ControlRecord::LeaderChange(LeaderChangeMessage {
            version: 0,
            leader_id: self.leader_id,
            voters: leader_change_voters(&self.voter_ids),
            granting_voters: leader_change_voters(&self.granting_voter_ids),
        })];
        if let Some((level, voters)) = &self.membership {
            records.extend(membership_records(*level, voters));
        }
        quorum_batch(base_offset, epoch, self.timestamp_ms, &records)
    }
}

impl MembershipBatch {
    /// The changes of the batch, by offset.
    pub fn changes(&self, base_offset: Offset) -> Vec<(Offset, ControlChange)> {
        let level = self.kraft_version.map(ControlChange::KRaftVersion);
        let voters = self.voters.clone().map(ControlChange::Voters);
        (base_offset..).zip(level.into_iter().chain(voters)).collect()
    }

    /// Encodes the batch.
    pub fn encode(
        &self,
        base_offset: Offset,
        epoch: LeaderEpoch,
    ) -> Result<RecordBatch, ControlRecordError> {
        let level = self.kraft_version.map(kraft_version_record);
        let voters = self.voters.as_ref().map(VoterSet::to_record).map(ControlRecord::KRaftVoters);
        let records: Vec<ControlRecord> = level.into_iter().chain(voters).collect();
        quorum_batch(base_offset, epoch, self.timestamp_ms, &records)
    }
}

impl Membership {
    /// Applies a batch of the log, if it is a control batch. Call it for every batch when the log is recovered.
    pub fn apply_batch(&mut self, batch: &RecordBatch) -> Result<(), ControlBatchError> {
        for (offset, change) in control_changes(batch)? {
            self.apply(offset, change);
        }
        Ok(())
    }

    /// Applies the control records of a snapshot up to `snapshot_end_offset` (0 for the bootstrap snapshot 0-0), at its
    /// last offset.
    pub fn apply_snapshot_batch(
        &mut self,
        snapshot_end_offset: Offset,
        batch: &RecordBatch,
    ) -> Result<(), ControlBatchError> {
        for (_, change) in control_changes(batch)? {
            self.apply(snapshot_end_offset - 1, change);
        }
        Ok(())
    }
}

/// The control records of a snapshot after its header: none at kraft.version 0.
pub fn membership_records(level: i16, voters: &VoterSet) -> Vec<ControlRecord> {
    if level == 0 {
        return Vec::new();
    }
    vec![kraft_version_record(level), ControlRecord::KRaftVoters(voters.to_record())]
}

fn kraft_version_record(level: i16) -> ControlRecord {
    ControlRecord::KRaftVersion(KRaftVersionRecord { version: 0, k_raft_version: level })
}

/// The complete batches in a leader's answer, validated and with their changes decoded. A truncated batch at the end is
/// left out, and so are all batches from the first invalid one on.
pub(super) fn fetched_batches(records: Bytes) -> Result<Vec<FetchedBatch>, ControlBatchError> {
    let mut fetched = Vec::new();
    for batch in Batches::new(records) {
        match batch.map_err(ControlBatchError::from).and_then(fetched_batch) {
            Ok(batch) => fetched.push(batch),
            Err(error) if fetched.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(fetched)
}

fn fetched_batch(batch: RecordBatch) -> Result<FetchedBatch, ControlBatchError> {
    batch.check_crc()?;
    check_offsets(&batch.header)?;
    Ok(FetchedBatch {
        base_offset: batch.header.base_offset,
        next_offset: batch.header.next_offset(),
        epoch: batch.header.partition_leader_epoch,
        changes: control_changes(&batch)?,
        bytes: batch.bytes,
    })
}

/// Checks the offsets of a batch: the checksum does not cover the base offset, and the other fields may be wrong in
/// spite of it.
fn check_offsets(header: &BatchHeader) -> Result<(), ControlBatchError> {
    let BatchHeader { base_offset, last_offset_delta, record_count, .. } = *header;
    let fits = base_offset >= 0 && base_offset.checked_add(i64::from(i32::MAX) + 1).is_some();
    if fits && record_count >= 1 && last_offset_delta == record_count - 1 {
        return Ok(());
    }
    Err(ControlBatchError::Offsets { base_offset, last_offset_delta, record_count })
}

fn control_changes(batch: &RecordBatch) -> Result<Vec<(Offset, ControlChange)>, ControlBatchError> {
    let mut changes = Vec::new();
    if !batch.header.is_control() {
        return Ok(changes);
    }
    for record in batch.records(MAX_CONTROL_BATCH_BYTES)? {
        let record = record?;
        let offset = record.offset;
        let control = ControlRecord::read(&record)
            .map_err(|source| ControlBatchError::Record { offset, source })?;
        match control {
            Some(ControlRecord::KRaftVersion(version)) => {
                changes.push((offset, ControlChange::KRaftVersion(version.k_raft_version)));
            }
            Some(ControlRecord::KRaftVoters(voters)) => {
                changes.push((offset, ControlChange::Voters(VoterSet::from_record(voters))));
            }
            _ => {}
        }
    }
    Ok(changes)
}

fn leader_change_voters(ids: &[BrokerId]) -> Vec<leader_change_message::Voter> {
    ids.iter()
        .map(|&voter_id| leader_change_message::Voter { voter_id, ..Default::default() })
        .collect()
}

impl VoterSet {
    /// The record KRaftVoters.
    pub fn to_record(&self) -> VotersRecord {
        VotersRecord { version: 0, voters: self.iter().map(Voter::to_record).collect() }
    }

    pub fn from_record(record: VotersRecord) -> Self {
        Self::new(record.voters.into_iter().map(Voter::from_record))
    }
}

impl Voter {
    fn to_record(&self) -> voters_record::Voter {
        let endpoint = |(name, address): (&_, &Address)| voters_record::Endpoint {
            name: Clone::clone(name),
            host: address.host.clone(),
            port: address.port,
        };
        voters_record::Voter {
            voter_id: self.key.id,
            voter_directory_id: self.key.directory_id_or_zero(),
            endpoints: self.endpoints.iter().map(endpoint).collect(),
            k_raft_version_feature: voters_record::KRaftVersionFeature {
                min_supported_version: self.supported_kraft_version.min,
                max_supported_version: self.supported_kraft_version.max,
            },
        }
    }

    fn from_record(record: voters_record::Voter) -> Self {
        let address = |endpoint: voters_record::Endpoint| {
            (endpoint.name, Address { host: endpoint.host, port: endpoint.port })
        };
        Self {
            key: ReplicaKey::new(record.voter_id, record.voter_directory_id),
            endpoints: Endpoints::new(record.endpoints.into_iter().map(address)),
            supported_kraft_version: KRaftVersionRange {
                min: record.k_raft_version_feature.min_supported_version,
                max: record.k_raft_version_feature.max_supported_version,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_protocol::Uuid;

    fn voters() -> VoterSet {
        let address = Address { host: "localhost".into(), port: 9093 };
        VoterSet::new([1, 2].map(|id| Voter {
            key: ReplicaKey::new(id, Uuid::from_bytes([u8::try_from(id).unwrap(); 16])),
            endpoints: Endpoints::single("CONTROLLER".into(), address.clone()),
            supported_kraft_version: KRaftVersionRange { min: 0, max: 1 },
        }))
    }

    fn epoch_start(membership: Option<(i16, VoterSet)>) -> EpochStartBatch {
        EpochStartBatch {
            leader_id: 1,
            voter_ids: vec![1, 2],
            granting_voter_ids: vec![1],
            timestamp_ms: 1_700_000_000_000,
            membership,
        }
    }

    #[test]
    fn the_leader_change_is_a_control_record_of_version_0_in_the_epoch_it_starts() {
        let batch = epoch_start(None).encode(7, 3).unwrap();
        assert!(batch.header.is_control());
        assert_eq!((batch.header.base_offset, batch.header.partition_leader_epoch), (7, 3));
        assert_eq!((batch.header.record_count, batch.header.producer_id), (1, -1));
        let record = batch.records(1024).unwrap().next().unwrap().unwrap();
        assert_eq!(record.key.as_deref(), Some(&[0, 0, 0, 2][..]));
        let Some(ControlRecord::LeaderChange(change)) = ControlRecord::read(&record).unwrap()
        else {
            panic!("not a leader change")
        };
        assert_eq!((change.version, change.leader_id), (0, 1));
        assert_eq!((change.voters.len(), change.granting_voters.len()), (2, 1));
    }

    #[test]
    fn a_leader_that_lies_about_offsets_is_not_believed() {
        let batch = epoch_start(None).encode(7, 3).unwrap();
        let sent = |base_offset: Offset| {
            let mut bytes = batch.bytes.to_vec();
            bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
            fetched_batches(bytes.into())
        };
        assert_eq!(sent(7).unwrap()[0].next_offset, 8);
        for base_offset in [-1, Offset::MIN, Offset::MAX, Offset::MAX - 1] {
            assert!(matches!(sent(base_offset), Err(ControlBatchError::Offsets { .. })));
        }
        let header = |record_count, last_offset_delta| BatchHeader {
            record_count,
            last_offset_delta,
            ..batch.header
        };
        assert!(check_offsets(&header(5, 4)).is_ok());
        for (count, delta) in [(0, -1), (0, 0), (1, 5), (5, 0), (-1, -2), (i32::MIN, i32::MAX)] {
            assert!(check_offsets(&header(count, delta)).is_err(), "{count} {delta}");
        }
    }

    /// The first batch of a one-node cluster, as Apache Kafka 4.3.1 wrote it.
    const KAFKA_EPOCH_START: &str = concat!(
        "00000000000000000000004f000000010248d4b85f002000000000000001",
        "a1fde3ee55000001a1fde3ee55ffffffffffffffffffffffffffff000000",
        "013a00000008000000022600000000000102000000010002000000010000",
        "00",
    );

    #[test]
    fn the_first_batch_is_byte_for_byte_what_kafka_writes() {
        let start = EpochStartBatch {
            leader_id: 1,
            voter_ids: vec![1],
            granting_voter_ids: vec![1],
            timestamp_ms: 1_795_260_935_765,
            membership: None,
        };
        let bytes = start.encode(0, 1).unwrap().bytes;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, KAFKA_EPOCH_START);
    }

    #[test]
    fn voters_and_version_are_read_back_at_their_offsets() {
        let start = epoch_start(Some((1, voters())));
        let batch = start.encode(10, 3).unwrap();
        assert_eq!(batch.header.next_offset(), 10 + Offset::from(start.record_count()));
        let mut membership = Membership::new(VoterSet::default());
        membership.apply_batch(&batch).unwrap();
        assert_eq!(membership.voters.latest(), &voters());
        assert_eq!(membership.voters.latest_offset(), Some(12));
        assert_eq!(membership.kraft_version.latest_offset(), Some(11));
    }

    #[test]
    fn a_change_of_membership_is_read_back_as_it_was_written() {
        let cases = [(None, Some(voters())), (Some(1), Some(voters())), (Some(1), None)];
        for (kraft_version, voters) in cases {
            let change = MembershipBatch { kraft_version, voters, timestamp_ms: 5 };
            let batch = change.encode(10, 3).unwrap();
            assert!(batch.header.is_control());
            assert_eq!(control_changes(&batch).unwrap(), change.changes(10));
        }
    }

    #[test]
    fn the_bootstrap_snapshot_counts_as_unwritten() {
        let batch = quorum_batch(0, 0, 0, &membership_records(1, &voters())).unwrap();
        let mut membership = Membership::new(VoterSet::default());
        membership.apply_snapshot_batch(0, &batch).unwrap();
        assert_eq!(membership.voters.latest_offset(), Some(Membership::BOOTSTRAP_OFFSET));
        assert!(membership_records(0, &voters()).is_empty());
    }

    #[test]
    fn fetched_bytes_are_checked_and_a_cut_off_batch_is_left_out() {
        let first = epoch_start(Some((1, voters()))).encode(0, 1).unwrap().bytes;
        let second = epoch_start(None).encode(3, 1).unwrap().bytes;
        let both = [&first[..], &second[..]].concat();
        let fetched = fetched_batches(Bytes::from(both.clone())).unwrap();
        assert_eq!(fetched.len(), 2);
        assert_eq!((fetched[0].next_offset, fetched[0].changes.len()), (3, 2));
        assert_eq!(fetched[0].bytes, first);

        let cut = Bytes::from(both.clone()).slice(..both.len() - 1);
        assert_eq!(fetched_batches(cut).unwrap().len(), 1);

        let mut damaged = both;
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(fetched_batches(Bytes::from(damaged.clone())).unwrap().len(), 1);
        damaged[first.len() - 1] ^= 1;
        assert!(fetched_batches(Bytes::from(damaged)).is_err());
    }
}
