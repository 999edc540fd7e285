//! Envelope (key 58): a broker forwards a client's request to the controller (KIP-590).

use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::envelope_request::EnvelopeRequest;
use klamm_protocol::messages::envelope_response::EnvelopeResponse;

use crate::api::context::RequestContext;
use crate::api::forwarding::host_from_bytes;
use crate::api::reply::message_replies;
use crate::api::request::Request;
use crate::api::table;
use crate::net::service::{Begun, ListenerKind};
use crate::security::principal::{Principal, Requester};

message_replies!(EnvelopeResponse);

pub(crate) async fn handle(context: RequestContext, body: EnvelopeRequest) -> EnvelopeResponse {
    match open(&context, body).await {
        Ok(data) => EnvelopeResponse { response_data: Some(data), ..Default::default() },
        Err(error) => EnvelopeResponse { error_code: error.code(), ..Default::default() },
    }
}

/// Answers the request inside for the principal and host that the envelope names.
async fn open(context: &RequestContext, envelope: EnvelopeRequest) -> Result<Bytes, ErrorCode> {
    let principal = Principal::from_bytes(envelope.request_principal.unwrap_or_default())
        .map_err(|_| ErrorCode::PrincipalDeserializationFailure)?;
    if !context.services.controller.is_active() {
        return Err(ErrorCode::NotController);
    }
    let host = host_from_bytes(&envelope.client_host_address).ok_or(ErrorCode::InvalidRequest)?;
    // The request inside may be malformed, and must not be an Envelope itself.
    let request = Request::parse(envelope.request_data, ListenerKind::Controller)
        .map_err(|_| ErrorCode::InvalidRequest)?;
    if !request.row.forwarded {
        return Err(ErrorCode::InvalidRequest);
    }
    if !request.row.served.contains(&request.head.version) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let client = RequestContext {
        requester: Requester { principal: Arc::new(principal), host },
        head: request.head,
        client_id: request.client_id.clone(),
        is_forwarded: true,
        ..context.clone()
    };
    let response = match table::begin(client, &request).map_err(|_| ErrorCode::InvalidRequest)? {
        Begun::Answered(response) => response,
        Begun::Waiting { response, .. } => response.await.map_err(|_| ErrorCode::InvalidRequest)?,
        Begun::Unanswered => return Err(ErrorCode::InvalidRequest),
    };
    response.into_body().ok_or(ErrorCode::UnknownServerError)
}
