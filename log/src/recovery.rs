//! Opens a log: builds the state for its owner from the files in a partition's directory.
//!
//! After a clean shutdown the files are trusted. Otherwise every segment that reaches above the recovery point, and
//! every one without an index, is read: checksums and offsets are checked, the log ends before the first incomplete or
//! invalid batch, and index, leader epochs and producer state are rebuilt from the records. Files of an interrupted
//! deletion or compaction are cleaned up first.

mod epochs;
mod leftovers;
mod replay;
mod segments;

pub(crate) use replay::{latest_snapshot, replay};

use crate::error::{LogError, ReadError};
use crate::file_name::FileKind;
use crate::leader_epoch_cache::LeaderEpochCache;
use crate::log::{LogOptions, RecoveryReport};
use crate::partition_metadata;
use crate::producer_state::ProducerState;
use crate::segment::{PartitionHome, Segment};
use epochs::{epochs_of, note_epochs_of};
use klamm_protocol::Uuid;
use klamm_protocol::ids::Offset;
use replay::replay_segment;
use segments::SegmentFiles;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// `index.interval.bytes` by default; a rebuilt index need not have the topic's interval.
const INDEX_INTERVAL_BYTES: u32 = 4096;

/// The recovered state.
pub(crate) struct Recovered {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) topic_id: Option<Uuid>,
    pub(crate) log_start: Offset,
    pub(crate) log_end: Offset,
    pub(crate) producers: ProducerState,
    pub(crate) epochs: LeaderEpochCache,
    /// The epochs differ from those in the file.
    pub(crate) epochs_changed: bool,
    pub(crate) snapshots: BTreeSet<Offset>,
    pub(crate) stale_index_files: bool,
    pub(crate) report: RecoveryReport,
}

/// Opens the files and repairs them.
pub(crate) fn recover(
    home: &Arc<PartitionHome>,
    options: &LogOptions,
) -> Result<Recovered, LogError> {
    home.disk.create_dir_all(&home.path())?;
    if home.disk.list(&home.path())?.is_empty() {
        // An earlier attempt may have created the directory without a sync of its name.
        home.disk.sync_dir(crate::disk::parent(&home.path()))?;
    }
    let topic_id = partition_metadata::agree(home, options.topic_id)?;
    leftovers::clear(home)?;
    let found = segments::list(home)?;
    let (stored_epochs, is_damaged) = epochs::read(home)?;
    let mut opening = Opening {
        home,
        options,
        epochs: stored_epochs.clone(),
        snapshots: found.snapshots,
        producers: ProducerState::default(),
        segments: Vec::new(),
        log_end: 0,
        stale_index_files: false,
        report: RecoveryReport::default(),
    };
    opening.load_segments(found.segments)?;
    if is_damaged {
        opening.epochs = epochs_of(&opening.segments)?;
    }
    let log_start = opening.settle_log_start()?;
    opening.complete_epochs(log_start)?;
    opening.epochs.truncate_from_end(opening.log_end);
    opening.epochs.truncate_from_start(log_start);
    opening.remove_stray_snapshots()?;
    Ok(Recovered {
        epochs_changed: opening.epochs != stored_epochs,
        segments: opening.segments,
        topic_id,
        log_start,
        log_end: opening.log_end,
        producers: opening.producers,
        epochs: opening.epochs,
        snapshots: opening.snapshots,
        stale_index_files: opening.stale_index_files,
        report: opening.report,
    })
}

/// The work in progress.
struct Opening<'a> {
    home: &'a Arc<PartitionHome>,
    options: &'a LogOptions,
    epochs: LeaderEpochCache,
    snapshots: BTreeSet<Offset>,
    producers: ProducerState,
    segments: Vec<Arc<Segment>>,
    log_end: Offset,
    stale_index_files: bool,
    report: RecoveryReport,
}

