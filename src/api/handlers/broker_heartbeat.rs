//! BrokerHeartbeat (key 63): a broker renews its session with the controller, and learns whether it is fenced (KIP-631).

use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::broker_heartbeat_request::BrokerHeartbeatRequest;
use klamm_protocol::messages::broker_heartbeat_response::BrokerHeartbeatResponse;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::controller::request::{ControllerRequest, DecisionContext, error_of_code};

message_replies!(BrokerHeartbeatResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: BrokerHeartbeatRequest,
) -> BrokerHeartbeatResponse {
    context.decide(body).await
}

impl ControllerRequest for BrokerHeartbeatRequest {
    type Response = BrokerHeartbeatResponse;

    fn decide(
        &self,
        controller: &mut Controller,
        context: &DecisionContext,
    ) -> Outcome<Self::Response> {
        controller.on_broker_heartbeat(self, context.now_ms)
    }

    fn refused(&self, error: ErrorCode) -> Self::Response {
        BrokerHeartbeatResponse { error_code: error.code(), ..Default::default() }
    }

    fn error_of(response: &Self::Response) -> ErrorCode {
        error_of_code(response.error_code)
    }
}
