//! The file format of metadata snapshots.
//!
//! A snapshot consists of record batches as in a log, with offsets from 0: a control batch with the header and the
//! membership of the quorum, the metadata records, and a control batch with the footer (KIP-630).

use bytes::BytesMut;
use klamm_protocol::EncodeError;
use klamm_protocol::batch_builder::{BatchBuilder, BuildError};
use klamm_protocol::control_record::{ControlRecord, ControlRecordError, quorum_batch};
use klamm_protocol::ids::LeaderEpoch;
use klamm_protocol::messages::snapshot_footer_record::SnapshotFooterRecord;
use klamm_protocol::messages::snapshot_header_record::SnapshotHeaderRecord;
use klamm_protocol::metadata_record::MetadataRecord;

/// The schema version of bootstrap records.
const BOOTSTRAP_RECORD_VERSION: i16 = 0;
/// The most records in one batch.
const RECORDS_PER_BATCH: usize = 1000;

/// Why a snapshot could not be encoded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Record(#[from] EncodeError),
    #[error(transparent)]
    Control(#[from] ControlRecordError),
    #[error(transparent)]
    Batch(#[from] BuildError),
}

/// The contents of a snapshot.
#[derive(Debug)]
pub(crate) struct Snapshot<'a> {
    /// The epoch of the last record that the snapshot contains.
    pub(crate) epoch: LeaderEpoch,
    /// `LastContainedLogTimestamp` of the header. Kafka writes the append time of the last record there. Klamm's
    /// snapshots have the time at which they are written, `bootstrap.checkpoint` has 0.
    pub(crate) last_contained_log_timestamp: i64,
    /// The membership of the quorum; empty at kraft.version 0.
    pub(crate) membership: Vec<ControlRecord>,
    pub(crate) records: &'a [MetadataRecord],
    pub(crate) wall_ms: i64,
}

impl Snapshot<'_> {
    /// Encodes the file. `version_of` returns the schema version for each record.
    pub(crate) fn encode(
        &self,
        version_of: impl Fn(&MetadataRecord) -> i16,
    ) -> Result<BytesMut, SnapshotError> {
        let header = SnapshotHeaderRecord {
            version: 0,
            last_contained_log_timestamp: self.last_contained_log_timestamp,
        };
        let mut first = vec![ControlRecord::SnapshotHeader(header)];
        first.extend(self.membership.iter().cloned());
        let batch = quorum_batch(0, self.epoch, self.wall_ms, &first)?;
        let mut contents = BytesMut::from(&batch.bytes[..]);
        let mut next_offset = batch.header.next_offset();
        for records in self.records.chunks(RECORDS_PER_BATCH) {
            let mut batch = BatchBuilder::new(next_offset).leader_epoch(self.epoch);
            for record in records {
                let frame = record.to_frame(version_of(record))?;
                batch.append(self.wall_ms, None, Some(&frame), &[])?;
            }
            next_offset = batch.next_offset();
            contents.extend_from_slice(&batch.build()?.bytes);
        }
        let footer = ControlRecord::SnapshotFooter(SnapshotFooterRecord { version: 0 });
        let batch = quorum_batch(next_offset, self.epoch, self.wall_ms, &[footer])?;
        contents.extend_from_slice(&batch.bytes);
        Ok(contents)
    }
}

/// The contents of `bootstrap.checkpoint`. It contains no records of a log, so its last timestamp is 0.
pub(crate) fn bootstrap_checkpoint(
    records: &[MetadataRecord],
    wall_ms: i64,
) -> Result<BytesMut, SnapshotError> {
    Snapshot { epoch: 0, last_contained_log_timestamp: 0, membership: Vec::new(), records, wall_ms }
        .encode(|_| BOOTSTRAP_RECORD_VERSION)
}

#[cfg(test)]
mod tests {
    use klamm_protocol::batch::Batches;
    use klamm_protocol::messages::topic_record::TopicRecord;

    use super::*;

    #[test]
    fn batches_follow_one_another_between_header_and_footer() {
        let topic = TopicRecord { name: "t".into(), ..Default::default() };
        let records = vec![MetadataRecord::from(topic); 2500];
        let snapshot = Snapshot {
            epoch: 4,
            last_contained_log_timestamp: 5,
            membership: Vec::new(),
            records: &records,
            wall_ms: 6,
        };
        let file = snapshot.encode(|_| 0).unwrap().freeze();
        let batches: Vec<_> = Batches::new(file).map(Result::unwrap).collect();
        let control: Vec<_> = batches.iter().map(|batch| batch.header.is_control()).collect();
        assert_eq!(control, [true, false, false, false, true]);
        for pair in batches.windows(2) {
            assert_eq!(pair[0].header.next_offset(), pair[1].header.base_offset);
        }
        assert!(batches.iter().all(|batch| batch.header.partition_leader_epoch == 4));
    }
}
