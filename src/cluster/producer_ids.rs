//! Producer ids for idempotent producers, from blocks that the controller allocates.

use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::ProducerId;
use klamm_protocol::messages::allocate_producer_ids_request::AllocateProducerIdsRequest;
use tokio::sync::Mutex;

use crate::config::dynamic::DynamicBrokerConfig;
use crate::controller::channel::ControllerChannel;
use crate::metadata_cache::MetadataCache;

/// The block in use. The lock is held while the next block is requested: concurrent callers need that block too.
pub(crate) struct ProducerIds {
    config: Arc<DynamicBrokerConfig>,
    metadata_cache: Arc<MetadataCache>,
    channel: Arc<ControllerChannel>,
    block: Mutex<std::ops::Range<ProducerId>>,
}

impl ProducerIds {
    /// Starts without a block.
    pub(crate) fn new(
        config: Arc<DynamicBrokerConfig>,
        metadata_cache: Arc<MetadataCache>,
        channel: Arc<ControllerChannel>,
    ) -> Self {
        Self { config, metadata_cache, channel, block: Mutex::default() }
    }

    /// Returns an id that was never used before.
    pub(crate) async fn next(&self) -> Result<ProducerId, ErrorCode> {
        let (broker_id, image) = (self.config.node_id, self.metadata_cache.image());
        let registered = image.brokers.get(broker_id).ok_or(ErrorCode::BrokerIdNotRegistered)?;
        let mut block = self.block.lock().await;
        if let Some(id) = block.next() {
            return Ok(id);
        }
        let request = AllocateProducerIdsRequest { broker_id, broker_epoch: registered.epoch };
        let limit = self.config.lifecycle.request_timeout;
        let given = self.channel.ask_within(&request, limit).await.map_err(|error| error.code())?;
        if given.error_code != ErrorCode::None.code() {
            return Err(
                ErrorCode::from_code(given.error_code).unwrap_or(ErrorCode::UnknownServerError)
            );
        }
        let start = given.producer_id_start;
        *block = start..start + ProducerId::from(given.producer_id_len);
        block.next().ok_or(ErrorCode::UnknownServerError)
    }
}
