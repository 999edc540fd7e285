//! The snapshot that formatting writes for a dynamic quorum: it holds the first voters.

use bytes::BytesMut;
use klamm_protocol::control_record::ControlRecord;
use klamm_protocol::ids::LeaderEpoch;
use klamm_protocol::messages::k_raft_version_record::KRaftVersionRecord;
use klamm_protocol::messages::voters_record::VotersRecord;

use crate::controller::snapshot_file::{Snapshot, SnapshotError};

const EPOCH: LeaderEpoch = 0;

/// The contents of the snapshot that names the first voters.
pub fn voters_checkpoint(
    kraft_version: i16,
    voters: VotersRecord,
    wall_ms: i64,
) -> Result<BytesMut, SnapshotError> {
    let version = KRaftVersionRecord { version: 0, k_raft_version: kraft_version };
    Snapshot {
        epoch: EPOCH,
        last_contained_log_timestamp: wall_ms,
        membership: vec![ControlRecord::KRaftVersion(version), ControlRecord::KRaftVoters(voters)],
        records: &[],
        wall_ms,
    }
    .encode(|record| record.latest_version())
}
