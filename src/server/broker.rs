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

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use klamm_metadata::delta::ImageDelta;
use klamm_metadata::image::ClusterImage;
use klamm_protocol::ids::BrokerId;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use crate::api::services::{ApiService, Services};
use crate::blocking;
use crate::cluster::broker_lifecycle::{AdvertisedListener, BrokerLifecycle, JoinError};
use crate::cluster::controller_registration::{self, ControllerMember};
use crate::config::{BrokerConfig, Endpoint};
use crate::controller::metadata_log::MetadataLogError;
use crate::controller::process_monitor;
use crate::net::connection::ConnectionLimits;
use crate::net::connection_quotas::{ConnectionQuotaLimits, ConnectionQuotas, UnknownHost};
use crate::net::listener::{Listener, ListenerOptions, SocketOptions};
use crate::net::service::ListenerKind;
use crate::owner::OwnerGuard;
use crate::replica::log_manager::StoreError;
use crate::server::assembly::{self, Threads};
use crate::server::maintenance;
use crate::server::state_dump::Inspection;

/// How long a shutdown waits for connections to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
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
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    #[error("the node failed while it started, as was said before this")]
    Failed,
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
    services: Arc<Services>,
    lifecycle: Arc<BrokerLifecycle>,
    addresses: Vec<(String, SocketAddr)>,
    /// The first listener of a broker, as advertised.
    bootstrap: Option<AdvertisedListener>,
    /// Stops the listeners, connections and background tasks.
    stop: CancellationToken,
    tasks: TaskTracker,
    threads: Threads,
    quotas: Arc<ConnectionQuotas>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("node_id", &self.services.config.node_id)
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
        let limits = ConnectionQuotaLimits::resolve(&config.network).await;
        let limits = limits
            .map_err(|UnknownHost { host, source }| StartError::UnknownHost { host, source })?;
        let quotas = Arc::new(ConnectionQuotas::new(limits));
        let bound = Bound::bind(&config).await?;
        let addresses = bound.listeners.iter().map(|listener| {
            let address = listener.local_addr().expect("a bound socket has an address");
            (listener.name().to_string(), address)
        });
        let addresses = addresses.collect();
        let (runtime, advertised) = (Handle::current(), bound.advertised.clone());
        let opened = blocking::run(move || assembly::open(config, advertised, runtime)).await;
        let assembly::Node { services, lifecycle, threads } = opened?;
        let (brokers, controllers): (Vec<_>, Vec<_>) = bound
            .listeners
            .into_iter()
            .partition(|listener| listener.kind() == ListenerKind::Broker);
        let broker = Self {
            services,
            lifecycle,
            addresses,
            bootstrap: bound.advertised.broker.first().cloned(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            threads,
            quotas: Arc::clone(&quotas),
        };
        broker.keep_opening();
        // Controllers must be reachable before the quorum can elect a leader and a broker can join.
        broker.accept(controllers, &quotas);
        let config = Arc::clone(&broker.services.config);
        let follow = Arc::clone(&quotas).follow(config, broker.stop.clone());
        broker.own("following the limits of connections", follow);
        let joined = tokio::select! {
            joined = broker.join(bound.advertised.controller) => joined,
            () = broker.failed() => Err(StartError::Failed),
        };
        match joined {
            Ok(()) => {
                broker.serve(brokers, &quotas);
                Ok(broker)
            }
            Err(failure) => {
                broker.end().await;
                Err(failure)
            }
        }
    }

    /// Joins the cluster.
    async fn join(&self, controllers: Vec<AdvertisedListener>) -> Result<(), StartError> {
        let (services, stop) = (&self.services, || self.stop.clone());
        let (config, metadata_cache) =
            (Arc::clone(&services.config), Arc::clone(&services.metadata_cache));
        let roles = config.roles;
        if roles.controller {
            let controller = services.controller.clone();
            let monitor = process_monitor::run(
                Arc::clone(&config),
                controller.clone(),
                Arc::clone(&metadata_cache),
                stop(),
            );
            self.own("watching the processes of brokers", monitor);
            let session = Arc::clone(&services.session);
            let member = ControllerMember { config, session, metadata_cache, controller };
            let registration =
                controller_registration::keep_registered(member, controllers, stop());
            self.own("registering the controller", registration);
        }
        if roles.broker {
            let returns = Arc::clone(&self.lifecycle).watch_returned_directories(stop());
            self.own("watching for log directories that return", returns);
            self.lifecycle.join().await?;
        }
        Ok(())
    }

    /// Retries replicas that could not be opened. When one of `__consumer_offsets` opens, its coordinator starts.
    fn keep_opening(&self) {
        let groups = Arc::clone(&self.services.groups);
        let on_opened = move |delta: &ImageDelta, image: &ClusterImage| {
            groups.on_published(delta, image);
        };
        let replicas = Arc::clone(&self.services.replicas);
        self.own("opening replicas again", replicas.keep_opening(self.stop.clone(), on_opened));
    }

    fn accept(&self, listeners: Vec<Listener>, quotas: &Arc<ConnectionQuotas>) {
        for listener in listeners {
            let what = format!("listener {}", listener.name());
            let service = Arc::new(ApiService::new(Arc::clone(&self.services)));
            let (tasks, stop) = (self.tasks.clone(), self.stop.clone());
            self.own(what, listener.run(service, Arc::clone(quotas), tasks, stop));
        }
    }

    /// Runs a task whose panic stops the node.
    fn own(
        &self,
        what: impl Into<Cow<'static, str>>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.tasks.spawn(OwnerGuard::of(what, &self.services.session.failed).run(task));
    }

    fn serve(&self, listeners: Vec<Listener>, quotas: &Arc<ConnectionQuotas>) {
        self.accept(listeners, quotas);
        let replicas = Arc::clone(&self.services.replicas);
        self.own("maintenance of the logs", maintenance::run(replicas, self.stop.clone()));
        if self.services.config.roles.broker {
            let heartbeats = Arc::clone(&self.lifecycle).send_heartbeats(self.stop.clone());
            self.own("heartbeats", heartbeats);
        }
    }

    /// The listeners' names and the addresses that they are bound to.
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// What clients use as `bootstrap.servers`: the first listener, as advertised. Empty on a node that is a
    /// controller only.
    pub fn bootstrap_servers(&self) -> String {
        self.bootstrap
            .as_ref()
            .map_or_else(String::new, |first| format!("{}:{}", first.host, first.port))
    }

    pub fn node_id(&self) -> BrokerId {
        self.services.config.node_id
    }

    pub fn cluster_id(&self) -> &str {
        &self.services.cluster_id
    }

    /// The handle by which the state of the running node is dumped. It does not keep the node alive.
    pub(crate) fn inspection(&self) -> Inspection {
        Inspection::new(&self.services, &self.quotas)
    }

    /// Waits until the broker must stop, for example because all log directories or the metadata log have failed. Call
    /// [`Broker::shutdown`] then.
    pub async fn failed(&self) {
        self.services.session.failed.cancelled().await;
    }

    /// Stops serving, flushes and closes all logs, and marks a clean shutdown.
    pub async fn shutdown(self) {
        let config = &self.services.config;
        if config.roles.broker && config.lifecycle.controlled_shutdown_enable {
            self.lifecycle.controlled_shutdown().await;
        }
        self.end().await;
        info!("the broker is stopped");
    }

    /// Ends all tasks and threads and closes the logs.
    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_TIMEOUT, self.tasks.wait()).await.is_err() {
            error!("connections did not end within {} s", DRAIN_TIMEOUT.as_secs());
        }
        self.services.replicas.stop().await;
        let (services, threads) = (self.services, self.threads);
        let closed = tokio::task::spawn_blocking(move || assembly::close(&services, threads));
        if closed.await.is_err() {
            error!("closing the logs panicked: the next start recovers them");
        }
    }
}

