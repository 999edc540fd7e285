//! What handlers use: the services of this services.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use super::context::Context;
use super::fetch_session::FetchSessions;
use super::request::Request;
use super::table;
use crate::broker_session::BrokerSession;
use crate::cluster::auto_topics::AutoTopicCreation;
use crate::cluster::producer_ids::ProducerIds;
use crate::config::dynamic::DynamicBrokerConfig;
use crate::controller::channel::ControllerChannel;
use crate::controller::handle::ControllerHandle;
use crate::coordinator::GroupCoordinators;
use crate::metadata_cache::MetadataCache;
use crate::net::service::{Begun, ConnectionError, ConnectionInfo, Service};
use crate::replica::replica_manager::ReplicaManager;

/// The services of this node (Kafka's `KafkaApis` holds the same).
pub(crate) struct Services {
    pub(crate) config: Arc<DynamicBrokerConfig>,
    pub(crate) session: Arc<BrokerSession>,
    pub(crate) cluster_id: ByteString,
    pub(crate) metadata_cache: Arc<MetadataCache>,
    pub(crate) replicas: Arc<ReplicaManager>,
    pub(crate) controller: ControllerHandle,
    /// To the active controller, for what clients ask this broker.
    pub(crate) forwarding: Arc<ControllerChannel>,
    pub(crate) groups: Arc<GroupCoordinators>,
    pub(crate) auto_topics: AutoTopicCreation,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) fetch_sessions: FetchSessions,
}

/// The APIs, as the network sees them.
pub(crate) struct ApiService(pub(crate) Arc<Services>);

impl Service for ApiService {
    fn begin(&self, connection: &ConnectionInfo, frame: Bytes) -> Result<Begun, ConnectionError> {
        let request = Request::parse(frame, connection.kind)?;
        Ok(table::handle(&Context::new(&self.0, connection), request)?)
    }

    fn release_descriptors(&self) {
        self.0.replicas.log_manager.open_files().close_idle();
    }
}
