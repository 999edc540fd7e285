//! Finalized feature levels (KIP-584).
//!
//! Invariant: metadata.version is kept apart from the others, level 0 means absent, and
//! kraft.version is never here: it lives in control records (KAFKA-18979).

use bytestring::ByteString;
use klamm_protocol::messages::feature_level_record::FeatureLevelRecord;

use super::PersistentMap;
use super::replay_error::ReplayError;
use crate::metadata_version::MetadataVersion;

/// The feature that enables eligible leader replicas (KIP-966).
pub const ELIGIBLE_LEADER_REPLICAS_VERSION: &str = "eligible.leader.replicas.version";
/// The version of the Raft protocol, which is not in the image.
pub const KRAFT_VERSION: &str = "kraft.version";

/// The levels that the cluster has finalized.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FeaturesImage {
    metadata_version: Option<MetadataVersion>,
    levels: PersistentMap<ByteString, i16>,
}

impl FeaturesImage {
    /// The finalized metadata.version, after a record has set it.
    pub fn metadata_version(&self) -> Option<MetadataVersion> {
        self.metadata_version
    }

    /// The level of a feature other than metadata.version; 0 if it is not finalized.
    pub fn level(&self, name: &str) -> i16 {
        self.levels.get(name).copied().unwrap_or(0)
    }

    /// Every finalized feature with its level, metadata.version first, then by name.
    pub fn finalized(&self) -> impl Iterator<Item = (&str, i16)> {
        let metadata_version =
            self.metadata_version.map(|version| (MetadataVersion::FEATURE_NAME, version.level()));
        metadata_version
            .into_iter()
            .chain(self.levels.iter().map(|(name, level)| (&**name, *level)))
    }

    /// Whether eligible leader replicas are enabled.
    pub fn is_elr_enabled(&self) -> bool {
        self.level(ELIGIBLE_LEADER_REPLICAS_VERSION) >= 1
    }

    pub(super) fn replay(&mut self, record: &FeatureLevelRecord) -> Result<(), ReplayError> {
        if record.name == MetadataVersion::FEATURE_NAME {
            let level = record.feature_level;
            let version = MetadataVersion::from_level(level)
                .ok_or(ReplayError::UnsupportedMetadataVersion { level })?;
            self.metadata_version = Some(version);
        } else if record.name == KRAFT_VERSION {
            return Ok(());
        } else if record.feature_level == 0 {
            self.levels.remove_mut(&record.name);
        } else {
            self.levels.insert_mut(record.name.clone(), record.feature_level);
        }
        Ok(())
    }
}
