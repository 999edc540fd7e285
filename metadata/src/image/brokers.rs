//! Registered brokers.
//!
//! Invariant: every change record has the epoch of its registration, so a record about an earlier registration never
//! changes a newer one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytestring::ByteString;
use klamm_protocol::Uuid;
use klamm_protocol::ids::BrokerId;
use klamm_protocol::messages::broker_registration_change_record::BrokerRegistrationChangeRecord;
use klamm_protocol::messages::fence_broker_record::FenceBrokerRecord;
use klamm_protocol::messages::register_broker_record::RegisterBrokerRecord;
use klamm_protocol::messages::unfence_broker_record::UnfenceBrokerRecord;
use klamm_protocol::messages::unregister_broker_record::UnregisterBrokerRecord;

use super::PersistentMap;
use super::replay_error::ReplayError;
use crate::directory_id;

/// The protocol of a listener (Kafka's SecurityProtocol).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i16)]
pub enum SecurityProtocol {
    /// Neither encrypted nor authenticated.
    Plaintext = 0,
    /// TLS.
    Ssl = 1,
    /// SASL without TLS.
    SaslPlaintext = 2,
    /// SASL over TLS.
    SaslSsl = 3,
}

impl SecurityProtocol {
    /// The protocol with this id in records and requests.
    pub fn from_id(id: i16) -> Option<Self> {
        match id {
            0 => Some(Self::Plaintext),
            1 => Some(Self::Ssl),
            2 => Some(Self::SaslPlaintext),
            3 => Some(Self::SaslSsl),
            _ => None,
        }
    }

    /// Its id in records and requests.
    pub fn id(self) -> i16 {
        match self {
            Self::Plaintext => 0,
            Self::Ssl => 1,
            Self::SaslPlaintext => 2,
            Self::SaslSsl => 3,
        }
    }
}

/// The advertised endpoint of a node's listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address, as advertised.
    pub host: ByteString,
    /// Port, as advertised.
    pub port: u16,
    /// The listener's security protocol.
    pub security_protocol: SecurityProtocol,
}

impl Endpoint {
    /// Builds an endpoint from a record's or request's fields.
    pub fn new(
        listener: &ByteString,
        host: &ByteString,
        port: u16,
        id: i16,
    ) -> Result<Self, ReplayError> {
        let security_protocol = SecurityProtocol::from_id(id).ok_or_else(|| {
            ReplayError::UnknownSecurityProtocol { listener: listener.clone(), id }
        })?;
        Ok(Self { host: host.clone(), port, security_protocol })
    }
}

/// The levels of a feature that a node supports, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    /// The lowest level.
    pub min: i16,
    /// The highest level.
    pub max: i16,
}

impl VersionRange {
    /// The range of a feature that a node does not support.
    pub const DISABLED: Self = Self { min: 0, max: 0 };

    /// Whether the node supports this level.
    pub fn contains(self, level: i16) -> bool {
        self.min <= level && level <= self.max
    }
}

impl std::fmt::Display for VersionRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min)
        } else if self.max == i16::MAX {
            write!(f, "{}+", self.min)
        } else {
            write!(f, "{}-{}", self.min, self.max)
        }
    }
}

/// A broker's registration, with the changes by the controller since.
#[derive(Debug, Clone, PartialEq)]
pub struct Broker {
    /// The node's id.
    pub id: BrokerId,
    /// The offset of the registration's record, which identifies the registration.
    pub epoch: i64,
    /// Random id of the broker's process.
    pub incarnation_id: Uuid,
    /// Endpoints by listener name.
    pub listeners: BTreeMap<ByteString, Endpoint>,
    /// Feature levels that the broker supports.
    pub supported_features: BTreeMap<ByteString, VersionRange>,
    /// The broker's rack.
    pub rack: Option<ByteString>,
    /// Fenced brokers lead nothing and are hidden from clients.
    pub fenced: bool,
    /// Whether the broker is in controlled shutdown.
    pub in_controlled_shutdown: bool,
    /// A ZooKeeper broker in a migration; only old logs have it.
    pub is_migrating_zk_broker: bool,
    /// Online log directories.
    pub directories: Vec<Uuid>,
    /// Log directories that take no new replicas; unknown until the broker's first heartbeats.
    pub cordoned_directories: Option<Vec<Uuid>>,
}

