//! UpdateFeatures (API 57): upgrades and, if the request allows it, downgrades finalized feature levels (KIP-584,
//! KIP-1022; Kafka's FeatureControlManager).
//!
//! Invariant: a level is finalized only if every registered broker and controller supports it.

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;
use klamm_protocol::messages::config_record::ConfigRecord;
use klamm_protocol::messages::feature_level_record::FeatureLevelRecord;
use klamm_protocol::messages::update_features_request::{FeatureUpdateKey, UpdateFeaturesRequest};
use klamm_protocol::messages::update_features_response::{
    UpdatableFeatureResult, UpdateFeaturesResponse,
};
use klamm_protocol::metadata_record::MetadataRecord;

use super::Controller;
use super::effective_configs::MIN_INSYNC_REPLICAS;
use super::outcome::Outcome;
use crate::image::brokers::VersionRange;
use crate::image::configs::{ConfigResource, ConfigResourceType};
use crate::image::features::{ELIGIBLE_LEADER_REPLICAS_VERSION, KRAFT_VERSION};
use crate::metadata_version::MetadataVersion;

/// A node that does not support a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureSupporter {
    /// The active controller itself.
    LocalController(BrokerId),
    /// A registered broker.
    Broker(BrokerId),
    /// A registered controller.
    Controller(BrokerId),
}

impl std::fmt::Display for FeatureSupporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LocalController(id) => write!(f, "Local controller {id}"),
            Self::Broker(id) => write!(f, "Broker {id}"),
            Self::Controller(id) => write!(f, "Controller {id}"),
        }
    }
}

/// Why a level cannot be finalized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeatureUpdateReason {
    /// Not 1 (upgrade), 2 (safe downgrade) or 3 (unsafe downgrade).
    #[error("The controller does not support the given upgrade type.")]
    UnknownUpgradeType,
    /// Levels begin at 0.
    #[error("A feature version cannot be less than 0.")]
    Negative,
    /// A node does not support the feature.
    #[error("{who} does not support this feature.")]
    UnknownToNode {
        /// The node.
        who: FeatureSupporter,
    },
    /// A node supports other levels.
    #[error("{who} only supports versions {range}")]
    UnsupportedByNode {
        /// The node.
        who: FeatureSupporter,
        /// The levels it supports.
        range: VersionRange,
    },
    /// A controller of the quorum is not registered, so its supported levels are unknown.
    #[error("controller {id} has not registered, and may not support this feature")]
    ControllerNotRegistered {
        /// The controller's id.
        id: BrokerId,
    },
    /// A downgrade needs a downgrade type in the request.
    #[error(
        "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade."
    )]
    DowngradeNotAllowed,
    /// A downgrade to a higher level.
    #[error("Can't downgrade to a newer version.")]
    DowngradeGoesUp,
    /// kraft.version cannot be downgraded.
    #[error("Can't downgrade the version of this feature.")]
    NoDowngrade,
    /// The feature does not exist.
    #[error("Feature {feature} not found.")]
    UnknownFeature {
        /// The requested name.
        feature: ByteString,
    },
    /// kraft.version is upgraded by the quorum, not here.
    #[error("kraft.version can only be upgraded by the quorum's leader.")]
    KRaftVersion,
}

/// Why features are not updated. Always INVALID_UPDATE_VERSION.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeatureUpdateError {
    /// The level cannot be finalized.
    #[error("Invalid update version {level} for feature {feature}. {reason}")]
    Invalid {
        /// The feature's name.
        feature: ByteString,
        /// The requested level.
        level: i16,
        /// The reason.
        reason: FeatureUpdateReason,
    },
    /// metadata.version has no such level.
    #[error("Invalid metadata.version {level}. Valid versions are from 7 to 30.")]
    InvalidMetadataVersion {
        /// The requested level.
        level: i16,
    },
    /// Metadata would be lost.
    #[error("Unsupported metadata.version downgrade from {from} to {to}. {}", if *unsafe_ {
        "Unsafe metadata downgrade is not supported in this version."
    } else {
        "Refusing to perform the requested downgrade because it might delete metadata information."
    })]
    LossyDowngrade {
        /// The level now.
        from: i16,
        /// The requested level.
        to: i16,
        /// Whether the client accepts losses, which are not supported yet.
        unsafe_: bool,
    },
}

