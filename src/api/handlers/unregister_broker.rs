//! UnregisterBroker (key 64): a broker that is gone for good is forgotten (KIP-631).

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::unregister_broker_request::UnregisterBrokerRequest;
use klamm_protocol::messages::unregister_broker_response::UnregisterBrokerResponse;

use crate::api::context::Context;
use crate::api::request::{Request, RequestError};
use crate::controller::handle::ControllerError;
use crate::net::response::Response;

pub(crate) async fn handle(context: Context, request: Request) -> Result<Response, RequestError> {
    let body: UnregisterBrokerRequest = request.decode()?;
    let unregistered = context
        .services
        .controller
        .decide(move |controller, _| controller.on_unregister_broker(&body));
    request.respond(&unregistered.await.unwrap_or_else(refused))
}

fn refused(error: ControllerError) -> UnregisterBrokerResponse {
    let code: ErrorCode = error.code();
    UnregisterBrokerResponse {
        error_code: code.code(),
        error_message: Some(error.to_string().into()),
        ..Default::default()
    }
}
