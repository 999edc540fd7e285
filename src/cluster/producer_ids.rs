//! Producer ids for idempotent producers, taken from blocks that the controller gives out.

use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, ProducerId};
use klamm_protocol::messages::allocate_producer_ids_request::AllocateProducerIdsRequest;
use tokio::sync::Mutex;

use crate::controller::channel::ControllerChannel;

/// The block in use. The lock is held while the next one is fetched: whoever comes meanwhile needs it
/// as well.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds {
    block: Mutex<std::ops::Range<ProducerId>>,
}

impl ProducerIds {
    /// An id that nobody has had before.
    pub(crate) async fn next(
        &self,
        controller: &ControllerChannel,
        limit: Duration,
        broker_id: BrokerId,
        broker_epoch: i64,
    ) -> Result<ProducerId, ErrorCode> {
        let mut block = self.block.lock().await;
        if let Some(id) = block.next() {
            return Ok(id);
        }
        let request = AllocateProducerIdsRequest { broker_id, broker_epoch };
        let given = controller.ask_within(&request, limit).await.map_err(|error| error.code())?;
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
