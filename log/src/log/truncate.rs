//! Cutting records off at the log's end, because another replica's are the valid ones.
//!
//! Everything here is durable before it returns: what a later append writes must never meet remains of
//! what was cut, not even after a power cut between the two.

use super::Log;
use super::deletion::{read_storage_error, remove_snapshot};
use crate::checkpoint::{self, LEADER_EPOCH};
use crate::error::LogError;
use crate::producer_state::ProducerState;
use crate::recovery;
use crate::segment::Segment;
use klamm_protocol::ids::Offset;
use std::sync::Arc;

impl Log {
    /// Removes every record at or above `offset`; false when there was none. A batch that holds `offset`
    /// goes as a whole.
    ///
    /// Afterwards [`Log::flushed_offset`] may be lower than the recovery point last checkpointed. The
    /// caller writes that checkpoint before it appends again (as Kafka's `LogManager.truncateTo`): a recovery
    /// point above what is synced would be believed.
    pub fn truncate_to(&mut self, offset: Offset, now_ms: i64) -> Result<bool, LogError> {
        self.health.check()?;
        assert!(offset >= 0, "offsets are not negative");
        if offset >= self.log_end {
            // A leader notes its epoch before it appends; if it never did, the next one's counts.
            if Arc::make_mut(&mut self.epochs).truncate_from_end(self.log_end) {
                self.flush.epochs_changed += 1;
            }
            return Ok(false);
        }
        let outcome = if offset < self.segments[0].base_offset() {
            self.start_over_at(offset, now_ms)
        } else {
            self.cut_at(offset, now_ms)
        };
        Arc::clone(&self.health).observe(outcome)?;
        Ok(true)
    }

    /// Removes every record; the next one gets `offset`.
    pub fn truncate_fully_and_start_at(
        &mut self,
        offset: Offset,
        now_ms: i64,
    ) -> Result<(), LogError> {
        self.health.check()?;
        let outcome = self.start_over_at(offset, now_ms);
        Arc::clone(&self.health).observe(outcome)
    }

    fn cut_at(&mut self, offset: Offset, now_ms: i64) -> Result<(), LogError> {
        // A segment that begins with the offset goes as a whole, unread: it may be damaged.
        let kept = self.segments.partition_point(|segment| segment.base_offset() < offset).max(1);
        let last = Arc::clone(&self.segments[kept - 1]);
        // Without a file descriptor nothing has been changed yet.
        last.file()?;
        self.flush.void_tickets();
        let cut = Arc::make_mut(&mut self.segments).split_off(kept);
        self.remove_above(cut, offset, now_ms)?;
        self.flush.unseal(&last);
        last.truncate_to(offset, now_ms).map_err(read_storage_error)?;
        self.stale_index_files = false;
        self.log_end = offset;
        self.log_start = self.log_start.min(offset);
        self.high_watermark = self.high_watermark.min(offset);
        self.flush.forget_above(offset);
        Arc::make_mut(&mut self.epochs).truncate_from_end(offset);
        self.write_epochs()?;
        self.reload_producers()
    }

    fn start_over_at(&mut self, offset: Offset, now_ms: i64) -> Result<(), LogError> {
        self.flush.void_tickets();
        let all = self.segments.to_vec();
        let removed = self.remove_above(all, -1, now_ms);
        let created = removed.and_then(|()| Ok(Segment::create(&self.home, offset, now_ms)?));
        // With its files renamed and no new one, the log is of no use until a restart.
        let segment = created.inspect_err(|error| self.health.fail(error))?;
        self.segments = Arc::new(vec![segment]);
        self.stale_index_files = false;
        self.log_end = offset;
        self.log_start = offset;
        self.high_watermark = offset;
        self.flush.forget_above(-1);
        self.flush.flushed = offset;
        self.flush.dir_changed += 1;
        self.producers = ProducerState::new(offset);
        Arc::make_mut(&mut self.epochs).clear();
        self.home.sync()?;
        self.write_epochs()
    }

    /// Removes segments, and the snapshots above `offset`, durably.
    fn remove_above(
        &mut self,
        segments: Vec<Arc<Segment>>,
        offset: Offset,
        now_ms: i64,
    ) -> Result<(), LogError> {
        // The last ones first, one by one: a power cut must not leave a gap.
        for segment in segments.into_iter().rev() {
            self.bury(segment, now_ms)?;
            self.home.sync()?;
        }
        for snapshot in self.snapshots.split_off(&(offset + 1)) {
            remove_snapshot(&self.home, snapshot)?;
        }
        Ok(self.home.sync()?)
    }

    fn write_epochs(&mut self) -> Result<(), LogError> {
        self.flush.epochs_changed += 1;
        let epochs = checkpoint::encode_epochs(self.epochs.entries());
        self.home.disk.write_atomically(&self.home.file(LEADER_EPOCH), epochs.as_bytes())?;
        Ok(())
    }

    /// Snapshots that are not written yet are skipped: the records say the same.
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
