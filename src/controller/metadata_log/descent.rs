//! Protects this node's metadata log from a leader whose log does not contain it. Two checks: the committed offset is
//! checkpointed on disk, so that it survives a restart; and a received snapshot must share a topic with the log that it
//! replaces.
//!
//! If a majority of the controllers has begun an empty metadata log, they lead a cluster without topics. A broker that
//! followed them would delete every partition.

use std::path::Path;

use klamm_log::checkpoint::{self, PartitionOffsets};
use klamm_log::disk::Disk;
use klamm_metadata::image::ClusterImage;
use klamm_metadata::loader::MetadataLoader;
use klamm_protocol::ids::Offset;
use klamm_protocol::metadata_record::MetadataRecord;
use klamm_replication::OffsetAndEpoch;

use super::{MetadataLog, MetadataLogError};

/// The topic of the metadata log in the checkpoint file, which has the format of Kafka's offset checkpoints.
const TOPIC: &str = "__cluster_metadata";
/// How far the checkpoint may be behind the high watermark (Kafka: `replica.high.watermark.checkpoint.interval.ms`).
const CHECKPOINT_INTERVAL_MS: i64 = 5_000;

/// Reads the committed offset that an earlier process has checkpointed; 0 without a checkpoint.
pub(super) fn read_checkpoint(disk: &dyn Disk, dir: &Path) -> Result<Offset, MetadataLogError> {
    let offsets = checkpoint::read_offsets(disk, &dir.join(checkpoint::HIGH_WATERMARK))?;
    Ok(offsets.get(&(TOPIC.to_owned(), 0)).copied().unwrap_or(0))
}

impl MetadataLog {
    /// Checkpoints the committed offset if the last attempt was long enough ago. If the disk has no room, it leaves
    /// that to the next attempt: the checkpoint may be behind.
    pub(in crate::controller) fn checkpoint_committed(
        &mut self,
        end_offset: Offset,
        now_ms: i64,
    ) -> Result<(), MetadataLogError> {
        if now_ms < self.next_checkpoint_ms {
            return Ok(());
        }
        self.next_checkpoint_ms = now_ms.saturating_add(CHECKPOINT_INTERVAL_MS);
        match self.write_checkpoint(end_offset) {
            Err(lacking) if lacking.passes() => Ok(()),
            outcome => outcome,
        }
    }

    /// Checkpoints that every record below `end_offset` is committed. This node never follows a leader that lacks them,
    /// also after a restart.
    fn write_checkpoint(&mut self, end_offset: Offset) -> Result<(), MetadataLogError> {
        if end_offset > self.checkpointed {
            let offsets = PartitionOffsets::from([((TOPIC.to_owned(), 0), end_offset)]);
            let path = self.dir.join(checkpoint::HIGH_WATERMARK);
            checkpoint::write_offsets(self.disk.as_ref(), &path, &offsets)?;
            self.checkpointed = end_offset;
        }
        Ok(())
    }

    /// Refuses a snapshot that has none of the topics of the log that it would replace.
    pub(super) fn check_descent(
        &mut self,
        id: OffsetAndEpoch,
        records: &[MetadataRecord],
        committed: &MetadataLoader,
    ) -> Result<(), MetadataLogError> {
        let mut own = committed.clone();
        self.replay_all(&mut own, &mut |_| {})?;
        let sent = MetadataLoader::from_snapshot(records, id.offset)?;
        match shares_topics(own.newest(), sent.newest()) {
            true => Ok(()),
            false => Err(MetadataLogError::SnapshotOfAnotherLog {
                dir: self.dir.clone(),
                offset: id.offset,
                topics: own.newest().topics.len(),
            }),
        }
    }
}