impl FeatureUpdateError {
    /// The error code for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid { .. }
            | Self::InvalidMetadataVersion { .. }
            | Self::LossyDowngrade { .. } => ErrorCode::InvalidUpdateVersion,
        }
    }
}

/// The allowed direction of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UpgradeType {
    Upgrade,
    SafeDowngrade,
    UnsafeDowngrade,
}

impl UpgradeType {
    fn of(update: &FeatureUpdateKey) -> Option<Self> {
        match update.upgrade_type {
            1 => Some(Self::Upgrade),
            2 => Some(Self::SafeDowngrade),
            3 => Some(Self::UnsafeDowngrade),
            _ => None,
        }
    }
}

impl Controller {
    /// Finalizes feature levels, all or none.
    ///
    /// Results of single features are for versions 0 and 1 of the response and exist only on success. As in Kafka
    /// 4.3.1, `allow_downgrade` of version 0 has no effect.
    pub fn on_update_features(
        &self,
        request: &UpdateFeaturesRequest,
    ) -> Outcome<UpdateFeaturesResponse> {
        let mut records = Vec::new();
        for update in &request.feature_updates {
            match self.update_feature(update) {
                Ok(record) => records.extend(record),
                Err(error) => return Outcome::answer(refused(&error)),
            }
        }
        if request.feature_updates.iter().any(turns_elr_on) {
            let mut with_safety = self.elr_safety_records();
            with_safety.append(&mut records);
            records = with_safety;
        }
        let results = request.feature_updates.iter().map(|update| UpdatableFeatureResult {
            feature: update.feature.clone(),
            error_code: ErrorCode::None.code(),
            // Kafka's message of a feature without an error.
            error_message: Some(ByteString::from_static("NONE")),
        });
        let results = results.collect();
        let response =
            UpdateFeaturesResponse { error_message: None, results, ..Default::default() };
        let outcome = Outcome::atomic(records, response);
        if request.validate_only { outcome.without_records() } else { outcome }
    }

    fn update_feature(
        &self,
        update: &FeatureUpdateKey,
    ) -> Result<Option<MetadataRecord>, FeatureUpdateError> {
        let (feature, level) = (&update.feature, update.max_version_level);
        let invalid =
            |reason| FeatureUpdateError::Invalid { feature: feature.clone(), level, reason };
        let type_ = UpgradeType::of(update)
            .ok_or_else(|| invalid(FeatureUpdateReason::UnknownUpgradeType))?;
        if level < 0 {
            return Err(invalid(FeatureUpdateReason::Negative));
        }
        self.check_support(feature, level).map_err(invalid)?;
        let current = self.finalized_level(feature);
        if level < current && type_ == UpgradeType::Upgrade {
            return Err(invalid(FeatureUpdateReason::DowngradeNotAllowed));
        }
        if level > current && type_ != UpgradeType::Upgrade {
            return Err(invalid(FeatureUpdateReason::DowngradeGoesUp));
        }
        match &**feature {
            MetadataVersion::FEATURE_NAME => self.check_metadata_version(level, type_)?,
            KRAFT_VERSION if level == current => return Ok(None),
            KRAFT_VERSION if level < current => {
                return Err(invalid(FeatureUpdateReason::NoDowngrade));
            }
            KRAFT_VERSION => return Err(invalid(FeatureUpdateReason::KRaftVersion)),
            name if !self.settings.supported_features.contains_key(name) => {
                let feature = feature.clone();
                return Err(invalid(FeatureUpdateReason::UnknownFeature { feature }));
            }
            _ => {}
        }
        let record = FeatureLevelRecord { name: feature.clone(), feature_level: level };
        Ok(Some(MetadataRecord::FeatureLevel(record)))
    }

