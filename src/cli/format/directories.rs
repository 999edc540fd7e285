//! Writes the files of formatted log directories: `meta.properties`, `bootstrap.checkpoint`, and in
//! the metadata log directory of a dynamic quorum's voter the snapshot with the voters.
//!
//! Invariants: `meta.properties` comes last, so that a directory is formatted as a whole or not at all; a directory
//! that is formatted is never touched; all directories are checked before anything is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use klamm_log::disk::{Disk, DiskError};
use klamm_log::error::LogError;
use klamm_log::meta_properties::{self, MetaProperties};
use klamm_metadata::controller::activation::FeatureLevels;
use klamm_metadata::directory_id;
use klamm_protocol::Uuid;
use klamm_protocol::ids::BrokerId;
use klamm_protocol::metadata_record::MetadataRecord;

use super::checkpoint::voters_checkpoint;
use super::features::InitialFeatures;
use super::voters::{InitialVoter, voters_record};
use crate::controller::metadata_log::{BOOTSTRAP_CHECKPOINT, METADATA_LOG_DIR, VOTERS_CHECKPOINT};
use crate::controller::snapshot_file::{SnapshotError, bootstrap_checkpoint};
use crate::random;

/// The contents of the files to write.
#[derive(Debug, Clone)]
pub struct Formatter {
    pub cluster_id: String,
    pub node_id: BrokerId,
    pub log_dirs: Vec<PathBuf>,
    pub metadata_log_dir: PathBuf,
    pub features: InitialFeatures,
    /// `None` if the configuration names the voters, or they are not known yet.
    pub initial_voters: Option<Vec<InitialVoter>>,
    pub controller_listener_name: String,
    /// Leave formatted directories unchanged instead of failing.
    pub ignore_formatted: bool,
}

/// Why directories were not formatted.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error(
        "Log directory {} is already formatted. Use --ignore-formatted to ignore this directory and format the others.",
        .path.display()
    )]
    AlreadyFormatted { path: PathBuf },
    #[error(
        "{} belongs to cluster {found}, not to {expected}; use that cluster id, or another directory",
        .path.display()
    )]
    OtherCluster { path: PathBuf, found: String, expected: String },
    #[error(
        "{} belongs to node {found}, not to node {expected}; set node.id={found}, or use another directory",
        .path.display()
    )]
    OtherNode { path: PathBuf, found: BrokerId, expected: BrokerId },
    #[error("{} and {} have the same directory id; one is a copy of the other", .first.display(), .second.display())]
    DuplicateDirectory { first: PathBuf, second: PathBuf },
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    MetaProperties(#[from] LogError),
    #[error(transparent)]
    Checkpoint(#[from] SnapshotError),
}

/// The use of a log directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryKind {
    Log,
    StaticMetadata,
    DynamicMetadata,
    DynamicMetadataVoter,
}

impl DirectoryKind {
    fn description(self) -> &'static str {
        match self {
            Self::Log => "data directory",
            Self::StaticMetadata => "metadata directory",
            Self::DynamicMetadata => "dynamic metadata directory",
            Self::DynamicMetadataVoter => "dynamic metadata voter directory",
        }
    }
}

/// The result of formatting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formatted {
    /// In the order in which the configuration names them.
    pub directories: Vec<(PathBuf, DirectoryKind)>,
    pub levels: FeatureLevels,
}

impl fmt::Display for Formatted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.directories.is_empty() {
            return writeln!(f, "All of the log directories are already formatted.");
        }
        writeln!(f, "Bootstrap metadata: {}", BootstrapMetadata(&self.levels))?;
        for (path, kind) in &self.directories {
            writeln!(
                f,
                "Formatting {} {} with metadata.version {}.",
                kind.description(),
                path.display(),
                self.levels.metadata_version.name()
            )?;
        }
        Ok(())
    }
}

/// The initial features of a cluster in the form of `BootstrapMetadata.toString`, which scripts read.
struct BootstrapMetadata<'a>(&'a FeatureLevels);

impl fmt::Display for BootstrapMetadata<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = self.0.bootstrap_records();
        let records = records.iter().filter_map(|record| match record {
            MetadataRecord::FeatureLevel(feature) => Some(format!(
                "ApiMessageAndVersion(FeatureLevelRecord(name='{}', featureLevel={}) at version 0)",
                feature.name, feature.feature_level
            )),
            _ => None,
        });
        write!(
            f,
            "BootstrapMetadata(records=[{}], metadataVersionLevel={}, source=format command)",
            records.collect::<Vec<_>>().join(", "),
            self.0.metadata_version.level()
        )
    }
}

