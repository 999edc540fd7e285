//! Inspects the configured directories before anything in them is changed: nothing is created, locked or formatted
//! here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use klamm_log::checkpoint;
use klamm_log::disk::{DirEntry, Disk, DiskError};
use klamm_log::error::LogError;
use klamm_log::log_dir::CLEAN_SHUTDOWN;
use klamm_log::meta_properties::{self, MetaProperties};
use klamm_log::partition_dir::PartitionDirName;
use tracing::error;

use super::StoreError;
use super::start::{Contents, LayoutError, Surveyed};
use crate::config::StorageConfig;
use crate::controller::metadata_log::{
    BOOTSTRAP_CHECKPOINT, METADATA_LOG_DIR, QUORUM_STATE, VOTERS_CHECKPOINT,
};

/// Kafka's offset checkpoints.
const CHECKPOINTS: [&str; 4] = [
    checkpoint::RECOVERY_POINT,
    checkpoint::HIGH_WATERMARK,
    checkpoint::LOG_START,
    checkpoint::CLEANER,
];

/// The state of all configured directories.
#[derive(Debug)]
pub(super) struct Survey {
    /// Those of `log.dirs`, in their order, and `metadata.log.dir` behind them if it is none of them.
    pub(super) directories: Vec<Surveyed>,
    /// By place in `directories`.
    pub(super) properties: Vec<Option<MetaProperties>>,
    pub(super) metadata_place: usize,
}

impl Survey {
    /// Inspects all directories. A directory that does not have the metadata log may be unreadable.
    pub(super) fn take(disk: &dyn Disk, storage: &StorageConfig) -> Result<Self, StoreError> {
        let (paths, metadata_place) = named(disk, storage)?;
        let mut survey = Self { directories: Vec::new(), properties: Vec::new(), metadata_place };
        for (place, path) in paths.into_iter().enumerate() {
            let is_for_metadata = place == metadata_place;
            let looked_at = look_at(disk, &path, is_for_metadata);
            let (contents, has_metadata_log, properties) = match looked_at {
                Err(LogError::Disk(failure)) if !is_for_metadata => {
                    error!(
                        "the log directory {} cannot be read and is not used: {failure}",
                        path.display()
                    );
                    (Contents::Unreadable, false, None)
                }
                looked_at => looked_at?,
            };
            survey.properties.push(properties);
            survey.directories.push(Surveyed { path, contents, has_metadata_log, is_for_metadata });
        }
        survey.check_copies()?;
        Ok(survey)
    }

    /// The cluster that the directories belong to, the metadata directory's first.
    pub(super) fn cluster_id(&self) -> Option<String> {
        let metadata = self.properties[self.metadata_place].iter();
        let all = metadata.chain(self.properties.iter().flatten());
        all.filter_map(|properties| properties.cluster_id.clone()).next()
    }

    fn check_copies(&self) -> Result<(), LayoutError> {
        let mut seen = BTreeMap::new();
        for (directory, properties) in self.directories.iter().zip(&self.properties) {
            let id = properties.as_ref().and_then(|properties| properties.directory_id);
            let Some(id) = id else { continue };
            if let Some(first) = seen.insert(id, &directory.path) {
                let (first, second) = (first.clone(), directory.path.clone());
                return Err(LayoutError::CopiedDirectory { first, second, id });
            }
        }
        Ok(())
    }
}

/// The directories that the configuration names, each once, and which of them is for the metadata log.
fn named(disk: &dyn Disk, storage: &StorageConfig) -> Result<(Vec<PathBuf>, usize), StoreError> {
    let mut paths = storage.log_dirs.clone();
    // The path of a failed disk cannot be resolved; it is used as it is.
    let canonical = |path: &PathBuf| disk.canonical(path).unwrap_or_else(|_| path.clone());
    let canonicals: Vec<PathBuf> = paths.iter().map(canonical).collect();
    for (place, path) in canonicals.iter().enumerate() {
        if let Some(first) = canonicals[..place].iter().position(|earlier| earlier == path) {
            let (first, second) = (paths[first].clone(), paths[place].clone());
            return Err(LayoutError::SameDirectory { first, second }.into());
        }
    }
    let metadata = canonical(&storage.metadata_log_dir);
    let metadata_place = canonicals.iter().position(|path| *path == metadata);
    let metadata_place = metadata_place.unwrap_or_else(|| {
        paths.push(storage.metadata_log_dir.clone());
        paths.len() - 1
    });
    Ok((paths, metadata_place))
}

/// The contents of one directory, whether it has a metadata log, and its `meta.properties`.
pub(super) fn look_at(
    disk: &dyn Disk,
    path: &Path,
    is_for_metadata: bool,
) -> Result<(Contents, bool, Option<MetaProperties>), LogError> {
    let entries = match disk.list(path) {
        Err(failure) if failure.is_not_found() => return Ok((Contents::Empty, false, None)),
        entries => entries?,
    };
    let has_metadata_log = has_metadata_log(disk, path, is_for_metadata)?;
    let properties = MetaProperties::read(disk, &path.join(meta_properties::NAME))?;
    let contents = match &properties {
        Some(_) if entries.iter().any(is_of_a_run) => Contents::Used,
        Some(_) => Contents::Formatted,
        None if entries.iter().all(is_nothing) => Contents::Empty,
        None => Contents::Foreign,
    };
    Ok((contents, has_metadata_log, properties))
}

/// Whether a file may be in an empty directory: it is of the file system, or of an interrupted formatting.
pub(super) fn is_nothing(entry: &DirEntry) -> bool {
    let name = entry.name.strip_suffix(".tmp").unwrap_or(&entry.name);
    matches!(name, ".lock" | "lost+found" | meta_properties::NAME | BOOTSTRAP_CHECKPOINT)
}

/// Whether only a running node creates the file, and formatting does not.
fn is_of_a_run(entry: &DirEntry) -> bool {
    let name = entry.name.as_str();
    if entry.is_dir {
        return name != METADATA_LOG_DIR && PartitionDirName::parse(name).is_some();
    }
    name == CLEAN_SHUTDOWN || CHECKPOINTS.contains(&name)
}

/// Whether there is a metadata log. In the metadata directory the voters checkpoint that formatting writes is not one;
/// in any other directory it counts, because it does not belong there.
fn has_metadata_log(
    disk: &dyn Disk,
    path: &Path,
    is_for_metadata: bool,
) -> Result<bool, DiskError> {
    let entries = match disk.list(&path.join(METADATA_LOG_DIR)) {
        Err(failure) if failure.is_not_found() => return Ok(false),
        entries => entries?,
    };
    Ok(entries.iter().any(|entry| match entry.name.as_str() {
        VOTERS_CHECKPOINT => !is_for_metadata,
        QUORUM_STATE => true,
        name => name.ends_with(".log") || name.ends_with(".checkpoint"),
    }))
}
