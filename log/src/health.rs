//! The health of a log directory. The first disk failure takes it offline until the process ends (KIP-112); above all a
//! failed sync, because a second one would report success for pages that are lost.

use crate::error::{AppendError, LogError, ReadError, Severity};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The state of one log directory, shared by all logs in it.
#[derive(Debug)]
pub struct LogDirHealth {
    dir: PathBuf,
    failure: OnceLock<String>,
}

impl LogDirHealth {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), failure: OnceLock::new() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The failure that has taken the directory offline, if any.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Returns an error if the directory is offline.
    pub fn check(&self) -> Result<(), LogError> {
        match self.failure() {
            None => Ok(()),
            Some(cause) => {
                Err(LogError::Offline { dir: self.dir.clone(), cause: cause.to_owned() })
            }
        }
    }

    /// Returns the outcome, and takes the directory offline if it is a disk failure.
    pub fn observe<T, E: StorageCause>(&self, outcome: Result<T, E>) -> Result<T, E> {
        if let Err(error) = &outcome
            && let Some(cause) = error.storage_cause()
            && cause.severity() == Severity::Directory
        {
            self.fail(cause);
        }
        outcome
    }

    /// Takes the directory offline. Only the first failure counts: the others follow from it.
    pub fn fail(&self, cause: &LogError) {
        self.failure.get_or_init(|| cause.to_string());
    }
}

/// An error that may come from the storage.
pub trait StorageCause {
    fn storage_cause(&self) -> Option<&LogError>;
}

impl StorageCause for LogError {
    fn storage_cause(&self) -> Option<&LogError> {
        Some(self)
    }
}

impl StorageCause for AppendError {
    fn storage_cause(&self) -> Option<&LogError> {
        if let Self::Storage(error) = self { Some(error) } else { None }
    }
}

impl StorageCause for ReadError {
    fn storage_cause(&self) -> Option<&LogError> {
        if let Self::Storage(error) = self { Some(error) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{DiskError, Operation};
    use std::io;

    fn failed(operation: Operation, source: io::Error) -> Result<(), LogError> {
        Err(DiskError { operation, path: PathBuf::from("/d/x"), source }.into())
    }

    #[test]
    fn the_first_disk_failure_lasts() {
        let health = LogDirHealth::new(Path::new("/d"));
        health.observe(failed(Operation::Sync, io::Error::from_raw_os_error(5))).unwrap_err();
        health.observe(failed(Operation::Open, io::ErrorKind::NotFound.into())).unwrap_err();
        assert!(health.failure().unwrap().contains("fdatasync"), "{:?}", health.failure());
        assert!(matches!(health.check(), Err(LogError::Offline { .. })));
    }

    #[test]
    fn a_full_disk_and_missing_descriptors_are_no_failure_of_the_directory() {
        let health = LogDirHealth::new(Path::new("/d"));
        use rustix::io::Errno;
        for errno in
            [Errno::NOSPC, Errno::DQUOT, Errno::FBIG, Errno::MFILE, Errno::NFILE, Errno::NOMEM]
        {
            health.observe(failed(Operation::Write, errno.into())).unwrap_err();
        }
        assert!(health.check().is_ok());
        // Pages that a sync could not write for lack of space are lost too.
        health.observe(failed(Operation::Sync, Errno::NOSPC.into())).unwrap_err();
        assert!(health.check().is_err());
    }
}
