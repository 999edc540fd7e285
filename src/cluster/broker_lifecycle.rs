//! A broker's membership of its cluster: registration, unfencing, heartbeats, controlled shutdown (KIP-631, Kafka's
//! `BrokerLifecycleManager`).
//!
//! Requests go to the active controller through a channel; it may run in this process.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytestring::ByteString;
use klamm_log::log_dir::LastShutdown;
use klamm_protocol::ids::{LeaderEpoch, or_minus_one};
use klamm_protocol::messages::broker_heartbeat_request::BrokerHeartbeatRequest;
use klamm_protocol::messages::broker_heartbeat_response::BrokerHeartbeatResponse;
use klamm_protocol::messages::broker_registration_request::{
    BrokerRegistrationRequest, Feature, Listener,
};
use klamm_protocol::{ErrorCode, Uuid};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::features;
use crate::broker_session::BrokerSession;
use crate::clock;
use crate::config::dynamic::{self, DynamicBrokerConfig};
use crate::controller::channel::ControllerChannel;
use crate::controller::handle::ControllerHandle;
use crate::metadata_cache::{MetadataCache, PublishedImage};
use crate::replica::replica_manager::ReplicaManager;

/// How long the active controller may take to answer a registration before the start fails.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause before a retry after DUPLICATE_BROKER_REGISTRATION.
const DUPLICATE_RETRY: Duration = Duration::from_millis(100);
/// How long a heartbeat may take: another controller may have to be elected.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);
/// The number and the interval of the heartbeats that follow the first one to a controller: enough for Klamm's
/// controller to learn that this broker sends heartbeats often (`BrokerHeartbeats`). Apache Kafka's controller ignores
/// their rate.
const INTRODUCTION_HEARTBEATS: u32 = 3;
const INTRODUCTION_INTERVAL: Duration = Duration::from_millis(20);
/// How often a heartbeat asks the controller whether the broker has caught up.
const CATCH_UP_RETRY: Duration = Duration::from_millis(100);
/// How long a controlled shutdown may take, and how often a heartbeat asks whether it is complete.
const CONTROLLED_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
const CONTROLLED_SHUTDOWN_RETRY: Duration = Duration::from_millis(20);

/// Why the broker did not join its cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("the controller refused the registration: {error}: {reason} (its log says more)")]
    Refused { error: ErrorCode, reason: &'static str },
    #[error(
        "the cluster has finalized {}, whose coordinators this version of Klamm does not have; first run \
         kafka-features.sh --bootstrap-server <a broker of the cluster> downgrade{}",
        .obstacles.join(" and "),
        .obstacles.iter().map(|name| format!(" --feature {name}=0")).collect::<String>()
    )]
    Features { obstacles: Vec<String> },
    #[error("the controller cannot be reached: {0}")]
    Unreachable(String),
    #[error(
        "no controller has registered the broker within {} ms (initial.broker.registration.timeout.ms); is a majority \
         of the controllers up, and do the addresses in controller.quorum.voters or \
         controller.quorum.bootstrap.servers hold?",
        .0.as_millis()
    )]
    NotRegistered(Duration),
    #[error("the broker has not caught up within {} ms (server.max.startup.time.ms)", .0.as_millis())]
    NotCaughtUp(Duration),
}

/// The endpoint at which clients reach one listener of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdvertisedListener {
    pub(crate) name: ByteString,
    pub(crate) host: ByteString,
    pub(crate) port: u16,
    pub(crate) security_protocol: i16,
}

/// This broker's membership of its cluster.
pub(crate) struct BrokerLifecycle {
    pub(super) config: Arc<DynamicBrokerConfig>,
    pub(super) session: Arc<BrokerSession>,
    pub(super) metadata_cache: Arc<MetadataCache>,
    pub(super) replicas: Arc<ReplicaManager>,
    controller: ControllerHandle,
    /// A connection of its own: heartbeats must not wait behind forwarded client requests.
    channel: ControllerChannel,
    /// The advertised listeners of this broker.
    listeners: Vec<AdvertisedListener>,
    /// Held for one heartbeat, until its answer: they reach the controller in the order in which they were sent.
    heartbeat_in_flight: tokio::sync::Mutex<()>,
    /// Every heartbeat from now on asks for the controlled shutdown.
    wants_shut_down: AtomicBool,
}

impl BrokerLifecycle {
    /// The membership of a broker that advertises `listeners`.
    pub(crate) fn new(
        replicas: Arc<ReplicaManager>,
        controller: ControllerHandle,
        listeners: Vec<AdvertisedListener>,
    ) -> Self {
        let config = Arc::clone(&replicas.config);
        Self {
            session: Arc::clone(&replicas.session),
            metadata_cache: Arc::clone(&replicas.metadata_cache),
            channel: ControllerChannel::new(&config, &controller, "heartbeat"),
            config,
            replicas,
            controller,
            listeners,
            heartbeat_in_flight: tokio::sync::Mutex::default(),
            wants_shut_down: AtomicBool::new(false),
        }
    }