fn shares_topics(own: &ClusterImage, sent: &ClusterImage) -> bool {
    let is_sent = |id| sent.topics.by_id(id).is_some();
    own.topics.is_empty() || own.topics.iter().any(|topic| is_sent(topic.id))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use klamm_log::disk::{Disk, MemoryDisk};
    use klamm_log::health::LogDirHealth;
    use klamm_log::log::LogStorage;
    use klamm_log::open_files::OpenFiles;
    use klamm_protocol::Uuid;
    use klamm_protocol::messages::topic_record::TopicRecord;
    use klamm_replication::quorum::VoterSet;

    use super::super::snapshot_name;
    use super::*;
    use crate::controller::snapshot_file::Snapshot;

    const HOME: &str = "/data";

    fn topics(ids: &[u8]) -> Vec<MetadataRecord> {
        let topic = |id: &u8| {
            let name = format!("t{id}").into();
            MetadataRecord::Topic(TopicRecord { name, topic_id: Uuid::from_bytes([*id; 16]) })
        };
        ids.iter().map(topic).collect()
    }

    fn image(ids: &[u8]) -> ClusterImage {
        let mut image = ClusterImage::default();
        topics(ids).iter().for_each(|topic| image.replay(topic).unwrap());
        image
    }

    fn open(disk: &MemoryDisk) -> MetadataLog {
        let health = Arc::new(LogDirHealth::new(Path::new(HOME)));
        let storage = LogStorage::new(Arc::new(disk.clone()), OpenFiles::new(10), health);
        MetadataLog::open(&storage, Path::new(HOME), VoterSet::default(), 0, true, 0).unwrap().log
    }

    /// Sends a log a snapshot with these topics.
    fn receive(
        log: &mut MetadataLog,
        offset: Offset,
        ids: &[u8],
        own: &MetadataLoader,
    ) -> Result<MetadataLoader, MetadataLogError> {
        let id = OffsetAndEpoch { offset, epoch: 3 };
        let records = topics(ids);
        let snapshot = Snapshot {
            epoch: id.epoch,
            last_contained_log_timestamp: 0,
            membership: Vec::new(),
            records: &records,
            wall_ms: 0,
        };
        log.write_snapshot_chunk(id, 0, &snapshot.encode(|_| 0).unwrap()).unwrap();
        log.load_snapshot(id, own, 0).map(|(loader, _)| loader)
    }

    #[test]
    fn a_snapshot_of_another_log_changes_nothing() {
        let disk = MemoryDisk::default();
        let mut log = open(&disk);
        let own = receive(&mut log, 10, &[1, 2], &MetadataLoader::default()).unwrap();
        let refused = receive(&mut log, 20, &[3], &own).unwrap_err();
        let MetadataLogError::SnapshotOfAnotherLog { offset: 20, topics: 2, .. } = refused else {
            panic!("{refused}")
        };
        drop(log);
        let mut log = open(&disk);
        assert_eq!(log.log.log_end(), 10);
        let id = OffsetAndEpoch { offset: 20, epoch: 3 };
        assert!(!disk.exists(&log.dir.join(snapshot_name(id))).unwrap());
        let own = receive(&mut log, 20, &[2, 3], &own).unwrap();
        assert_eq!((own.end_offset(), log.log.log_end()), (20, 20));
    }

    #[test]
    fn the_committed_offset_survives_a_restart_and_never_goes_back() {
        let disk = MemoryDisk::default();
        let mut log = open(&disk);
        assert_eq!(log.position().committed_offset, 0);
        log.write_checkpoint(7).unwrap();
        log.write_checkpoint(5).unwrap();
        drop(log);
        for dir in ["/", HOME] {
            disk.open_dir(Path::new(dir)).unwrap().sync().unwrap();
        }
        disk.crash(1);
        assert_eq!(open(&disk).position().committed_offset, 7);
    }

    #[test]
    fn a_snapshot_that_has_none_of_the_topics_is_of_another_log() {
        for (own, sent, shares) in [
            ([].as_slice(), [1].as_slice(), true),
            (&[], &[], true),
            (&[1, 2], &[2, 3], true),
            (&[1, 2], &[3], false),
            (&[1], &[], false),
        ] {
            assert_eq!(shares_topics(&image(own), &image(sent)), shares, "{own:?} {sent:?}");
        }
    }
}
