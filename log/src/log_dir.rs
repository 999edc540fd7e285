//! One log directory of a node (`log.dirs`): its lock, its identity, the mark of a clean shutdown, the checkpoints, and
//! its partition directories.

use crate::checkpoint::{self, PartitionOffsets};
use crate::disk::{Disk, DiskLock, DiskSpace, parent};
use crate::error::LogError;
use crate::health::LogDirHealth;
use crate::log::LogStorage;
use crate::meta_properties::{self, MetaProperties};
use crate::open_files::OpenFiles;
use crate::partition_dir::PartitionDirName;
use klamm_protocol::ids::{none_if_minus_one, or_minus_one};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The lock file, locked while a broker runs; the same file and kind of lock as Kafka's.
const LOCK: &str = ".lock";
/// The mark of a clean shutdown, with the broker epoch (KIP-966).
pub const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";

/// How the last run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastShutdown {
    Unclean,
    Clean {
        /// The epoch of the broker that shut down; `None` if it had none, or Kafka before 3.9 wrote the file.
        broker_epoch: Option<i64>,
    },
}

/// A locked log directory.
#[derive(Debug)]
pub struct LogDir {
    path: PathBuf,
    storage: LogStorage,
    #[expect(dead_code, reason = "released when the directory is dropped")]
    lock: Box<dyn DiskLock>,
}

