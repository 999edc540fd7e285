//! Whose a log directory is: of which cluster and node (`meta.properties`), and what becomes of one that is nobody's.

use std::path::Path;
use std::sync::Arc;

use klamm_log::disk::Disk;
use klamm_log::error::LogError;
use klamm_log::log_dir::LogDir;
use klamm_log::meta_properties::MetaProperties;
use klamm_log::open_files::OpenFiles;
use klamm_protocol::ids::BrokerId;
use tracing::info;

use super::StoreError;

/// Locks a directory and sees whether it can be read at all.
pub(super) fn look_into(
    disk: &Arc<dyn Disk>,
    files: &Arc<OpenFiles>,
    path: &Path,
) -> Result<(LogDir, Option<MetaProperties>), LogError> {
    let dir = LogDir::open(Arc::clone(disk), Arc::clone(files), path)?;
    disk.list(path)?;
    let properties = dir.meta_properties()?;
    Ok((dir, properties))
}

/// Refuses a directory of another cluster or node.
pub(super) fn check_identity(
    dir: &LogDir,
    mut properties: MetaProperties,
    cluster_id: &str,
    broker_id: BrokerId,
) -> Result<MetaProperties, StoreError> {
    if let Some(found) = properties.cluster_id.as_deref().filter(|found| *found != cluster_id) {
        return Err(StoreError::ForeignCluster {
            dir: dir.path().to_path_buf(),
            found: found.to_owned(),
            expected: cluster_id.to_owned(),
        });
    }
    if let Some(found) = properties.node_id.filter(|found| *found != broker_id) {
        let dir = dir.path().to_path_buf();
        return Err(StoreError::ForeignNode { dir, found, expected: broker_id });
    }
    // Directories formatted before Kafka 3.7 have no id of their own.
    if properties.directory_id.is_none() {
        properties.directory_id = Some(crate::random::uuid());
        dir.write_meta_properties(&properties)?;
    }
    Ok(properties)
}

/// Makes an empty directory part of the cluster. One with other files in it is refused: it is likely
/// not meant.
pub(super) fn format(
    dir: &LogDir,
    cluster_id: &str,
    broker_id: BrokerId,
) -> Result<MetaProperties, StoreError> {
    let disk = &dir.storage().disk;
    let entries = disk.list(dir.path()).map_err(LogError::from)?;
    if entries.iter().any(|entry| !matches!(entry.name.as_str(), ".lock" | "lost+found")) {
        return Err(StoreError::NotADataDirectory { dir: dir.path().to_path_buf() });
    }
    let properties = MetaProperties::new(cluster_id, broker_id, crate::random::uuid());
    dir.write_meta_properties(&properties)?;
    info!("{} is formatted for cluster {cluster_id}", dir.path().display());
    Ok(properties)
}