impl Broker {
    /// Decodes a registration.
    pub fn from_record(record: &RegisterBrokerRecord) -> Result<Self, ReplayError> {
        let mut listeners = BTreeMap::new();
        for e in &record.end_points {
            let endpoint = Endpoint::new(&e.name, &e.host, e.port, e.security_protocol)?;
            listeners.insert(e.name.clone(), endpoint);
        }
        let range = |min, max| VersionRange { min, max };
        let features = record.features.iter();
        Ok(Self {
            id: record.broker_id,
            epoch: record.broker_epoch,
            incarnation_id: record.incarnation_id,
            listeners,
            supported_features: features
                .map(|f| (f.name.clone(), range(f.min_supported_version, f.max_supported_version)))
                .collect(),
            rack: record.rack.clone(),
            fenced: record.fenced,
            in_controlled_shutdown: record.in_controlled_shutdown,
            is_migrating_zk_broker: record.is_migrating_zk_broker,
            directories: record.log_dirs.clone(),
            cordoned_directories: record.cordoned_log_dirs.clone(),
        })
    }

    /// Whether the broker may lead and be in an ISR.
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    /// Whether a replica in this directory can be served.
    pub fn has_online_dir(&self, directory: Uuid) -> bool {
        directory_id::is_online(directory, &self.directories)
    }

    /// Whether new replicas may be placed on the broker (KIP-1066).
    pub fn has_uncordoned_dirs(&self) -> bool {
        let Some(cordoned) = &self.cordoned_directories else { return true };
        self.directories.is_empty() || self.directories.iter().any(|dir| !cordoned.contains(dir))
    }

    /// The directory of a new replica: the only one, or `UNASSIGNED`, so that the broker chooses.
    pub fn default_dir(&self) -> Uuid {
        match self.directories.as_slice() {
            [] => directory_id::MIGRATING,
            [only] => *only,
            _ => directory_id::UNASSIGNED,
        }
    }

    /// Whether these cordoned directories of a heartbeat differ from the registered ones.
    pub fn cordoned_dirs_changed(&self, reported: &[Uuid]) -> bool {
        let Some(known) = &self.cordoned_directories else { return true };
        known.iter().collect::<BTreeSet<_>>() != reported.iter().collect::<BTreeSet<_>>()
    }
}

/// All registered brokers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BrokersImage {
    brokers: PersistentMap<BrokerId, Arc<Broker>>,
}

impl BrokersImage {
    /// The registration of a broker.
    pub fn get(&self, id: BrokerId) -> Option<&Broker> {
        self.brokers.get(&id).map(Arc::as_ref)
    }

    /// All registrations by id, including fenced ones.
    pub fn iter(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values().map(Arc::as_ref)
    }

    /// The number of registered brokers, including fenced ones.
    pub fn len(&self) -> usize {
        self.brokers.size()
    }

    /// Whether no broker is registered.
    pub fn is_empty(&self) -> bool {
        self.brokers.is_empty()
    }

    /// Whether the broker is registered and may lead and be in an ISR.
    pub fn is_active(&self, id: BrokerId) -> bool {
        self.get(id).is_some_and(Broker::is_active)
    }

    /// Whether the broker is registered and not fenced.
    pub fn is_alive(&self, id: BrokerId) -> bool {
        self.get(id).is_some_and(|broker| !broker.fenced)
    }