    /// Registers the broker and waits until the controller has unfenced it.
    pub(crate) async fn join(&self) -> Result<(), JoinError> {
        let config = &self.config.lifecycle;
        let registration_limit = config.initial_registration_timeout;
        let epoch = tokio::time::timeout(registration_limit, self.register()).await;
        let epoch = epoch.map_err(|_| JoinError::NotRegistered(registration_limit))??;
        debug!("registered with epoch {epoch}");
        self.session.set_broker_epoch(epoch);
        let startup_limit = config.server_max_startup_time;
        let caught_up = tokio::time::timeout(startup_limit, self.catch_up()).await;
        caught_up.map_err(|_| JoinError::NotCaughtUp(startup_limit))?;
        info!("broker {} is registered with epoch {epoch} and unfenced", self.config.node_id);
        Ok(())
    }

    /// Sends heartbeats until the controller answers that the broker has caught up and is unfenced.
    async fn catch_up(&self) {
        loop {
            match self.heartbeat().await {
                Ok(contact) if contact.is_caught_up_and_unfenced() => break,
                Ok(_) => {}
                Err(error) => warn!("the heartbeat to the controller failed: {error}"),
            }
            // The controller unfences the broker when it has applied the metadata up to its registration.
            let known = self.metadata_cache.image().end_offset;
            let applied = self.metadata_cache.wait_for(|image| image.end_offset > known);
            drop(tokio::time::timeout(CATCH_UP_RETRY, applied).await);
        }
        let id = self.config.node_id;
        self.metadata_cache
            .wait_for(|image| image.brokers.get(id).is_some_and(|broker| !broker.fenced))
            .await;
    }

    /// Registers when the cluster has its first records, and returns the broker epoch.
    async fn register(&self) -> Result<i64, JoinError> {
        // A new cluster has features when the controller has written its first records.
        let is_begun = |image: &Arc<PublishedImage>| image.features.metadata_version().is_some();
        let image = self.metadata_cache.wait_for(is_begun).await;
        self.until_registered(&self.registration(&image)).await
    }

    /// Registers again with the directories that have come back. Incarnation id and broker epoch stay the same.
    pub(super) async fn register_again(&self) -> Result<(), JoinError> {
        let request = self.registration(&self.metadata_cache.image());
        self.until_registered(&request).await.map(drop)
    }

    fn registration(&self, image: &PublishedImage) -> BrokerRegistrationRequest {
        let is_alone = self.config.is_alone();
        let previous_broker_epoch = match self.replicas.log_manager.last_shutdown() {
            LastShutdown::Clean { broker_epoch } => broker_epoch,
            LastShutdown::Unclean => None,
        };
        let features = features::registered(image, is_alone).into_iter().map(|(name, range)| {
            Feature { name, min_supported_version: range.min, max_supported_version: range.max }
        });
        BrokerRegistrationRequest {
            broker_id: self.config.node_id,
            cluster_id: self.replicas.log_manager.cluster_id().clone(),
            incarnation_id: self.session.incarnation_id,
            listeners: self
                .listeners
                .iter()
                .map(|listener| Listener {
                    name: listener.name.clone(),
                    host: listener.host.clone(),
                    port: listener.port,
                    security_protocol: listener.security_protocol,
                })
                .collect(),
            features: features.collect(),
            rack: self.config.lifecycle.rack.clone().map(ByteString::from),
            log_dirs: self.replicas.log_manager.directory_ids(),
            previous_broker_epoch: or_minus_one(previous_broker_epoch),
            ..Default::default()
        }
    }

    /// Sends the registration until a controller accepts or refuses it. While the registration of this broker's
    /// previous process has a session, retries.
    async fn until_registered(
        &self,
        request: &BrokerRegistrationRequest,
    ) -> Result<i64, JoinError> {
        let mut waits = false;
        loop {
            let answered = self.channel.ask_within(request, REGISTRATION_TIMEOUT).await;
            let response = answered.map_err(|error| JoinError::Unreachable(error.to_string()))?;
            match ErrorCode::from_code(response.error_code) {
                Some(ErrorCode::None) => return Ok(response.broker_epoch),
                Some(ErrorCode::DuplicateBrokerRegistration) => {
                    if !std::mem::replace(&mut waits, true) {
                        info!(
                            "the previous process of broker {} is still registered: waiting until its session ends",
                            request.broker_id
                        );
                    }
                    tokio::time::sleep(DUPLICATE_RETRY).await;
                }
                error => {
                    let obstacles = features::obstacles(&self.metadata_cache.image());
                    if error == Some(ErrorCode::UnsupportedVersion) && !obstacles.is_empty() {
                        return Err(JoinError::Features { obstacles });
                    }
                    let error = error.unwrap_or(ErrorCode::UnknownServerError);
                    return Err(JoinError::Refused { error, reason: error.message() });
                }
            }
        }
    }