/// The bound sockets of a node, and how they are advertised.
struct Bound {
    listeners: Vec<Listener>,
    advertised: Advertised,
}

/// The advertised listeners of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Advertised {
    /// For clients and brokers.
    pub(crate) broker: Vec<AdvertisedListener>,
    /// For other controllers, and for brokers that look for the active one.
    pub(crate) controller: Vec<AdvertisedListener>,
}

impl Bound {
    /// Binds all listeners, so that a port of 0 is known before it is advertised.
    async fn bind(config: &BrokerConfig) -> Result<Self, StartError> {
        let mut bound = Self { listeners: Vec::new(), advertised: Advertised::default() };
        let configured = &config.listeners;
        for endpoint in &configured.broker {
            let at = bound.listen(config, endpoint, ListenerKind::Broker).await?;
            bound.advertised.broker.extend(advertised(&configured.advertised_broker, endpoint, at));
        }
        for endpoint in &configured.controller {
            let at = bound.listen(config, endpoint, ListenerKind::Controller).await?;
            bound.advertised.controller.extend(advertised(
                &configured.advertised_controller,
                endpoint,
                at,
            ));
        }
        Ok(bound)
    }

    /// Binds one listener and returns its port.
    async fn listen(
        &mut self,
        config: &BrokerConfig,
        endpoint: &Endpoint,
        kind: ListenerKind,
    ) -> Result<u16, StartError> {
        let host = endpoint.host.clone().unwrap_or_default();
        let options = listener_options(config, endpoint, kind);
        let listener = Listener::bind(&host, endpoint.port, options).await.map_err(|source| {
            let listener = endpoint.listener.clone();
            StartError::Bind { listener, host: host.clone(), port: endpoint.port, source }
        })?;
        let port = listener.local_addr().expect("a bound socket has an address").port();
        self.listeners.push(listener);
        Ok(port)
    }
}

/// The advertised endpoints of a listener that is bound to `port`.
fn advertised(
    configured: &[Endpoint],
    endpoint: &Endpoint,
    port: u16,
) -> impl Iterator<Item = AdvertisedListener> {
    let configured =
        configured.iter().filter(|configured| configured.listener == endpoint.listener);
    configured.map(move |configured| AdvertisedListener {
        name: configured.listener.clone().into(),
        host: configured.host.clone().unwrap_or_else(host_name).into(),
        port: if configured.port == 0 { port } else { configured.port },
        security_protocol: configured.security_protocol.id(),
    })
}

fn listener_options(
    config: &BrokerConfig,
    endpoint: &Endpoint,
    kind: ListenerKind,
) -> ListenerOptions {
    let network = &config.network;
    let never = Duration::from_secs(u64::from(u32::MAX));
    ListenerOptions {
        name: endpoint.listener.as_str().into(),
        kind,
        socket: SocketOptions {
            backlog: network.socket_listen_backlog_size,
            send_buffer_bytes: network.socket_send_buffer_bytes,
            receive_buffer_bytes: network.socket_receive_buffer_bytes,
        },
        connection: ConnectionLimits {
            max_frame_bytes: count(network.socket_request_max_bytes),
            max_idle: network.connections_max_idle.unwrap_or(never),
        },
    }
}

/// Converts a count. The configuration table refuses negative values.
fn count(value: i32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// The machine's host name, advertised if the configuration names no host.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
