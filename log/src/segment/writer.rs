//! Changes of a segment, by its log's owner only.

use super::{IndexState, Indexes, Segment, as_u64};
use crate::config::LogConfig;
use crate::disk::{DiskError, DiskFile, OpenMode};
use crate::error::{LogError, ReadError};
use crate::file_name::{DELETED_SUFFIX, FileKind};
use crate::offset_index::{self, OffsetIndex};
use crate::time_index;
use crate::txn_index::AbortedTxn;
use klamm_protocol::batch::BatchHeader;
use klamm_protocol::ids::Offset;
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

impl Segment {
    /// Appends batches. `slices` are the bytes of the batches of `headers`.
    ///
    /// After an error none of them is part of the segment.
    pub(crate) fn append(
        &self,
        slices: &mut [IoSlice<'_>],
        headers: &[BatchHeader],
        interval_bytes: u32,
    ) -> Result<(), DiskError> {
        let file = self.file()?;
        self.cut_excess(file.as_ref())?;
        let start = self.size();
        self.set_written();
        if let Err(error) = file.write_all_at(slices, start) {
            // A partial batch must not remain after a shorter one that overwrites it.
            self.excess.store(true, Ordering::Release);
            return match self.cut_excess(file.as_ref()) {
                Err(worse) if !worse.passes() => Err(worse),
                _ => Err(error),
            };
        }
        let mut state = self.write_indexes();
        let IndexState::Live(indexes) = &mut *state else {
            unreachable!("only the active segment is appended to, and its indexes are live");
        };
        let mut position = start;
        for header in headers {
            indexes.on_batch(position, header, interval_bytes);
            position += as_u64(header.size());
        }
        self.size.store(position, Ordering::Release);
        Ok(())
    }

    /// Removes bytes of a failed append after the last batch, durably: for a segment that will not be appended to any
    /// more.
    pub(crate) fn settle_excess(&self) -> Result<(), DiskError> {
        if !self.excess.load(Ordering::Acquire) {
            return Ok(());
        }
        let file = self.file()?;
        self.cut_excess(file.as_ref())?;
        file.sync_data()
    }

    fn cut_excess(&self, file: &dyn DiskFile) -> Result<(), DiskError> {
        if self.excess.load(Ordering::Acquire) {
            file.set_size(self.size())?;
            self.excess.store(false, Ordering::Release);
        }
        Ok(())
    }

    pub(crate) fn append_aborted(&self, txn: AbortedTxn) {
        self.txns.write().unwrap_or_else(PoisonError::into_inner).append(txn);
    }

    /// Whether batches of `bytes`, up to `last_offset` and `timestamp`, must go to a new segment.
    pub(crate) fn must_roll(&self, roll: &RollCheck<'_>) -> bool {
        let size = self.size();
        let state = self.read_indexes();
        let IndexState::Live(indexes) = &*state else { return true };
        size + roll.bytes > u64::from(roll.config.segment_bytes)
            || size > 0 && is_old(indexes, roll)
            || indexes.offset.len() >= roll.config.index_entries(offset_index::ENTRY_SIZE)
            || indexes.time.len() + 1 >= roll.config.index_entries(time_index::ENTRY_SIZE)
            || !OffsetIndex::can_hold(self.base_offset, roll.last_offset)
    }

    /// Seals the segment: no batch follows.
    pub(crate) fn seal(&self) {
        if let IndexState::Live(indexes) = &mut *self.write_indexes() {
            indexes.seal();
        }
    }

    /// Whether the index files are missing or older than the indexes in memory.
    pub(crate) fn needs_index_files(&self) -> bool {
        matches!(*self.read_indexes(), IndexState::Live(_))
    }

    /// Writes and syncs the index files of a sealed segment whose bytes are synced.
    ///
    /// `.index` is written last: if it exists, the others are complete.
    pub(crate) fn write_index_files(&self) -> Result<(), DiskError> {
        let contents = match &*self.read_indexes() {
            IndexState::Live(indexes) => (indexes.offset.encode(), indexes.time.encode()),
            IndexState::Cached(_) | IndexState::OnDisk => return Ok(()),
        };
        let disk = &self.home.disk;
        let txns = self.txns.read().unwrap_or_else(PoisonError::into_inner).clone();
        let txn_path = self.path(FileKind::TxnIndex);
        if txns.is_empty() {
            disk.remove_file_if_exists(&txn_path)?;
        } else {
            disk.write_synced(&txn_path, &txns.encode())?;
        }
        disk.write_synced(&self.path(FileKind::TimeIndex), &contents.1)?;
        // Synced first: if a power cut lost the names of these two and kept `.index`, their absence would not be
        // noticed.
        self.home.sync()?;
        disk.write_synced(&self.path(FileKind::OffsetIndex), &contents.0)?;
        self.home.sync()
    }

    /// The index files are complete: keeps fewer entries in memory.
    pub(crate) fn on_index_files_written(&self) {
        let mut state = self.write_indexes();
        if let IndexState::Live(indexes) = std::mem::replace(&mut *state, IndexState::OnDisk) {
            let mut indexes = indexes;
            indexes.thin_out();
            *state = IndexState::Cached(indexes);
        }
    }

    /// Removes the batch that contains `offset` and all later ones, in memory: no reader sees them any more. After
    /// [`Self::finish_truncation`] the segment can be appended to. After an error nothing has changed.
    pub(crate) fn begin_truncation(&self, offset: Offset, now_ms: i64) -> Result<(), ReadError> {
        let size = self.size();
        let end = self.find(offset, size)?.map_or(size, |batch| batch.position);
        let file = self.file()?;
        let indexes = self.index_batches(file.as_ref(), end, now_ms)?;
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.set_written();
        // Bytes of a failed append after the end stay excess.
        self.excess.fetch_or(end < size, Ordering::AcqRel);
        self.size.store(end, Ordering::Release);
        *self.write_indexes() = IndexState::Live(indexes);
        self.txns.write().unwrap_or_else(PoisonError::into_inner).truncate_to(offset);
        Ok(())
    }

    /// Applies a truncation to the files, durably: removes the index, truncates the records, creates the file of a new
    /// segment. Call it again after a retriable error.
    pub(crate) fn finish_truncation(&self) -> Result<(), DiskError> {
        if self.absent.load(Ordering::Acquire) {
            let file = self.home.disk.open(&self.path(FileKind::Log), OpenMode::Truncate)?;
            self.absent.store(false, Ordering::Release);
            self.unsynced.store(true, Ordering::Release);
            self.keep(file);
            return self.home.sync();
        }
        self.home.disk.remove_file_if_exists(&self.path(FileKind::OffsetIndex))?;
        self.home.sync()?;
        if self.excess.load(Ordering::Acquire) {
            let file = self.file()?;
            self.cut_excess(file.as_ref())?;
            file.sync_data()?;
        }
        Ok(())
    }

    /// Marks the files for deletion with the suffix `.deleted`. Views can still read them.
    ///
    /// Call it again after a retriable error.
    pub(crate) fn mark_deleted(&self) -> Result<(), LogError> {
        self.deleted.store(true, Ordering::Release);
        for kind in FileKind::OF_A_SEGMENT {
            let name = kind.name(self.base_offset);
            let marked = format!("{name}{DELETED_SUFFIX}");
            match self.home.disk.rename(&self.home.file(&name), &self.home.file(&marked)) {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the files of a segment marked for deletion.
    pub(crate) fn remove_files(&self) -> Result<(), LogError> {
        for kind in FileKind::OF_A_SEGMENT {
            self.home.disk.remove_file_if_exists(&self.path(kind))?;
        }
        Ok(())
    }

    fn path(&self, kind: FileKind) -> PathBuf {
        self.home.file(&self.name(kind))
    }
}

/// The conditions for rolling a segment before an append.
#[derive(Debug)]
pub(crate) struct RollCheck<'a> {
    pub(crate) config: &'a LogConfig,
    /// `segment.ms` less the segment's jitter.
    pub(crate) segment_ms: i64,
    pub(crate) bytes: u64,
    pub(crate) last_offset: Offset,
    pub(crate) max_timestamp: i64,
    pub(crate) now_ms: i64,
}

/// The age is the difference of record timestamps if the first batch has one, else the time since creation.
fn is_old(indexes: &Indexes, roll: &RollCheck<'_>) -> bool {
    let age = match indexes.first_timestamp {
        Some(first) if first >= 0 => roll.max_timestamp.saturating_sub(first),
        _ => roll.now_ms.saturating_sub(indexes.created_ms),
    };
    age > roll.segment_ms
}
