//! The registration of a controller with its cluster (KIP-919, Kafka's `ControllerRegistrationManager`).

use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::controller_registration_request::{
    self as controller, ControllerRegistrationRequest,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::broker_lifecycle::AdvertisedListener;
use super::features;
use crate::broker_session::BrokerSession;
use crate::config::dynamic::DynamicBrokerConfig;
use crate::controller::channel::ControllerChannel;
use crate::controller::handle::ControllerHandle;
use crate::metadata_cache::{MetadataCache, PublishedImage};

/// How long the active controller may take to answer a registration.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause before a refused registration is sent again.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// The pause before the image is checked for the registration again.
const CHECK_PAUSE: Duration = Duration::from_millis(100);

/// The parts of the node that the registration needs.
pub(crate) struct ControllerMember {
    pub(crate) config: Arc<DynamicBrokerConfig>,
    pub(crate) session: Arc<BrokerSession>,
    pub(crate) metadata_cache: Arc<MetadataCache>,
    pub(crate) controller: ControllerHandle,
}

/// Registers a controller, so that the others know its supported features (KIP-919). Repeats it whenever the image
/// lacks the registration.
pub(crate) async fn keep_registered(
    member: ControllerMember,
    listeners: Vec<AdvertisedListener>,
    stop: CancellationToken,
) {
    let ControllerMember { config, session, metadata_cache, controller } = &member;
    let channel = ControllerChannel::new(config, controller, "registration");
    loop {
        let incarnation_id = session.incarnation_id;
        let is_due = |image: &Arc<PublishedImage>| {
            let version = image.metadata_version();
            let known = image.controllers.get(config.node_id);
            image.features.metadata_version().is_some()
                && version.is_controller_registration_supported()
                && known.is_none_or(|known| known.incarnation_id != incarnation_id)
        };
        let image = tokio::select! {
            () = stop.cancelled() => return,
            image = metadata_cache.wait_for(is_due) => image,
        };
        let request = request(config, session, &listeners, &image);
        let asked = channel.ask_within(&request, REGISTRATION_TIMEOUT);
        let pause = tokio::select! {
            () = stop.cancelled() => return,
            asked = asked => match asked {
                Ok(response) if response.error_code == ErrorCode::None.code() => CHECK_PAUSE,
                Ok(response) => {
                    let reason = response.error_message.unwrap_or_default();
                    warn!("the active controller refused the registration of this controller: {reason}");
                    REFUSED_PAUSE
                }
                Err(error) => {
                    debug!("the registration of this controller failed and is retried: {error}");
                    CHECK_PAUSE
                }
            },
        };
        tokio::time::sleep(pause).await;
    }
}

fn request(
    config: &DynamicBrokerConfig,
    session: &BrokerSession,
    listeners: &[AdvertisedListener],
    image: &PublishedImage,
) -> ControllerRegistrationRequest {
    let features = features::registered(image, config.is_alone());
    let features = features.into_iter().map(|(name, range)| controller::Feature {
        name,
        min_supported_version: range.min,
        max_supported_version: range.max,
    });
    let listeners = listeners.iter().map(|listener| controller::Listener {
        name: listener.name.clone(),
        host: listener.host.clone(),
        port: listener.port,
        security_protocol: listener.security_protocol,
    });
    ControllerRegistrationRequest {
        controller_id: config.node_id,
        incarnation_id: session.incarnation_id,
        zk_migration_ready: false,
        listeners: listeners.collect(),
        features: features.collect(),
    }
}
