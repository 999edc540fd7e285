//! Snapshots of the metadata log: written when one is due, loaded when the leader sends one.

use klamm_metadata::loader::MetadataLoader;
use klamm_metadata::snapshot;
use klamm_protocol::time::Now;
use klamm_replication::OffsetAndEpoch;
use klamm_replication::quorum::membership_records;
use tracing::warn;

use super::super::metadata_log::MetadataLogError;
use super::super::snapshot_file::Snapshot;
use super::Driver;
use super::io::Io;
use crate::clock;

impl Driver {
    pub(super) fn load_snapshot(&mut self, id: OffsetAndEpoch) -> Result<(), MetadataLogError> {
        let loaded = self.io.load_snapshot(id, self.controller.committed())?;
        let (log_bytes, now_ms) = (self.io.log.size(), clock::now_ms());
        self.controller.on_snapshot_loaded(loaded, log_bytes, now_ms, &mut self.io);
        Ok(())
    }

    /// Writes a snapshot if one is due.
    pub(super) fn maybe_snapshot(&mut self) -> Result<(), MetadataLogError> {
        let now = clock::now();
        if !self.controller.is_snapshot_due(self.io.log.size(), now.steady_ms) {
            return Ok(());
        }
        match self.io.write_snapshot(self.controller.committed(), now) {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(lacking) if lacking.passes() => warn!("no metadata snapshot for now: {lacking}"),
            Err(failure) => return Err(failure),
        }
        self.controller.on_snapshot_taken(self.io.log.size(), now.steady_ms);
        Ok(())
    }
}

impl Io {
    /// Replaces the log with a snapshot that the leader has sent, and returns the snapshot's state. `committed` is the
    /// state so far.
    fn load_snapshot(
        &mut self,
        id: OffsetAndEpoch,
        committed: &MetadataLoader,
    ) -> Result<MetadataLoader, MetadataLogError> {
        let (loaded, membership) =
            self.with_room(|log| log.load_snapshot(id, committed, clock::now_ms()))?;
        self.effects.extend(self.quorum.on_snapshot_loaded(clock::now_ms(), id, membership));
        Ok(loaded)
    }

    /// Writes a snapshot of the committed state, and deletes the snapshots and the log that it makes superfluous.
    /// Returns false if there is nothing to write: the log has no record, or a snapshot already contains all of them.
    fn write_snapshot(
        &mut self,
        committed: &MetadataLoader,
        now: Now,
    ) -> Result<bool, MetadataLogError> {
        let Some(id) = self.log.next_snapshot(committed.end_offset()) else { return Ok(false) };
        let membership = self.quorum.membership();
        let level = *membership.kraft_version.at(id.offset - 1);
        let image = committed.stable();
        let version = image.metadata_version();
        let contents = Snapshot {
            epoch: id.epoch,
            last_contained_log_timestamp: now.wall_ms,
            membership: membership_records(level, membership.voters.at(id.offset - 1)),
            records: &snapshot::records(image),
            wall_ms: now.wall_ms,
        }
        .encode(|record| version.record_version(record))?;
        self.log.write_snapshot(id, &contents)?;
        self.quorum.on_snapshot_written(id);
        if let Some((start, earliest)) = self.log.clean(self.max_retention_bytes, now)? {
            self.quorum.on_log_deleted(start, earliest);
        }
        Ok(true)
    }
}