    /// Controlled shutdown (KIP-631): the controller moves the leaderships of this broker. Waits until it has, for
    /// `CONTROLLED_SHUTDOWN_TIMEOUT` at most.
    pub(crate) async fn controlled_shutdown(&self) {
        self.wants_shut_down.store(true, Ordering::Release);
        let completed = async {
            loop {
                match self.heartbeat().await {
                    Ok(HeartbeatAnswer(response)) if response.should_shut_down => return,
                    Ok(_) => tokio::time::sleep(CONTROLLED_SHUTDOWN_RETRY).await,
                    Err(error) => {
                        return warn!(
                            "controlled shutdown failed, the broker stops all the same: {error}"
                        );
                    }
                }
            }
        };
        if tokio::time::timeout(CONTROLLED_SHUTDOWN_TIMEOUT, completed).await.is_err() {
            warn!(
                "controlled shutdown was not complete within {} ms, the broker stops all the same",
                CONTROLLED_SHUTDOWN_TIMEOUT.as_millis()
            );
        }
    }

    /// Sends one heartbeat. A heartbeat without `want_shut_down` must not reach the controller after one with it: the
    /// controller would unfence a broker that is about to stop.
    async fn heartbeat(&self) -> Result<HeartbeatAnswer, JoinError> {
        let _in_flight = self.heartbeat_in_flight.lock().await;
        let image = self.metadata_cache.image();
        let request = BrokerHeartbeatRequest {
            broker_id: self.config.node_id,
            broker_epoch: or_minus_one(self.session.broker_epoch()),
            current_metadata_offset: image.end_offset - 1,
            want_fence: false,
            want_shut_down: self.wants_shut_down.load(Ordering::Acquire),
            offline_log_dirs: self.replicas.log_manager.failed_directory_ids(),
            cordoned_log_dirs: self.cordoned_directory_ids(&image),
        };
        let sent_ms = clock::now_ms();
        let answered = self.channel.ask_within(&request, HEARTBEAT_TIMEOUT).await;
        let response = answered.map_err(|error| JoinError::Unreachable(error.to_string()))?;
        debug!("heartbeat answered: {response:?}");
        match ErrorCode::from_code(response.error_code) {
            Some(ErrorCode::None) => {
                if !response.is_fenced {
                    self.session.renew_lease(sent_ms);
                }
                Ok(HeartbeatAnswer(response))
            }
            error => {
                let error = error.unwrap_or(ErrorCode::UnknownServerError);
                Err(JoinError::Refused { error, reason: error.message() })
            }
        }
    }

    /// Sends heartbeats to the controller until `stop`; at once when the configuration has changed.
    pub(crate) async fn send_heartbeats(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.config.lifecycle.heartbeat_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut introduction = Introduction::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                () = self.session.heartbeat_due.notified() => {}
                () = tokio::time::sleep(INTRODUCTION_INTERVAL), if introduction.is_under_way() => {}
            }
            let controller_epoch = self.controller.leader().borrow().epoch;
            match self.heartbeat().await {
                Ok(_) => introduction.on_heartbeat(controller_epoch),
                Err(error) => warn!("the heartbeat to the controller failed: {error}"),
            }
        }
    }

    /// The cordoned directories for a heartbeat, by the configuration of `image`. `None` before the image has the
    /// broker's own registration: until then it may lack the dynamic configuration too.
    fn cordoned_directory_ids(&self, image: &PublishedImage) -> Option<Vec<Uuid>> {
        let own = image.brokers.get(self.config.node_id)?;
        let knows_configs = own.incarnation_id == self.session.incarnation_id;
        if !knows_configs || !image.metadata_version().is_cordoned_log_dirs_supported() {
            return None;
        }
        let current = self.config.current();
        let is_cordoned = |path: &Path| dynamic::is_cordoned(&current.configs, path);
        Some(self.replicas.log_manager.directory_ids_where(is_cordoned))
    }
}

/// A successful response to a heartbeat.
struct HeartbeatAnswer(BrokerHeartbeatResponse);

impl HeartbeatAnswer {
    fn is_caught_up_and_unfenced(&self) -> bool {
        self.0.is_caught_up && !self.0.is_fenced
    }
}

/// The first heartbeats to each controller, which follow each other quickly. A controller that does not know the
/// interval of this broker's heartbeats would wait for the whole session timeout before it fences the broker.
#[derive(Debug, Default)]
struct Introduction {
    controller_epoch: Option<LeaderEpoch>,
    remaining: u32,
}

impl Introduction {
    fn is_under_way(&self) -> bool {
        self.remaining > 0
    }

    /// The controller of this epoch has answered a heartbeat.
    fn on_heartbeat(&mut self, controller_epoch: LeaderEpoch) {
        self.remaining = match self.controller_epoch.replace(controller_epoch) {
            Some(known) if known == controller_epoch => self.remaining.saturating_sub(1),
            _ => INTRODUCTION_HEARTBEATS,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_introduces_itself_once_to_each_controller() {
        let mut introduction = Introduction::default();
        for controller_epoch in [4, 7] {
            introduction.on_heartbeat(controller_epoch);
            for _ in 0..INTRODUCTION_HEARTBEATS {
                assert!(introduction.is_under_way());
                introduction.on_heartbeat(controller_epoch);
            }
            assert!(!introduction.is_under_way());
        }
    }
}
