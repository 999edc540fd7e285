//! ControllerRegistration (key 70): a controller registers its endpoints and supported features (KIP-919).

use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::controller_registration_request::ControllerRegistrationRequest;
use klamm_protocol::messages::controller_registration_response::ControllerRegistrationResponse;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::controller::request::{ControllerRequest, DecisionContext, error_of_code, refusal_text};

message_replies!(ControllerRegistrationResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: ControllerRegistrationRequest,
) -> ControllerRegistrationResponse {
    context.decide(body).await
}

impl ControllerRequest for ControllerRegistrationRequest {
    type Response = ControllerRegistrationResponse;

    fn decide(&self, controller: &mut Controller, _: &DecisionContext) -> Outcome<Self::Response> {
        controller.on_controller_registration(self)
    }

    fn refused(&self, error: ErrorCode) -> Self::Response {
        ControllerRegistrationResponse {
            error_code: error.code(),
            error_message: refusal_text(error),
            ..Default::default()
        }
    }

    fn error_of(response: &Self::Response) -> ErrorCode {
        error_of_code(response.error_code)
    }
}
