//! Truncates the end of the log, because the leader's records are the valid ones.
//!
//! The truncation is durable before it returns: later appends must never be mixed with remains of removed records, not
//! even after a power cut in between. If it fails for lack of room, the records are removed for readers at once, the
//! call fails, and the next operation on the log finishes the work first ([`Log::check`]): no record is appended
//! meanwhile.

use super::Log;
use super::deletion::{read_storage_error, remove_snapshot};
use crate::checkpoint::{self, LEADER_EPOCH};
use crate::error::LogError;
use crate::producer_state::ProducerState;
use crate::recovery;
use crate::segment::Segment;
use klamm_protocol::ids::Offset;
use std::sync::Arc;

/// A truncation that is not finished in the files yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Truncation {
    /// Producer snapshots above this offset are removed.
    snapshots_above: Offset,
    now_ms: i64,
}

impl Log {
    /// Removes every record at or above `offset`; returns false if there was none. A batch that contains `offset` is
    /// removed as a whole.
    ///
    /// Afterwards [`Log::flushed_offset`] may be lower than the recovery point last checkpointed. The caller writes
    /// that checkpoint before it appends again (as Kafka's `LogManager.truncateTo`): recovery would trust a recovery
    /// point above the flushed offset.
    pub fn truncate_to(&mut self, offset: Offset, now_ms: i64) -> Result<bool, LogError> {
        self.check()?;
        assert!(offset >= 0, "offsets are not negative");
        if offset >= self.log_end {
            // A leader adds its epoch before it appends; an epoch without records is dropped.
            if Arc::make_mut(&mut self.epochs).truncate_from_end(self.log_end) {
                self.flush.epochs_changed += 1;
            }
            return Ok(false);
        }
        if offset < self.segments[0].base_offset() {
            self.start_empty_at(offset, now_ms);
        } else {
            let cut = self.begin_cut_at(offset, now_ms);
            Arc::clone(&self.health).observe(cut)?;
        }
        self.check()?;
        Ok(true)
    }

    /// Removes every record; the next one gets `offset`.
    pub fn truncate_fully_and_start_at(
        &mut self,
        offset: Offset,
        now_ms: i64,
    ) -> Result<(), LogError> {
        self.check()?;
        self.start_empty_at(offset, now_ms);
        self.check()
    }

    /// Checks that the directory is online, and finishes an interrupted truncation or rename.
    pub(super) fn check(&mut self) -> Result<(), LogError> {
        self.health.check()?;
        if let Some(dir) = self.misplaced.clone() {
            self.rename_dir(&dir)?;
        }
        let Some(truncation) = self.truncation else { return Ok(()) };
        let finished = self.finish(truncation);
        Arc::clone(&self.health).observe(finished)
    }

    fn begin_cut_at(&mut self, offset: Offset, now_ms: i64) -> Result<(), LogError> {
        // A segment that begins with the offset is removed as a whole, unread: it may be damaged.
        let kept = self.segments.partition_point(|segment| segment.base_offset() < offset).max(1);
        let last = Arc::clone(&self.segments[kept - 1]);
        self.flush.void_tickets();
        last.begin_truncation(offset, now_ms).map_err(read_storage_error)?;
        // From here on no step fails; `finish` changes the files.
        self.flush.unseal(&last);
        let cut = Arc::make_mut(&mut self.segments).split_off(kept);
        self.delete_from_the_end(cut);
        self.log_end = offset;
        self.log_start = self.log_start.min(offset);
        self.high_watermark = self.high_watermark.min(offset);
        Arc::make_mut(&mut self.epochs).truncate_from_end(offset);
        self.flush.forget_above(offset);
        self.begin(Truncation { snapshots_above: offset, now_ms });
        Ok(())
    }

    fn start_empty_at(&mut self, offset: Offset, now_ms: i64) {
        self.flush.void_tickets();
        let segment = Segment::planned(&self.home, offset, now_ms);
        let all = std::mem::replace(&mut self.segments, Arc::new(vec![segment]));
        self.delete_from_the_end(all.to_vec());
        self.log_end = offset;
        self.log_start = offset;
        self.high_watermark = offset;
        Arc::make_mut(&mut self.epochs).clear();
        self.producers = ProducerState::new(offset);
        self.flush.forget_above(-1);
        self.flush.flushed = offset;
        self.flush.recovery_point = offset;
        self.begin(Truncation { snapshots_above: -1, now_ms });
    }

    /// The last segments first: a power cut must not leave a gap.
    fn delete_from_the_end(&mut self, segments: Vec<Arc<Segment>>) {
        for segment in segments.into_iter().rev() {
            self.schedule_deletion(segment);
        }
    }

    fn begin(&mut self, truncation: Truncation) {
        self.stale_index_files = false;
        self.flush.epochs_changed += 1;
        self.flush.dir_changed += 1;
        self.truncation = Some(truncation);
    }

    /// Applies a truncation to the files and producers. Each step may be repeated after a retriable error.
    fn finish(&mut self, truncation: Truncation) -> Result<(), LogError> {
        self.mark_deleted_segments(truncation.now_ms)?;
        while let Some(last) = self.snapshots.last().copied()
            && last > truncation.snapshots_above
        {
            remove_snapshot(&self.home, last)?;
            self.snapshots.remove(&last);
        }
        self.home.sync()?;
        self.active().finish_truncation()?;
        let epochs = checkpoint::encode_epochs(self.epochs.entries());
        self.home.disk.write_atomically(&self.home.file(LEADER_EPOCH), epochs.as_bytes())?;
        self.reload_producers()?;
        self.truncation = None;
        Ok(())
    }

    /// Reloads the producer state. Snapshots that are not written yet are skipped, because the records have the same
    /// state.
    fn reload_producers(&mut self) -> Result<(), LogError> {
        let (home, segments) = (&self.home, &self.segments);
        let start = self.log_start;
        let mut state = recovery::latest_snapshot(home, &mut self.snapshots, start, self.log_end)?;
        recovery::replay(segments, &mut state, self.log_end)?;
        state.on_high_watermark(self.high_watermark);
        state.keep_verifications_of(&self.producers);
        self.producers = state;
        Ok(())
    }
}
