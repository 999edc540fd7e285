//! AllocateProducerIds (key 67): a broker gets a block of producer ids.

use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::allocate_producer_ids_request::AllocateProducerIdsRequest;
use klamm_protocol::messages::allocate_producer_ids_response::AllocateProducerIdsResponse;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::controller::request::{ControllerRequest, DecisionContext, error_of_code};

message_replies!(AllocateProducerIdsResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: AllocateProducerIdsRequest,
) -> AllocateProducerIdsResponse {
    context.decide(body).await
}

impl ControllerRequest for AllocateProducerIdsRequest {
    type Response = AllocateProducerIdsResponse;

    fn decide(&self, controller: &mut Controller, _: &DecisionContext) -> Outcome<Self::Response> {
        controller.on_allocate_producer_ids(self)
    }

    fn refused(&self, error: ErrorCode) -> Self::Response {
        AllocateProducerIdsResponse { error_code: error.code(), ..Default::default() }
    }

    fn error_of(response: &Self::Response) -> ErrorCode {
        error_of_code(response.error_code)
    }
}
