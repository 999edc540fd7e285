//! The interface between the log engine and the operating system: all disk operations of the engine.
//!
//! Two implementations: [`RealDisk`] over the operating system, and [`MemoryDisk`], which loses and tears unsynced
//! writes on a simulated power cut. No other code in this crate may use `std::fs`. Calls block.
//!
//! Durability in both implementations: the contents and the length of a file are durable after [`DiskFile::sync_data`];
//! the creation, change or removal of a name is durable after [`Disk::sync_dir`] on its directory. Neither implies the
//! other.

mod memory;
mod real;
mod room;

pub use memory::{Fault, MemoryDisk};
pub use real::RealDisk;
pub use room::RoomyDisk;

use crate::error::Severity;
use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// How [`Disk::open`] treats an existing or missing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; it is opened for reading only.
    Read,
    /// It must exist; it is opened for reading and writing.
    Write,
    /// It is created if absent, and opened for reading and writing.
    Create,
    /// It is created if absent and emptied if present.
    Truncate,
}

/// The operation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Open,
    /// An open that creates the file.
    Create,
    Read,
    Write,
    Sync,
    Resize,
    Stat,
    Rename,
    Remove,
    CreateDir,
    SyncDir,
    List,
    Lock,
    Space,
    Allocate,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "fdatasync",
            Self::Resize => "ftruncate",
            Self::Stat => "stat",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::CreateDir => "create directory",
            Self::SyncDir => "fsync of directory",
            Self::List => "list",
            Self::Lock => "lock",
            Self::Space => "statvfs",
            Self::Allocate => "fallocate",
        })
    }
}

/// An error of the operating system, with the operation and the path.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {} failed: {source}", path.display())]
pub struct DiskError {
    pub operation: Operation,
    pub path: PathBuf,
    pub source: io::Error,
}

impl DiskError {
    /// Adds operation and path to an [`io::Error`]; for `map_err`.
    pub fn during(operation: Operation, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self { operation, path, source }
    }

    /// The file or directory does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// What the failure affects. A failed sync takes the directory offline for every reason, also for lack of space
    /// (delayed allocation): the pages that it did not write may be lost, and a second sync would report success. If a
    /// file or directory cannot be *opened* to be synced, that is not a failed sync.
    pub fn severity(&self) -> Severity {
        if self.is_locked() {
            Severity::Node
        } else if self.is_sync() {
            Severity::Directory
        } else if self.is_no_space() || self.is_out_of_file_descriptors() || self.is_out_of_memory()
        {
            Severity::Passes
        } else {
            Severity::Directory
        }
    }

    /// A later retry may succeed, and no data is lost.
    pub fn passes(&self) -> bool {
        self.severity() == Severity::Passes
    }

    /// The volume or the quota is full; stored data is intact.
    pub fn is_no_space(&self) -> bool {
        self.is_full() || self.source.kind() == io::ErrorKind::FileTooLarge
    }

    /// The volume or the quota is full, so that whatever frees space there helps. Not so if a file has reached the
    /// greatest size that its process may write (EFBIG).
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// The process (EMFILE) or the machine (ENFILE) has no file descriptor left. This is no failure of the disk, and
    /// must never take a log directory offline.
    pub fn is_out_of_file_descriptors(&self) -> bool {
        let code = self.source.raw_os_error();
        code == Some(rustix::io::Errno::MFILE.raw_os_error())
            || code == Some(rustix::io::Errno::NFILE.raw_os_error())
    }

    /// The kernel has no memory for the operation (ENOMEM).
    pub fn is_out_of_memory(&self) -> bool {
        self.source.kind() == io::ErrorKind::OutOfMemory
    }

    /// A sync failed.
    pub fn is_sync(&self) -> bool {
        matches!(self.operation, Operation::Sync | Operation::SyncDir)
    }

    /// Another process holds the lock ([`Disk::lock`]).
    pub fn is_locked(&self) -> bool {
        self.operation == Operation::Lock && self.source.kind() == io::ErrorKind::WouldBlock
    }
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The last component of the path. Names that are not UTF-8 are left out: Kafka never writes one.
    pub name: String,
    pub is_dir: bool,
}

/// The size of the volume below a directory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    pub total_bytes: u64,
    pub usable_bytes: u64,
}

/// An exclusive lock on a file; released on drop.
pub trait DiskLock: Send + Sync + fmt::Debug {}

/// A directory that is open for a sync, which now only a failure of the disk can prevent.
pub trait DiskDir: Send + Sync + fmt::Debug {
    /// Makes the names in the directory durable. Never retry after an error.
    fn sync(&self) -> Result<(), DiskError>;
}

/// An open file. All access is positional: it has no cursor, so that readers never disturb the writer.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Writes all of `slices`, one after the other, at `position`.
    ///
    /// On an error, any part of the range may have been written.
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], position: u64) -> Result<(), DiskError>;

    /// Reads into `buffer` from `position`; returns fewer bytes only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> Result<usize, DiskError>;

    /// Makes contents and length durable. After an error the unsynced contents are undefined, and a later success does
    /// not make them durable: never retry.
    fn sync_data(&self) -> Result<(), DiskError>;

    /// Truncates or extends (with zeros) to `size` bytes.
    fn set_size(&self, size: u64) -> Result<(), DiskError>;

    /// The length in bytes.
    fn size(&self) -> Result<u64, DiskError>;

    /// Time of the last write, in milliseconds since the Unix epoch.
    fn modified_ms(&self) -> Result<i64, DiskError>;

    /// The descriptor for `sendfile`, if there is one.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;
}

