//! One request: its header, decoded, and its body, not yet decoded.

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use klamm_protocol::decode::{DecodeError, Decoder};
use klamm_protocol::{EncodeError, Message};

use super::table;
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
    /// acks=0 leaves no other way to tell a producer of an error (as in Kafka).
    #[error("a produce request with acks=0 failed: {0}")]
    UnacknowledgedProduce(klamm_protocol::ErrorCode),
    /// A bug of ours: a response that its own version cannot carry.
    #[error("internal error: {0}")]
    Response(#[from] EncodeError),
}

impl From<RequestError> for ConnectionError {
    fn from(error: RequestError) -> Self {
        Self::Service(Box::new(error))
    }
}

/// A request, whose body the handler decodes.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) api_key: i16,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: Option<ByteString>,
    flexible_response: bool,
    /// The request as it came, its header included.
    frame: Bytes,
    body: Decoder,
}

impl Request {
    /// Reads the header of a frame (`RequestHeader`, v1 or v2 by the API and version).
    pub(crate) fn parse(frame: Bytes, kind: ListenerKind) -> Result<Self, RequestError> {
        let mut decoder = Decoder::new(frame.clone());
        let api_key = decoder.i16()?;
        let version = decoder.i16()?;
        let correlation_id = decoder.i32()?;
        let api = table::api(kind, api_key).ok_or(RequestError::UnknownApi(api_key))?;
        let client_id = decoder.nullable_string(false)?;
        if version >= api.schema.request_flexible_from {
            decoder.skip_tagged_fields()?;
        }
        Ok(Self {
            api_key,
            version,
            correlation_id,
            client_id,
            flexible_response: version >= api.schema.response_flexible_from
                && api_key != table::API_VERSIONS,
            frame,
            body: decoder,
        })
    }

    /// The body, as the message of this API. Bytes behind it are ignored, as Kafka does.
    pub(crate) fn decode<M: Message>(&self) -> Result<M, RequestError> {
        Ok(M::decode(&mut self.body.clone(), self.version)?)
    }

    /// The request without its body: what an answer that comes later needs. The received bytes are not
    /// kept for it.
    pub(crate) fn head(&self) -> Self {
        Self { client_id: None, frame: Bytes::new(), body: Decoder::new(Bytes::new()), ..*self }
    }

    /// The request as it came, its header included, to be passed on.
    pub(crate) fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The client's name for itself, or an empty one.
    pub(crate) fn client_id(&self) -> &str {
        self.client_id.as_deref().unwrap_or_default()
    }

    /// An answer in the version of the request.
    pub(crate) fn respond<M: Message>(&self, message: &M) -> Result<Response, RequestError> {
        self.respond_in(message, self.version)
    }

    /// An answer in another version: ApiVersions falls back to version 0.
    pub(crate) fn respond_in<M: Message>(
        &self,
        message: &M,
        version: i16,
    ) -> Result<Response, RequestError> {
        let mut out = self.response_header();
        message.encode(&mut out, version)?;
        Ok(Response::whole(out))
    }

    /// The beginning of an answer: room for the length, then the response header (v0 or v1).
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