impl Opening<'_> {
    fn load_segments(&mut self, files: Vec<SegmentFiles>) -> Result<(), LogError> {
        let first_unsafe = self.first_to_recover(&files);
        let is_first_start = self.snapshots.is_empty() && self.options.clean_shutdown;
        self.load_producers(&files, first_unsafe)?;
        let mut later = VecDeque::from(files);
        while let Some(files) = later.pop_front() {
            let is_last = later.is_empty();
            if first_unsafe.is_some() && self.is_lost_before(&files) {
                self.report.cut(self.log_end, 0, self.options.recovery_point);
            }
            if let Some(truncated) = &mut self.report.truncated {
                truncated.bytes += files.size;
                files.remove(self.home)?;
            } else if files.must_recover
                || first_unsafe.is_some_and(|first| files.base_offset >= first)
            {
                self.recover_segment(&files, is_last, &later)?;
            } else {
                self.load_segment(&files, is_last, is_first_start)?;
            }
        }
        if self.report.truncated.is_some() {
            self.home.sync()?;
        }
        self.producers.set_end_offset(self.log_end);
        Ok(())
    }

    /// Whether records between the last segment and this one were lost: a power cut may remove the end of one file and
    /// keep the next. A compacted log has gaps, but syncs a segment before it begins the next one.
    fn is_lost_before(&self, files: &SegmentFiles) -> bool {
        !self.segments.is_empty()
            && !self.options.config.cleanup_policy.compact
            && files.base_offset > self.log_end
            && files.base_offset > self.options.recovery_point
    }

    /// After an unclean shutdown: the base offset of the segment that contains the recovery point.
    fn first_to_recover(&self, files: &[SegmentFiles]) -> Option<Offset> {
        if self.options.clean_shutdown {
            return None;
        }
        let above = files.partition_point(|file| file.base_offset <= self.options.recovery_point);
        files.get(above.saturating_sub(1)).map(|file| file.base_offset)
    }

    /// Loads the producer state to replay from: at or below the first segment to recover, whose aborted transactions
    /// are found by replaying it.
    fn load_producers(
        &mut self,
        files: &[SegmentFiles],
        first_unsafe: Option<Offset>,
    ) -> Result<(), LogError> {
        let without_index = files.iter().find(|file| file.must_recover);
        let bound = without_index.map(|file| file.base_offset).into_iter().chain(first_unsafe);
        let bound = bound.min().unwrap_or(Offset::MAX);
        let first = files.first().map_or(0, |file| file.base_offset);
        let start = self.options.log_start.max(first).min(bound);
        self.producers = latest_snapshot(self.home, &mut self.snapshots, start, bound)?;
        Ok(())
    }

    fn recover_segment(
        &mut self,
        files: &SegmentFiles,
        is_last: bool,
        later: &VecDeque<SegmentFiles>,
    ) -> Result<(), LogError> {
        let mut pass = segments::RecoveryPass::new(files, self.options.now_ms);
        self.epochs.truncate_from_end(files.base_offset);
        let end = pass.run(self.home, &mut self.producers, &mut self.epochs)?;
        self.report.segments_recovered += 1;
        self.log_end = pass.next_offset.max(files.base_offset);
        if end < files.size {
            self.report.cut(self.log_end, files.size - end, self.options.recovery_point);
            // Done before the truncation: otherwise a crash in between would leave later segments behind a valid end,
            // and the gap would not be detected.
            later.iter().rev().try_for_each(|files| files.remove(self.home))?;
            self.home.sync()?;
        }
        let segment = pass.finish(self.home, end)?;
        if !is_last {
            segment.seal();
        }
        self.segments.push(segment);
        Ok(())
    }

    /// Loads a segment whose files are trusted: only batches of producers are read.
    fn load_segment(
        &mut self,
        files: &SegmentFiles,
        is_last: bool,
        is_first_start: bool,
    ) -> Result<(), LogError> {
        let txns = files.txns.clone().unwrap_or_default();
        let segment = Segment::sealed(self.home, files.base_offset, files.size, txns);
        if is_last {
            self.log_end = match segment.resume(self.options.now_ms) {
                Ok(log_end) => log_end,
                // The disk has damaged a file after the clean shutdown.
                Err(ReadError::Corrupt { .. }) => {
                    return self.recover_segment(files, true, &VecDeque::new());
                }
                Err(error) => return Err(opening_error(error)),
            };
            self.stale_index_files = true;
        } else {
            self.log_end = files.next_base_offset;
        }
        self.segments.push(Arc::clone(&segment));
        // The recovery of an earlier segment has dropped all later epochs of the file.
        if self.report.segments_recovered > 0 {
            note_epochs_of(&segment, &mut self.epochs)?;
        }
        // As in Kafka, old logs without any producer snapshot are not searched for producers.
        if is_first_start {
            self.producers.set_end_offset(self.log_end);
            return Ok(());
        }
        if self.producers.end_offset() < self.log_end {
            replay_segment(&segment, &mut self.producers, self.log_end)?;
        }
        // A snapshot above the end is from before an unfinished truncation.
        if is_last && self.producers.end_offset() > self.log_end {
            self.snapshots.split_off(&(self.log_end + 1));
            self.producers = latest_snapshot(
                self.home,
                &mut self.snapshots,
                self.segments[0].base_offset(),
                self.log_end,
            )?;
            replay(&self.segments, &mut self.producers, self.log_end)?;
        }
        Ok(())
    }

    /// Sets the log start from the checkpoint. A log that ends below it (its segments were removed by hand) becomes
    /// empty and starts there.
    fn settle_log_start(&mut self) -> Result<Offset, LogError> {
        let checkpointed = self.options.log_start;
        if !self.segments.is_empty() && self.log_end < checkpointed {
            for segment in self.segments.drain(..) {
                segment.mark_deleted()?;
                segment.remove_files()?;
            }
            self.epochs.clear();
        }
        if self.segments.is_empty() {
            self.segments.push(Segment::create(self.home, checkpointed, self.options.now_ms)?);
            // If a power cut lost this name and kept that of the second segment, the gap would not be detected.
            self.home.sync()?;
            self.producers = ProducerState::new(checkpointed);
            self.log_end = checkpointed;
            self.stale_index_files = false;
        }
        Ok(checkpointed.max(self.segments[0].base_offset()))
    }

    /// Deleted segments may have come back after a power cut, with epochs that the file no longer has.
    fn complete_epochs(&mut self, log_start: Offset) -> Result<(), LogError> {
        let known_from = self.epochs.earliest().map_or(self.log_end, |first| first.offset);
        if known_from <= log_start {
            return Ok(());
        }
        let older = self.segments.partition_point(|s| s.base_offset() < known_from);
        let older = epochs_of(&self.segments[..older])?;
        let older = older.entries().filter(|(_, start)| *start < known_from);
        self.epochs = LeaderEpochCache::from_entries(older.chain(self.epochs.entries()));
        Ok(())
    }

    /// Keeps the producer snapshots at base offsets of segments and at the log end, as Kafka does.
    fn remove_stray_snapshots(&mut self) -> Result<(), LogError> {
        let bases: BTreeSet<Offset> = self.segments.iter().map(|s| s.base_offset()).collect();
        let stray = |offset: &Offset| *offset != self.log_end && !bases.contains(offset);
        let strays: Vec<Offset> = self.snapshots.iter().copied().filter(stray).collect();
        for offset in strays {
            self.snapshots.remove(&offset);
            let path = self.home.file(&FileKind::ProducerSnapshot.name(offset));
            self.home.disk.remove_file_if_exists(&path)?;
        }
        Ok(())
    }
}

/// While a log is opened, its segments are not truncated or deleted.
fn opening_error(error: ReadError) -> LogError {
    match error {
        ReadError::Storage(error) => error,
        other => unreachable!("nobody else changes a log that is being opened: {other}"),
    }
}