impl Formatter {
    /// Formats every directory that is not formatted yet.
    pub fn format(&self, disk: &dyn Disk, now_ms: i64) -> Result<Formatted, FormatError> {
        let (formatted, empty) = self.look_at_directories(disk)?;
        if let Some(path) = formatted.keys().next().filter(|_| !self.ignore_formatted) {
            return Err(FormatError::AlreadyFormatted { path: path.clone() });
        }
        let mut directories = Vec::new();
        let named = self.log_dirs.iter().chain([&self.metadata_log_dir]);
        let mut left = empty;
        for path in named.filter(|path| left.remove(*path)).cloned().collect::<Vec<_>>() {
            let kind = self.kind_of(&path);
            self.write_directory(disk, &path, kind, now_ms)?;
            directories.push((path, kind));
        }
        Ok(Formatted { directories, levels: self.features.levels.clone() })
    }

    /// Splits the directories into those that are formatted for this node and cluster and those that are not formatted.
    fn look_at_directories(
        &self,
        disk: &dyn Disk,
    ) -> Result<(BTreeMap<PathBuf, MetaProperties>, BTreeSet<PathBuf>), FormatError> {
        let all: BTreeSet<&PathBuf> =
            self.log_dirs.iter().chain([&self.metadata_log_dir]).collect();
        let (mut formatted, mut empty) = (BTreeMap::new(), BTreeSet::new());
        let mut seen: BTreeMap<Uuid, &PathBuf> = BTreeMap::new();
        for path in all {
            match MetaProperties::read(disk, &path.join(meta_properties::NAME))? {
                None => drop(empty.insert(path.clone())),
                Some(properties) => {
                    self.check_owner(path, &properties)?;
                    let twin = properties.directory_id.and_then(|id| seen.insert(id, path));
                    if let Some(first) = twin {
                        let (first, second) = (first.clone(), path.clone());
                        return Err(FormatError::DuplicateDirectory { first, second });
                    }
                    formatted.insert(path.clone(), properties);
                }
            }
        }
        Ok((formatted, empty))
    }

    fn check_owner(&self, path: &Path, properties: &MetaProperties) -> Result<(), FormatError> {
        if let Some(found) = properties.cluster_id.as_ref().filter(|id| **id != self.cluster_id) {
            return Err(FormatError::OtherCluster {
                path: path.to_owned(),
                found: found.clone(),
                expected: self.cluster_id.clone(),
            });
        }
        match properties.node_id {
            Some(found) if found != self.node_id => {
                Err(FormatError::OtherNode { path: path.to_owned(), found, expected: self.node_id })
            }
            _ => Ok(()),
        }
    }

    fn kind_of(&self, path: &Path) -> DirectoryKind {
        match &self.initial_voters {
            _ if path != self.metadata_log_dir => DirectoryKind::Log,
            None => DirectoryKind::StaticMetadata,
            Some(voters) if voters.iter().any(|voter| voter.node_id == self.node_id) => {
                DirectoryKind::DynamicMetadataVoter
            }
            Some(_) => DirectoryKind::DynamicMetadata,
        }
    }

    fn write_directory(
        &self,
        disk: &dyn Disk,
        path: &Path,
        kind: DirectoryKind,
        now_ms: i64,
    ) -> Result<(), FormatError> {
        disk.create_dir_all(path)?;
        let bootstrap = bootstrap_checkpoint(&self.features.levels.bootstrap_records(), now_ms)?;
        disk.write_atomically(&path.join(BOOTSTRAP_CHECKPOINT), &bootstrap)?;
        let voters = self.initial_voters.as_deref().unwrap_or_default();
        if matches!(kind, DirectoryKind::DynamicMetadata | DirectoryKind::DynamicMetadataVoter) {
            self.write_voters(disk, path, voters, now_ms)?;
        }
        let own = voters.iter().find(|voter| voter.node_id == self.node_id);
        let directory_id = match (kind, own) {
            (DirectoryKind::DynamicMetadataVoter, Some(voter)) => voter.directory_id,
            _ => new_directory_id(),
        };
        MetaProperties::new(&self.cluster_id, self.node_id, directory_id)
            .write(disk, &path.join(meta_properties::NAME))?;
        Ok(())
    }

    fn write_voters(
        &self,
        disk: &dyn Disk,
        path: &Path,
        voters: &[InitialVoter],
        now_ms: i64,
    ) -> Result<(), FormatError> {
        let directory = path.join(METADATA_LOG_DIR);
        disk.create_dir_all(&directory)?;
        let record = voters_record(voters, &self.controller_listener_name);
        let contents = voters_checkpoint(self.features.kraft_version, record, now_ms)?;
        Ok(disk.write_atomically(&directory.join(VOTERS_CHECKPOINT), &contents)?)
    }
}