    /// Whether clients on this listener can reach the broker.
    pub fn is_reachable(&self, id: BrokerId, listener: &str) -> bool {
        self.get(id).is_some_and(|broker| !broker.fenced && broker.listeners.contains_key(listener))
    }

    /// Whether the broker can serve a replica in this directory.
    pub fn has_online_dir(&self, id: BrokerId, directory: Uuid) -> bool {
        self.get(id).is_some_and(|broker| broker.has_online_dir(directory))
    }

    /// The directory of a new replica on the broker. Other checks refuse an unknown broker.
    pub fn default_dir(&self, id: BrokerId) -> Uuid {
        self.get(id).map_or(directory_id::UNASSIGNED, Broker::default_dir)
    }

    /// The unfenced brokers with an endpoint on the client's listener.
    pub fn alive_on(&self, listener: &str) -> impl Iterator<Item = (&Broker, &Endpoint)> {
        self.on(listener).filter(|(broker, _)| !broker.fenced)
    }

    /// All brokers with the listener, including fenced ones, with their endpoint on it.
    pub fn on(&self, listener: &str) -> impl Iterator<Item = (&Broker, &Endpoint)> {
        self.iter().filter_map(move |broker| Some((broker, broker.listeners.get(listener)?)))
    }

    pub(super) fn replay_register(
        &mut self,
        record: &RegisterBrokerRecord,
    ) -> Result<(), ReplayError> {
        let broker = Broker::from_record(record)?;
        self.brokers.insert_mut(broker.id, Arc::new(broker));
        Ok(())
    }

    pub(super) fn replay_unregister(
        &mut self,
        record: &UnregisterBrokerRecord,
    ) -> Result<(), ReplayError> {
        self.at_epoch(record.broker_id, record.broker_epoch)?;
        self.brokers.remove_mut(&record.broker_id);
        Ok(())
    }

    pub(super) fn replay_fence(&mut self, record: &FenceBrokerRecord) -> Result<(), ReplayError> {
        let broker = self.at_epoch(record.id, record.epoch)?;
        self.put(Broker { fenced: true, ..broker.clone() });
        Ok(())
    }

    pub(super) fn replay_unfence(
        &mut self,
        record: &UnfenceBrokerRecord,
    ) -> Result<(), ReplayError> {
        let broker = self.at_epoch(record.id, record.epoch)?;
        self.put(Broker { fenced: false, ..broker.clone() });
        Ok(())
    }

    pub(super) fn replay_change(
        &mut self,
        record: &BrokerRegistrationChangeRecord,
    ) -> Result<(), ReplayError> {
        let mut broker = self.at_epoch(record.broker_id, record.broker_epoch)?.clone();
        let invalid = |field, value| ReplayError::InvalidRegistrationChange {
            broker: record.broker_id,
            field,
            value,
        };
        match record.fenced {
            0 => {}
            1 => broker.fenced = true,
            -1 => broker.fenced = false,
            other => return Err(invalid("Fenced", other)),
        }
        match record.in_controlled_shutdown {
            0 => {}
            1 => broker.in_controlled_shutdown = true,
            other => return Err(invalid("InControlledShutdown", other)),
        }
        if !record.log_dirs.is_empty() {
            broker.directories.clone_from(&record.log_dirs);
        }
        if record.cordoned_log_dirs.is_some() {
            broker.cordoned_directories.clone_from(&record.cordoned_log_dirs);
        }
        self.put(broker);
        Ok(())
    }

    fn put(&mut self, broker: Broker) {
        self.brokers.insert_mut(broker.id, Arc::new(broker));
    }

    fn at_epoch(&self, id: BrokerId, epoch: i64) -> Result<&Broker, ReplayError> {
        let broker = self.get(id).ok_or(ReplayError::UnknownBroker { broker: id })?;
        if broker.epoch != epoch {
            return Err(ReplayError::BrokerEpochMismatch {
                broker: id,
                current: broker.epoch,
                replayed: epoch,
            });
        }
        Ok(broker)
    }
}
