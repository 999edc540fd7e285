//! Assembles a node: opens its directories, starts the quorum and the services that apply the metadata; and closes them
//! again.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytestring::ByteString;
use klamm_log::disk::{Disk, RealDisk};
use klamm_log::log_dir::LastShutdown;
use klamm_metadata::config_def::host_port::HostPort;
use klamm_metadata::controller::{Controller, ControllerSettings};
use klamm_protocol::metadata_record::MetadataRecord;
use klamm_replication::quorum::{Address, Endpoints, Quorum, QuorumConfig, ReplicaKey, VoterSet};
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::api::fetch_session::FetchSessions;
use crate::api::request_metrics::RequestMetrics;
use crate::api::services::Services;
use crate::broker_session::BrokerSession;
use crate::clock;
use crate::cluster::auto_topics::AutoTopicCreation;
use crate::cluster::broker_lifecycle::{AdvertisedListener, BrokerLifecycle};
use crate::cluster::features;
use crate::cluster::producer_ids::ProducerIds;
use crate::config::BrokerConfig;
use crate::config::dynamic::DynamicBrokerConfig;
use crate::controller::channel::ControllerChannel;
use crate::controller::driver::{self, Driver, DriverParts};
use crate::controller::handle::ControllerHandle;
use crate::controller::metadata_log::{self, MetadataLog, MetadataLogError};
use crate::controller::publications::Publications;
use crate::controller::quorum_peers::{QuorumClient, QuorumPeers};
use crate::coordinator::GroupCoordinators;
use crate::metadata_cache::MetadataCache;
use crate::random;
use crate::replica::log_manager::{LogManager, TopicsSeen};
use crate::replica::replica_manager::{ReplicaManager, Shared};
use crate::server::broker::{Advertised, StartError};
use crate::server::publisher::Publisher;

/// An assembled node.
pub(crate) struct Node {
    pub(crate) services: Arc<Services>,
    pub(crate) lifecycle: Arc<BrokerLifecycle>,
    pub(crate) threads: Threads,
}

/// The threads outside the tokio runtime.
pub(crate) struct Threads {
    metadata: JoinHandle<()>,
    publisher: JoinHandle<()>,
    publications: Arc<Publications>,
}

/// Opens a node with these advertised listeners.
pub(crate) fn open(
    config: BrokerConfig,
    Advertised { broker: listeners, controller: controllers }: Advertised,
    runtime: Handle,
) -> Result<Node, StartError> {
    // This must come before the logs are opened: opening writes to the files that show the time of the last run.
    clock::resume(&config.storage.log_dirs);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let log_manager = LogManager::open(&disk, &config)?;
    let metadata_dir = config.storage.metadata_log_dir.clone();
    let cluster_id = log_manager.cluster_id().clone();
    let local = ReplicaKey::new(config.node_id, log_manager.metadata_directory_id());
    let identity = Identity { local, listener: controller_listener(&config), controllers };
    let clean = log_manager.last_shutdown() != LastShutdown::Unclean;
    let storage = log_manager.metadata_storage();
    let voters = identity.configured_voters(&config);
    let (reserve, now_ms) = (config.storage.metadata_reserve_bytes, clock::now_ms());
    let opened = MetadataLog::open(storage, &metadata_dir, voters, reserve, clean, now_ms)?;
    let mut log = opened.log;
    let mut newest = opened.loader.clone();
    let mut seen = TopicsSeen::default();
    seen.in_image(newest.newest());
    log.replay_all(&mut newest, &mut |record| seen.in_record(record))?;
    log_manager.judge_empty(seen, newest.newest())?;
    let bootstrap = bootstrap_records(disk.as_ref(), &config, &log_manager, newest.is_empty())?;
    // If the log is empty, the features that the bootstrap records will finalize count.
    let mut known = newest.newest().clone();
    if known.features.metadata_version().is_none() {
        for record in &bootstrap {
            known.replay(record).map_err(MetadataLogError::from)?;
        }
    }
    let mut settings = ControllerSettings::single_node(
        config.node_id,
        cluster_id.clone(),
        features::registered(&known, config.is_alone()),
        bootstrap,
        config.configs.clone(),
    );
    settings.kraft_version = *opened.boot.membership.kraft_version.latest();
    settings.quorum_voters = opened.boot.membership.voters.latest().ids().collect();
    if config.is_alone() {
        // No-op records show followers that the leader is alive: a node that is alone has no followers.
        settings.max_idle_interval_ms = 0;
    }
    let mut quorum_config = identity.quorum_config(&config, cluster_id.clone());
    quorum_config.must_catch_up = opened.boot.log.is_empty() && log_manager.has_partitions();
    let quorum = Quorum::start(quorum_config, opened.boot, clock::now_ms());
    warn_of_lost_log(&quorum.0, &metadata_dir);
    let (controller, ends) = driver::channel();
    let config = Arc::new(DynamicBrokerConfig::new(config));
    let services = services(&config, log_manager, &controller, &runtime);
    let lifecycle =
        BrokerLifecycle::new(Arc::clone(&services.replicas), controller.clone(), listeners);
    let publications = Arc::new(Publications::default());
    let parts = DriverParts {
        quorum,
        log,
        controller: Controller::new(settings, newest),
        committed: opened.loader,
        publications: Arc::clone(&publications),
        peers: quorum_peers(&services, runtime, &identity.listener),
        ends,
    };
    let driver = Driver::new(parts, &config.quorum);
    let publisher = Publisher::new(&services).start(Arc::clone(&publications));
    let publisher = publisher.map_err(StartError::Thread)?;
    let failed = services.session.failed.clone();
    let metadata = driver.start(failed).map_err(StartError::Thread)?;
    let threads = Threads { metadata, publisher, publications };
    Ok(Node { services, lifecycle: Arc::new(lifecycle), threads })
}