fn new_directory_id() -> Uuid {
    loop {
        let id = random::uuid();
        if !directory_id::is_reserved(id) {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_log::disk::MemoryDisk;

    use super::*;
    use crate::cli::format::features::FeatureRequest;
    use crate::cli::format::voters::parse_voters;

    fn formatter() -> Formatter {
        let features =
            FeatureRequest { levels: BTreeMap::new(), release: None, has_dynamic_quorum: true };
        Formatter {
            cluster_id: "cluster".into(),
            node_id: 1,
            log_dirs: vec![PathBuf::from("/b"), PathBuf::from("/a")],
            metadata_log_dir: PathBuf::from("/b"),
            features: features.resolve().unwrap(),
            initial_voters: Some(parse_voters("1@localhost:9093:JEXY6aqzQY-32P5TStzaFg").unwrap()),
            controller_listener_name: "CONTROLLER".into(),
            ignore_formatted: false,
        }
    }

    fn properties(disk: &MemoryDisk, path: &str) -> MetaProperties {
        MetaProperties::read(disk, Path::new(path)).unwrap().unwrap()
    }

    #[test]
    fn every_directory_gets_its_own_id_and_the_voters_one_is_kept() {
        let disk = MemoryDisk::default();
        let done = formatter().format(&disk, 5).unwrap();
        let told = done.to_string();
        let (bootstrap, directories) = told.split_once('\n').unwrap();
        assert!(bootstrap.starts_with(
            "Bootstrap metadata: BootstrapMetadata(records=[ApiMessageAndVersion(\
             FeatureLevelRecord(name='metadata.version', featureLevel=30) at version 0), "
        ));
        assert!(bootstrap.ends_with("], metadataVersionLevel=30, source=format command)"));
        assert_eq!(
            directories,
            "Formatting dynamic metadata voter directory /b with metadata.version 4.3-IV0.\n\
             Formatting data directory /a with metadata.version 4.3-IV0.\n"
        );
        let voter = properties(&disk, "/b/meta.properties");
        assert_eq!(voter.directory_id.unwrap().to_string(), "JEXY6aqzQY-32P5TStzaFg");
        assert_eq!((voter.cluster_id.as_deref(), voter.node_id), (Some("cluster"), Some(1)));
        assert_ne!(properties(&disk, "/a/meta.properties").directory_id, voter.directory_id);
        assert!(
            disk.exists(&Path::new("/b").join(METADATA_LOG_DIR).join(VOTERS_CHECKPOINT)).unwrap()
        );
        assert!(!disk.exists(&Path::new("/a").join(METADATA_LOG_DIR)).unwrap());
        assert!(disk.exists(Path::new("/a/bootstrap.checkpoint")).unwrap());
    }

    #[test]
    fn what_is_formatted_is_left_alone() {
        let disk = MemoryDisk::default();
        formatter().format(&disk, 5).unwrap();
        let before = properties(&disk, "/a/meta.properties");
        assert!(matches!(
            formatter().format(&disk, 6),
            Err(FormatError::AlreadyFormatted { path }) if path == Path::new("/a")
        ));
        let more = Formatter {
            ignore_formatted: true,
            log_dirs: vec![PathBuf::from("/a"), PathBuf::from("/b"), PathBuf::from("/c")],
            ..formatter()
        };
        let done = more.format(&disk, 7).unwrap();
        assert_eq!(done.directories, [(PathBuf::from("/c"), DirectoryKind::Log)]);
        assert_eq!(properties(&disk, "/a/meta.properties"), before);
        let again = more.format(&disk, 8).unwrap();
        assert_eq!(again.to_string(), "All of the log directories are already formatted.\n");
    }

    #[test]
    fn directories_of_others_are_refused_before_anything_is_written() {
        let disk = MemoryDisk::default();
        formatter().format(&disk, 5).unwrap();
        let elsewhere = |change: fn(&mut Formatter)| {
            let mut other = formatter();
            other.log_dirs.push(PathBuf::from("/0"));
            other.ignore_formatted = true;
            change(&mut other);
            other.format(&disk, 6).unwrap_err().to_string()
        };
        assert_eq!(
            elsewhere(|other| other.cluster_id = "other".into()),
            "/a belongs to cluster cluster, not to other; use that cluster id, or another directory"
        );
        assert_eq!(
            elsewhere(|other| other.node_id = 2),
            "/a belongs to node 1, not to node 2; set node.id=1, or use another directory"
        );
        assert!(!disk.exists(Path::new("/0/bootstrap.checkpoint")).unwrap());
    }

    #[test]
    fn a_copied_directory_is_noticed() {
        let disk = MemoryDisk::default();
        formatter().format(&disk, 5).unwrap();
        let copied = properties(&disk, "/a/meta.properties");
        disk.create_dir_all(Path::new("/c")).unwrap();
        copied.write(&disk, Path::new("/c/meta.properties")).unwrap();
        let mut with_copy = formatter();
        with_copy.log_dirs.push(PathBuf::from("/c"));
        assert!(matches!(with_copy.format(&disk, 6), Err(FormatError::DuplicateDirectory { .. })));
    }

    #[test]
    fn other_quorums_write_no_voters() {
        let disk = MemoryDisk::default();
        let without = Formatter { initial_voters: None, ..formatter() };
        let done = without.format(&disk, 5).unwrap();
        assert_eq!(done.directories[0].1, DirectoryKind::StaticMetadata);
        assert!(!disk.exists(&Path::new("/b").join(METADATA_LOG_DIR)).unwrap());
    }
}