impl LogDir {
    /// Creates the directory if absent and locks it. Nothing else is changed.
    pub fn open(disk: Arc<dyn Disk>, files: Arc<OpenFiles>, path: &Path) -> Result<Self, LogError> {
        if !disk.exists(path)? {
            disk.create_dir_all(path)?;
            disk.sync_dir(parent(path))?;
        }
        let lock_path = path.join(LOCK);
        let lock = disk.lock(&lock_path).map_err(|error| {
            if error.is_locked() { LogError::Locked { path: lock_path } } else { error.into() }
        })?;
        let health = Arc::new(LogDirHealth::new(path));
        Ok(Self { path: path.to_path_buf(), storage: LogStorage::new(disk, files, health), lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The storage for [`crate::log::Log::open`].
    pub fn storage(&self) -> &LogStorage {
        &self.storage
    }

    /// The health of the directory.
    pub fn health(&self) -> &LogDirHealth {
        &self.storage.health
    }

    fn disk(&self) -> &dyn Disk {
        self.storage.disk.as_ref()
    }

    /// The directory's `meta.properties`; `None` before it is formatted.
    pub fn meta_properties(&self) -> Result<Option<MetaProperties>, LogError> {
        let path = self.path.join(meta_properties::NAME);
        self.health().observe(MetaProperties::read(self.disk(), &path))
    }

    /// Formats the directory.
    pub fn write_meta_properties(&self, properties: &MetaProperties) -> Result<(), LogError> {
        let path = self.path.join(meta_properties::NAME);
        self.health().observe(properties.write(self.disk(), &path))
    }

    /// Returns how the last run ended and removes the mark, so that a crash from now on counts as unclean. Call it
    /// before any log is opened.
    pub fn take_last_shutdown(&self) -> Result<LastShutdown, LogError> {
        self.health().observe(self.take_mark())
    }

    fn take_mark(&self) -> Result<LastShutdown, LogError> {
        let path = self.path.join(CLEAN_SHUTDOWN);
        let contents = match self.disk().read(&path) {
            Ok(contents) => contents,
            Err(error) if error.is_not_found() => return Ok(LastShutdown::Unclean),
            Err(error) => return Err(error.into()),
        };
        self.disk().remove_file(&path)?;
        self.disk().sync_dir(&self.path)?;
        Ok(LastShutdown::Clean { broker_epoch: broker_epoch(&contents) })
    }

    /// Marks the shutdown as clean. Call it after every log was closed and the checkpoints were written.
    pub fn mark_clean_shutdown(&self, broker_epoch: Option<i64>) -> Result<(), LogError> {
        self.health().check()?;
        let broker_epoch = or_minus_one(broker_epoch);
        let contents = format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}");
        let path = self.path.join(CLEAN_SHUTDOWN);
        let written = self.disk().write_atomically(&path, contents.as_bytes());
        self.health().observe(written.map_err(LogError::from))
    }

    /// Reads one of the checkpoints named in [`checkpoint`].
    pub fn read_checkpoint(&self, name: &str) -> Result<PartitionOffsets, LogError> {
        let offsets = checkpoint::read_offsets(self.disk(), &self.path.join(name));
        self.health().observe(offsets)
    }

    /// Reads a checkpoint that only saves work: a damaged one counts as missing.
    pub fn read_checkpoint_or_none(&self, name: &str) -> Result<PartitionOffsets, LogError> {
        match self.read_checkpoint(name) {
            Err(LogError::Malformed { .. }) => Ok(PartitionOffsets::new()),
            outcome => outcome,
        }
    }

    /// Whether there is a checkpoint, readable or not.
    pub fn has_checkpoint(&self, name: &str) -> Result<bool, LogError> {
        self.health().observe(self.disk().exists(&self.path.join(name)).map_err(LogError::from))
    }

    /// Replaces a checkpoint.
    pub fn write_checkpoint(&self, name: &str, offsets: &PartitionOffsets) -> Result<(), LogError> {
        self.health().check()?;
        let written = checkpoint::write_offsets(self.disk(), &self.path.join(name), offsets);
        self.health().observe(written)
    }

    /// The partition directories, and the names of other directories, which are ignored.
    pub fn partitions(&self) -> Result<(Vec<PartitionDirName>, Vec<String>), LogError> {
        let entries = self.disk().list(&self.path).map_err(LogError::from);
        let (mut partitions, mut others) = (Vec::new(), Vec::new());
        for entry in self.health().observe(entries)?.into_iter().filter(|entry| entry.is_dir) {
            match PartitionDirName::parse(&entry.name) {
                Some(partition) => partitions.push(partition),
                None => others.push(entry.name),
            }
        }
        Ok((partitions, others))
    }

    /// Removes a partition's directory and everything in it.
    pub fn remove_partition(&self, name: &str) -> Result<(), LogError> {
        self.health().check()?;
        let removed = self.disk().remove_dir_all(&self.path.join(name));
        let removed = removed.and_then(|()| self.disk().sync_dir(&self.path));
        self.health().observe(removed.map_err(LogError::from))
    }

    /// The size of the volume.
    pub fn space(&self) -> Result<DiskSpace, LogError> {
        self.health().check()?;
        self.health().observe(self.disk().space(&self.path).map_err(LogError::from))
    }
}

/// The `brokerEpoch` of the mark's JSON object, the only member that matters.
fn broker_epoch(contents: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(contents).ok()?;
    let (_, rest) = text.split_once("\"brokerEpoch\"")?;
    let number = rest.trim_start().strip_prefix(':')?.trim_start();
    let end = number.find(|c: char| c != '-' && !c.is_ascii_digit()).unwrap_or(number.len());
    none_if_minus_one(number[..end].parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;
    use crate::partition_dir::DirKind;
    use klamm_protocol::Uuid;

    fn open(disk: &MemoryDisk) -> Result<LogDir, LogError> {
        LogDir::open(Arc::new(disk.clone()), OpenFiles::new(10), Path::new("/data"))
    }

    #[test]
    fn a_directory_is_used_by_one_broker_at_a_time() {
        let disk = MemoryDisk::default();
        let dir = open(&disk).unwrap();
        assert!(matches!(open(&disk), Err(LogError::Locked { .. })));
        drop(dir);
        open(&disk).unwrap();
    }

    #[test]
    fn a_clean_shutdown_is_believed_once() {
        let disk = MemoryDisk::default();
        let dir = open(&disk).unwrap();
        assert_eq!(dir.take_last_shutdown().unwrap(), LastShutdown::Unclean);
        dir.mark_clean_shutdown(Some(28)).unwrap();
        let mark = disk.read(Path::new("/data/.kafka_cleanshutdown")).unwrap();
        assert_eq!(mark, br#"{"version":0,"brokerEpoch":28}"#);
        let clean = LastShutdown::Clean { broker_epoch: Some(28) };
        assert_eq!(dir.take_last_shutdown().unwrap(), clean);
        disk.crash(3);
        assert_eq!(open(&disk).unwrap().take_last_shutdown().unwrap(), LastShutdown::Unclean);
    }

    #[test]
    fn the_mark_of_an_old_kafka_has_no_epoch() {
        for contents in [&b""[..], b"{}", br#"{"brokerEpoch": null}"#] {
            assert_eq!(broker_epoch(contents), None);
        }
        assert_eq!(broker_epoch(br#"{ "brokerEpoch" : -1, "version" : 0 }"#), None);
    }

    #[test]
    fn partitions_are_listed_and_removed_and_strangers_left_alone() {
        let disk = MemoryDisk::default();
        let dir = open(&disk).unwrap();
        for name in ["a-0", "b.c-1.0f-delete", "lost+found"] {
            disk.create_dir_all(&Path::new("/data").join(name)).unwrap();
        }
        let (partitions, others) = dir.partitions().unwrap();
        let kinds: Vec<_> = partitions.iter().map(|name| name.kind).collect();
        assert_eq!(kinds, [DirKind::Current, DirKind::Delete]);
        assert_eq!(others, ["lost+found"]);
        dir.remove_partition("b.c-1.0f-delete").unwrap();
        assert_eq!(dir.partitions().unwrap().0.len(), 1);
    }

    #[test]
    fn identity_and_checkpoints_come_back() {
        let disk = MemoryDisk::default();
        let dir = open(&disk).unwrap();
        assert_eq!(dir.meta_properties().unwrap(), None);
        let properties = MetaProperties::new("cluster", 1, Uuid::METADATA_TOPIC);
        dir.write_meta_properties(&properties).unwrap();
        assert_eq!(dir.meta_properties().unwrap(), Some(properties));
        let offsets = PartitionOffsets::from([(("a".to_owned(), 0), 5)]);
        dir.write_checkpoint(checkpoint::RECOVERY_POINT, &offsets).unwrap();
        assert_eq!(dir.read_checkpoint(checkpoint::RECOVERY_POINT).unwrap(), offsets);
        let path = Path::new("/data").join(checkpoint::RECOVERY_POINT);
        disk.write_synced(&path, b"rubbish").unwrap();
        dir.read_checkpoint(checkpoint::RECOVERY_POINT).unwrap_err();
        assert!(dir.read_checkpoint_or_none(checkpoint::RECOVERY_POINT).unwrap().is_empty());
        assert!(dir.health().check().is_ok());
    }
}
