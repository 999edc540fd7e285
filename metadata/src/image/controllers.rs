//! Registered controllers (KIP-919).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytestring::ByteString;
use klamm_protocol::Uuid;
use klamm_protocol::ids::BrokerId;
use klamm_protocol::messages::register_controller_record::RegisterControllerRecord;

use super::PersistentMap;
use super::brokers::{Endpoint, VersionRange};
use super::replay_error::ReplayError;

/// A controller's registration.
#[derive(Debug, Clone, PartialEq)]
pub struct ControllerRegistration {
    /// The node's id.
    pub id: BrokerId,
    /// Random id of the controller's process.
    pub incarnation_id: Uuid,
    /// A controller that takes part in a ZooKeeper migration; only old logs have it.
    pub zk_migration_ready: bool,
    /// Endpoints by listener name.
    pub listeners: BTreeMap<ByteString, Endpoint>,
    /// Feature levels that the controller supports.
    pub supported_features: BTreeMap<ByteString, VersionRange>,
}

impl ControllerRegistration {
    /// Decodes a registration.
    pub fn from_record(record: &RegisterControllerRecord) -> Result<Self, ReplayError> {
        let mut listeners = BTreeMap::new();
        for e in &record.end_points {
            let endpoint = Endpoint::new(&e.name, &e.host, e.port, e.security_protocol)?;
            listeners.insert(e.name.clone(), endpoint);
        }
        let range = |min, max| VersionRange { min, max };
        let features = record.features.iter();
        Ok(Self {
            id: record.controller_id,
            incarnation_id: record.incarnation_id,
            zk_migration_ready: record.zk_migration_ready,
            listeners,
            supported_features: features
                .map(|f| (f.name.clone(), range(f.min_supported_version, f.max_supported_version)))
                .collect(),
        })
    }
}

/// All registered controllers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ControllersImage {
    controllers: PersistentMap<BrokerId, Arc<ControllerRegistration>>,
}

impl ControllersImage {
    /// The registration of a controller.
    pub fn get(&self, id: BrokerId) -> Option<&ControllerRegistration> {
        self.controllers.get(&id).map(Arc::as_ref)
    }

    /// All registrations by id.
    pub fn iter(&self) -> impl Iterator<Item = &ControllerRegistration> {
        self.controllers.values().map(Arc::as_ref)
    }

    pub(super) fn replay(&mut self, record: &RegisterControllerRecord) -> Result<(), ReplayError> {
        let controller = ControllerRegistration::from_record(record)?;
        self.controllers.insert_mut(controller.id, Arc::new(controller));
        Ok(())
    }
}
