//! The files of the metadata quorum: `__cluster_metadata-0` with its snapshots, and `quorum-state`.
//!
//! The log is an ordinary log. If a record cannot be decoded or applied, the node stops.

mod descent;
mod reserve;

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use klamm_log::config::{CleanupPolicy, LogConfig};
use klamm_log::disk::{Disk, DiskError, OpenMode};
use klamm_log::error::{AppendError, LogError, ReadError, Severity};
use klamm_log::log::{LeaderAppend, Log, LogOptions, LogStorage};
use klamm_log::log_reader::FetchSpec;
use klamm_log::producer_state::AppendOrigin;
use klamm_log::reserve::Reserve;
use klamm_metadata::image::replay_error::ReplayError;
use klamm_metadata::loader::MetadataLoader;
use klamm_protocol::batch::{BatchError, BatchHeader, Batches, RecordBatch};
use klamm_protocol::batch_builder::BuildError;
use klamm_protocol::control_record::ControlRecordError;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_protocol::metadata_record::MetadataRecord;
use klamm_protocol::record::RecordError;
use klamm_protocol::time::Now;
use klamm_protocol::{DecodeError, EncodeError, ErrorCode, Uuid};
use klamm_replication::quorum::wire::SnapshotPiece;
use klamm_replication::quorum::{
    AppendBatch, Boot, ControlBatchError, LogPosition, Membership, StoredElection, VoteStoreError,
    VoterSet,
};
use klamm_replication::{EpochHistory, EpochStart, OffsetAndEpoch};
use tracing::info;

use super::snapshot_file::{SnapshotError, bootstrap_checkpoint};

/// The directory of the metadata log.
pub(crate) const METADATA_LOG_DIR: &str = "__cluster_metadata-0";
pub(crate) const QUORUM_STATE: &str = "quorum-state";
/// The first metadata records of a cluster. Formatting writes this file to every log directory.
pub(crate) const BOOTSTRAP_CHECKPOINT: &str = "bootstrap.checkpoint";
/// The first snapshot, with end offset 0 and epoch 0. Formatting writes the first voters to it.
pub(crate) const VOTERS_CHECKPOINT: &str = "00000000000000000000-0000000000.checkpoint";
/// The file whose space the log uses when the disk is full. Apache Kafka ignores it.
const RESERVE: &str = "reserve";
const SNAPSHOT_SUFFIX: &str = ".checkpoint";
/// No batch of the metadata log decompresses to more (`KafkaRaftClient.MAX_BATCH_SIZE_BYTES`).
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;
/// The most bytes of a snapshot in one read.
const MAX_SNAPSHOT_PIECE_BYTES: u64 = 8 * 1024 * 1024;
/// The most bytes of the log in one read.
const READ_BYTES: u64 = 1024 * 1024;

