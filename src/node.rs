//! What the parts of a running node share.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytestring::ByteString;
use klamm_metadata::config_def::BrokerConfigs;
use klamm_protocol::ids::PartitionIndex;
use klamm_protocol::{ErrorCode, Uuid};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::api::fetch_session::FetchSessions;
use crate::clock;
use crate::cluster::producer_ids::ProducerIds;
use crate::cluster::registration::AdvertisedListener;
use crate::config::BrokerConfig;
use crate::config::dynamic;
use crate::controller::channel::ControllerChannel;
use crate::controller::handle::ControllerHandle;
use crate::coordinator::GroupCoordinators;
use crate::metadata_cache::{MetadataCache, PublishedImage};
use crate::random;
use crate::replica::log_manager::{DirectoryStatus, LogManager};
use crate::replica::partition::Partition;
use crate::replica::replica_manager::ReplicaManager;
use crate::replica::table::{LookupError, PartitionTable};

/// The ways to the active controller, apart where one must not wait for the other.
pub(crate) struct Channels {
    /// Registration and heartbeats.
    pub(crate) lifecycle: ControllerChannel,
    /// This node as a controller.
    pub(crate) registration: ControllerChannel,
    /// What clients ask for.
    pub(crate) forwarding: ControllerChannel,
}

impl Channels {
    fn new(config: &BrokerConfig, controller: &ControllerHandle) -> Self {
        let timeout_ms = config.configs.int("controller.socket.timeout.ms");
        let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or_default());
        let channel = |purpose: &str| {
            let client_id = format!("broker-{}-{purpose}", config.node_id).into();
            ControllerChannel::new(config.node_id, client_id, controller.clone(), timeout)
        };
        Self {
            lifecycle: channel("heartbeat"),
            registration: channel("registration"),
            forwarding: channel("forwarding"),
        }
    }
}

/// One node, as handlers, publisher and background tasks see it. Each part guards itself.
pub(crate) struct Node {
    /// As given at the start.
    pub(crate) config: BrokerConfig,
    /// In force: with the dynamic layers of the cluster image.
    configs: RwLock<Arc<BrokerConfigs>>,
    /// Told when `configs` has changed, for the one task that waits for that.
    pub(crate) configs_changed: Notify,
    /// Told when the next heartbeat may have something new to say.
    pub(crate) heartbeat_due: Notify,
    pub(crate) cluster_id: ByteString,
    /// This life of the process, for its registrations.
    pub(crate) incarnation_id: Uuid,
    /// What clients and brokers are told, from the first registration on.
    advertised: OnceLock<Vec<AdvertisedListener>>,
    pub(crate) metadata_cache: MetadataCache,
    pub(crate) partitions: PartitionTable,
    pub(crate) replicas: ReplicaManager,
    pub(crate) store: LogManager,
    pub(crate) controller: ControllerHandle,
    pub(crate) groups: GroupCoordinators,
    pub(crate) fetch_sessions: FetchSessions,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) channels: Channels,
    /// Of this broker's registration; -1 before it.
    broker_epoch: AtomicI64,
    /// Told when DeleteRecords has moved the beginning of a log, which is to be written down soon.
    pub(crate) log_starts_moved: Notify,
    /// Until when the controller has confirmed this broker, by the steady clock.
    lease_until_ms: AtomicI64,
    /// Cancelled when the node cannot go on.
    pub(crate) failed: CancellationToken,
}

impl Node {
    pub(crate) fn new(
        config: BrokerConfig,
        cluster_id: ByteString,
        store: LogManager,
        controller: ControllerHandle,
    ) -> Self {
        let channels = Channels::new(&config, &controller);
        let slots = config.replication.max_incremental_fetch_session_cache_slots;
        Self {
            configs: RwLock::new(Arc::new(config.configs.clone())),
            configs_changed: Notify::new(),
            heartbeat_due: Notify::new(),
            cluster_id,
            incarnation_id: random::uuid(),
            advertised: OnceLock::new(),
            metadata_cache: MetadataCache::default(),
            partitions: PartitionTable::default(),
            replicas: ReplicaManager::default(),
            controller,
            groups: GroupCoordinators::new(&config),
            fetch_sessions: FetchSessions::new(usize::try_from(slots).unwrap_or_default()),
            producer_ids: ProducerIds::default(),
            channels,
            broker_epoch: AtomicI64::new(-1),
            lease_until_ms: AtomicI64::new(i64::MAX),
            log_starts_moved: Notify::new(),
            failed: store.node_failed().clone(),
            store,
            config,
        }
    }

