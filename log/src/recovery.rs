//! Opening a log: from the files in a partition's directory to the state that its owner needs.
//!
//! After a clean shutdown the files are believed. Otherwise every segment that reaches above the recovery
//! point, and every one without an index, is read: checksums and offsets are checked, the first
//! batch that is not whole ends the log, and index, leader epochs and producer state are made anew
//! from the records. Files that an interrupted deletion or compaction left are dealt with first.

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

/// `index.interval.bytes` by default; a rebuilt index need not have the topic's own interval.
const INDEX_INTERVAL_BYTES: u32 = 4096;

/// What opening found out.
pub(crate) struct Recovered {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) topic_id: Option<Uuid>,
    pub(crate) log_start: Offset,
    pub(crate) log_end: Offset,
    pub(crate) producers: ProducerState,
    pub(crate) epochs: LeaderEpochCache,
    /// The epochs are not those of the file.
    pub(crate) epochs_changed: bool,
    pub(crate) snapshots: BTreeSet<Offset>,
    pub(crate) stale_index_files: bool,
    pub(crate) report: RecoveryReport,
}

/// Opens what is there and repairs it.
pub(crate) fn recover(
    home: &Arc<PartitionHome>,
    options: &LogOptions,
) -> Result<Recovered, LogError> {
    home.disk.create_dir_all(&home.path())?;
    if home.disk.list(&home.path())?.is_empty() {
        // An earlier attempt may have made the directory and come no further.
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

    /// Whether records between the last segment and this one were lost: a power cut may take the end of
    /// one file and leave the next. A log that is compacted has gaps, but syncs a segment before it
    /// begins the next one.
    fn is_lost_before(&self, files: &SegmentFiles) -> bool {
        !self.segments.is_empty()
            && !self.options.config.cleanup_policy.compact
            && files.base_offset > self.log_end
            && files.base_offset > self.options.recovery_point
    }

    /// After an unclean shutdown: the segment that holds the recovery point.
    fn first_to_recover(&self, files: &[SegmentFiles]) -> Option<Offset> {
        if self.options.clean_shutdown {
            return None;
        }
        let above = files.partition_point(|file| file.base_offset <= self.options.recovery_point);
        files.get(above.saturating_sub(1)).map(|file| file.base_offset)
    }

    /// The state to replay from: at or below the first segment that is recovered, because its
    /// aborted transactions are found by replaying it.
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
            // Before the cut: were it there without this, nobody would miss what is behind it.
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

    /// A segment whose files are believed: only what the producers did is read.
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
                // The disk damaged what a clean shutdown had left.
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
        // A segment recovered before this one took the file's word about all later epochs back.
        if self.report.segments_recovered > 0 {
            note_epochs_of(&segment, &mut self.epochs)?;
        }
        // Kafka too does not search logs from before there were producers for them.
        if is_first_start {
            self.producers.set_end_offset(self.log_end);
            return Ok(());
        }
        if self.producers.end_offset() < self.log_end {
            replay_segment(&segment, &mut self.producers, self.log_end)?;
        }
        // A snapshot above the end is from before a truncation that was not finished.
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

    /// The log begins where the checkpoint says, if there is a segment. A log that ends below (its segments
    /// were removed by hand) begins anew there.
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
            // Were this name lost and that of the second segment kept, the gap would not show.
            self.home.sync()?;
            self.producers = ProducerState::new(checkpointed);
            self.log_end = checkpointed;
            self.stale_index_files = false;
        }
        Ok(checkpointed.max(self.segments[0].base_offset()))
    }

    /// Deleted segments may have come back, and with them epochs that the file no longer has.
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

    /// Keeps the snapshots at segment begins and at the log end, as Kafka does.
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

/// While a log is opened nobody truncates or deletes its segments.
fn opening_error(error: ReadError) -> LogError {
    match error {
        ReadError::Storage(error) => error,
        other => unreachable!("nobody else changes a log that is being opened: {other}"),
    }
}
