//! Requests that only the active controller can answer, on their way from the broker that got them (KIP-590): the
//! request travels in an Envelope, with the client's name and address, and its answer comes back the same way. It travels as it
//! came, or without what the broker has answered by itself.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use klamm_metadata::controller::Controller;
use klamm_protocol::ErrorCode;
use klamm_protocol::Message;
use klamm_protocol::decode::Decoder;
use klamm_protocol::messages::default_principal_data::DefaultPrincipalData;
use klamm_protocol::messages::envelope_request::EnvelopeRequest;
use klamm_protocol::messages::envelope_response::EnvelopeResponse;
use klamm_protocol::messages::request_header::RequestHeader;
use klamm_protocol::messages::response_header::ResponseHeader;
use tracing::debug;

use crate::api::context::Context;
use crate::api::request::{Request, RequestError};
use crate::api::table::{self, Handled};
use crate::controller::channel::{ChannelError, ControllerRequest, Passed};
use crate::controller::handle::DecisionContext;
use crate::net::response::Response;
use crate::net::service::ListenerKind;

/// Whom requests come from while there is no authentication.
const ANONYMOUS: (&str, &str) = ("User", "ANONYMOUS");

/// Has the active controller answer a client's request, be it this node or another.
pub(crate) async fn forward(context: Context, request: Request) -> Result<Response, RequestError> {
    let limit = context.services.config.request_timeout();
    match pass_on(&context, request.frame().clone(), limit).await {
        Ok(Passed::Answered(answer)) => {
            match (ErrorCode::from_code(answer.error_code), answer.response_data) {
                (Some(ErrorCode::None), Some(data)) => return Ok(Response::passed_on(&data)),
                (error, _) => debug!("the controller does not take an envelope: {error:?}"),
            }
        }
        Ok(Passed::Here) => {}
        Err(error) => debug!("a request could not be passed on: {error}"),
    }
    // Here it is decided, or refused in its own form.
    answer_here(&context, request).await
}

/// Has the active controller answer what this broker has left of a client's request.
pub(crate) async fn forward_rest<Q: ControllerRequest>(
    context: &Context,
    request: &Request,
    rest: Q,
) -> Result<Q::Response, ChannelError> {
    let version = request.version;
    let frame = frame(request, &rest)?;
    match pass_on(context, frame, context.services.config.request_timeout()).await? {
        Passed::Here => {
            let decide = move |controller: &mut Controller, context: &DecisionContext| {
                rest.decide(version, controller, context)
            };
            Ok(context.services.controller.decide_held(Q::HELD_UNTIL, decide).await?)
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

/// The client's request with another body.
fn frame<Q: ControllerRequest>(request: &Request, body: &Q) -> Result<Bytes, ChannelError> {
    let header = RequestHeader {
        request_api_key: request.api_key,
        request_api_version: request.version,
        correlation_id: request.correlation_id,
        client_id: request.client_id.clone(),
    };
    let mut frame = BytesMut::new();
    header.encode(&mut frame, if Q::is_flexible(request.version) { 2 } else { 1 })?;
    body.encode(&mut frame, request.version)?;
    Ok(frame.freeze())
}

async fn pass_on(
    context: &Context,
    request_data: Bytes,
    limit: Duration,
) -> Result<Passed<EnvelopeResponse>, ChannelError> {
    let envelope = EnvelopeRequest {
        request_data,
        request_principal: Some(principal()?),
        client_host_address: address(context.peer.ip()),
    };
    context
        .services
        .forwarding
        .pass_on(&envelope, limit, |response: &EnvelopeResponse| {
            response.error_code == ErrorCode::NotController.code()
        })
        .await
}

async fn answer_here(context: &Context, request: Request) -> Result<Response, RequestError> {
    let row = table::api(context.kind, request.api_key).expect("its row said to pass it on");
    match table::begin(row, context, request)? {
        Handled::Answered(response) => Ok(response),
        Handled::Waiting(answer) => answer.await,
        Handled::Unanswered => unreachable!("only Produce goes unanswered"),
    }
}

/// The client's name in Kafka's serialization: a version, then the message.
fn principal() -> Result<Bytes, ChannelError> {
    let (type_, name) = ANONYMOUS;
    let data =
        DefaultPrincipalData { type_: type_.into(), name: name.into(), token_authenticated: false };
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    data.encode(&mut bytes, 0).map_err(ChannelError::Encode)?;
    Ok(bytes.freeze())
}

/// Who the client is makes no difference while there is no authorizer; it has to be told in a form that is known.
fn check_principal(bytes: Bytes) -> Result<(), ErrorCode> {
    let mut decoder = Decoder::new(bytes);
    let decoded = match decoder.i16() {
        Ok(version) if DefaultPrincipalData::VERSIONS.contains(&version) => {
            DefaultPrincipalData::decode(&mut decoder, version).map(drop)
        }
        Ok(_) => return Err(ErrorCode::PrincipalDeserializationFailure),
        Err(error) => Err(error),
    };
    decoded.map_err(|_| ErrorCode::PrincipalDeserializationFailure)
}

fn address(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

/// Envelope (key 58): a broker passes on what a client has asked it for.
pub(crate) async fn on_envelope(
    context: Context,
    request: Request,
) -> Result<Response, RequestError> {
    let envelope: EnvelopeRequest = request.decode()?;
    request.respond(&match open(&context, envelope).await {
        Ok(data) => EnvelopeResponse { response_data: Some(data), ..Default::default() },
        Err(error) => EnvelopeResponse { error_code: error.code(), ..Default::default() },
    })
}

async fn open(context: &Context, envelope: EnvelopeRequest) -> Result<Bytes, ErrorCode> {
    check_principal(envelope.request_principal.unwrap_or_default())?;
    if !context.services.controller.is_active() {
        return Err(ErrorCode::NotController);
    }
    let mut client = context.clone();
    client.is_forwarded = true;
    client.peer.set_ip(client_ip(&envelope.client_host_address).ok_or(ErrorCode::InvalidRequest)?);
    // What is inside is a request like any other: it may be malformed, and must not be an envelope again.
    let invalid = |_: RequestError| ErrorCode::InvalidRequest;
    let request =
        Request::parse(envelope.request_data, ListenerKind::Controller).map_err(invalid)?;
    let row = table::api(ListenerKind::Controller, request.api_key)
        .filter(|row| row.forwarded)
        .ok_or(ErrorCode::InvalidRequest)?;
    if !row.served.contains(&request.version) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let response = match table::begin(row, &client, request).map_err(invalid)? {
        Handled::Answered(response) => response,
        Handled::Waiting(answer) => answer.await.map_err(invalid)?,
        Handled::Unanswered => return Err(ErrorCode::InvalidRequest),
    };
    response.into_body().ok_or(ErrorCode::UnknownServerError)
}

fn client_ip(bytes: &[u8]) -> Option<IpAddr> {
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
            assert_eq!(client_ip(&address(ip)), Some(ip));
        }
        assert_eq!(client_ip(b"abc"), None);
    }

    #[test]
    fn a_name_is_a_version_and_a_message() {
        assert_eq!(&principal().unwrap()[..], b"\0\0\x05User\x0aANONYMOUS\0\0");
        assert_eq!(check_principal(principal().unwrap()), Ok(()));
    }

    #[test]
    fn names_in_unknown_forms_are_refused() {
        let whole = principal().unwrap();
        for bytes in
            [Bytes::new(), whole.slice(..1), whole.slice(..5), Bytes::from_static(b"\0\x09")]
        {
            assert_eq!(check_principal(bytes), Err(ErrorCode::PrincipalDeserializationFailure));
        }
    }
}
