//! A broker's life in its cluster: register, be unfenced, stay in contact (KIP-631).
//!
//! The controller is asked through its handle; with one node it runs in this process.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use klamm_log::log_dir::LastShutdown;
use klamm_protocol::messages::broker_heartbeat_request::BrokerHeartbeatRequest;
use klamm_protocol::messages::broker_heartbeat_response::BrokerHeartbeatResponse;
use klamm_protocol::messages::broker_registration_request::{
    BrokerRegistrationRequest, Feature, Listener,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::cluster::Published;
use crate::features;
use crate::node::Node;

/// How long a stop waits for the controller's leave, and how often it asks.
const CONTROLLED_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
const CONTROLLED_SHUTDOWN_RETRY: Duration = Duration::from_millis(20);

/// Why the broker did not become part of its cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("the controller refused the registration: {0}")]
    Refused(String),
    #[error("the controller cannot be reached: {0}")]
    Unreachable(String),
}

/// Where clients reach the broker by one of its listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdvertisedListener {
    pub(crate) name: ByteString,
    pub(crate) host: ByteString,
    pub(crate) port: u16,
    pub(crate) security_protocol: i16,
}

/// Registers the broker and has it unfenced; returns its epoch.
pub(crate) async fn join(
    node: &Arc<Node>,
    listeners: &[AdvertisedListener],
) -> Result<i64, JoinError> {
    // A new cluster's features are known once the controller has written its first records.
    let is_begun = |image: &Arc<Published>| image.features.metadata_version().is_some();
    let image = node.cluster.wait_for(is_begun).await;
    let previous_broker_epoch = match node.store.last_shutdown() {
        LastShutdown::Clean { broker_epoch } => broker_epoch.unwrap_or(-1),
        LastShutdown::Unclean => -1,
    };
    let features = features::registered(&image).into_iter().map(|(name, range)| Feature {
        name,
        min_supported_version: range.min,
        max_supported_version: range.max,
    });
    let request = BrokerRegistrationRequest {
        broker_id: node.config.node_id,
        cluster_id: node.cluster_id.clone(),
        incarnation_id: node.incarnation_id,
        listeners: listeners
            .iter()
            .map(|listener| Listener {
                name: listener.name.clone(),
                host: listener.host.clone(),
                port: listener.port,
                security_protocol: listener.security_protocol,
            })
            .collect(),
        features: features.collect(),
        rack: node.config.lifecycle.rack.clone().map(ByteString::from),
        log_dirs: node.store.directory_ids(),
        previous_broker_epoch,
        ..Default::default()
    };
    let registered = node
        .controller
        .decide(move |controller, context| {
            let (next_offset, now_ms) = (context.next_offset, context.now_ms);
            controller.on_broker_registration(&request, true, next_offset, now_ms)
        })
        .await
        .map_err(|error| JoinError::Unreachable(error.to_string()))?
        .map_err(|error| JoinError::Refused(error.to_string()))?;
    let epoch = registered.broker_epoch;
    heartbeat(node, epoch, false).await?;
    node.cluster
        .wait_for(|image| image.brokers.get(node.config.node_id).is_some_and(|b| !b.fenced))
        .await;
    info!("broker {} is registered with epoch {epoch} and unfenced", node.config.node_id);
    Ok(epoch)
}

/// Asks the controller to move what this broker leads elsewhere, and waits for its leave to stop, for
/// `CONTROLLED_SHUTDOWN_TIMEOUT` at most (KIP-631).
pub(crate) async fn leave(node: &Arc<Node>, epoch: i64) {
    let granted = async {
        loop {
            match heartbeat(node, epoch, true).await {
                Ok(response) if response.should_shut_down => return,
                Ok(_) => tokio::time::sleep(CONTROLLED_SHUTDOWN_RETRY).await,
                Err(error) => {
                    return warn!("the broker stops without the controller's leave: {error}");
                }
            }
        }
    };
    if tokio::time::timeout(CONTROLLED_SHUTDOWN_TIMEOUT, granted).await.is_err() {
        warn!("the broker stops without the controller's leave: it was not given in time");
    }
}

async fn heartbeat(
    node: &Arc<Node>,
    epoch: i64,
    want_shut_down: bool,
) -> Result<BrokerHeartbeatResponse, JoinError> {
    let request = BrokerHeartbeatRequest {
        broker_id: node.config.node_id,
        broker_epoch: epoch,
        current_metadata_offset: node.cluster.image().end_offset - 1,
        want_fence: false,
        want_shut_down,
        ..Default::default()
    };
    let response = node
        .controller
        .decide(move |controller, context| controller.on_broker_heartbeat(&request, context.now_ms))
        .await
        .map_err(|error| JoinError::Unreachable(error.to_string()))?;
    debug!("heartbeat answered: {response:?}");
    Ok(response)
}

/// Stays in contact with the controller until `stop`.
pub(crate) async fn keep_contact(node: Arc<Node>, epoch: i64, stop: CancellationToken) {
    let interval = u64::try_from(node.config.lifecycle.heartbeat_interval_ms).unwrap_or(2_000);
    let mut ticks = tokio::time::interval(Duration::from_millis(interval.max(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = heartbeat(&node, epoch, false).await {
            warn!("no contact with the controller: {error}");
        }
    }
}
