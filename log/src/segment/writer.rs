//! How a segment changes: by its log's owner alone.

use super::{IndexState, Indexes, Segment, as_u64};
use crate::config::LogConfig;
use crate::disk::{DiskError, DiskFile};
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
    /// Writes batches behind the last one. `slices` are the bytes of the batches of `headers`.
    ///
    /// After an error nothing of them is part of the segment.
    pub(crate) fn append(
        &self,
        slices: &mut [IoSlice<'_>],
        headers: &[BatchHeader],
        interval_bytes: u32,
    ) -> Result<(), DiskError> {
        let file = self.file()?;
        let start = self.size();
        self.set_unsynced(true);
        if let Err(error) = file.write_all_at(slices, start) {
            // Half a batch must not stay behind a shorter one that is written over it.
            file.set_size(start)?;
            return Err(error);
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

    pub(crate) fn append_aborted(&self, txn: AbortedTxn) {
        self.txns.write().unwrap_or_else(PoisonError::into_inner).append(txn);
    }

    /// Whether batches of `bytes`, up to `last_offset` and `timestamp`, belong into the next segment.
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

    /// No batch follows any more.
    pub(crate) fn seal(&self) {
        if let IndexState::Live(indexes) = &mut *self.write_indexes() {
            indexes.seal();
        }
    }

    /// Whether the index files are missing or older than memory.
    pub(crate) fn needs_index_files(&self) -> bool {
        matches!(*self.read_indexes(), IndexState::Live(_))
    }

    /// Writes and syncs the index files of a sealed segment whose bytes are synced.
    ///
    /// `.index` comes last: whoever finds it may trust the others.
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
        // Had the names of these two been lost in a power cut and this one kept, they would be missed.
        self.home.sync()?;
        disk.write_synced(&self.path(FileKind::OffsetIndex), &contents.0)?;
        self.home.sync()
    }

    /// The index files are complete: memory keeps fewer entries.
    pub(crate) fn on_index_files_written(&self) {
        let mut state = self.write_indexes();
        if let IndexState::Live(indexes) = std::mem::replace(&mut *state, IndexState::OnDisk) {
            let mut indexes = indexes;
            indexes.thin_out();
            *state = IndexState::Cached(indexes);
        }
    }

    /// Cuts the batch that holds `offset` and all that follow, durably. The segment is then one to
    /// append to: its index no longer counts.
    pub(crate) fn truncate_to(&self, offset: Offset, now_ms: i64) -> Result<(), ReadError> {
        let size = self.size();
        let end = self.find(offset, size)?.map_or(size, |batch| batch.position);
        self.make_active(end, now_ms)?;
        self.txns.write().unwrap_or_else(PoisonError::into_inner).truncate_to(offset);
        Ok(())
    }

    /// Makes a sealed segment the active one, with its first `end` bytes.
    pub(crate) fn make_active(&self, end: u64, now_ms: i64) -> Result<(), ReadError> {
        let file = self.file()?;
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.set_unsynced(true);
        self.home.disk.remove_file_if_exists(&self.path(FileKind::OffsetIndex))?;
        self.home.sync()?;
        cut(file.as_ref(), self.size(), end)?;
        self.size.store(end, Ordering::Release);
        let indexes = self.index_batches(file.as_ref(), end, now_ms)?;
        *self.write_indexes() = IndexState::Live(indexes);
        Ok(())
    }

    /// Marks the files for deletion: they get the suffix `.deleted`. Views read them as before.
    pub(crate) fn mark_deleted(&self) -> Result<(), LogError> {
        let names = FileKind::OF_A_SEGMENT.map(|kind| self.path(kind));
        self.deleted.store(true, Ordering::Release);
        for path in names {
            let mut marked = path.clone().into_os_string();
            marked.push(DELETED_SUFFIX);
            match self.home.disk.rename(&path, &PathBuf::from(marked)) {
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

/// What decides whether a segment rolls before an append.
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

/// The age counts between record timestamps where the first batch has one, else from creation.
fn is_old(indexes: &Indexes, roll: &RollCheck<'_>) -> bool {
    let age = match indexes.first_timestamp {
        Some(first) if first >= 0 => roll.max_timestamp.saturating_sub(first),
        _ => roll.now_ms.saturating_sub(indexes.created_ms),
    };
    age > roll.segment_ms
}

fn cut(file: &dyn DiskFile, size: u64, end: u64) -> Result<(), DiskError> {
    if end < size {
        file.set_size(end)?;
        file.sync_data()?;
    }
    Ok(())
}
