//! BrokerRegistration (API 62): a broker registers, or registers again (Kafka's ClusterControlManager.registerBroker).

use std::collections::BTreeSet;

use bytestring::ByteString;
use klamm_protocol::ids::{BrokerId, Offset};
use klamm_protocol::messages::broker_registration_request::BrokerRegistrationRequest;
use klamm_protocol::messages::broker_registration_response::BrokerRegistrationResponse;
use klamm_protocol::messages::register_broker_record::{
    BrokerEndpoint, BrokerFeature, RegisterBrokerRecord,
};
use klamm_protocol::metadata_record::MetadataRecord;
use klamm_protocol::{ErrorCode, Uuid};

use super::Controller;
use super::leader_and_isr::BrokerEvent;
use super::outcome::Outcome;
use crate::directory_id;
use crate::image::brokers::{Broker, SecurityProtocol, VersionRange};
use crate::image::features::KRAFT_VERSION;
use crate::metadata_version::MetadataVersion;

/// A broker's request has another epoch than the broker's registration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerEpochError {
    /// The broker is not registered.
    #[error("No broker registration found for broker id {broker}")]
    NotRegistered {
        /// The broker's id.
        broker: BrokerId,
    },
    /// The broker has registered again since, or never with this epoch.
    #[error("Expected broker epoch {current}, but got broker epoch {given}")]
    Stale {
        /// The registered epoch.
        current: i64,
        /// The epoch in the request.
        given: i64,
    },
}

impl BrokerEpochError {
    /// The error code for the broker.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotRegistered { .. } | Self::Stale { .. } => ErrorCode::StaleBrokerEpoch,
        }
    }
}

/// Why a broker may not register. The response has no field for the text: log it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// The broker's data directory belongs to another cluster.
    #[error("Expected cluster ID {expected}, but got cluster ID {given}")]
    InconsistentClusterId {
        /// This cluster.
        expected: ByteString,
        /// The cluster that the broker named.
        given: ByteString,
    },
    /// Another process with the same id has a session.
    #[error(
        "Another broker is registered with that broker id. If the broker was recently restarted this should self-resolve once the heartbeat manager expires the broker's session."
    )]
    DuplicateBroker,
    /// ZooKeeper brokers are not supported.
    #[error("Controller does not support registering ZK brokers.")]
    ZkBroker,
    /// The broker named no log directory.
    #[error("No directories specified in request")]
    NoDirectories,
    /// A log directory has a reserved id.
    #[error("Reserved directory ID in request")]
    ReservedDirectory,
    /// Two of the broker's log directories have the same id.
    #[error("Duplicate directory ID in request")]
    RepeatedDirectory,
    /// A log directory belongs to another broker: the data directory was copied.
    #[error("Broker {owner} is already registered with directory {directory}")]
    DirectoryInUse {
        /// The broker that has it.
        owner: BrokerId,
        /// The directory's id.
        directory: Uuid,
    },
    /// The broker does not support a finalized feature level.
    #[error(
        "Unable to register because the broker does not support finalized version {finalized} of {feature}. The broker wants a version between {min} and {max}, inclusive."
    )]
    UnsupportedFeature {
        /// The feature's name.
        feature: ByteString,
        /// The cluster's level.
        finalized: i16,
        /// The lowest level of the broker.
        min: i16,
        /// The highest level of the broker.
        max: i16,
    },
    /// The broker must send its supported metadata.version.
    #[error("Request features do not contain 'metadata.version'")]
    NoMetadataVersion,
    /// A listener has an unknown security protocol.
    #[error("Unknown security protocol {id} in listener {listener}")]
    UnknownSecurityProtocol {
        /// The listener's name.
        listener: ByteString,
        /// The protocol's id.
        id: i16,
    },
}

impl RegistrationError {
    /// The error code for the broker.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::InconsistentClusterId { .. } => ErrorCode::InconsistentClusterId,
            Self::DuplicateBroker => ErrorCode::DuplicateBrokerRegistration,
            Self::ZkBroker => ErrorCode::BrokerIdNotRegistered,
            Self::NoDirectories
            | Self::ReservedDirectory
            | Self::RepeatedDirectory
            | Self::DirectoryInUse { .. }
            | Self::NoMetadataVersion => ErrorCode::InvalidRegistration,
            Self::UnsupportedFeature { .. } => ErrorCode::UnsupportedVersion,
            Self::UnknownSecurityProtocol { .. } => ErrorCode::UnknownServerError,
        }
    }
}

