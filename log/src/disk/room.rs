//! A disk whose opens make room: if no file descriptor is left, idle segment files are closed and the operation is
//! retried once.
//!
//! All opens of files in a log directory go through it: segments, indexes, snapshots, checkpoints, and directories that
//! are listed or synced.

use super::{DirEntry, Disk, DiskDir, DiskError, DiskFile, DiskLock, DiskSpace, OpenMode};
use crate::open_files::OpenFiles;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub struct RoomyDisk {
    below: Arc<dyn Disk>,
    files: Arc<OpenFiles>,
}

impl RoomyDisk {
    /// `files` are the files that may be closed.
    pub fn over(below: Arc<dyn Disk>, files: Arc<OpenFiles>) -> Arc<dyn Disk> {
        Arc::new(Self { below, files })
    }

    fn with_room<T>(
        &self,
        open: impl Fn(&dyn Disk) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        match open(self.below.as_ref()) {
            Err(error) if error.is_out_of_file_descriptors() => {
                self.files.close_idle();
                open(self.below.as_ref())
            }
            outcome => outcome,
        }
    }
}

impl Disk for RoomyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.with_room(|disk| disk.open(path, mode))
    }

    fn open_dir(&self, path: &Path) -> Result<Box<dyn DiskDir>, DiskError> {
        self.with_room(|disk| disk.open_dir(path))
    }

    fn list(&self, path: &Path) -> Result<Vec<DirEntry>, DiskError> {
        self.with_room(|disk| disk.list(path))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, DiskError> {
        self.with_room(|disk| disk.lock(path))
    }

    /// The removal lists the directory first, which opens it.
    fn remove_dir_all(&self, path: &Path) -> Result<(), DiskError> {
        self.with_room(|disk| disk.remove_dir_all(path))
    }

    fn allocate(&self, path: &Path, size: u64) -> Result<(), DiskError> {
        self.with_room(|disk| disk.allocate(path, size))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.below.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<(), DiskError> {
        self.below.remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> Result<(), DiskError> {
        self.below.create_dir_all(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, DiskError> {
        self.below.exists(path)
    }

    fn canonical(&self, path: &Path) -> Result<PathBuf, DiskError> {
        self.below.canonical(path)
    }

    fn space(&self, path: &Path) -> Result<DiskSpace, DiskError> {
        self.below.space(path)
    }
}