/// A disk: names, directories and open files.
pub trait Disk: Send + Sync + fmt::Debug {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError>;

    /// Replaces `to` if it exists. Durable after `sync_dir` of the directories concerned.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError>;

    fn remove_file(&self, path: &Path) -> Result<(), DiskError>;

    /// Creates the directory and its missing parents; an existing one is no error.
    fn create_dir_all(&self, path: &Path) -> Result<(), DiskError>;

    /// Removes a directory and everything in it.
    fn remove_dir_all(&self, path: &Path) -> Result<(), DiskError>;

    /// Opens a directory for a later sync. Call it before changing names if the sync must not fail for lack of a file
    /// descriptor.
    fn open_dir(&self, path: &Path) -> Result<Box<dyn DiskDir>, DiskError>;

    fn sync_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.open_dir(path)?.sync()
    }

    /// The entries of the directory, sorted by name.
    fn list(&self, path: &Path) -> Result<Vec<DirEntry>, DiskError>;

    fn exists(&self, path: &Path) -> Result<bool, DiskError>;

    /// The path without links, `.` and `..`: the same for two names of one directory. Components that do not exist keep
    /// their names.
    fn canonical(&self, path: &Path) -> Result<PathBuf, DiskError>;

    /// Takes the exclusive lock of a file, which is created if absent, without waiting.
    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, DiskError>;

    fn space(&self, path: &Path) -> Result<DiskSpace, DiskError>;

    /// Creates or extends a file so that its first `size` bytes have space on the disk. After an error they may have it
    /// in part.
    fn allocate(&self, path: &Path, size: u64) -> Result<(), DiskError>;

    /// The whole contents of a file.
    fn read(&self, path: &Path) -> Result<Vec<u8>, DiskError> {
        let file = self.open(path, OpenMode::Read)?;
        let size = usize::try_from(file.size()?).map_err(|_| DiskError {
            operation: Operation::Read,
            path: path.to_path_buf(),
            source: io::ErrorKind::FileTooLarge.into(),
        })?;
        let mut contents = vec![0; size];
        let read = file.read_at(&mut contents, 0)?;
        contents.truncate(read);
        Ok(contents)
    }

    /// Replaces a file atomically: after a power cut it has the old or the new contents.
    ///
    /// Writes `<path>.tmp`, syncs it, renames it and syncs the directory, like Kafka's
    /// `CheckpointFile` (and the directory sync, which that class leaves out).
    fn write_atomically(&self, path: &Path, contents: &[u8]) -> Result<(), DiskError> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let directory = self.open_dir(parent(path))?;
        let written = self.write_synced(&temporary, contents);
        if let Err(error) = written.and_then(|()| self.rename(&temporary, path)) {
            // A partial file takes space that is lacking. If its removal fails, the next attempt overwrites it.
            drop(self.remove_file(&temporary));
            return Err(error);
        }
        directory.sync()
    }

    /// Writes a file in place and syncs its contents, but not its name.
    fn write_synced(&self, path: &Path, contents: &[u8]) -> Result<(), DiskError> {
        let file = self.open(path, OpenMode::Truncate)?;
        file.write_all_at(&mut [IoSlice::new(contents)], 0)?;
        file.sync_data()
    }

    /// Removes a file if it exists; returns whether it did.
    fn remove_file_if_exists(&self, path: &Path) -> Result<bool, DiskError> {
        match self.remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// [`Disk::allocate`] where the file system cannot do it without writing.
fn fill_with_zeros(disk: &dyn Disk, path: &Path, size: u64) -> Result<(), DiskError> {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let file = disk.open(path, OpenMode::Create)?;
    let mut position = file.size()?;
    while position < size {
        let missing = usize::try_from(size - position).unwrap_or(usize::MAX);
        let piece = &ZEROS[..missing.min(ZEROS.len())];
        file.write_all_at(&mut [IoSlice::new(piece)], position)?;
        position += piece.len() as u64;
    }
    Ok(())
}

/// The path without `.` and `..`, without access to the disk.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

/// The directory that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_names_of_one_directory_are_recognized() {
        for disk in [&MemoryDisk::default() as &dyn Disk, &RealDisk] {
            let canonical = |path: &str| disk.canonical(Path::new(path)).unwrap();
            assert_eq!(canonical("/no/such/../one/./b/"), canonical("/no/one/b"));
            assert_ne!(canonical("/no/one"), canonical("/no/two"));
        }
    }

    #[test]
    fn a_link_is_the_directory_that_it_leads_to() {
        let home = std::env::temp_dir().join(format!("klamm-canonical-{}", std::process::id()));
        std::fs::create_dir_all(home.join("there")).unwrap();
        std::os::unix::fs::symlink("there", home.join("link")).unwrap();
        let canonical = |name: &str| RealDisk.canonical(&home.join(name)).unwrap();
        assert_eq!(canonical("link"), canonical("there"));
        std::fs::remove_dir_all(&home).unwrap();
    }
}
