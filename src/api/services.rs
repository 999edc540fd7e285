//! The services of this node, which handlers use.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use super::context::RequestContext;
use super::fetch_session::FetchSessions;
use super::request::Request;
use super::request_metrics::RequestMetrics;
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
use crate::security::principal::{Principal, Requester};

/// The services of this node (Kafka's `KafkaApis` holds the same).
pub(crate) struct Services {
    pub(crate) config: Arc<DynamicBrokerConfig>,
    pub(crate) session: Arc<BrokerSession>,
    pub(crate) cluster_id: ByteString,
    pub(crate) metadata_cache: Arc<MetadataCache>,
    pub(crate) replicas: Arc<ReplicaManager>,
    pub(crate) controller: ControllerHandle,
    /// The channel to the active controller for forwarded client requests.
    pub(crate) forwarding: Arc<ControllerChannel>,
    pub(crate) groups: Arc<GroupCoordinators>,
    pub(crate) auto_topics: AutoTopicCreation,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) fetch_sessions: FetchSessions,
    pub(crate) request_metrics: RequestMetrics,
}

/// The service that connections use.
pub(crate) struct ApiService {
    services: Arc<Services>,
    /// The principal of all requests, until there is authentication.
    anonymous: Arc<Principal>,
}

impl ApiService {
    pub(crate) fn new(services: Arc<Services>) -> Self {
        Self { services, anonymous: Arc::new(Principal::anonymous()) }
    }
}

impl Service for ApiService {
    fn begin(
        &self,
        connection: &Arc<ConnectionInfo>,
        frame: Bytes,
    ) -> Result<Begun, ConnectionError> {
        let request = Request::parse(frame, connection.kind)?;
        let principal = Arc::clone(&self.anonymous);
        let context = RequestContext {
            services: Arc::clone(&self.services),
            connection: Arc::clone(connection),
            requester: Requester { principal, host: connection.peer.ip() },
            head: request.head,
            client_id: request.client_id.clone(),
            is_forwarded: false,
        };
        Ok(table::handle(context, &request)?)
    }

    fn release_descriptors(&self) {
        self.services.replicas.log_manager.open_files().close_idle();
    }
}
