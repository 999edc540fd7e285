//! Detects that a broker's process has ended. The active controller keeps an idle connection to each broker; it breaks
//! when the process ends.
//!
//! A broken connection and then a refused one are the earliest evidence of that; the controller decides what follows
//! from it (see `BrokerHeartbeats::on_process_gone`). A connection that fails for another reason proves nothing.
//! Neither does the refusal of a port that was never open: Apache Kafka opens the port only after the broker is
//! unfenced.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::ids::BrokerId;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info};

use super::handle::{ControllerHandle, HeldUntil};
use super::request::RequestOrigin;
use crate::config::BrokerConfig;
use crate::config::dynamic::DynamicBrokerConfig;
use crate::metadata_cache::{MetadataCache, PublishedImage};
use crate::net::peer::PeerAddress;
use crate::security::principal::Requester;

/// How long connecting to a broker may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after a refused connection that was reported to the controller.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// The pause after any other failure, as of the network.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(500);

/// A broker's registration, and the address to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Registered {
    id: BrokerId,
    epoch: i64,
    address: PeerAddress,
}

/// Keeps the connections while this node is the active controller, until `stop`.
pub(crate) async fn run(
    config: Arc<DynamicBrokerConfig>,
    controller: ControllerHandle,
    metadata_cache: Arc<MetadataCache>,
    stop: CancellationToken,
) {
    let mut leader = controller.leader();
    let mut images = metadata_cache.watch();
    let mut connections: HashMap<Registered, DropGuard> = HashMap::new();
    let mut was_active = false;
    loop {
        let image = Arc::clone(&images.borrow_and_update());
        let is_active = leader.borrow_and_update().is_active_here;
        let wanted = if is_active { brokers(&image, &config) } else { Vec::new() };
        // The brokers that were unfenced before this node became the active controller have opened their ports.
        let is_seen_open = !std::mem::replace(&mut was_active, is_active);
        connections.retain(|broker, _| wanted.contains(broker));
        for broker in wanted {
            connections.entry(broker).or_insert_with_key(|broker| {
                let ended = CancellationToken::new();
                let connection =
                    hold(controller.clone(), broker.clone(), is_seen_open, ended.clone());
                tokio::spawn(connection);
                ended.drop_guard()
            });
        }
        let ends = tokio::select! {
            () = stop.cancelled() => true,
            changed = leader.changed() => changed.is_err(),
            changed = images.changed() => changed.is_err(),
        };
        if ends {
            return;
        }
    }
}

/// The unfenced brokers in other processes. If this node is only a controller now, the registration of its former
/// broker is one of them.
fn brokers(image: &PublishedImage, config: &BrokerConfig) -> Vec<Registered> {
    let listener = &config.listeners.inter_broker_listener_name;
    let others = image.brokers.iter().filter(|broker| !broker.fenced);
    others
        .filter(|broker| broker.id != config.node_id || !config.roles.broker)
        .filter_map(|broker| {
            let endpoints = &broker.listeners;
            let endpoint =
                endpoints.get(listener.as_str()).or_else(|| endpoints.values().next())?;
            let address = PeerAddress { host: endpoint.host.clone(), port: endpoint.port };
            Some(Registered { id: broker.id, epoch: broker.epoch, address })
        })
        .collect()
}

async fn hold(
    controller: ControllerHandle,
    broker: Registered,
    is_seen_open: bool,
    ended: CancellationToken,
) {
    // Once the connection is no longer needed, a result of it must not reach the controller.
    tokio::select! {
        () = ended.cancelled() => {}
        () = hold_for_ever(&controller, &broker, is_seen_open) => {}
    }
}

async fn hold_for_ever(controller: &ControllerHandle, broker: &Registered, mut is_seen_open: bool) {
    let mut was_logged = false;
    loop {
        let address = (&*broker.address.host, broker.address.port);
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(mut stream)) => {
                (is_seen_open, was_logged) = (true, false);
                let mut nothing = [0; 1];
                // A broker sends nothing without a request, so any result ends the connection.
                let end = stream.read(&mut nothing).await;
                debug!("the idle connection to broker {} has ended: {end:?}", broker.id);
                if end.is_ok_and(|read| read > 0) {
                    tokio::time::sleep(UNREACHABLE_PAUSE).await;
                }
            }
            Ok(Err(error)) if is_seen_open && error.kind() == ErrorKind::ConnectionRefused => {
                if !std::mem::replace(&mut was_logged, true) {
                    let (id, address) = (broker.id, &broker.address);
                    info!(
                        broker = id,
                        "broker {id} does not listen at {address}: its process is likely gone"
                    );
                }
                notify_process_gone(controller, broker).await;
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
            Ok(Err(_)) | Err(_) => tokio::time::sleep(UNREACHABLE_PAUSE).await,
        }
    }
}

async fn notify_process_gone(controller: &ControllerHandle, broker: &Registered) {
    let (id, epoch) = (broker.id, broker.epoch);
    let requester = Requester::this_node();
    let origin = RequestOrigin { requester, version: 0, is_forwarded: false };
    let notified = controller.decide(HeldUntil::Committed, origin, move |controller, context| {
        controller.on_process_gone(id, epoch, context.now_ms)
    });
    if let Err(error) = notified.await {
        debug!("the controller is not notified that broker {id} has no listening process: {error}");
    }
}
