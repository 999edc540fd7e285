//! One log: the owner of a partition's segments, producer state and leader epochs.
//!
//! One owner at a time has `&mut self`; readers get a [`LogView`], which needs no lock.
//!
//! Invariants: there is at least one segment, and only the last is appended to. `log_start` <= `high_watermark` <=
//! `log_end`, and `flushed` <= `log_end`. An append is part of the log as a whole or not at all. After a disk failure
//! every operation fails, because the directory is offline. After a retriable error (`Severity::Passes`) the operation
//! has changed nothing, or the next one finishes it first.

mod append;
mod deletion;
mod flush;
mod offsets;
mod truncate;

pub use append::{AppendInfo, LeaderAppend};
pub(crate) use append::{has_sane_offsets, marker_of};
pub(crate) use deletion::is_marked;
pub use deletion::{DeletedSegment, DeletionReason};
pub use flush::{Derived, FlushTicket};
pub use offsets::{OffsetTarget, TimestampedOffset};

use crate::config::LogConfig;
use crate::disk::{Disk, RoomyDisk};
use crate::error::LogError;
use crate::health::LogDirHealth;
use crate::leader_epoch_cache::{EpochOffset, LeaderEpochCache};
use crate::log_reader::LogView;
use crate::open_files::OpenFiles;
use crate::producer_state::ProducerState;
use crate::recovery::{self, Recovered};
use crate::segment::{PartitionHome, Segment};
use deletion::PendingDeletion;
use flush::FlushState;
use klamm_protocol::Uuid;
use klamm_protocol::ids::{LeaderEpoch, Offset};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use truncate::Truncation;

/// The storage that all logs of one directory share.
#[derive(Debug, Clone)]
pub struct LogStorage {
    pub disk: Arc<dyn Disk>,
    pub files: Arc<OpenFiles>,
    pub health: Arc<LogDirHealth>,
}

impl LogStorage {
    /// Opens on the disk close idle `files` if no descriptor is left.
    pub fn new(disk: Arc<dyn Disk>, files: Arc<OpenFiles>, health: Arc<LogDirHealth>) -> Self {
        Self { disk: RoomyDisk::over(disk, Arc::clone(&files)), files, health }
    }
}

/// The options for opening a log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    pub config: LogConfig,
    /// From `recovery-point-offset-checkpoint`; 0 if there is no entry.
    pub recovery_point: Offset,
    /// From `log-start-offset-checkpoint`; 0 if there is no entry.
    pub log_start: Offset,
    /// `.kafka_cleanshutdown` existed: the segments need no recovery.
    pub clean_shutdown: bool,
    /// Written to `partition.metadata`, or compared with it. `None` accepts any id.
    pub topic_id: Option<Uuid>,
    /// By the steady clock.
    pub now_ms: i64,
}

/// The repairs when a log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The number of segments whose records were read and checked.
    pub segments_recovered: usize,
    /// The truncation at the first invalid batch, if there was one.
    pub truncated: Option<Truncated>,
}

/// A damaged end of a log that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated {
    /// The first removed offset.
    pub offset: Offset,
    pub bytes: u64,
    /// Synced records are among them: the disk has damaged them.
    pub below_recovery_point: bool,
}

impl RecoveryReport {
    pub(crate) fn cut(&mut self, offset: Offset, bytes: u64, recovery_point: Offset) {
        let below_recovery_point = offset < recovery_point;
        self.truncated = Some(Truncated { offset, bytes, below_recovery_point });
    }
}

/// See the module.
#[derive(Debug)]
pub struct Log {
    home: Arc<PartitionHome>,
    health: Arc<LogDirHealth>,
    config: LogConfig,
    topic_id: Option<Uuid>,
    jitter_seed: u64,
    segments: Arc<Vec<Arc<Segment>>>,
    log_start: Offset,
    log_end: Offset,
    high_watermark: Offset,
    producers: ProducerState,
    epochs: Arc<LeaderEpochCache>,
    /// The offsets of the producer snapshots on disk, or about to be written.
    snapshots: BTreeSet<Offset>,
    /// The index files of the active segment are from an earlier run: the first append removes them.
    stale_index_files: bool,
    flush: FlushState,
    pending_deletion: PendingDeletion,
    /// A truncation that is not finished in the files yet.
    truncation: Option<Truncation>,
    /// The name that the directory must get back.
    misplaced: Option<PathBuf>,
    report: RecoveryReport,
}

impl Log {
    /// Opens the log in a partition's directory, which is created if absent, and recovers it after an unclean shutdown.
    pub fn open(storage: &LogStorage, dir: &Path, options: LogOptions) -> Result<Self, LogError> {
        storage.health.check()?;
        let home = PartitionHome::new(
            Arc::clone(&storage.disk),
            Arc::clone(&storage.files),
            dir.to_path_buf(),
        );
        let recovered = storage.health.observe(recovery::recover(&home, &options))?;
        Ok(Self::from_recovered(storage, home, options, recovered))
    }