    fn check_support(&self, feature: &ByteString, level: i16) -> Result<(), FeatureUpdateReason> {
        let check = |who, supported: Option<&VersionRange>| {
            let range = supported.copied().unwrap_or(VersionRange::DISABLED);
            match range {
                range if range.contains(level) => Ok(()),
                VersionRange { max: 0, .. } => Err(FeatureUpdateReason::UnknownToNode { who }),
                range => Err(FeatureUpdateReason::UnsupportedByNode { who, range }),
            }
        };
        let own = self.settings.node_id;
        let local = self.settings.supported_features.get(feature);
        check(FeatureSupporter::LocalController(own), local)?;
        for broker in self.image().brokers.iter() {
            let range = broker.supported_features.get(feature);
            check(FeatureSupporter::Broker(broker.id), range)?;
        }
        if !self.image().metadata_version().is_controller_registration_supported() {
            return Ok(());
        }
        let controllers = &self.image().controllers;
        for controller in controllers.iter().filter(|controller| controller.id != own) {
            let range = controller.supported_features.get(feature);
            check(FeatureSupporter::Controller(controller.id), range)?;
        }
        let unknown = |id: &&BrokerId| **id != own && controllers.get(**id).is_none();
        match self.settings.quorum_voters.iter().find(unknown) {
            Some(id) => Err(FeatureUpdateReason::ControllerNotRegistered { id: *id }),
            None => Ok(()),
        }
    }

    fn check_metadata_version(
        &self,
        level: i16,
        type_: UpgradeType,
    ) -> Result<(), FeatureUpdateError> {
        let current = self.image().metadata_version();
        let new = MetadataVersion::from_level(level)
            .ok_or(FeatureUpdateError::InvalidMetadataVersion { level })?;
        if new < current && current.metadata_changed(new) {
            return Err(FeatureUpdateError::LossyDowngrade {
                from: current.level(),
                to: level,
                unsafe_: type_ == UpgradeType::UnsafeDowngrade,
            });
        }
        Ok(())
    }

    /// The records that set min.insync.replicas for the cluster and remove it from single brokers, as eligible leader
    /// replicas require.
    fn elr_safety_records(&self) -> Vec<MetadataRecord> {
        let configs = &self.image().configs;
        let mut records = Vec::new();
        if configs.value(&ConfigResource::all_brokers(), MIN_INSYNC_REPLICAS).is_none() {
            records.push(self.cluster_min_insync_replicas());
        }
        let of_one_broker = configs.iter().filter(|(resource, values)| {
            resource.type_ == ConfigResourceType::Broker
                && !resource.name.is_empty()
                && values.contains_key(MIN_INSYNC_REPLICAS)
        });
        records.extend(of_one_broker.map(|(resource, _)| {
            MetadataRecord::Config(ConfigRecord {
                resource_type: resource.type_.id(),
                resource_name: resource.name.clone(),
                name: ByteString::from_static(MIN_INSYNC_REPLICAS),
                value: None,
            })
        }));
        records
    }

    /// Finalized features whose level this node does not support. With any, the node must not serve: it would process
    /// records and requests that it does not understand.
    pub fn unsupported_features(&self) -> Vec<(ByteString, i16)> {
        let finalized = self.image().features.finalized();
        let unsupported = finalized.filter(|(name, level)| {
            let range = self.settings.supported_features.get(*name);
            !range.copied().unwrap_or(VersionRange::DISABLED).contains(*level)
        });
        unsupported.map(|(name, level)| (name.into(), level)).collect()
    }
}

fn turns_elr_on(update: &FeatureUpdateKey) -> bool {
    update.feature == ELIGIBLE_LEADER_REPLICAS_VERSION && update.max_version_level > 0
}

fn refused(error: &FeatureUpdateError) -> UpdateFeaturesResponse {
    let text = format!(
        "The update failed for all features since the following feature had an error: {error}"
    );
    UpdateFeaturesResponse {
        error_code: error.code().code(),
        error_message: Some(text.into()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
