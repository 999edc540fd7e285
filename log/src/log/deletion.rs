//! How records leave the log at its begin: by retention and by DeleteRecords. Whole segments go; within
//! a segment only the log start moves.
//!
//! Files first get the suffix `.deleted`, so that a restart removes them, and vanish after
//! `file.delete.delay.ms`, so that slow readers finish.

use super::Log;
use crate::config::LogConfig;
use crate::error::{AppendError, LogError, ReadError};
use crate::file_name::{DELETED_SUFFIX, FileKind};
use crate::segment::{PartitionHome, Segment};
use klamm_protocol::ids::Offset;
use klamm_protocol::time::Now;
use std::sync::Arc;

/// Why a segment was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletionReason {
    /// Every record is below the log start.
    LogStart,
    /// `retention.bytes`
    RetentionBytes,
    /// `retention.ms`
    RetentionMs,
}

/// A segment that is no longer part of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletedSegment {
    pub base_offset: Offset,
    pub bytes: u64,
    pub reason: DeletionReason,
}

/// Files that wait for their removal.
#[derive(Debug, Default)]
pub(super) struct Graveyard {
    segments: Vec<(i64, Arc<Segment>)>,
}

impl Graveyard {
    fn add(&mut self, segment: Arc<Segment>, now_ms: i64, config: &LogConfig) {
        self.segments.push((now_ms.saturating_add(config.file_delete_delay_ms), segment));
    }

    fn take_due(&mut self, now_ms: i64) -> Vec<Arc<Segment>> {
        let (due, waiting) = std::mem::take(&mut self.segments)
            .into_iter()
            .partition(|(due_ms, _)| *due_ms <= now_ms);
        self.segments = waiting;
        let due: Vec<(i64, Arc<Segment>)> = due;
        due.into_iter().map(|(_, segment)| segment).collect()
    }
}

impl Log {
    /// Deletes the segments that `retention.ms`, `retention.bytes` or the log start allow to delete,
    /// never one that reaches above the high watermark. Removes files whose delay is over.
    pub fn apply_retention(&mut self, now: Now) -> Result<Vec<DeletedSegment>, LogError> {
        self.health.check()?;
        let outcome = self.delete_expired(now);
        let deleted = Arc::clone(&self.health).observe(outcome)?;
        self.remove_deleted_files(now.steady_ms)?;
        Ok(deleted)
    }

    /// Removes the files of segments that were deleted `file.delete.delay.ms` ago, by the steady clock.
    pub fn remove_deleted_files(&mut self, now_ms: i64) -> Result<(), LogError> {
        for segment in self.graveyard.take_due(now_ms) {
            Arc::clone(&self.health).observe(segment.remove_files())?;
        }
        Ok(())
    }

    /// Moves the log start, for DeleteRecords and for a follower whose leader did so. Below the current
    /// one it stays. Returns the log start.
    pub fn delete_records(&mut self, log_start: Offset) -> Result<Offset, ReadError> {
        self.health.check()?;
        if log_start > self.high_watermark {
            return Err(ReadError::OffsetOutOfRange {
                offset: log_start,
                log_start: self.log_start,
                log_end: self.high_watermark,
            });
        }
        self.advance_log_start(log_start);
        Ok(self.log_start)
    }

    fn advance_log_start(&mut self, log_start: Offset) {
        if log_start <= self.log_start {
            return;
        }
        self.log_start = log_start;
        self.high_watermark = self.high_watermark.max(log_start);
        self.producers.on_high_watermark(log_start);
        if Arc::make_mut(&mut self.epochs).truncate_from_start(log_start) {
            self.flush.epochs_changed += 1;
        }
    }

    fn delete_expired(&mut self, now: Now) -> Result<Vec<DeletedSegment>, LogError> {
        let mut deleted = Vec::new();
        let now_ms = now.steady_ms;
        let below_start = self.count_below_log_start();
        self.delete_first(below_start, DeletionReason::LogStart, now_ms, &mut deleted)?;
        if self.config.cleanup_policy.delete {
            let too_many = self.count_above_size();
            self.delete_first(too_many, DeletionReason::RetentionBytes, now_ms, &mut deleted)?;
            let too_old = self.count_older(now.retention_ms)?;
            self.delete_first(too_old, DeletionReason::RetentionMs, now_ms, &mut deleted)?;
        }
        Ok(deleted)
    }