    fn from_recovered(
        storage: &LogStorage,
        home: Arc<PartitionHome>,
        options: LogOptions,
        recovered: Recovered,
    ) -> Self {
        let log_end = recovered.log_end;
        let flushed = if options.clean_shutdown { log_end } else { options.recovery_point };
        let first_base = recovered.segments.first().map_or(log_end, |s| s.base_offset());
        let flushed = flushed.clamp(first_base.min(log_end), log_end);
        let jitter_seed = home
            .path()
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Self {
            health: Arc::clone(&storage.health),
            config: options.config,
            topic_id: recovered.topic_id,
            jitter_seed,
            segments: Arc::new(recovered.segments),
            log_start: recovered.log_start,
            log_end,
            high_watermark: recovered.log_start,
            producers: recovered.producers,
            epochs: Arc::new(recovered.epochs),
            snapshots: recovered.snapshots,
            stale_index_files: recovered.stale_index_files,
            flush: FlushState::new(flushed, recovered.epochs_changed),
            pending_deletion: PendingDeletion::default(),
            truncation: None,
            misplaced: None,
            report: recovered.report,
            home,
        }
        .with_unsealed_segments()
    }

    /// Segments without index files get them with the next flush.
    fn with_unsealed_segments(mut self) -> Self {
        let sealed = self.segments.len() - 1;
        for segment in self.segments[..sealed].iter().filter(|s| s.needs_index_files()) {
            self.flush.seal_later(Arc::clone(segment), None);
        }
        self
    }

    /// The current directory of the log.
    pub fn dir(&self) -> PathBuf {
        self.home.path()
    }

    pub fn topic_id(&self) -> Option<Uuid> {
        self.topic_id
    }

    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Sets the configuration. It applies from the next append or retention check on.
    pub fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// The repairs when the log was opened.
    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }

    /// The first offset that can be read.
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// The offset that the next record gets.
    pub fn log_end(&self) -> Offset {
        self.log_end
    }

    /// Every record below survives a power cut.
    pub fn flushed_offset(&self) -> Offset {
        self.flush.flushed
    }

    /// The recovery point to checkpoint: after a power cut no record below it needs verification, and no derived file a
    /// rebuild.
    pub fn recovery_point(&self) -> Offset {
        self.flush.recovery_point
    }

    /// Records below are committed.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Sets the high watermark, which replication decides, clamped to the log; returns the new value.
    pub fn set_high_watermark(&mut self, offset: Offset) -> Offset {
        self.high_watermark = offset.clamp(self.log_start, self.log_end);
        self.producers.on_high_watermark(self.high_watermark);
        self.high_watermark
    }

    /// The last stable offset: a `read_committed` consumer may read below it. No record of an open transaction, or of
    /// one whose marker is not committed, is below it.
    pub fn last_stable_offset(&self) -> Offset {
        let unstable = self.producers.first_unstable_offset();
        let unstable = unstable.map(|offset| offset.max(self.log_start));
        unstable.map_or(self.high_watermark, |offset| offset.min(self.high_watermark))
    }

    /// Idempotent and transactional producers, for checks and for DescribeProducers.
    pub fn producers(&self) -> &ProducerState {
        &self.producers
    }

    /// For starting transaction verifications and expiring producers.
    pub fn producers_mut(&mut self) -> &mut ProducerState {
        &mut self.producers
    }

    pub fn leader_epochs(&self) -> &LeaderEpochCache {
        &self.epochs
    }

    /// The epoch of the last record, or a later one that this node leads.
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.latest().map(|latest| latest.epoch)
    }

    /// Adds `epoch`, which this node leads from the log end on. Durable with the next flush.
    pub fn assign_epoch(&mut self, epoch: LeaderEpoch) {
        if Arc::make_mut(&mut self.epochs).assign(epoch, self.log_end) {
            self.flush.epochs_changed += 1;
        }
    }

    /// See [`LeaderEpochCache::end_offset_for`].
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<EpochOffset> {
        self.epochs.end_offset_for(epoch, self.log_end)
    }

    /// Whether the log directory has failed.
    pub fn is_offline(&self) -> bool {
        self.health.failure().is_some()
    }

    /// The size of all records in bytes.
    pub fn size(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size()).sum()
    }

    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// The log as it is now, for readers.
    pub fn view(&self) -> LogView {
        LogView {
            segments: Arc::clone(&self.segments),
            health: Arc::clone(&self.health),
            epochs: Arc::clone(&self.epochs),
            end_position: self.active().size(),
            log_start: self.log_start,
            log_end: self.log_end,
            high_watermark: self.high_watermark,
            last_stable_offset: self.last_stable_offset(),
        }
    }

    /// Renames the log's directory, durably: before a topic is deleted, or when a future replica replaces the log.
    /// Readers continue. A running flush is waited for, and other flush tickets become void, because they would use
    /// files under the old name.
    pub fn rename_dir(&mut self, dir: &Path) -> Result<(), LogError> {
        self.health.check()?;
        let parent = self.home.disk.open_dir(crate::disk::parent(dir)).map_err(LogError::from);
        // Opened before the rename: a lack of descriptors must fail here, not after it.
        let parent = self.health.observe(parent)?;
        self.flush.void_tickets();
        self.health.observe(self.home.rename_to(dir).map_err(LogError::from))?;
        self.misplaced = None;
        self.health.observe(parent.sync().map_err(LogError::from))
    }

    /// Gives the directory its former name back. If that fails for lack of room, no record is appended before it
    /// succeeds: under its present name the next start may take it for a directory of another kind.
    pub fn rename_back(&mut self, dir: &Path) -> Result<(), LogError> {
        self.misplaced = Some(dir.to_path_buf());
        self.check()
    }

    fn active(&self) -> &Arc<Segment> {
        self.segments.last().expect("a log has at least one segment")
    }
}

#[cfg(test)]
mod tests;
