//! Dynamic configurations: the values of each resource and key.
//!
//! Values are kept as written, unparsed. A resource without a value is absent.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytestring::ByteString;
use klamm_protocol::messages::config_record::ConfigRecord;

use super::PersistentMap;
use super::replay_error::ReplayError;
use crate::config_def::Configs;

/// The type of a resource (Kafka's ConfigResource.Type).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigResourceType {
    /// A topic, by name.
    Topic,
    /// A broker, by id; the empty name means all brokers.
    Broker,
    /// A broker's loggers; Kafka never writes them to the metadata log.
    BrokerLogger,
    /// A client metrics subscription, by name.
    ClientMetrics,
    /// A group, by id.
    Group,
}

impl ConfigResourceType {
    /// The type with this id in records and requests.
    pub fn from_id(id: i8) -> Option<Self> {
        match id {
            2 => Some(Self::Topic),
            4 => Some(Self::Broker),
            8 => Some(Self::BrokerLogger),
            16 => Some(Self::ClientMetrics),
            32 => Some(Self::Group),
            _ => None,
        }
    }

    /// Its id in records and requests.
    pub fn id(self) -> i8 {
        match self {
            Self::Topic => 2,
            Self::Broker => 4,
            Self::BrokerLogger => 8,
            Self::ClientMetrics => 16,
            Self::Group => 32,
        }
    }
}

/// A resource with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigResource {
    /// Its type.
    pub type_: ConfigResourceType,
    /// Its name; empty for the default of all brokers.
    pub name: ByteString,
}

impl ConfigResource {
    /// A topic.
    pub fn topic(name: impl Into<ByteString>) -> Self {
        Self { type_: ConfigResourceType::Topic, name: name.into() }
    }

    /// All brokers: the cluster-wide default of dynamic broker configurations.
    pub fn all_brokers() -> Self {
        Self { type_: ConfigResourceType::Broker, name: ByteString::new() }
    }

    /// One broker.
    pub fn broker(id: i32) -> Self {
        Self { type_: ConfigResourceType::Broker, name: ByteString::from(id.to_string()) }
    }
}

/// The configurations of all resources.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConfigsImage {
    resources: PersistentMap<ConfigResource, Arc<Configs>>,
}

/// A resource without a configuration borrows this one.
static NO_VALUES: Configs = BTreeMap::new();

impl ConfigsImage {
    /// The values of a resource; empty if there are none.
    pub fn of(&self, resource: &ConfigResource) -> &Configs {
        self.resources.get(resource).map_or(&NO_VALUES, Arc::as_ref)
    }

    /// The values of a topic.
    pub fn of_topic(&self, name: &str) -> &Configs {
        self.of(&ConfigResource::topic(name))
    }

    /// One value of a resource.
    pub fn value(&self, resource: &ConfigResource, key: &str) -> Option<&str> {
        self.of(resource).get(key).map(|value| &**value)
    }

    /// Every resource that has a configuration.
    pub fn iter(&self) -> impl Iterator<Item = (&ConfigResource, &Configs)> {
        self.resources.iter().map(|(resource, values)| (resource, values.as_ref()))
    }

    /// Whether anything differs. Costs nothing between images that share this part.
    pub(crate) fn differs_from(&self, other: &Self) -> bool {
        !self.resources.ptr_eq(&other.resources) && self != other
    }

    pub(super) fn replay(&mut self, record: &ConfigRecord) -> Result<(), ReplayError> {
        let type_ = ConfigResourceType::from_id(record.resource_type).ok_or_else(|| {
            ReplayError::UnknownConfigResourceType {
                type_: record.resource_type,
                name: record.resource_name.clone(),
                key: record.name.clone(),
            }
        })?;
        let resource = ConfigResource { type_, name: record.resource_name.clone() };
        let mut values = self.of(&resource).clone();
        match &record.value {
            Some(value) => values.insert(record.name.clone(), value.clone()),
            None => values.remove(&record.name),
        };
        if values.is_empty() {
            self.resources.remove_mut(&resource);
        } else {
            self.resources.insert_mut(resource, Arc::new(values));
        }
        Ok(())
    }

    /// Removes the configuration of a deleted topic; the log has no records for that.
    pub(super) fn remove_topic(&mut self, name: &ByteString) {
        self.resources.remove_mut(&ConfigResource::topic(name.clone()));
    }
}
