//! Forwards requests that only the active controller can answer (KIP-590): the broker sends the request in an Envelope,
//! with the client's principal and host, and gets the answer in the Envelope's response. The request is forwarded as it
//! came, or without the parts that the broker answers by itself.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use klamm_protocol::decode::Decoder;
use klamm_protocol::messages::envelope_request::EnvelopeRequest;
use klamm_protocol::messages::envelope_response::EnvelopeResponse;
use klamm_protocol::messages::request_header::RequestHeader;
use klamm_protocol::messages::response_header::ResponseHeader;
use klamm_protocol::{ErrorCode, Message};
use tracing::debug;

use crate::api::context::RequestContext;
use crate::api::request::{Request, RequestHead};
use crate::api::table;
use crate::controller::channel::{ChannelError, Passed};
use crate::controller::request::{ControllerRequest, RequestOrigin};
use crate::net::response::Response;
use crate::net::service::{Begun, ConnectionError};
use crate::security::principal::Requester;

/// Forwards a client's request to the active controller, which may be this node, and returns its answer.
pub(crate) async fn forward(
    context: RequestContext,
    request: Request,
) -> Result<Response, ConnectionError> {
    match pass_on(&context, request.frame().clone()).await {
        Ok(Passed::Answered(answer)) => {
            match (ErrorCode::from_code(answer.error_code), answer.response_data) {
                (Some(ErrorCode::None), Some(data)) => return Ok(Response::passed_on(&data)),
                (error, _) => debug!("the controller refused an Envelope: {error:?}"),
            }
        }
        Ok(Passed::Here) => {}
        Err(error) => debug!("a request could not be forwarded: {error}"),
    }
    // This node's controller decides it, or it is refused in a response of its own type.
    match table::begin(context, &request)? {
        Begun::Answered(response) => Ok(response),
        Begun::Waiting { response, .. } => response.await,
        Begun::Unanswered => unreachable!("only Produce goes unanswered"),
    }
}

/// Forwards the rest of a client's request, which this broker has checked, to the active controller.
pub(crate) async fn forward_rest<Q: ControllerRequest>(
    context: &RequestContext,
    rest: Q,
) -> Result<Q::Response, ChannelError> {
    let version = context.version();
    match pass_on(context, frame(context, &rest)?).await? {
        Passed::Here => {
            let origin = RequestOrigin { is_forwarded: true, ..context.origin() };
            Ok(context.services.controller.decide_request(Arc::new(rest), origin).await?)
        }
        Passed::Answered(answer) => match ErrorCode::from_code(answer.error_code) {
            Some(ErrorCode::None) => {
                let mut decoder = Decoder::new(answer.response_data.unwrap_or_default());
                let header_version = i16::from(Q::is_flexible(version));
                ResponseHeader::decode(&mut decoder, header_version)?;
                Ok(Q::Response::decode(&mut decoder, version)?)
            }
            error => Err(ChannelError::Envelope(error.unwrap_or(ErrorCode::UnknownServerError))),
        },
    }
}

/// Encodes the client's request with another body.
fn frame<Q: ControllerRequest>(context: &RequestContext, body: &Q) -> Result<Bytes, ChannelError> {
    let RequestHead { api_key, version, correlation_id, .. } = context.head;
    let header = RequestHeader {
        request_api_key: api_key,
        request_api_version: version,
        correlation_id,
        client_id: context.client_id.clone(),
    };
    let mut frame = BytesMut::new();
    header.encode(&mut frame, if Q::is_flexible(version) { 2 } else { 1 })?;
    body.encode(&mut frame, version)?;
    Ok(frame.freeze())
}

async fn pass_on(
    context: &RequestContext,
    request_data: Bytes,
) -> Result<Passed<EnvelopeResponse>, ChannelError> {
    let Requester { principal, host } = &context.requester;
    let envelope = EnvelopeRequest {
        request_data,
        request_principal: Some(principal.to_bytes()?),
        client_host_address: host_to_bytes(*host),
    };
    let refuses =
        |response: &EnvelopeResponse| response.error_code == ErrorCode::NotController.code();
    let services = &context.services;
    services.forwarding.pass_on(&envelope, services.config.lifecycle.request_timeout, refuses).await
}

/// Encodes a host as in an Envelope (`InetAddress.getAddress`).
pub(crate) fn host_to_bytes(host: IpAddr) -> Bytes {
    match host {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

/// Decodes the bytes of [`host_to_bytes`].
pub(crate) fn host_from_bytes(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_keeps_its_address_on_the_way() {
        for text in ["10.1.2.3", "fe80::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(host_from_bytes(&host_to_bytes(ip)), Some(ip));
        }
        assert_eq!(host_from_bytes(b"abc"), None);
    }
}