/// Why the metadata log cannot be used (any longer).
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetadataLogError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("the metadata log cannot be replayed: {0}")]
    Replay(#[from] ReplayError),
    #[error("a record of the metadata log cannot be decoded: {0}")]
    Decode(#[from] DecodeError),
    #[error("a metadata record cannot be written: {0}")]
    Encode(#[from] EncodeError),
    #[error("a batch of the metadata log cannot be read: {0}")]
    Batch(#[from] BatchError),
    #[error("a record of the metadata log cannot be read: {0}")]
    Record(#[from] RecordError),
    #[error("a batch of the metadata log cannot be built: {0}")]
    Build(#[from] BuildError),
    #[error("a control record cannot be written: {0}")]
    Control(#[from] ControlRecordError),
    #[error(transparent)]
    ControlBatch(#[from] ControlBatchError),
    #[error("a metadata snapshot cannot be written: {0}")]
    Snapshot(#[from] SnapshotError),
    #[error(
        "the leader of the metadata quorum, node {leader} in epoch {epoch}, does not have what the quorum had \
         committed: its log leaves the one in {} at offset {end_offset}, and everything below offset {high_watermark} \
         is committed. A majority of the controllers has begun an empty metadata log, or one from a backup. Nothing \
         was changed here: this log may be the only one that knows the topics. To keep it, stop those controllers, \
         put a copy of {} (without quorum-state) in the place of theirs, and start them (docs/operating.md). To go by \
         theirs, move the directory away",
        .dir.display(), .dir.display()
    )]
    LeaderLacksCommitted {
        leader: BrokerId,
        epoch: LeaderEpoch,
        dir: PathBuf,
        end_offset: Offset,
        high_watermark: Offset,
    },
    #[error(
        "the metadata snapshot at offset {offset} that the leader sends has none of the {topics} topics that the \
         metadata log in {} has: it belongs to another metadata log, or all of them were deleted while this node was \
         away. Nothing was changed here. If the controllers have begun an empty metadata log, see docs/operating.md; \
         if they are right, move the directory away: the node then takes their log",
        .dir.display()
    )]
    SnapshotOfAnotherLog { dir: PathBuf, offset: Offset, topics: usize },
    #[error("{}: {source}", path.display())]
    QuorumState { path: PathBuf, source: VoteStoreError },
}

impl MetadataLogError {
    /// Whether the disk or the quota is full.
    fn is_full(&self) -> bool {
        match self {
            Self::Log(error) | Self::Append(AppendError::Storage(error)) => error.is_full(),
            Self::Disk(error) => error.is_full(),
            _ => false,
        }
    }

    /// Whether only a resource is lacking, so that a retry may succeed. No wildcard arm: a new failure must choose.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Log(error) => error.passes(),
            Self::Append(error) => error.severity() == Some(Severity::Passes),
            Self::Read(error) => error.severity() == Some(Severity::Passes),
            Self::Disk(error) => error.passes(),
            Self::Replay(_)
            | Self::Decode(_)
            | Self::Encode(_)
            | Self::Batch(_)
            | Self::Record(_)
            | Self::Build(_)
            | Self::Control(_)
            | Self::ControlBatch(_)
            | Self::Snapshot(_)
            | Self::LeaderLacksCommitted { .. }
            | Self::SnapshotOfAnotherLog { .. }
            | Self::QuorumState { .. } => false,
        }
    }
}

/// The metadata log of this node.
#[derive(Debug)]
pub(crate) struct MetadataLog {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    log: Log,
    /// Oldest first, without the snapshot of formatting (0-0).
    snapshots: Vec<OffsetAndEpoch>,
    /// The membership of the quorum before the first record.
    configured: Membership,
    /// The committed offset in the checkpoint file beside the log: every record below it is committed.
    checkpointed: Offset,
    /// When to write that file next, in ms of the steady clock.
    next_checkpoint_ms: i64,
    /// Space for the log when the disk is full.
    reserve: Reserve,
    /// When to try next to take it, in ms of the steady clock.
    next_reserve_ms: i64,
}

/// What the node finds on disk when it starts.
pub(crate) struct Opened {
    pub(crate) log: MetadataLog,
    pub(crate) boot: Boot,
    /// The state of the newest snapshot; empty without one.
    pub(crate) loader: MetadataLoader,
}

impl MetadataLog {
    /// Opens the metadata log below `metadata.log.dir`. `configured` are the voters of `controller.quorum.voters`;
    /// `reserve_bytes` is `failover.metadata.reserve.bytes`.
    pub(crate) fn open(
        storage: &LogStorage,
        metadata_dir: &Path,
        configured: VoterSet,
        reserve_bytes: u64,
        clean_shutdown: bool,
        now_ms: i64,
    ) -> Result<Opened, MetadataLogError> {
        let disk = Arc::clone(&storage.disk);
        let dir = metadata_dir.join(METADATA_LOG_DIR);
        disk.create_dir_all(&dir)?;
        let snapshots = snapshots(disk.as_ref(), &dir)?;
        let latest = snapshots.last().copied().filter(|id| id.offset > 0);
        let options = LogOptions {
            config: config(),
            recovery_point: 0,
            log_start: latest.map_or(0, |id| id.offset),
            clean_shutdown,
            topic_id: Some(Uuid::METADATA_TOPIC),
            now_ms,
        };
        let mut log = Log::open(storage, &dir, options)?;
        if let Some(latest) = latest
            && is_ahead(latest, log.latest_epoch(), log.log_end())
        {
            log.truncate_fully_and_start_at(latest.offset, now_ms)?;
        }
        log.flush()?;
        let configured = Membership::new(configured);
        let mut membership = configured.clone();
        let mut loader = MetadataLoader::default();
        for id in &snapshots {
            let path = dir.join(snapshot_name(*id));
            let records = read_snapshot(disk.as_ref(), &path, *id, &mut membership)?;
            if Some(*id) == latest {
                info!("loading the metadata snapshot at offset {}", id.offset);
                loader = MetadataLoader::from_snapshot(&records, id.offset)?;
            }
        }
        let snapshots = snapshots.into_iter().filter(|id| id.offset > 0).collect();
        let checkpointed = descent::read_checkpoint(disk.as_ref(), &dir)?;
        let reserve = Reserve::open(Arc::clone(&disk), dir.join(RESERVE), reserve_bytes)?;
        let this = Self {
            disk,
            dir,
            log,
            snapshots,
            configured,
            checkpointed,
            next_checkpoint_ms: i64::MIN,
            reserve,
            next_reserve_ms: i64::MIN,
        };
        this.for_each_batch(this.log.log_start(), this.log.log_end(), |batch| {
            Ok(membership.apply_batch(batch)?)
        })?;
        let election = this.read_election()?;
        let boot = Boot { election, log: this.position(), membership };
        Ok(Opened { log: this, boot, loader })
    }

    fn position(&self) -> LogPosition {
        let epochs = self.log.leader_epochs().entries();
        let epochs = epochs.map(|(epoch, start_offset)| EpochStart { epoch, start_offset });
        LogPosition {
            start_offset: self.log.log_start(),
            end_offset: self.log.log_end(),
            flushed_offset: self.log.flushed_offset(),
            committed_offset: self.checkpointed,
            epochs: EpochHistory::from_entries(epochs),
            earliest_snapshot: self.snapshots.first().copied(),
            latest_snapshot: self.snapshots.last().copied(),
            ..LogPosition::default()
        }
    }

    fn read_election(&self) -> Result<Option<StoredElection>, MetadataLogError> {
        let path = self.dir.join(QUORUM_STATE);
        if !self.disk.exists(&path)? {
            return Ok(None);
        }
        StoredElection::decode(&self.disk.read(&path)?)
            .map(Some)
            .map_err(|source| MetadataLogError::QuorumState { path, source })
    }

    /// The election is on disk when this returns: the node must not vote twice in an epoch.
    pub(super) fn persist_election(
        &self,
        election: &StoredElection,
    ) -> Result<(), MetadataLogError> {
        let path = self.dir.join(QUORUM_STATE);
        Ok(self.disk.write_atomically(&path, election.encode().as_bytes())?)
    }

    /// After an error that passes, the caller calls this again with the same batch.
    pub(super) fn append(
        &mut self,
        base_offset: Offset,
        epoch: LeaderEpoch,
        batch: &AppendBatch,
        now_ms: i64,
    ) -> Result<(), MetadataLogError> {
        let batch = match batch {
            AppendBatch::EpochStart(batch) => batch.clone().encode(base_offset, epoch)?,
            AppendBatch::Membership(batch) => batch.clone().encode(base_offset, epoch)?,
            AppendBatch::Records(bytes) => RecordBatch::parse(bytes)?,
            AppendBatch::Fetched(batches) => {
                for batch in batches {
                    let first = BatchHeader::parse(batch)?.base_offset;
                    // An earlier attempt may have appended some of the batches.
                    if first >= self.log.log_end() {
                        self.log.append_as_follower(batch.clone(), epoch, now_ms)?;
                    }
                }
                return Ok(());
            }
        };
        let how = LeaderAppend {
            leader_epoch: epoch,
            origin: AppendOrigin::RaftLeader,
            guard: None,
            transaction_version: 0,
        };
        self.log.append_as_leader(&[batch.into()], how, now_ms)?;
        Ok(())
    }

    pub(super) fn truncate(
        &mut self,
        end_offset: Offset,
        now_ms: i64,
    ) -> Result<(), MetadataLogError> {
        self.log.truncate_to(end_offset, now_ms)?;
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), MetadataLogError> {
        Ok(self.log.flush()?)
    }

    /// Closes the log and writes the committed offset, so that the next start has nothing to recover.
    pub(super) fn close(mut self, committed: Offset) -> Result<(), MetadataLogError> {
        self.checkpoint_committed(committed, i64::MAX)?;
        Ok(self.log.close()?)
    }

    /// Whole batches from `offset` on, committed or not: as many as fit into `max_bytes` and `READ_BYTES`, but at least
    /// one.
    pub(super) fn read(&self, offset: Offset, max_bytes: i32) -> Result<Bytes, MetadataLogError> {
        let spec = FetchSpec {
            offset,
            max_bytes: u64::try_from(max_bytes).unwrap_or(0).min(READ_BYTES),
            min_one_message: true,
            upper_bound: self.log.log_end(),
        };
        let Some(slice) = self.log.view().read(spec)?.records else { return Ok(Bytes::new()) };
        let bytes = slice.read()?;
        let whole = Batches::new(bytes.clone()).map_while(Result::ok);
        let len: usize = whole.map(|batch| batch.bytes.len()).sum();
        Ok(bytes.slice(..len))
    }

    /// A chunk of a snapshot for another replica, or the error code for it.
    pub(super) fn read_snapshot_piece(
        &self,
        id: OffsetAndEpoch,
        position: i64,
        max_bytes: i32,
    ) -> Result<Result<SnapshotPiece, ErrorCode>, MetadataLogError> {
        if !self.snapshots.contains(&id) {
            return Ok(Err(ErrorCode::SnapshotNotFound));
        }
        let file = self.disk.open(&self.dir.join(snapshot_name(id)), OpenMode::Read)?;
        let size = file.size()?;
        let Some(position) = u64::try_from(position).ok().filter(|position| *position < size)
        else {
            return Ok(Err(ErrorCode::PositionOutOfRange));
        };
        let wanted = u64::try_from(max_bytes).unwrap_or(0).clamp(1, MAX_SNAPSHOT_PIECE_BYTES);
        let len = usize::try_from(wanted.min(size - position)).expect("a piece fits into memory");
        let mut piece = vec![0; len];
        let read = file.read_at(&mut piece, position)?;
        piece.truncate(read);
        let size = i64::try_from(size).expect("files are shorter than 2^63");
        Ok(Ok(SnapshotPiece { size, bytes: piece.into() }))
    }

    /// Writes a chunk of a snapshot that the leader sends. The incomplete snapshot has the suffix `.part`.
    pub(super) fn write_snapshot_chunk(
        &self,
        id: OffsetAndEpoch,
        position: i64,
        bytes: &[u8],
    ) -> Result<(), MetadataLogError> {
        let path = self.dir.join(part_name(id));
        let mode = if position == 0 { OpenMode::Truncate } else { OpenMode::Write };
        let file = self.disk.open(&path, mode)?;
        let position = u64::try_from(position).expect("pieces follow each other from 0");
        file.write_all_at(&mut [IoSlice::new(bytes)], position)?;
        Ok(())
    }

    /// Renames a received snapshot to its final name and starts the log anew at its end offset. Refuses it, and changes
    /// nothing, if it shares no topic with this node's log (`committed` and the records after it). After an error that
    /// passes, the caller calls this again.
    pub(super) fn load_snapshot(
        &mut self,
        id: OffsetAndEpoch,
        committed: &MetadataLoader,
        now_ms: i64,
    ) -> Result<(MetadataLoader, Membership), MetadataLogError> {
        let (part, path) = (self.dir.join(part_name(id)), self.dir.join(snapshot_name(id)));
        let dir = self.disk.open_dir(&self.dir)?;
        if self.disk.exists(&part)? {
            let records =
                read_snapshot(self.disk.as_ref(), &part, id, &mut self.configured.clone())?;
            self.check_descent(id, &records, committed)?;
            self.disk.open(&part, OpenMode::Write)?.sync_data()?;
            self.disk.rename(&part, &path)?;
            dir.sync()?;
        }
        let mut membership = self.configured.clone();
        let records = read_snapshot(self.disk.as_ref(), &path, id, &mut membership)?;
        let loader = MetadataLoader::from_snapshot(&records, id.offset)?;
        self.log.truncate_fully_and_start_at(id.offset, now_ms)?;
        for older in self.snapshots.iter().filter(|older| **older != id) {
            self.disk.remove_file_if_exists(&self.dir.join(snapshot_name(*older)))?;
        }
        self.snapshots = vec![id];
        info!("loaded the metadata snapshot at offset {} from the leader", id.offset);
        Ok((loader, membership))
    }

    /// The directory of the log and its snapshots.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes of the log.
    pub(super) fn size(&self) -> u64 {
        self.log.size()
    }

    /// The id of a snapshot of everything below `end_offset`; `None` if the log has no record, or a snapshot already
    /// contains all of them.
    pub(super) fn next_snapshot(&self, end_offset: Offset) -> Option<OffsetAndEpoch> {
        let epoch = self.log.leader_epochs().epoch_of(end_offset - 1)?;
        let known = self.snapshots.last().is_some_and(|last| last.offset >= end_offset);
        (!known).then_some(OffsetAndEpoch { offset: end_offset, epoch })
    }

    /// Writes a snapshot. A crash leaves the whole file or none.
    pub(super) fn write_snapshot(
        &mut self,
        id: OffsetAndEpoch,
        contents: &[u8],
    ) -> Result<(), MetadataLogError> {
        self.disk.write_atomically(&self.dir.join(snapshot_name(id)), contents)?;
        self.snapshots.push(id);
        info!("metadata snapshot at offset {} written ({} bytes)", id.offset, contents.len());
        Ok(())
    }

    /// Deletes the oldest snapshots until the rest and the log are within `max_bytes`, but never the newest one, and
    /// deletes the log below the oldest snapshot that remains. Returns the new log start and that snapshot if it
    /// deleted anything.
    pub(super) fn clean(
        &mut self,
        max_bytes: u64,
        now: Now,
    ) -> Result<Option<(Offset, OffsetAndEpoch)>, MetadataLogError> {
        let mut sizes = Vec::with_capacity(self.snapshots.len());
        for id in &self.snapshots {
            let file = self.disk.open(&self.dir.join(snapshot_name(*id)), OpenMode::Read)?;
            sizes.push(file.size()?);
        }
        let mut total = self.log.size() + sizes.iter().sum::<u64>();
        let mut cleaned = None;
        for size in sizes {
            if total <= max_bytes || self.snapshots.len() < 2 {
                break;
            }
            self.disk.remove_file_if_exists(&self.dir.join(snapshot_name(self.snapshots[0])))?;
            self.snapshots.remove(0);
            let before = self.log.size();
            self.log.delete_records(self.snapshots[0].offset)?;
            self.log.apply_retention(now)?;
            total = total.saturating_sub(size + before - self.log.size());
            cleaned = Some((self.log.log_start(), self.snapshots[0]));
        }
        Ok(cleaned)
    }

    /// Replays the records below `end_offset` that the loader does not have.
    pub(super) fn replay(
        &mut self,
        loader: &mut MetadataLoader,
        end_offset: Offset,
    ) -> Result<(), MetadataLogError> {
        self.log.set_high_watermark(end_offset);
        let start = loader.end_offset();
        self.for_each_batch(start, end_offset, |batch| replay_batch(batch, loader, &mut |_| {}))
    }

    /// Replays the whole log, committed or not, and calls `on_record` with every record.
    pub(crate) fn replay_all(
        &mut self,
        loader: &mut MetadataLoader,
        on_record: &mut dyn FnMut(&MetadataRecord),
    ) -> Result<(), MetadataLogError> {
        let (start, end) = (loader.end_offset(), self.log.log_end());
        self.log.set_high_watermark(end);
        self.for_each_batch(start, end, |batch| replay_batch(batch, loader, on_record))
    }

    fn for_each_batch(
        &self,
        start_offset: Offset,
        end_offset: Offset,
        mut each: impl FnMut(&RecordBatch) -> Result<(), MetadataLogError>,
    ) -> Result<(), MetadataLogError> {
        let view = self.log.view();
        let mut offset = start_offset;
        while offset < end_offset {
            let spec = FetchSpec {
                offset,
                max_bytes: READ_BYTES,
                min_one_message: true,
                upper_bound: end_offset,
            };
            let Some(slice) = view.read(spec)?.records else { break };
            let before = offset;
            for batch in Batches::new(slice.read()?) {
                // A read may end inside a batch. The next read begins with that batch.
                let Ok(batch) = batch else { break };
                if batch.header.base_offset >= end_offset {
                    return Ok(());
                }
                batch.check_crc()?;
                each(&batch)?;
                offset = batch.header.next_offset();
            }
            assert!(offset > before, "a read returns at least one whole batch");
        }
        Ok(())
    }
}

/// Applies a batch of the log.
fn replay_batch(
    batch: &RecordBatch,
    loader: &mut MetadataLoader,
    on_record: &mut dyn FnMut(&MetadataRecord),
) -> Result<(), MetadataLogError> {
    if batch.header.is_control() {
        loader.skip_to(batch.header.next_offset());
        return Ok(());
    }
    for record in batch.records(MAX_BATCH_BYTES)? {
        let record = record?;
        let metadata = metadata_record(record.value)?;
        on_record(&metadata);
        loader.replay(&metadata, record.offset)?;
    }
    Ok(())
}

fn metadata_record(value: Option<Bytes>) -> Result<MetadataRecord, MetadataLogError> {
    Ok(MetadataRecord::from_frame(value.unwrap_or_default())?)
}

/// The snapshots in a directory, oldest first. `0-0` is of formatting and contains the voters.
fn snapshots(disk: &dyn Disk, dir: &Path) -> Result<Vec<OffsetAndEpoch>, MetadataLogError> {
    let names = disk.list(dir)?;
    let mut ids: Vec<_> = names.iter().filter_map(|entry| snapshot_id(&entry.name)).collect();
    ids.sort_unstable_by_key(|id| (id.offset, id.epoch));
    Ok(ids)
}

/// Parses `00000000000000000123-0000000004.checkpoint`: end offset and epoch (Kafka's `Snapshots`).
fn snapshot_id(name: &str) -> Option<OffsetAndEpoch> {
    let (offset, epoch) = name.strip_suffix(SNAPSHOT_SUFFIX)?.split_once('-')?;
    Some(OffsetAndEpoch { offset: offset.parse().ok()?, epoch: epoch.parse().ok()? })
}

/// The file name of a snapshot that is still being received.
fn part_name(id: OffsetAndEpoch) -> String {
    format!("{}.part", snapshot_name(id))
}

fn snapshot_name(id: OffsetAndEpoch) -> String {
    format!("{:020}-{:010}{SNAPSHOT_SUFFIX}", id.offset, id.epoch)
}

/// Reads the metadata records of a snapshot, and applies its control records to `membership`.
fn read_snapshot(
    disk: &dyn Disk,
    path: &Path,
    id: OffsetAndEpoch,
    membership: &mut Membership,
) -> Result<Vec<MetadataRecord>, MetadataLogError> {
    let mut records = Vec::new();
    for batch in Batches::new(disk.read(path)?.into()) {
        let batch = batch?;
        batch.check_crc()?;
        if batch.header.is_control() {
            membership.apply_snapshot_batch(id.offset, &batch)?;
            continue;
        }
        for record in batch.records(MAX_BATCH_BYTES)? {
            records.push(metadata_record(record?.value)?);
        }
    }
    Ok(records)
}

/// The records of `bootstrap.checkpoint`, which formatting writes for the first controller; `None` if there is no such
/// file.
pub(crate) fn read_bootstrap(
    disk: &dyn Disk,
    metadata_dir: &Path,
) -> Result<Option<Vec<MetadataRecord>>, MetadataLogError> {
    let path = metadata_dir.join(BOOTSTRAP_CHECKPOINT);
    if !disk.exists(&path)? {
        return Ok(None);
    }
    let mut records = Vec::new();
    for batch in Batches::new(disk.read(&path)?.into()) {
        let batch = batch?;
        batch.check_crc()?;
        if !batch.header.is_control() {
            for record in batch.records(MAX_BATCH_BYTES)? {
                records.push(metadata_record(record?.value)?);
            }
        }
    }
    Ok(Some(records))
}

/// Writes `bootstrap.checkpoint` to the log directories of a new cluster, as formatting does.
pub(crate) fn write_bootstrap(
    disk: &dyn Disk,
    log_dirs: &[PathBuf],
    records: &[MetadataRecord],
    wall_ms: i64,
) -> Result<(), MetadataLogError> {
    let contents = bootstrap_checkpoint(records, wall_ms)?;
    for dir in log_dirs {
        disk.write_atomically(&dir.join(BOOTSTRAP_CHECKPOINT), &contents)?;
    }
    Ok(())
}

/// The metadata log has no retention by time or size: only records below a snapshot are deleted.
fn config() -> LogConfig {
    LogConfig {
        cleanup_policy: CleanupPolicy { delete: false, compact: false },
        retention_ms: -1,
        retention_bytes: -1,
        max_message_bytes: u32::try_from(MAX_BATCH_BYTES).expect("8 MiB fit"),
        ..LogConfig::default()
    }
}

/// Whether a snapshot is ahead of the log. Then the log ends before the snapshot, or its last epoch is older: truncated
/// records that a power failure has brought back (Kafka: `truncateToLatestSnapshot`).
fn is_ahead(snapshot: OffsetAndEpoch, last_epoch: Option<LeaderEpoch>, log_end: Offset) -> bool {
    log_end < snapshot.offset || last_epoch.is_some_and(|epoch| epoch < snapshot.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_ends_before_the_snapshot_or_in_an_older_epoch_is_replaced_by_it() {
        let snapshot = OffsetAndEpoch { offset: 56, epoch: 2 };
        assert!(is_ahead(snapshot, Some(2), 55));
        assert!(is_ahead(snapshot, Some(1), 58));
        assert!(!is_ahead(snapshot, Some(2), 56));
        assert!(!is_ahead(snapshot, Some(3), 60));
        // A log that starts at the snapshot and is still empty.
        assert!(!is_ahead(snapshot, None, 56));
    }

    #[test]
    fn snapshot_names_are_read_and_others_are_not() {
        let id = snapshot_id("00000000000000000123-0000000004.checkpoint");
        assert_eq!(id, Some(OffsetAndEpoch { offset: 123, epoch: 4 }));
        assert_eq!(snapshot_name(id.unwrap()), "00000000000000000123-0000000004.checkpoint");
        for name in ["00000000000000000123.log", "x-1.checkpoint", "1-2.checkpoint.part"] {
            assert_eq!(snapshot_id(name), None, "{name}");
        }
    }
}
