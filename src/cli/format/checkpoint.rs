//! The two files of records that formatting writes: `bootstrap.checkpoint`, the first metadata
//! records of a cluster, and the snapshot that holds the first voters of a dynamic quorum.
//!
//! Both are record batches between a snapshot header and a snapshot footer, as Kafka's
//! `BatchFileWriter` and `RecordsSnapshotWriter` write them.

use bytes::BytesMut;
use klamm_protocol::batch_builder::{BatchBuilder, BuildError};
use klamm_protocol::control_record::{ControlRecord, ControlRecordError, quorum_batch};
use klamm_protocol::encode::EncodeError;
use klamm_protocol::ids::{LeaderEpoch, Offset};
use klamm_protocol::messages::MetadataRecord;
use klamm_protocol::messages::k_raft_version_record::KRaftVersionRecord;
use klamm_protocol::messages::snapshot_footer_record::SnapshotFooterRecord;
use klamm_protocol::messages::snapshot_header_record::SnapshotHeaderRecord;
use klamm_protocol::messages::voters_record::VotersRecord;

/// The file of a new cluster's first metadata records, in every log directory.
pub const BOOTSTRAP_FILE: &str = "bootstrap.checkpoint";

/// The directory of the metadata log.
pub const METADATA_DIRECTORY: &str = "__cluster_metadata-0";

/// The snapshot that comes before everything: end offset 0, epoch 0.
pub const VOTERS_FILE: &str = "00000000000000000000-0000000000.checkpoint";

const EPOCH: LeaderEpoch = 0;
/// The version of the schema in which bootstrap records are written.
const RECORD_VERSION: i16 = 0;

/// Why records could not be written down.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Record(#[from] EncodeError),
    #[error(transparent)]
    Control(#[from] ControlRecordError),
    #[error(transparent)]
    Batch(#[from] BuildError),
}

/// The contents of `bootstrap.checkpoint`.
pub fn bootstrap_checkpoint(
    records: &[MetadataRecord],
    now_ms: i64,
) -> Result<BytesMut, CheckpointError> {
    let mut contents = BytesMut::new();
    // This snapshot contains no log, so its last timestamp is 0 and not now.
    let mut next_offset = append_control(&mut contents, 0, now_ms, &[header(0)])?;
    let mut batch = BatchBuilder::new(next_offset).leader_epoch(EPOCH);
    for record in records {
        let frame = record.to_frame(RECORD_VERSION)?;
        batch.append(now_ms, None, Some(&frame), &[])?;
    }
    next_offset = batch.next_offset();
    contents.extend_from_slice(&batch.build()?.bytes);
    append_control(&mut contents, next_offset, now_ms, &[footer()])?;
    Ok(contents)
}

/// The contents of the snapshot that names the first voters.
pub fn voters_checkpoint(
    kraft_version: i16,
    voters: VotersRecord,
    now_ms: i64,
) -> Result<BytesMut, CheckpointError> {
    let version = KRaftVersionRecord { version: 0, k_raft_version: kraft_version };
    let records =
        [header(now_ms), ControlRecord::KRaftVersion(version), ControlRecord::KRaftVoters(voters)];
    let mut contents = BytesMut::new();
    let next_offset = append_control(&mut contents, 0, now_ms, &records)?;
    append_control(&mut contents, next_offset, now_ms, &[footer()])?;
    Ok(contents)
}

fn header(last_contained_log_timestamp: i64) -> ControlRecord {
    ControlRecord::SnapshotHeader(SnapshotHeaderRecord { version: 0, last_contained_log_timestamp })
}

fn footer() -> ControlRecord {
    ControlRecord::SnapshotFooter(SnapshotFooterRecord { version: 0 })
}

/// Appends one batch of control records and returns the offset behind it.
fn append_control(
    contents: &mut BytesMut,
    base_offset: Offset,
    now_ms: i64,
    records: &[ControlRecord],
) -> Result<Offset, CheckpointError> {
    let batch = quorum_batch(base_offset, EPOCH, now_ms, records)?;
    contents.extend_from_slice(&batch.bytes);
    Ok(batch.header.next_offset())
}