impl Controller {
    /// Registers a broker, fenced.
    ///
    /// `next_offset` is the offset of the first record of this decision, which becomes the broker's epoch.
    /// `detects_clean_shutdown` is whether the request's version has the previous epoch (3 and later, KIP-966).
    pub fn on_broker_registration(
        &mut self,
        request: &BrokerRegistrationRequest,
        detects_clean_shutdown: bool,
        next_offset: Offset,
        now_ms: i64,
    ) -> Outcome<Result<BrokerRegistrationResponse, RegistrationError>> {
        let record = match self.registration(request, next_offset, now_ms) {
            Ok(record) => record,
            Err(error) => return Outcome::answer(Err(error)),
        };
        let mut records = Vec::new();
        let existing = self.image().brokers.get(request.broker_id);
        if existing.is_none_or(|broker| broker.incarnation_id != request.incarnation_id) {
            // No broker sends epoch -2: a broker that was never registered has no clean shutdown either.
            let stored_epoch = existing.map_or(-2, |broker| broker.epoch);
            let clean = detects_clean_shutdown && stored_epoch == request.previous_broker_epoch;
            let elr_enabled = self.image().features.is_elr_enabled();
            let event = if elr_enabled && !clean {
                BrokerEvent::UncleanShutdown(request.broker_id)
            } else {
                BrokerEvent::Leaves(request.broker_id)
            };
            self.update_partitions(event, &mut records);
            self.heartbeats_mut().remove(request.broker_id);
        }
        let broker_epoch = record.broker_epoch;
        self.record_amended_directories(&record, &mut records);
        records.push(MetadataRecord::RegisterBroker(record));
        self.record_returned_directories(request, &mut records);
        Outcome::spread(
            records,
            Ok(BrokerRegistrationResponse { broker_epoch, ..Default::default() }),
        )
    }

    /// The same incarnation of the broker registers without directories that it had: their replicas are offline.
    fn record_amended_directories(
        &self,
        record: &RegisterBrokerRecord,
        records: &mut Vec<MetadataRecord>,
    ) {
        let Some(existing) = self.image().brokers.get(record.broker_id) else { return };
        if existing.incarnation_id == record.incarnation_id {
            let is_gone = |directory: &&Uuid| !record.log_dirs.contains(directory);
            let gone: Vec<Uuid> = existing.directories.iter().filter(is_gone).copied().collect();
            self.move_away_from(record.broker_id, &gone, records);
        }
    }

    /// The same incarnation registers with directories that have returned: elects leaders for their partitions. A new
    /// incarnation is fenced, and can lead after it is unfenced.
    fn record_returned_directories(
        &self,
        request: &BrokerRegistrationRequest,
        records: &mut Vec<MetadataRecord>,
    ) {
        let (broker, online) = (request.broker_id, &*request.log_dirs);
        let Some(existing) = self.image().brokers.get(broker) else { return };
        if existing.incarnation_id == request.incarnation_id
            && online.iter().any(|directory| !existing.directories.contains(directory))
        {
            self.update_partitions(BrokerEvent::DirectoriesReturn { broker, online }, records);
        }
    }

    fn registration(
        &self,
        request: &BrokerRegistrationRequest,
        next_offset: Offset,
        now_ms: i64,
    ) -> Result<RegisterBrokerRecord, RegistrationError> {
        let existing = self.image().brokers.get(request.broker_id);
        self.check_identity(request, existing, now_ms)?;
        let version = self.image().metadata_version();
        if version.is_directory_assignment_supported() {
            self.check_directories(request)?;
        }
        self.check_features(request)?;
        let amended = existing.filter(|broker| broker.incarnation_id == request.incarnation_id);
        let log_dirs =
            version.is_directory_assignment_supported().then(|| request.log_dirs.clone());
        Ok(RegisterBrokerRecord {
            broker_id: request.broker_id,
            is_migrating_zk_broker: false,
            incarnation_id: request.incarnation_id,
            broker_epoch: amended.map_or(next_offset, |broker| broker.epoch),
            end_points: endpoints(request)?,
            features: features(request),
            rack: request.rack.clone(),
            fenced: amended.is_none_or(|broker| broker.fenced),
            in_controlled_shutdown: amended.is_some_and(|broker| broker.in_controlled_shutdown),
            log_dirs: log_dirs.unwrap_or_default(),
            cordoned_log_dirs: None,
        })
    }

