//! One received request: its decoded header, and its body, not decoded yet.

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use klamm_protocol::decode::{DecodeError, Decoder};
use klamm_protocol::messages::api_versions_request::ApiVersionsRequest;
use klamm_protocol::{ApiMessage, EncodeError, Message};

use super::table::{self, Row};
use crate::net::response::Response;
use crate::net::service::{ConnectionError, ListenerKind};

/// Why a request has no answer: its connection is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("malformed request: {0}")]
    Malformed(#[from] DecodeError),
    #[error("unknown or internal api key {0}")]
    UnknownApi(i16),
    #[error("{api} version {version} is not served")]
    UnsupportedVersion { api: &'static str, version: i16 },
    /// With acks=0, closing the connection is the only way to report an error to the producer (as in Kafka).
    #[error("a produce request with acks=0 failed: {0}")]
    UnacknowledgedProduce(klamm_protocol::ErrorCode),
    /// A bug in Klamm: a response that its own version cannot carry.
    #[error("internal error: {0}")]
    Response(#[from] EncodeError),
}

impl From<RequestError> for ConnectionError {
    fn from(error: RequestError) -> Self {
        Self::Service(Box::new(error))
    }
}

/// The fields of a request that its response needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestHead {
    pub(crate) api_key: i16,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    /// The response has a header with tagged fields (v1).
    flexible_response: bool,
}

/// A request, whose body is not decoded yet.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) head: RequestHead,
    pub(crate) client_id: Option<ByteString>,
    /// The row of its API.
    pub(crate) row: &'static Row,
    /// The received request, with its header.
    frame: Bytes,
    body: Decoder,
}

impl Request {
    /// Decodes the header of a frame (`RequestHeader`, v1 or v2 by the API and version).
    pub(crate) fn parse(frame: Bytes, kind: ListenerKind) -> Result<Self, RequestError> {
        let mut decoder = Decoder::new(frame.clone());
        let api_key = decoder.i16()?;
        let version = decoder.i16()?;
        let correlation_id = decoder.i32()?;
        let row = table::api(kind, api_key).ok_or(RequestError::UnknownApi(api_key))?;
        let client_id = decoder.nullable_string(false)?;
        if version >= row.schema.request_flexible_from {
            decoder.skip_tagged_fields()?;
        }
        let flexible_response =
            version >= row.schema.response_flexible_from && api_key != ApiVersionsRequest::API_KEY;
        let head = RequestHead { api_key, version, correlation_id, flexible_response };
        Ok(Self { head, client_id, row, frame, body: decoder })
    }

    /// Decodes the body as the message of this API. Trailing bytes are ignored, as in Kafka.
    pub(crate) fn decode<M: Message>(&self) -> Result<M, RequestError> {
        Ok(M::decode(&mut self.body.clone(), self.head.version)?)
    }

    /// The received request with its header, for forwarding.
    pub(crate) fn frame(&self) -> &Bytes {
        &self.frame
    }
}

impl RequestHead {
    /// A response in the version of the request.
    pub(crate) fn respond<M: Message>(&self, message: &M) -> Result<Response, RequestError> {
        self.respond_in(message, self.version)
    }

    /// A response in another version: ApiVersions falls back to version 0.
    pub(crate) fn respond_in<M: Message>(
        &self,
        message: &M,
        version: i16,
    ) -> Result<Response, RequestError> {
        let mut out = self.response_header();
        message.encode(&mut out, version)?;
        Ok(Response::whole(out))
    }

    /// The beginning of a response: room for the length, then the response header (v0 or v1).
    pub(crate) fn response_header(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(256);
        out.put_i32(0);
        out.put_i32(self.correlation_id);
        if self.flexible_response {
            out.put_u8(0);
        }
        out
    }
}
