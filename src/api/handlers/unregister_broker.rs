//! UnregisterBroker (key 64): removes the registration of a broker that will not come back (KIP-631).

use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::unregister_broker_request::UnregisterBrokerRequest;
use klamm_protocol::messages::unregister_broker_response::UnregisterBrokerResponse;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::controller::handle::HeldUntil;
use crate::controller::request::{ControllerRequest, DecisionContext, error_of_code};

message_replies!(UnregisterBrokerResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    context.decide(body).await
}

impl ControllerRequest for UnregisterBrokerRequest {
    type Response = UnregisterBrokerResponse;

    const HELD_UNTIL: HeldUntil = HeldUntil::Published;

    fn decide(
        &self,
        controller: &mut Controller,
        _: &DecisionContext,
    ) -> Outcome<UnregisterBrokerResponse> {
        controller.on_unregister_broker(self)
    }

    fn refused(&self, code: ErrorCode) -> UnregisterBrokerResponse {
        let error_message = Some(code.message().into());
        UnregisterBrokerResponse { error_code: code.code(), error_message, ..Default::default() }
    }

    fn error_of(response: &UnregisterBrokerResponse) -> ErrorCode {
        error_of_code(response.error_code)
    }
}
