//! A running broker, as a library: start, ask for its addresses, shut down.
//!
//! ```no_run
//! use klamm::Broker;
//! use klamm::config::BrokerConfig;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = std::env::temp_dir().join("my-test-broker");
//! let config = BrokerConfig::from_pairs([
//!     ("listeners", "PLAINTEXT://localhost:0"),
//!     ("log.dirs", directory.to_str().expect("a temporary directory has a readable name")),
//! ])?;
//! let broker = Broker::start(config).await?;
//! println!("bootstrap.servers={}", broker.bootstrap_servers());
//! broker.shutdown().await;
//! # Ok(())
//! # }
//! ```

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytestring::ByteString;
use klamm_log::disk::{Disk, RealDisk};
use klamm_log::log_dir::LastShutdown;
use klamm_metadata::controller::{Controller, ControllerSettings};
use klamm_protocol::ids::BrokerId;
use klamm_replication::quorum::{Address, Quorum, QuorumConfig, ReplicaKey, VoterSet};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use crate::config::{BrokerConfig, Endpoint, NetworkConfig};
use crate::controller::driver::{self, Driver};
use crate::controller::metadata_log::{self, MetadataLog, MetadataLogError};
use crate::controller::publisher::{Publications, Publisher};
use crate::controller::quorum_peers::{QuorumClient, QuorumPeers};
use crate::lifecycle::{self, AdvertisedListener, JoinError};
use crate::net::connection::ConnectionLimits;
use crate::net::connection_quotas::{ConnectionQuotaLimits, ConnectionQuotas};
use crate::net::listener::{Listener, ListenerOptions};
use crate::node::Node;
use crate::partition::store::{LogStore, StoreError};
use crate::{clock, features, maintenance, random};

/// The longest that a start waits to become part of the cluster.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long connections get to end by themselves on shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// The controller's address where nothing else is configured.
const DEFAULT_CONTROLLER: (&str, u16) = ("localhost", 9093);

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {listener}://{host}:{port}: {source}{}", busy_hint(.source))]
    Bind { listener: String, host: String, port: u16, source: std::io::Error },
    #[error("max.connections.per.ip.overrides: the host {host} is not known: {source}")]
    UnknownHost { host: String, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the metadata log cannot be used: {0}")]
    Metadata(String),
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error("the broker did not become part of its cluster within {} s", JOIN_TIMEOUT.as_secs())]
    JoinTimeout,
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

fn busy_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; another process uses the port: stop it, or set another port in listeners"
        }
        _ => "",
    }
}

impl From<MetadataLogError> for StartError {
    fn from(error: MetadataLogError) -> Self {
        Self::Metadata(error.to_string())
    }
}

/// A running broker. Dropping it without [`Broker::shutdown`] leaves its directories as after a crash.
pub struct Broker {
    node: Arc<Node>,
    epoch: i64,
    addresses: Vec<(String, SocketAddr)>,
    advertised: Vec<AdvertisedListener>,
    /// Ends what serves clients.
    stop: CancellationToken,
    tasks: TaskTracker,
    threads: Threads,
}

/// What runs outside the runtime.
struct Threads {
    metadata: JoinHandle<()>,
    publisher: JoinHandle<()>,
    publications: Arc<Publications>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("node_id", &self.node.config.node_id)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// Starts a broker; returns when clients can use it. A port of 0 takes a free one.
    ///
    /// # Errors
    /// A port or a data directory that cannot be used; nothing runs then.
    pub async fn start(config: BrokerConfig) -> Result<Self, StartError> {
        let quotas = Arc::new(ConnectionQuotas::new(connection_quotas(&config.network).await?));
        let (listeners, advertised) = bind(&config).await?;
        let addresses = listeners.iter().map(|listener| {
            let address = listener.local_addr().expect("a bound socket has an address");
            (listener.name().to_string(), address)
        });
        let addresses = addresses.collect();
        let runtime = Handle::current();
        let opened = tokio::task::spawn_blocking(move || open(config, runtime));
        let (node, threads) = match opened.await {
            Ok(opened) => opened?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let joined = tokio::time::timeout(JOIN_TIMEOUT, lifecycle::join(&node, &advertised));
        let epoch = joined.await.map_err(|_| StartError::JoinTimeout)??;
        let broker = Self {
            node,
            epoch,
            addresses,
            advertised,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            threads,
        };
        broker.serve(listeners, &quotas);
        Ok(broker)
    }

    fn serve(&self, listeners: Vec<Listener>, quotas: &Arc<ConnectionQuotas>) {
        for listener in listeners {
            let (node, tasks) = (Arc::clone(&self.node), self.tasks.clone());
            self.tasks.spawn(listener.run(node, Arc::clone(quotas), tasks, self.stop.clone()));
        }
        let (node, stop) = (Arc::clone(&self.node), self.stop.clone());
        self.tasks.spawn(maintenance::run(Arc::clone(&node), stop.clone()));
        self.tasks.spawn(lifecycle::keep_contact(node, self.epoch, stop));
    }

    /// The listeners' names and the addresses that they are bound to.
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// What clients use as `bootstrap.servers`: the first listener, as advertised.
    pub fn bootstrap_servers(&self) -> String {
        let first = self.advertised.first().expect("a broker has a listener");
        format!("{}:{}", first.host, first.port)
    }

    pub fn node_id(&self) -> BrokerId {
        self.node.config.node_id
    }

    pub fn cluster_id(&self) -> &str {
        &self.node.cluster_id
    }

    /// Waits until the broker can no longer go on: all log directories or the metadata log have
    /// failed. What to do then is [`Broker::shutdown`].
    pub async fn failed(&self) {
        self.node.failed.cancelled().await;
    }

    /// Stops serving, syncs and closes everything, and leaves the directories in order.
    pub async fn shutdown(self) {
        lifecycle::leave(&self.node, self.epoch).await;
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_TIMEOUT, self.tasks.wait()).await.is_err() {
            error!("connections did not end within {} s", DRAIN_TIMEOUT.as_secs());
        }
        self.node.replicas.stop().await;
        let (node, threads, epoch) = (self.node, self.threads, self.epoch);
        let closed = tokio::task::spawn_blocking(move || close(&node, threads, epoch));
        if closed.await.is_err() {
            error!("closing the logs panicked: the next start verifies them");
        }
        info!("the broker is stopped");
    }
}

