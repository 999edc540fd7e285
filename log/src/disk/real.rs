//! The operating system's disk: translates [`Disk`] to system calls.

use super::{
    DirEntry, Disk, DiskDir, DiskError, DiskFile, DiskLock, DiskSpace, OpenMode, Operation,
    fill_with_zeros, plain,
};
use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// The files of this machine.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile {
    file: File,
    /// The path at which it was opened. It may have been renamed since, so the path is for messages only.
    opened_as: PathBuf,
}

impl RealFile {
    fn error(&self, operation: Operation) -> impl FnOnce(io::Error) -> DiskError {
        DiskError::during(operation, &self.opened_as)
    }
}

impl DiskFile for RealFile {
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], position: u64) -> Result<(), DiskError> {
        write_all(&self.file, slices, position).map_err(self.error(Operation::Write))
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> Result<usize, DiskError> {
        let mut read = 0;
        while read < buffer.len() {
            match self.file.read_at(&mut buffer[read..], position + as_u64(read)) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(Operation::Read)(error)),
            }
        }
        Ok(read)
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(self.error(Operation::Sync))
    }

    fn set_size(&self, size: u64) -> Result<(), DiskError> {
        self.file.set_len(size).map_err(self.error(Operation::Resize))
    }

    fn size(&self) -> Result<u64, DiskError> {
        Ok(self.file.metadata().map_err(self.error(Operation::Stat))?.len())
    }

    fn modified_ms(&self) -> Result<i64, DiskError> {
        let modified = self.file.metadata().and_then(|metadata| metadata.modified());
        let modified = modified.map_err(self.error(Operation::Stat))?;
        let since_epoch = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

/// `pwritev` until everything is written: one system call, unless the kernel writes only a part.
fn write_all(file: &File, mut slices: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
    let mut position = position;
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match rustix::io::pwritev(file, slices, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                position += as_u64(written);
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).expect("usize fits in 64 bits")
}

#[derive(Debug)]
struct RealDir {
    file: File,
    opened_as: PathBuf,
}

impl DiskDir for RealDir {
    fn sync(&self) -> Result<(), DiskError> {
        self.file.sync_all().map_err(DiskError::during(Operation::SyncDir, &self.opened_as))
    }
}

/// Both kinds of lock: POSIX record locks exclude a Java broker (`FileChannel.lock`), and `flock` excludes a second
/// server in this process, which record locks cannot.
#[derive(Debug)]
struct RealLock {
    #[expect(dead_code, reason = "closing the file releases the locks")]
    file: File,
}

impl DiskLock for RealLock {}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError> {
        let file = OpenOptions::new()
            .read(true)
            .write(mode != OpenMode::Read)
            .create(matches!(mode, OpenMode::Create | OpenMode::Truncate))
            .truncate(mode == OpenMode::Truncate)
            .open(path)
            .map_err(DiskError::during(Operation::Open, path))?;
        Ok(Arc::new(RealFile { file, opened_as: path.to_path_buf() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        fs::rename(from, to).map_err(DiskError::during(Operation::Rename, from))
    }

    fn remove_file(&self, path: &Path) -> Result<(), DiskError> {
        fs::remove_file(path).map_err(DiskError::during(Operation::Remove, path))
    }

    fn create_dir_all(&self, path: &Path) -> Result<(), DiskError> {
        fs::create_dir_all(path).map_err(DiskError::during(Operation::CreateDir, path))
    }

    fn remove_dir_all(&self, path: &Path) -> Result<(), DiskError> {
        fs::remove_dir_all(path).map_err(DiskError::during(Operation::Remove, path))
    }

    fn open_dir(&self, path: &Path) -> Result<Box<dyn DiskDir>, DiskError> {
        let file = File::open(path).map_err(DiskError::during(Operation::Open, path))?;
        Ok(Box::new(RealDir { file, opened_as: path.to_path_buf() }))
    }

    fn list(&self, path: &Path) -> Result<Vec<DirEntry>, DiskError> {
        list(path).map_err(DiskError::during(Operation::List, path))
    }

    fn exists(&self, path: &Path) -> Result<bool, DiskError> {
        path.try_exists().map_err(DiskError::during(Operation::Stat, path))
    }

    fn canonical(&self, path: &Path) -> Result<PathBuf, DiskError> {
        match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let absolute = std::path::absolute(path);
                Ok(plain(&absolute.map_err(DiskError::during(Operation::Stat, path))?))
            }
            found => found.map_err(DiskError::during(Operation::Stat, path)),
        }
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, DiskError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(DiskError::during(Operation::Open, path))?;
        let locked = match file.try_lock() {
            Ok(()) => rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)
                .map_err(|error| match error {
                    Errno::ACCESS => io::ErrorKind::WouldBlock.into(),
                    error => error.into(),
                }),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        };
        locked.map_err(DiskError::during(Operation::Lock, path))?;
        Ok(Box::new(RealLock { file }))
    }

    fn allocate(&self, path: &Path, size: u64) -> Result<(), DiskError> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file = file.map_err(DiskError::during(Operation::Open, path))?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size) {
            // NFS, ZFS
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill_with_zeros(self, path, size),
            allocated => {
                allocated.map_err(|e| DiskError::during(Operation::Allocate, path)(e.into()))
            }
        }
    }

    fn space(&self, path: &Path) -> Result<DiskSpace, DiskError> {
        let stat = rustix::fs::statvfs(path)
            .map_err(|error| DiskError::during(Operation::Space, path)(error.into()))?;
        Ok(DiskSpace {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            usable_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }
}

fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            // Follows links: an operator may have moved a partition to another volume and linked it.
            let is_dir = entry.path().metadata().is_ok_and(|metadata| metadata.is_dir());
            entries.push(DirEntry { name, is_dir });
        }
    }
    entries.sort();
    Ok(entries)
}
