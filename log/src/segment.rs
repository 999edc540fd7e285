//! One segment: a `.log` file of record batches with its indexes and state. Shared between the log's owner, which alone
//! appends and truncates, and any number of readers.
//!
//! Invariants: bytes below `size` are complete batches in offset order. The indexes are hints: a reader checks the
//! batch that it finds. Index files exist on disk only for a segment whose bytes were synced before, so a segment
//! without `.index` needs recovery. Truncation increments `generation` before any change, so that a concurrent reader
//! notices it and takes a new view.

mod indexes;
mod lookup;
mod scan;
mod verify;
mod writer;

pub(crate) use indexes::Indexes;
pub(crate) use scan::{BatchAt, BatchScan, ScanError, as_u64, index};
pub(crate) use writer::RollCheck;

use crate::disk::{Disk, DiskError, DiskFile, OpenMode};
use crate::file_name::{DELETED_SUFFIX, FileKind};
use crate::open_files::{Evict, OpenFiles};
use crate::txn_index::TxnIndex;
use klamm_protocol::ids::Offset;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};

/// The directory of one partition, which may be renamed while segments are read.
#[derive(Debug)]
pub(crate) struct PartitionHome {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) files: Arc<OpenFiles>,
    path: RwLock<PathBuf>,
}

impl PartitionHome {
    pub(crate) fn new(disk: Arc<dyn Disk>, files: Arc<OpenFiles>, path: PathBuf) -> Arc<Self> {
        Arc::new(Self { disk, files, path: RwLock::new(path) })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Renames the directory. Concurrent opens wait and then use the new name.
    pub(crate) fn rename_to(&self, to: &Path) -> Result<(), DiskError> {
        let mut path = self.path.write().unwrap_or_else(PoisonError::into_inner);
        self.disk.rename(&path, to)?;
        *path = to.to_path_buf();
        Ok(())
    }

    /// Opens a file by its name in the directory.
    pub(crate) fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError> {
        let path = self.path.read().unwrap_or_else(PoisonError::into_inner);
        self.disk.open(&path.join(name), mode)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.read().unwrap_or_else(PoisonError::into_inner).join(name)
    }

    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        self.disk.sync_dir(&self.path())
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Segment {
    base_offset: Offset,
    home: Arc<PartitionHome>,
    /// A weak pointer to itself, for the registry of open files.
    own: Weak<Self>,
    handle: Mutex<Option<Arc<dyn DiskFile>>>,
    last_used: AtomicU64,
    size: AtomicU64,
    unsynced: AtomicBool,
    /// Bytes were written through the handle since the last sync.
    written: AtomicBool,
    generation: AtomicU64,
    /// The files have the `.deleted` suffix, or are removed.
    deleted: AtomicBool,
    /// The file does not exist yet: see [`Self::planned`].
    absent: AtomicBool,
    /// The file may have bytes after `size`, which must be removed before the next write.
    excess: AtomicBool,
    indexes: RwLock<IndexState>,
    txns: RwLock<TxnIndex>,
}

/// Whether the indexes are in memory.
#[derive(Debug)]
enum IndexState {
    /// In memory, newer than the files.
    Live(Indexes),
    /// In memory with fewer entries, and complete in the files.
    Cached(Indexes),
    OnDisk,
}

impl Segment {
    /// Creates an empty segment at an offset. Its name is durable after a sync of the directory.
    pub(crate) fn create(
        home: &Arc<PartitionHome>,
        base_offset: Offset,
        now_ms: i64,
    ) -> Result<Arc<Self>, DiskError> {
        let path = home.file(&FileKind::Log.name(base_offset));
        let file = home.disk.open(&path, OpenMode::Truncate)?;
        let live = IndexState::Live(Indexes::new(base_offset, now_ms));
        let segment = Self::new(home, base_offset, 0, live, TxnIndex::default());
        segment.unsynced.store(true, Ordering::Relaxed);
        segment.keep(file);
        Ok(segment)
    }

    /// An empty segment at an offset, whose file [`Self::finish_truncation`] creates: until then the file of another
    /// segment may have its name.
    pub(crate) fn planned(
        home: &Arc<PartitionHome>,
        base_offset: Offset,
        now_ms: i64,
    ) -> Arc<Self> {
        let live = IndexState::Live(Indexes::new(base_offset, now_ms));
        let segment = Self::new(home, base_offset, 0, live, TxnIndex::default());
        segment.absent.store(true, Ordering::Release);
        segment
    }

    /// A segment whose files are complete on disk.
    pub(crate) fn sealed(
        home: &Arc<PartitionHome>,
        base_offset: Offset,
        size: u64,
        txns: TxnIndex,
    ) -> Arc<Self> {
        Self::new(home, base_offset, size, IndexState::OnDisk, txns)
    }

    /// A segment whose indexes were just rebuilt and are not on disk.
    pub(crate) fn rebuilt(
        home: &Arc<PartitionHome>,
        size: u64,
        indexes: Indexes,
        txns: TxnIndex,
    ) -> Arc<Self> {
        let base_offset = indexes.base_offset();
        let segment = Self::new(home, base_offset, size, IndexState::Live(indexes), txns);
        segment.unsynced.store(true, Ordering::Relaxed);
        segment
    }

    fn new(
        home: &Arc<PartitionHome>,
        base_offset: Offset,
        size: u64,
        indexes: IndexState,
        txns: TxnIndex,
    ) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            base_offset,
            home: Arc::clone(home),
            own: Weak::clone(own),
            handle: Mutex::new(None),
            last_used: AtomicU64::new(0),
            size: AtomicU64::new(size),
            unsynced: AtomicBool::new(false),
            written: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            deleted: AtomicBool::new(false),
            absent: AtomicBool::new(false),
            excess: AtomicBool::new(false),
            indexes: RwLock::new(indexes),
            txns: RwLock::new(txns),
        })
    }

    pub(crate) fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// The size of the complete batches in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// All bytes are synced or no longer needed: the handle may be closed.
    pub(crate) fn set_synced(&self) {
        self.unsynced.store(false, Ordering::Release);
        self.written.store(false, Ordering::Release);
    }

    /// There are unsynced bytes: the handle stays open.
    fn set_written(&self) {
        self.unsynced.store(true, Ordering::Release);
        self.written.store(true, Ordering::Release);
    }

    pub(crate) fn is_unsynced(&self) -> bool {
        self.unsynced.load(Ordering::Acquire)
    }

    fn name(&self, kind: FileKind) -> String {
        let suffix = if self.is_deleted() { DELETED_SUFFIX } else { "" };
        kind.name(self.base_offset) + suffix
    }

    /// The open `.log` file, opened again if it was closed as idle.
    pub(crate) fn file(&self) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.last_used.store(self.home.files.tick(), Ordering::Relaxed);
        if let Some(file) = &*self.lock_handle() {
            return Ok(Arc::clone(file));
        }
        let file = self.home.open(&self.name(FileKind::Log), OpenMode::Write)?;
        Ok(self.keep(file))
    }

    /// Whether closing the handle could lose a write error.
    fn needs_handle(&self) -> bool {
        self.written.load(Ordering::Acquire)
    }

    /// Stores a handle and registers it, unless another thread has stored one.
    fn keep(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let mut handle = self.lock_handle();
        if let Some(file) = &*handle {
            return Arc::clone(file);
        }
        *handle = Some(Arc::clone(&file));
        // The lock is released first, because the registry may close files, this one too.
        drop(handle);
        let own: Weak<Self> = Weak::clone(&self.own);
        self.home.files.opened(own);
        file
    }

    fn lock_handle(&self) -> MutexGuard<'_, Option<Arc<dyn DiskFile>>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_indexes(&self) -> RwLockReadGuard<'_, IndexState> {
        self.indexes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_indexes(&self) -> RwLockWriteGuard<'_, IndexState> {
        self.indexes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Evict for Segment {
    fn last_used(&self) -> Option<u64> {
        (!self.needs_handle()).then(|| self.last_used.load(Ordering::Relaxed))
    }

    fn evict(&self) -> bool {
        if self.needs_handle() || self.is_deleted() {
            return false;
        }
        // Two threads may evict each other's segments, so neither waits for a lock.
        let (Ok(mut indexes), Ok(mut handle)) = (self.indexes.try_write(), self.handle.try_lock())
        else {
            return false;
        };
        if matches!(*indexes, IndexState::Cached(_)) {
            *indexes = IndexState::OnDisk;
        }
        *handle = None;
        true
    }
}