fn close(node: &Node, threads: Threads, epoch: i64) {
    node.groups.shut_down();
    node.controller.stop();
    if threads.metadata.join().is_err() {
        error!("the metadata thread panicked");
    }
    threads.publications.stop();
    if threads.publisher.join().is_err() {
        error!("the publisher panicked");
    }
    node.store.close(&node.partitions.all(), epoch);
}

/// Binds the broker's listeners, so that a port of 0 is known before it is advertised.
async fn bind(
    config: &BrokerConfig,
) -> Result<(Vec<Listener>, Vec<AdvertisedListener>), StartError> {
    let mut listeners = Vec::new();
    let mut advertised = Vec::new();
    for endpoint in &config.listeners.broker {
        let host = endpoint.host.clone().unwrap_or_default();
        let options = listener_options(config, endpoint);
        let listener = Listener::bind(&host, endpoint.port, options).await.map_err(|source| {
            let listener = endpoint.listener.clone();
            StartError::Bind { listener, host: host.clone(), port: endpoint.port, source }
        })?;
        let told = config.listeners.advertised_broker.iter();
        for told in told.filter(|told| told.listener == endpoint.listener) {
            let bound = listener.local_addr().expect("a bound socket has an address").port();
            advertised.push(AdvertisedListener {
                name: told.listener.clone().into(),
                host: told.host.clone().unwrap_or_else(host_name).into(),
                port: if told.port == 0 { bound } else { told.port },
                security_protocol: told.security_protocol.id(),
            });
        }
        listeners.push(listener);
    }
    Ok((listeners, advertised))
}

fn listener_options(config: &BrokerConfig, endpoint: &Endpoint) -> ListenerOptions {
    let network = &config.network;
    let idle_ms = u64::try_from(network.connections_max_idle_ms);
    ListenerOptions {
        name: endpoint.listener.as_str().into(),
        connection: ConnectionLimits {
            max_frame_bytes: count(network.socket_request_max_bytes),
            max_idle: idle_ms
                .map_or(Duration::from_secs(u64::from(u32::MAX)), Duration::from_millis),
        },
    }
}

