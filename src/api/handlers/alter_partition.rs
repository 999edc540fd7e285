//! AlterPartition (key 56): a leader requests a change of the ISR (KIP-497).

use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::alter_partition_request::{AlterPartitionRequest, BrokerState};
use klamm_protocol::messages::alter_partition_response::AlterPartitionResponse;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::controller::request::{ControllerRequest, DecisionContext, error_of_code};

/// The first version with the epochs of the ISR's brokers.
const FIRST_WITH_EPOCHS: i16 = 3;

message_replies!(AlterPartitionResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: AlterPartitionRequest,
) -> AlterPartitionResponse {
    context.decide(body).await
}

impl ControllerRequest for AlterPartitionRequest {
    type Response = AlterPartitionResponse;

    fn decide(
        &self,
        controller: &mut Controller,
        context: &DecisionContext,
    ) -> Outcome<Self::Response> {
        if context.origin.version >= FIRST_WITH_EPOCHS {
            return controller.on_alter_partition(self);
        }
        let mut lowered = self.clone();
        for partition in lowered.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            let isr = std::mem::take(&mut partition.new_isr).into_iter();
            partition.new_isr_with_epochs =
                isr.map(|broker_id| BrokerState { broker_id, broker_epoch: -1 }).collect();
        }
        controller.on_alter_partition(&lowered)
    }

    fn refused(&self, error: ErrorCode) -> Self::Response {
        AlterPartitionResponse { error_code: error.code(), ..Default::default() }
    }

    fn error_of(response: &Self::Response) -> ErrorCode {
        error_of_code(response.error_code)
    }
}
