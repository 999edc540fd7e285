//! The active controller's lifelines: an idle connection to each broker, which breaks when the broker's process ends.
//!
//! A connection that breaks and an address that refuses the next one are evidence that nothing else gives so soon; the
//! controller weighs it (see `BrokerHeartbeats::on_process_gone`). A connection that cannot be made for another reason
//! proves nothing, and neither does the refusal of a port that was never seen open: Apache Kafka opens it only after the
//! broker has been unfenced.

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

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause before a connection is made again, whatever became of the one before.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// The pause where the network is at fault.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(500);

/// A registration of a broker, and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Registered {
    id: BrokerId,
    epoch: i64,
    address: PeerAddress,
}

/// Keeps the lifelines while this node is the active controller, until `stop`.
pub(crate) async fn run(
    config: Arc<DynamicBrokerConfig>,
    controller: ControllerHandle,
    metadata_cache: Arc<MetadataCache>,
    stop: CancellationToken,
) {
    let mut leader = controller.leader();
    let mut images = metadata_cache.watch();
    let mut lines: HashMap<Registered, DropGuard> = HashMap::new();
    let mut was_active = false;
    loop {
        let image = Arc::clone(&images.borrow_and_update());
        let is_active = leader.borrow_and_update().is_active_here;
        let wanted = if is_active { brokers(&image, &config) } else { Vec::new() };
        // Who was unfenced before this controller began has long been open.
        let is_seen_open = !std::mem::replace(&mut was_active, is_active);
        lines.retain(|line, _| wanted.contains(line));
        for broker in wanted {
            lines.entry(broker).or_insert_with_key(|broker| {
                let ended = CancellationToken::new();
                let line = hold(controller.clone(), broker.clone(), is_seen_open, ended.clone());
                tokio::spawn(line);
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

/// The brokers that are not fenced and run in other processes. A node that was a broker and is only a controller now is one of
/// them.
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
    // When the lifeline is no longer wanted, neither is what it would find.
    tokio::select! {
        () = ended.cancelled() => {}
        () = hold_for_ever(&controller, &broker, is_seen_open) => {}
    }
}

async fn hold_for_ever(controller: &ControllerHandle, broker: &Registered, mut is_seen_open: bool) {
    let mut was_told = false;
    loop {
        let address = (&*broker.address.host, broker.address.port);
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(mut stream)) => {
                (is_seen_open, was_told) = (true, false);
                let mut nothing = [0; 1];
                // A broker says nothing unasked: whatever comes, the connection is over.
                let end = stream.read(&mut nothing).await;
                debug!("the lifeline to broker {} has ended: {end:?}", broker.id);
                if end.is_ok_and(|read| read > 0) {
                    tokio::time::sleep(UNREACHABLE_PAUSE).await;
                }
            }
            Ok(Err(error)) if is_seen_open && error.kind() == ErrorKind::ConnectionRefused => {
                if !std::mem::replace(&mut was_told, true) {
                    let (id, address) = (broker.id, &broker.address);
                    info!(
                        broker = id,
                        "broker {id} does not listen at {address}: its process is likely gone"
                    );
                }
                tell(controller, broker).await;
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
            Ok(Err(_)) | Err(_) => tokio::time::sleep(UNREACHABLE_PAUSE).await,
        }
    }
}

async fn tell(controller: &ControllerHandle, broker: &Registered) {
    let (id, epoch) = (broker.id, broker.epoch);
    let requester = Requester::this_node();
    let origin = RequestOrigin { requester, version: 0, is_forwarded: false };
    let told = controller.decide(HeldUntil::Committed, origin, move |controller, context| {
        controller.on_process_gone(id, epoch, context.now_ms)
    });
    if let Err(error) = told.await {
        debug!("the controller does not hear about broker {id}: {error}");
    }
}