/// A number of things. The table of configurations refuses negative ones.
fn count(value: i32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

async fn connection_quotas(network: &NetworkConfig) -> Result<ConnectionQuotaLimits, StartError> {
    let mut per_ip_overrides = HashMap::new();
    for (host, limit) in &network.max_connections_per_ip_overrides {
        let found = tokio::net::lookup_host((host.as_str(), 0)).await;
        let found =
            found.map_err(|source| StartError::UnknownHost { host: host.clone(), source })?;
        per_ip_overrides.extend(found.map(|address| (address.ip().to_canonical(), count(*limit))));
    }
    Ok(ConnectionQuotaLimits {
        max_connections: count(network.max_connections),
        max_connections_per_ip: count(network.max_connections_per_ip),
        per_ip_overrides,
        creation_rate: u32::try_from(network.max_connection_creation_rate).unwrap_or(u32::MAX),
    })
}

/// The machine's own name, for clients where nothing is advertised.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Opens the directories, starts the quorum and, with it, everything that the metadata log says.
fn open(config: BrokerConfig, runtime: Handle) -> Result<(Arc<Node>, Threads), StartError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let recovery_threads =
        usize::try_from(config.storage.num_recovery_threads_per_data_dir).unwrap_or(1);
    let store = LogStore::open(
        &disk,
        &config.storage.log_dirs,
        config.cluster_id.as_deref(),
        config.node_id,
        recovery_threads,
    )?;
    let metadata_dir = config.storage.metadata_log_dir.clone();
    let cluster_id = store.cluster_id().clone();
    let local = ReplicaKey::new(config.node_id, store.directory_id_of(&metadata_dir));
    let listener = controller_listener(&config);
    let voters = VoterSet::from_static(&listener, [(config.node_id, controller_address(&config))]);
    let clean = store.last_shutdown() != LastShutdown::Unclean;
    let storage = store.storage_of(&metadata_dir);
    let mut opened = MetadataLog::open(storage, &metadata_dir, voters, clean, clock::now_ms())?;
    let mut newest = opened.loader.clone();
    opened.log.replay(&mut newest, opened.boot.log.end_offset)?;
    let bootstrap = match metadata_log::read_bootstrap(disk.as_ref(), &metadata_dir)? {
        Some(records) => records,
        None => {
            let records = features::initial().bootstrap_records();
            if newest.is_empty() {
                let dirs = &config.storage.log_dirs;
                metadata_log::write_bootstrap(disk.as_ref(), dirs, &records, clock::now_ms())?;
            }
            records
        }
    };
    // What the first records of an empty log will finalize counts as well.
    let mut known = newest.newest().clone();
    if known.features.metadata_version().is_none() {
        for record in &bootstrap {
            known.replay(record).map_err(MetadataLogError::from)?;
        }
    }
    let mut settings = ControllerSettings::single_node(
        config.node_id,
        cluster_id.clone(),
        features::registered(&known),
        bootstrap,
        config.configs.clone(),
    );
    settings.kraft_version = *opened.boot.membership.kraft_version.latest();
    // No-op records tell followers that the leader lives: alone, a node has nobody to tell.
    settings.max_idle_interval_ms = 0;
    let quorum_config = quorum_config(&config, local, listener.clone(), cluster_id.clone());
    let quorum = Quorum::start(quorum_config, opened.boot, clock::now_ms());
    let (handle, ends) = driver::channel();
    let node = Arc::new(Node::new(config, cluster_id, store, handle));
    node.groups.attach(&node);
    node.replicas.attach(&node, &runtime);
    let publications = Arc::new(Publications::default());
    let driver = Driver::new(
        quorum,
        opened.log,
        Controller::new(settings, newest),
        opened.loader,
        Arc::clone(&publications),
        (ends, quorum_peers(&node, runtime, &listener)),
        &node.config.quorum,
        listener,
    );
    let (failed, publishing_failed) = (node.failed.clone(), node.failed.clone());
    let publisher = Publisher::new(Arc::clone(&node))
        .start(Arc::clone(&publications), move || publishing_failed.cancel())
        .map_err(StartError::Thread)?;
    let metadata = driver.start(move || failed.cancel()).map_err(StartError::Thread)?;
    Ok((node, Threads { metadata, publisher, publications }))
}

fn quorum_peers(node: &Node, runtime: Handle, listener: &ByteString) -> QuorumPeers {
    let config = &node.config;
    let client = QuorumClient {
        controller: node.controller.clone(),
        client_id: format!("raft-client-{}", config.node_id).into(),
        cluster_id: node.cluster_id.clone(),
        listener: listener.clone(),
        request_timeout: millis(config.quorum.request_timeout_ms),
    };
    QuorumPeers::new(runtime, client)
}

/// A time of the configuration. The table refuses negative ones.
fn millis(value: i32) -> Duration {
    Duration::from_millis(u64::try_from(value).unwrap_or_default())
}

fn quorum_config(
    config: &BrokerConfig,
    local: ReplicaKey,
    listener: ByteString,
    cluster_id: ByteString,
) -> QuorumConfig {
    let ms = |value: i32| u32::try_from(value).unwrap_or_default();
    QuorumConfig {
        election_timeout_ms: ms(config.quorum.election_timeout_ms),
        fetch_timeout_ms: ms(config.quorum.fetch_timeout_ms),
        election_backoff_max_ms: ms(config.quorum.election_backoff_max_ms),
        request_timeout_ms: ms(config.quorum.request_timeout_ms),
        retry_backoff_ms: ms(config.quorum.retry_backoff_ms),
        fetch_max_bytes: config.quorum.fetch_max_bytes,
        fetch_snapshot_max_bytes: config.quorum.fetch_snapshot_max_bytes,
        seed: u64::from_be_bytes(random::bytes()),
        ..QuorumConfig::with_defaults(local, listener, cluster_id)
    }
}

fn controller_listener(config: &BrokerConfig) -> ByteString {
    let names = &config.listeners.controller_listener_names;
    names.first().map_or_else(|| ByteString::from_static("CONTROLLER"), |name| name.clone().into())
}

fn controller_address(config: &BrokerConfig) -> Address {
    let (host, port) = DEFAULT_CONTROLLER;
    config.quorum_members.voters.get(&config.node_id).map_or_else(
        || Address { host: host.into(), port },
        |voter| Address { host: voter.host.clone().into(), port: voter.port },
    )
}
