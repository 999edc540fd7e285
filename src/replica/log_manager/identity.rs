//! The owner of a log directory: its cluster and node (`meta.properties`). An empty directory is formatted.

use std::path::Path;

use klamm_log::error::LogError;
use klamm_log::log_dir::LogDir;
use klamm_log::meta_properties::MetaProperties;
use klamm_protocol::Uuid;
use klamm_protocol::ids::BrokerId;
use tracing::info;

use super::StoreError;
use super::start::LayoutError;
use super::survey::is_nothing;

/// Refuses a directory of another cluster or node.
pub(super) fn check_owner(
    path: &Path,
    properties: &MetaProperties,
    cluster_id: &str,
    broker_id: BrokerId,
) -> Result<(), StoreError> {
    let dir = || path.to_path_buf();
    if let Some(found) = properties.cluster_id.clone().filter(|found| found != cluster_id) {
        let expected = cluster_id.to_owned();
        return Err(StoreError::ForeignCluster { dir: dir(), found, expected });
    }
    match properties.node_id.filter(|found| *found != broker_id) {
        Some(found) => Err(StoreError::ForeignNode { dir: dir(), found, expected: broker_id }),
        None => Ok(()),
    }
}

/// The directory's own id. Directories formatted before Kafka 3.7 have none: they get one.
pub(super) fn id_of(dir: &LogDir, mut properties: MetaProperties) -> Result<Uuid, LogError> {
    if let Some(id) = properties.directory_id {
        return Ok(id);
    }
    let id = crate::random::uuid();
    properties.directory_id = Some(id);
    dir.write_meta_properties(&properties)?;
    Ok(id)
}

/// Formats an empty directory for the cluster. One with other files in it is refused: it is likely a mistake.
pub(super) fn format(
    dir: &LogDir,
    cluster_id: &str,
    broker_id: BrokerId,
) -> Result<MetaProperties, StoreError> {
    let disk = &dir.storage().disk;
    let entries = disk.list(dir.path()).map_err(LogError::from)?;
    if !entries.iter().all(is_nothing) {
        let dir = dir.path().to_path_buf();
        return Err(LayoutError::NotADataDirectory { dir }.into());
    }
    let properties = MetaProperties::new(cluster_id, broker_id, crate::random::uuid());
    dir.write_meta_properties(&properties)?;
    info!("{} is formatted for cluster {cluster_id}", dir.path().display());
    Ok(properties)
}