    fn check_identity(
        &self,
        request: &BrokerRegistrationRequest,
        existing: Option<&Broker>,
        now_ms: i64,
    ) -> Result<(), RegistrationError> {
        if self.settings.cluster_id != request.cluster_id {
            return Err(RegistrationError::InconsistentClusterId {
                expected: self.settings.cluster_id.clone(),
                given: request.cluster_id.clone(),
            });
        }
        let own_id = self.settings.node_id;
        let lives_elsewhere = |broker: &Broker| {
            broker.incarnation_id != request.incarnation_id
                && self.heartbeats().has_valid_session(broker.id, broker.epoch, now_ms)
                && !(self.heartbeats().is_assumed(broker.id) && has_ended(broker, request, own_id))
        };
        if existing.is_some_and(lives_elsewhere) {
            return Err(RegistrationError::DuplicateBroker);
        }
        if request.is_migrating_zk_broker {
            return Err(RegistrationError::ZkBroker);
        }
        Ok(())
    }

    fn check_directories(
        &self,
        request: &BrokerRegistrationRequest,
    ) -> Result<(), RegistrationError> {
        if request.log_dirs.is_empty() {
            return Err(RegistrationError::NoDirectories);
        }
        if request.log_dirs.iter().copied().any(directory_id::is_reserved) {
            return Err(RegistrationError::ReservedDirectory);
        }
        if request.log_dirs.iter().collect::<BTreeSet<_>>().len() != request.log_dirs.len() {
            return Err(RegistrationError::RepeatedDirectory);
        }
        let others = self.image().brokers.iter().filter(|broker| broker.id != request.broker_id);
        let mut taken =
            others.flat_map(|owner| owner.directories.iter().map(|dir| (owner.id, *dir)));
        match taken.find(|(_, directory)| request.log_dirs.contains(directory)) {
            Some((owner, directory)) => Err(RegistrationError::DirectoryInUse { owner, directory }),
            None => Ok(()),
        }
    }

    /// Checks that the broker supports every finalized level. A feature that the request does not name has the range
    /// 0-0.
    fn check_features(&self, request: &BrokerRegistrationRequest) -> Result<(), RegistrationError> {
        let named = |name: &str| request.features.iter().find(|f| f.name == name);
        for feature in &request.features {
            let level = self.finalized_level(&feature.name);
            let range = VersionRange {
                min: feature.min_supported_version,
                max: feature.max_supported_version,
            };
            check_feature(&feature.name, level, range)?;
        }
        if named(MetadataVersion::FEATURE_NAME).is_none() {
            return Err(RegistrationError::NoMetadataVersion);
        }
        let finalized = self.image().features.finalized();
        for (name, level) in finalized.chain([(KRAFT_VERSION, self.settings.kraft_version)]) {
            if level != 0 && named(name).is_none() {
                check_feature(&ByteString::from(name), level, VersionRange::DISABLED)?;
            }
        }
        Ok(())
    }

    /// The cluster's level of any feature, including kraft.version; 0 if it is not finalized.
    pub(super) fn finalized_level(&self, feature: &str) -> i16 {
        match feature {
            MetadataVersion::FEATURE_NAME => self.image().metadata_version().level(),
            KRAFT_VERSION => self.settings.kraft_version,
            other => self.image().features.level(other),
        }
    }
}

fn check_feature(
    name: &ByteString,
    finalized: i16,
    range: VersionRange,
) -> Result<(), RegistrationError> {
    if range.contains(finalized) {
        return Ok(());
    }
    let (min, max) = (range.min, range.max);
    Err(RegistrationError::UnsupportedFeature { feature: name.clone(), finalized, min, max })
}

/// Whether the registered process of a broker must have ended, because of what the next one holds: the lock of one of its
/// log directories, or this node. That counts only as long as the controller has not heard from the registered one: a
/// copy of a directory on another machine has its id too.
fn has_ended(registered: &Broker, request: &BrokerRegistrationRequest, own_id: BrokerId) -> bool {
    registered.id == own_id
        || request.log_dirs.iter().any(|held| registered.directories.contains(held))
}

fn endpoints(
    request: &BrokerRegistrationRequest,
) -> Result<Vec<BrokerEndpoint>, RegistrationError> {
    let known = |id| SecurityProtocol::from_id(id).is_some();
    if let Some(bad) = request.listeners.iter().find(|l| !known(l.security_protocol)) {
        let (listener, id) = (bad.name.clone(), bad.security_protocol);
        return Err(RegistrationError::UnknownSecurityProtocol { listener, id });
    }
    let listeners = request.listeners.iter().map(|listener| BrokerEndpoint {
        name: listener.name.clone(),
        host: listener.host.clone(),
        port: listener.port,
        security_protocol: listener.security_protocol,
    });
    Ok(listeners.collect())
}

fn features(request: &BrokerRegistrationRequest) -> Vec<BrokerFeature> {
    let features = request.features.iter().map(|feature| BrokerFeature {
        name: feature.name.clone(),
        min_supported_version: feature.min_supported_version,
        max_supported_version: feature.max_supported_version,
    });
    features.collect()
}

#[cfg(test)]
mod tests;
