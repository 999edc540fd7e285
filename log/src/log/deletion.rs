//! Deletes records at the start of the log: by retention and by DeleteRecords. Only whole segments are deleted; within
//! a segment only the log start moves.
//!
//! Files first get the suffix `.deleted`, so that a restart removes them, and are removed after `file.delete.delay.ms`,
//! so that slow readers can finish.

use super::Log;
use crate::config::LogConfig;
use crate::error::{AppendError, LogError, ReadError};
use crate::file_name::{DELETED_SUFFIX, FileKind};
use crate::segment::{PartitionHome, Segment};
use klamm_protocol::ids::Offset;
use klamm_protocol::time::Now;
use std::collections::VecDeque;
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

/// Segments that are no longer part of the log and whose files still exist.
#[derive(Debug, Default)]
pub(super) struct PendingDeletion {
    /// Segments whose files do not have the suffix yet, in the order of marking.
    unmarked: VecDeque<Arc<Segment>>,
    marked: Vec<(i64, Arc<Segment>)>,
}

impl PendingDeletion {
    fn add(&mut self, segment: Arc<Segment>, now_ms: i64, config: &LogConfig) {
        self.marked.push((now_ms.saturating_add(config.file_delete_delay_ms), segment));
    }
}

impl Log {
    /// Deletes the segments that exceed `retention.ms` or `retention.bytes` or are below the log start, but never one
    /// that reaches above the high watermark. Removes files whose delay is over.
    pub fn apply_retention(&mut self, now: Now) -> Result<Vec<DeletedSegment>, LogError> {
        self.check()?;
        // First finishes the deletions that an earlier check could not: they may give room.
        let health = Arc::clone(&self.health);
        health.observe(self.mark_deleted_segments(now.steady_ms))?;
        self.remove_deleted_files(now.steady_ms)?;
        let deleted = self.delete_expired(now);
        let deleted = health.observe(deleted)?;
        self.remove_deleted_files(now.steady_ms)?;
        Ok(deleted)
    }

    /// Removes the files of segments that were deleted `file.delete.delay.ms` ago, on the steady clock.
    pub fn remove_deleted_files(&mut self, now_ms: i64) -> Result<(), LogError> {
        let is_due = |(due_ms, _): &(i64, Arc<Segment>)| *due_ms <= now_ms;
        while let Some(at) = self.pending_deletion.marked.iter().position(is_due) {
            self.health.observe(self.pending_deletion.marked[at].1.remove_files())?;
            self.pending_deletion.marked.remove(at);
        }
        Ok(())
    }

    /// Moves the log start forward, for DeleteRecords and for a follower whose leader did so. Never moves it back.
    /// Returns the log start.
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

    /// The segments that may be deleted: those entirely below the high watermark; the active one only if it has
    /// records.
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
        // The name of the new first segment must survive a power cut.
        self.home.sync()?;
        let first_kept = self.segments[count].base_offset();
        self.advance_log_start(first_kept);
        let segments: Vec<_> = Arc::make_mut(&mut self.segments).drain(..count).collect();
        // Only whole segments count as flushed here, not the log start: bytes below it are in the same file as bytes
        // above it.
        self.flush.raise_to(first_kept);
        for segment in segments {
            let base_offset = segment.base_offset();
            deleted.push(DeletedSegment { base_offset, bytes: segment.size(), reason });
            self.schedule_deletion(segment);
        }
        self.mark_deleted_segments(now_ms)
    }

    /// Schedules a segment that is no longer part of the log for deletion. [`Self::mark_deleted_segments`] marks its
    /// files.
    pub(super) fn schedule_deletion(&mut self, segment: Arc<Segment>) {
        self.flush.unseal(&segment);
        segment.set_synced();
        self.pending_deletion.unmarked.push_back(segment);
    }

    /// Marks the files of scheduled segments with `.deleted`, and removes the producer snapshots at their base offsets:
    /// one segment after the other, durably, so that a power cut leaves no gap between deleted ones. After a retriable
    /// error the next call continues.
    pub(super) fn mark_deleted_segments(&mut self, now_ms: i64) -> Result<(), LogError> {
        while let Some(segment) = self.pending_deletion.unmarked.front().map(Arc::clone) {
            segment.mark_deleted()?;
            let base_offset = segment.base_offset();
            if self.snapshots.contains(&base_offset) {
                remove_snapshot(&self.home, base_offset)?;
                self.snapshots.remove(&base_offset);
            }
            self.home.sync()?;
            self.pending_deletion.unmarked.pop_front();
            self.pending_deletion.add(segment, now_ms, &self.config);
        }
        Ok(())
    }
}

/// Removes a snapshot without delay, because no view reads it.
pub(super) fn remove_snapshot(home: &PartitionHome, offset: Offset) -> Result<(), LogError> {
    home.disk.remove_file_if_exists(&home.file(&FileKind::ProducerSnapshot.name(offset)))?;
    Ok(())
}

/// The largest timestamp, or the time of the last write if no record has one.
fn newest_ms(segment: &Segment) -> Result<i64, LogError> {
    let largest = segment.largest_timestamp().map_err(read_storage_error)?;
    match largest {
        Some(largest) => Ok(largest.timestamp),
        None => segment.modified_ms().map_err(read_storage_error),
    }
}

/// Rolling and truncating only fail with errors of the storage.
fn storage_error(error: AppendError) -> LogError {
    match error {
        AppendError::Storage(error) => error,
        other => unreachable!("rolling a segment checks no records: {other}"),
    }
}

/// Segments are not deleted or truncated while their owner reads them.
pub(super) fn read_storage_error(error: ReadError) -> LogError {
    match error {
        ReadError::Storage(error) => error,
        other => unreachable!("the owner reads its own segments: {other}"),
    }
}

/// Whether the name has the suffix of [`Log::mark_deleted_segments`].
pub(crate) fn is_marked(name: &str) -> bool {
    // Snapshots of the metadata log have their own retention.
    name.ends_with(DELETED_SUFFIX) && !name.ends_with(".checkpoint.deleted")
}
