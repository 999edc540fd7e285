//! The two files of records that formatting writes: `bootstrap.checkpoint`, the first metadata
//! records of a cluster, and the snapshot that holds the first voters of a dynamic quorum.
//!
//! Both are record batches between a snapshot header and a snapshot footer, as Kafka's
//! `BatchFileWriter` and `RecordsSnapshotWriter` write them.

use bytes::BytesMut;
use klamm_protocol::control_record::ControlRecord;
use klamm_protocol::ids::LeaderEpoch;
use klamm_protocol::messages::MetadataRecord;
use klamm_protocol::messages::k_raft_version_record::KRaftVersionRecord;
use klamm_protocol::messages::voters_record::VotersRecord;

use crate::controller::snapshot_file::{Snapshot, SnapshotError};

/// The snapshot that comes before everything: end offset 0, epoch 0.
pub const VOTERS_FILE: &str = "00000000000000000000-0000000000.checkpoint";

const EPOCH: LeaderEpoch = 0;
/// The version of the schema in which bootstrap records are written.
const RECORD_VERSION: i16 = 0;

/// The contents of `bootstrap.checkpoint`. It stands for no log, so its last timestamp is 0.
pub fn bootstrap_checkpoint(
    records: &[MetadataRecord],
    now_ms: i64,
) -> Result<BytesMut, SnapshotError> {
    Snapshot {
        epoch: EPOCH,
        last_contained_log_timestamp: 0,
        membership: Vec::new(),
        records,
        now_ms,
    }
    .encode(|_| RECORD_VERSION)
}

/// The contents of the snapshot that names the first voters.
pub fn voters_checkpoint(
    kraft_version: i16,
    voters: VotersRecord,
    now_ms: i64,
) -> Result<BytesMut, SnapshotError> {
    let version = KRaftVersionRecord { version: 0, k_raft_version: kraft_version };
    Snapshot {
        epoch: EPOCH,
        last_contained_log_timestamp: now_ms,
        membership: vec![ControlRecord::KRaftVersion(version), ControlRecord::KRaftVoters(voters)],
        records: &[],
        now_ms,
    }
    .encode(|_| RECORD_VERSION)
}