    /// Says by which listeners the broker is reached.
    pub(crate) fn set_advertised(&self, listeners: &[AdvertisedListener]) {
        self.advertised.get_or_init(|| listeners.to_vec());
    }

    pub(crate) fn advertised(&self) -> &[AdvertisedListener] {
        self.advertised.get().map_or(&[], Vec::as_slice)
    }

    /// The epoch of this broker's registration; -1 before it.
    pub(crate) fn broker_epoch(&self) -> i64 {
        self.broker_epoch.load(Ordering::Acquire)
    }

    pub(crate) fn set_broker_epoch(&self, epoch: i64) {
        self.broker_epoch.store(epoch, Ordering::Release);
    }

    /// The controller has confirmed this broker by its answer to a heartbeat that was sent at `sent_ms`.
    pub(crate) fn renew_lease(&self, sent_ms: i64) {
        if self.config.is_alone() || !self.config.lifecycle.leader_lease_enable {
            return;
        }
        let session_ms = i64::from(self.config.lifecycle.session_timeout_ms);
        self.lease_until_ms.store(sent_ms.saturating_add(session_ms), Ordering::Release);
    }

    /// Whether what this broker leads is its own to acknowledge. Without word from the controller for
    /// `broker.session.timeout.ms` others may lead it by now, and what only this broker holds would be lost.
    pub(crate) fn has_lease(&self) -> bool {
        let until_ms = self.lease_until_ms.load(Ordering::Acquire);
        until_ms == i64::MAX || clock::now_ms() < until_ms
    }

    /// When a session began that would end now: whoever was heard from since then is there.
    pub(crate) fn session_start_ms(&self) -> i64 {
        clock::now_ms().saturating_sub(i64::from(self.config.lifecycle.session_timeout_ms))
    }

    pub(crate) fn is_active_controller(&self) -> bool {
        self.controller.is_active()
    }

    /// `request.timeout.ms`: how long another node may take to answer.
    pub(crate) fn request_timeout(&self) -> Duration {
        let ms = self.config.configs.int("request.timeout.ms");
        Duration::from_millis(u64::try_from(ms).unwrap_or_default())
    }

    /// The configuration in force.
    pub(crate) fn configs(&self) -> Arc<BrokerConfigs> {
        Arc::clone(&self.configs.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_configs(&self, configs: BrokerConfigs) {
        *self.configs.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(configs);
        self.configs_changed.notify_one();
        self.heartbeat_due.notify_one();
    }

    /// Whether a log directory takes no new replicas (KIP-1066).
    pub(crate) fn is_cordoned(&self, directory: &DirectoryStatus) -> bool {
        self.metadata_cache.image().metadata_version().is_cordoned_log_dirs_supported()
            && dynamic::is_cordoned(&self.configs(), &directory.path)
    }

    /// What a heartbeat says of cordoned directories once `image` is applied here. Nothing before the broker knows of its
    /// own registration: until then it may not know its dynamic configuration either.
    pub(crate) fn cordoned_directory_ids(&self, image: &PublishedImage) -> Option<Vec<Uuid>> {
        let own = image.brokers.get(self.config.node_id)?;
        let knows_configs = own.incarnation_id == self.incarnation_id;
        if !knows_configs || !image.metadata_version().is_cordoned_log_dirs_supported() {
            return None;
        }
        let configs = self.configs();
        Some(self.store.directory_ids_where(|path| dynamic::is_cordoned(&configs, path)))
    }

    /// The partition of a topic that a request names, if this broker has a replica of it.
    pub(crate) fn replica(
        &self,
        image: &PublishedImage,
        topic: &str,
        index: PartitionIndex,
    ) -> Result<Arc<Partition>, ErrorCode> {
        self.partitions.replica(topic_id(image, topic, index)?, index).map_err(LookupError::code)
    }

    /// The partition of a topic that a request names, if this broker leads it.
    pub(crate) fn leader(
        &self,
        image: &PublishedImage,
        topic: &str,
        index: PartitionIndex,
    ) -> Result<Arc<Partition>, ErrorCode> {
        self.partitions.leader(topic_id(image, topic, index)?, index).map_err(LookupError::code)
    }
}

/// The id of a topic that has such a partition.
fn topic_id(image: &PublishedImage, topic: &str, index: PartitionIndex) -> Result<Uuid, ErrorCode> {
    let topic = image.topics.by_name(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok(topic.id)
}