/// The services of a node, with `controller` as the handle of its controller.
fn services(
    config: &Arc<DynamicBrokerConfig>,
    log_manager: LogManager,
    controller: &ControllerHandle,
    runtime: &Handle,
) -> Arc<Services> {
    let cluster_id = log_manager.cluster_id().clone();
    let session = Arc::new(BrokerSession::new(config, log_manager.node_failed().clone()));
    let metadata_cache = Arc::new(MetadataCache::default());
    let shared = Shared {
        config: Arc::clone(config),
        session: Arc::clone(&session),
        metadata_cache: Arc::clone(&metadata_cache),
    };
    let replicas = ReplicaManager::start(shared, log_manager, controller, runtime.clone());
    let groups = GroupCoordinators::new(config, Arc::clone(&replicas), Handle::clone(runtime));
    let forwarding = Arc::new(ControllerChannel::new(config, controller, "forwarding"));
    let auto_topics = AutoTopicCreation {
        config: Arc::clone(config),
        metadata_cache: Arc::clone(&metadata_cache),
        channel: Arc::clone(&forwarding),
    };
    let (ids_config, ids_cache) = (Arc::clone(config), Arc::clone(&metadata_cache));
    let slots = config.replication.max_incremental_fetch_session_cache_slots;
    Arc::new(Services {
        config: Arc::clone(config),
        session,
        cluster_id,
        metadata_cache,
        replicas,
        controller: controller.clone(),
        producer_ids: ProducerIds::new(ids_config, ids_cache, Arc::clone(&forwarding)),
        forwarding,
        groups: Arc::new(groups),
        auto_topics,
        fetch_sessions: FetchSessions::new(usize::try_from(slots).unwrap_or_default()),
        request_metrics: RequestMetrics::default(),
    })
}

fn warn_of_lost_log(quorum: &Quorum, metadata_dir: &Path) {
    if quorum.must_catch_up() {
        warn!(
            "the metadata log in {} is empty, but partitions lie in log.dirs: it was lost. This controller does not vote before it \
             has the log of a leader. If none is elected, the other controllers have lost theirs as well: docs/operating.md says \
             what to do",
            metadata_dir.display()
        );
    }
}

/// Ends the threads, and closes the logs. A panic of a thread was logged when it happened.
pub(crate) fn close(services: &Services, threads: Threads) {
    services.groups.shut_down();
    services.controller.stop();
    drop(threads.metadata.join());
    threads.publications.stop();
    drop(threads.publisher.join());
    let replicas = &services.replicas;
    let epoch = services.session.broker_epoch();
    replicas.log_manager.close(&replicas.partitions.all(), epoch);
}