    /// The segments that may go at all: those wholly below the high watermark, and the active one
    /// only if it holds anything.
    fn committed_segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        let ends = self.segments.iter().skip(1).map(|next| next.base_offset());
        let ends = ends.chain([self.log_end]);
        let committed =
            self.segments.iter().zip(ends).take_while(|(_, end)| *end <= self.high_watermark);
        let is_empty_active =
            |segment: &Segment, end: Offset| segment.size() == 0 && end == self.log_end;
        committed
            .take_while(move |(segment, end)| !is_empty_active(segment, *end))
            .map(|(segment, _)| segment)
    }

    fn count_below_log_start(&self) -> usize {
        let nexts = self.segments.iter().skip(1);
        let below = nexts.take_while(|next| next.base_offset() <= self.log_start).count();
        below.min(self.committed_segments().count())
    }

    fn count_above_size(&self) -> usize {
        let Ok(limit) = u64::try_from(self.config.retention_bytes) else { return 0 };
        let Some(mut excess) = self.size().checked_sub(limit) else { return 0 };
        let fits = |segment: &&Arc<Segment>| match excess.checked_sub(segment.size()) {
            Some(rest) => {
                excess = rest;
                true
            }
            None => false,
        };
        self.committed_segments().take_while(fits).count()
    }

    fn count_older(&self, now_ms: i64) -> Result<usize, LogError> {
        let retention_ms = self.config.retention_ms;
        if retention_ms < 0 {
            return Ok(0);
        }
        let mut count = 0;
        for segment in self.committed_segments() {
            let newest = newest_ms(segment)?;
            if now_ms.saturating_sub(newest) <= retention_ms {
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    fn delete_first(
        &mut self,
        count: usize,
        reason: DeletionReason,
        now_ms: i64,
        deleted: &mut Vec<DeletedSegment>,
    ) -> Result<(), LogError> {
        if count == 0 {
            return Ok(());
        }
        if count == self.segments.len() {
            self.roll_at(self.log_end, now_ms).map_err(storage_error)?;
        }
        // The name of the segment that will be the first one must be there after a power cut.
        self.home.sync()?;
        let first_kept = self.segments[count].base_offset();
        self.advance_log_start(first_kept);
        let segments: Vec<_> = Arc::make_mut(&mut self.segments).drain(..count).collect();
        // The log start alone does not count: bytes below it lie before others in the same file.
        self.flush.flushed = self.flush.flushed.max(first_kept);
        for segment in segments {
            let base_offset = segment.base_offset();
            deleted.push(DeletedSegment { base_offset, bytes: segment.size(), reason });
            self.bury(segment, now_ms)?;
            // After a power cut the segments that are gone must be the first ones: a gap would look
            // like lost records.
            self.home.sync()?;
        }
        Ok(())
    }

    /// Marks a segment's files, and the producer snapshot at its begin, for removal.
    pub(super) fn bury(&mut self, segment: Arc<Segment>, now_ms: i64) -> Result<(), LogError> {
        self.flush.unseal(&segment);
        segment.set_unsynced(false);
        segment.mark_deleted()?;
        if self.snapshots.remove(&segment.base_offset()) {
            remove_snapshot(&self.home, segment.base_offset())?;
        }
        self.graveyard.add(segment, now_ms, &self.config);
        Ok(())
    }
}

/// No view reads a snapshot, so it need not be kept for a while.
pub(super) fn remove_snapshot(home: &PartitionHome, offset: Offset) -> Result<(), LogError> {
    home.disk.remove_file_if_exists(&home.file(&FileKind::ProducerSnapshot.name(offset)))?;
    Ok(())
}

/// The largest timestamp, or the time of the last write where no record has one.
fn newest_ms(segment: &Segment) -> Result<i64, LogError> {
    let largest = segment.largest_timestamp().map_err(read_storage_error)?;
    match largest {
        Some(largest) => Ok(largest.timestamp),
        None => segment.modified_ms().map_err(read_storage_error),
    }
}

/// Rolling and truncating fail for reasons of storage only.
fn storage_error(error: AppendError) -> LogError {
    match error {
        AppendError::Storage(error) => error,
        other => unreachable!("rolling a segment checks no records: {other}"),
    }
}

/// The owner reads segments that are neither deleted nor truncated under it.
pub(super) fn read_storage_error(error: ReadError) -> LogError {
    match error {
        ReadError::Storage(error) => error,
        other => unreachable!("the owner reads its own segments: {other}"),
    }
}

/// Whether the name is one that [`Log::bury`] leaves behind.
pub(crate) fn is_marked(name: &str) -> bool {
    // Snapshots of the metadata log have a retention of their own.
    name.ends_with(DELETED_SUFFIX) && !name.ends_with(".checkpoint.deleted")
}
