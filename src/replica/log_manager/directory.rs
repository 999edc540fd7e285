//! One configured directory: in use, or a path whose disk is missing.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use klamm_log::disk::Disk;
use klamm_log::error::LogError;
use klamm_log::log_dir::{LastShutdown, LogDir};
use klamm_log::open_files::OpenFiles;
use klamm_protocol::Uuid;
use klamm_protocol::ids::BrokerId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::checkpoints::Checkpoints;
use super::identity::{check_owner, format, id_of};
use super::start::LayoutError;
use super::{Flusher, StoreError, lock};
use crate::replica::room::DirectoryRoom;

/// The file that is allocated for a moment to see whether there is room.
const PROBE: &str = "room-probe.tmp";

/// A path of `log.dirs`. Once its directory is in use, it stays so until the process ends, even if it fails.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) path: PathBuf,
    pub(super) directory: OnceLock<Directory>,
    /// The last message logged about the path while it is not in use: the same message is not logged twice.
    pub(super) last_logged: Mutex<String>,
}

impl Slot {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, directory: OnceLock::new(), last_logged: Mutex::default() }
    }

    /// Whether the message differs from the last one about this path.
    pub(super) fn is_news(&self, message: &str) -> bool {
        let mut last_logged = lock(&self.last_logged);
        let is_news = *last_logged != message;
        if is_news {
            message.clone_into(&mut last_logged);
        }
        is_news
    }
}

/// One log directory in use.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) dir: LogDir,
    pub(super) id: Uuid,
    /// `None` for a directory that this process has formatted: it has no logs yet.
    pub(super) last_shutdown: Option<LastShutdown>,
    pub(super) checkpoints: Mutex<Checkpoints>,
    pub(super) flusher: Arc<Flusher>,
    pub(super) flusher_thread: Mutex<Option<JoinHandle<()>>>,
    /// Its partition directories have been listed.
    is_found: AtomicBool,
    /// They have been compared with the metadata. Until then no new replica is put into it.
    is_settled: AtomicBool,
}

/// The cluster and node that the directories must belong to.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) cluster_id: String,
    pub(super) broker_id: BrokerId,
}

impl Owner {
    /// Locks a formatted directory and returns its id.
    pub(super) fn enter(
        &self,
        disk: &Arc<dyn Disk>,
        files: &Arc<OpenFiles>,
        path: &Path,
    ) -> Result<(LogDir, Uuid), StoreError> {
        let dir = LogDir::open(Arc::clone(disk), Arc::clone(files), path)?;
        let Some(properties) = dir.meta_properties()? else {
            return Err(LayoutError::NotADataDirectory { dir: path.to_path_buf() }.into());
        };
        check_owner(path, &properties, &self.cluster_id, self.broker_id)?;
        let id = id_of(&dir, properties)?;
        Ok((dir, id))
    }

    /// Creates, locks and formats an empty directory.
    pub(super) fn found(
        &self,
        disk: &Arc<dyn Disk>,
        files: &Arc<OpenFiles>,
        path: &Path,
    ) -> Result<(LogDir, Uuid), StoreError> {
        let dir = LogDir::open(Arc::clone(disk), Arc::clone(files), path)?;
        let properties = format(&dir, &self.cluster_id, self.broker_id)?;
        Ok((dir, properties.directory_id.expect("formatting gives an id")))
    }
}

impl Directory {
    pub(super) fn open(
        (dir, id): (LogDir, Uuid),
        is_new: bool,
        room_news: Arc<Notify>,
        node_failed: CancellationToken,
    ) -> Result<Self, StoreError> {
        let thread = |source| StoreError::Thread { dir: dir.path().to_path_buf(), source };
        let checkpoints = Mutex::new(Checkpoints::read(&dir)?);
        let last_shutdown = dir.take_last_shutdown()?;
        dir.storage()
            .disk
            .remove_file_if_exists(&dir.path().join(PROBE))
            .map_err(LogError::from)?;
        let room = DirectoryRoom::new(room_news);
        let started = Flusher::start(dir.path().to_path_buf(), room, node_failed);
        let (flusher, flusher_thread) = started.map_err(thread)?;
        Ok(Self {
            id,
            last_shutdown: (!is_new).then_some(last_shutdown),
            checkpoints,
            flusher,
            flusher_thread: Mutex::new(Some(flusher_thread)),
            is_found: AtomicBool::new(is_new),
            is_settled: AtomicBool::new(is_new),
            dir,
        })
    }

    pub(super) fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Acquire)
    }

    pub(super) fn is_found(&self) -> bool {
        self.is_found.load(Ordering::Acquire)
    }

    pub(super) fn set_found(&self) {
        self.is_found.store(true, Ordering::Release);
    }

    pub(super) fn set_settled(&self) {
        self.is_settled.store(true, Ordering::Release);
    }

    /// Looks whether `bytes` can be allocated in the directory, which was full. Returns whether there is room.
    pub(super) fn has_room_again(&self, bytes: u64) -> bool {
        let (disk, probe) = (&self.dir.storage().disk, self.dir.path().join(PROBE));
        let allocated = disk.allocate(&probe, bytes.max(1));
        let removed = disk.remove_file_if_exists(&probe);
        for failure in [allocated.as_ref().err(), removed.as_ref().err()].into_iter().flatten() {
            debug!("{}: no room yet: {failure}", self.dir.path().display());
        }
        let has_room = allocated.is_ok() && removed.is_ok();
        if has_room {
            self.flusher.room.on_room();
        }
        has_room
    }

    pub(super) fn is_online(&self) -> bool {
        self.dir.health().failure().is_none()
    }

    /// Whether the last shutdown was clean, so that recovery need not verify the logs.
    pub(super) fn was_left_in_order(&self) -> bool {
        self.last_shutdown.is_none_or(|last| last != LastShutdown::Unclean)
    }
}