/// The bootstrap records of a new cluster: those that formatting has written, or Klamm's own. Features that formatting
/// has written are left out if brokers of this build could not join the cluster with them.
fn bootstrap_records(
    disk: &dyn Disk,
    config: &BrokerConfig,
    log_manager: &LogManager,
    is_new: bool,
) -> Result<Vec<MetadataRecord>, MetadataLogError> {
    let formatted = metadata_log::read_bootstrap(disk, &config.storage.metadata_log_dir)?;
    if let Some(mut records) = formatted {
        let left_out = features::leave_out_unserved(&mut records);
        if is_new && config.roles.controller && !left_out.is_empty() {
            info!(
                "a new cluster begins without {}, which bootstrap.checkpoint asks for: Klamm does not serve them yet",
                left_out.join(" and ")
            );
        }
        return Ok(records);
    }
    let records = features::initial().bootstrap_records();
    if is_new && config.roles.controller {
        let dirs = log_manager.formatted_paths();
        metadata_log::write_bootstrap(disk, &dirs, &records, clock::wall_ms())?;
    }
    Ok(records)
}

/// This node's identity in the quorum.
struct Identity {
    local: ReplicaKey,
    /// The controllers' listener (`controller.listener.names`).
    listener: ByteString,
    controllers: Vec<AdvertisedListener>,
}

impl Identity {
    fn endpoints(&self) -> Endpoints {
        Endpoints::new(self.controllers.iter().map(|listener| {
            (listener.name.clone(), Address { host: listener.host.clone(), port: listener.port })
        }))
    }

    /// The voters to use if the metadata log has none: those of `controller.quorum.voters`; this node, if it is a
    /// cluster of its own; else none, because they are learned from the bootstrap servers.
    fn configured_voters(&self, config: &BrokerConfig) -> VoterSet {
        let members = &config.quorum_members;
        if !members.voters.is_empty() {
            let voters = members.voters.iter().map(|(id, at)| (*id, address(at)));
            return VoterSet::from_static(&self.listener, voters);
        }
        let own = self.endpoints().address(&self.listener).cloned();
        match own.filter(|_| config.is_alone()) {
            Some(own) => VoterSet::from_static(&self.listener, [(config.node_id, own)]),
            None => VoterSet::default(),
        }
    }

    fn quorum_config(&self, config: &BrokerConfig, cluster_id: ByteString) -> QuorumConfig {
        let quorum = &config.quorum;
        QuorumConfig {
            local_endpoints: self.endpoints(),
            can_become_voter: config.roles.controller,
            auto_join: quorum.auto_join,
            bootstrap_servers: self.bootstrap_servers(config),
            election_timeout_ms: quorum.election_timeout_ms,
            fetch_timeout_ms: quorum.fetch_timeout_ms.min(quorum.silence_ms),
            election_backoff_max_ms: quorum.election_backoff_max_ms,
            request_timeout_ms: quorum.request_timeout_ms,
            retry_backoff_ms: quorum.retry_backoff_ms,
            fetch_max_bytes: quorum.fetch_max_bytes,
            fetch_snapshot_max_bytes: quorum.fetch_snapshot_max_bytes,
            seed: u64::from_be_bytes(random::bytes()),
            ..QuorumConfig::with_defaults(self.local, self.listener.clone(), cluster_id)
        }
    }

    /// The other nodes that can be asked for the leader.
    fn bootstrap_servers(&self, config: &BrokerConfig) -> Vec<Address> {
        let members = &config.quorum_members;
        let own = self.endpoints();
        let voters = members.voters.iter().filter(|(id, _)| **id != config.node_id);
        let mut servers: Vec<Address> = voters.map(|(_, at)| address(at)).collect();
        servers.extend(members.bootstrap_servers.iter().map(address));
        servers.retain(|server| own.iter().all(|(_, at)| at != server));
        servers
    }
}

fn address(at: &HostPort) -> Address {
    Address { host: at.host.clone().into(), port: at.port }
}

fn quorum_peers(services: &Services, runtime: Handle, listener: &ByteString) -> QuorumPeers {
    let config = &services.config;
    let timeout_ms = u64::from(config.quorum.request_timeout_ms);
    let client = QuorumClient {
        controller: services.controller.clone(),
        client_id: format!("raft-client-{}", config.node_id).into(),
        cluster_id: services.cluster_id.clone(),
        listener: listener.clone(),
        request_timeout: Duration::from_millis(timeout_ms),
    };
    QuorumPeers::new(runtime, client)
}

fn controller_listener(config: &BrokerConfig) -> ByteString {
    let names = &config.listeners.controller_listener_names;
    names.first().map_or_else(|| ByteString::from_static("CONTROLLER"), |name| name.clone().into())
}
