//! This node as a client of another: one connection, one request at a time.
//!
//! The peer's versions are requested when the connection is made (ApiVersions, KIP-511). After any error, a deadline
//! included, the connection cannot be used again: drop it and connect again.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use klamm_protocol::messages::api_versions_request::ApiVersionsRequest;
use klamm_protocol::messages::api_versions_response::ApiVersionsResponse;
use klamm_protocol::messages::{self, Api};
use klamm_protocol::{ApiMessage, DecodeError, Decoder, EncodeError, ErrorCode, Message};
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The maximum size of an answer: more than any fetch requests, and far less than the memory of the process.
const MAX_RESPONSE_BYTES: usize = 256 * 1024 * 1024;
/// The step by which the buffer grows while an answer arrives: it never grows to the length that a peer announces.
const READ_BYTES: usize = 256 * 1024;
/// How long bytes that were sent may stay unacknowledged by the peer's kernel (TCP_USER_TIMEOUT). Without the limit a
/// request that was lost on a cut link is repeated ever more rarely, and holds up the ones behind it for seconds after the
/// link has healed; a new connection is used at once. A peer that is slow acknowledges all the same.
const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_millis(1500);
/// The first version of ApiVersions to try.
const FIRST_API_VERSIONS: i16 = 4;

/// The host and port of a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PeerAddress {
    pub(crate) host: ByteString,
    pub(crate) port: u16,
}

impl std::fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why a request has no answer. The peer may or may not have processed it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("an answer that cannot be read: {0}")]
    Decode(#[from] DecodeError),
    #[error("a request that cannot be written: {0}")]
    Encode(#[from] EncodeError),
    #[error("an answer of {0} bytes")]
    Length(i32),
    #[error("an answer to request {got} where that to {expected} is due")]
    Correlation { expected: i32, got: i32 },
    #[error("the peer does not know its API versions: {0}")]
    ApiVersions(ErrorCode),
    #[error("the peer serves no version of {api} that this node speaks")]
    UnsupportedVersion { api: &'static str },
}

impl PeerError {
    /// Whether the connection was refused: no process listens at the address.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
    }
}

/// A connection to another node.
#[derive(Debug)]
pub(crate) struct Peer {
    stream: TcpStream,
    client_id: ByteString,
    versions: HashMap<i16, RangeInclusive<i16>>,
    next_correlation_id: i32,
    /// How long the peer may send nothing while an answer is due.
    silence_limit: Option<Duration>,
}

impl Peer {
    /// Connects and requests the peer's versions, within `limit`.
    pub(crate) async fn connect(
        address: &PeerAddress,
        client_id: ByteString,
        limit: Duration,
    ) -> Result<Self, PeerError> {
        let connecting = async {
            let stream = TcpStream::connect((&*address.host, address.port)).await?;
            stream.set_nodelay(true)?;
            let limit_ms = UNACKNOWLEDGED_LIMIT.as_millis().try_into().expect("a short time");
            sockopt::set_tcp_user_timeout(&stream, limit_ms).map_err(std::io::Error::from)?;
            let versions = HashMap::new();
            let mut peer =
                Self { stream, client_id, versions, next_correlation_id: 0, silence_limit: None };
            peer.ask_versions().await?;
            Ok(peer)
        };
        timeout(limit, connecting).await.unwrap_or(Err(PeerError::Timeout(limit)))
    }

    /// From now on an answer is given up when the peer sends nothing of it for so long.
    pub(crate) fn limit_silence(&mut self, limit: Duration) {
        self.silence_limit = Some(limit);
    }

    /// Requests the peer's ApiVersions, within `limit`.
    pub(crate) async fn api_versions(
        &mut self,
        limit: Duration,
    ) -> Result<ApiVersionsResponse, PeerError> {
        timeout(limit, self.ask_versions()).await.unwrap_or(Err(PeerError::Timeout(limit)))
    }

    async fn ask_versions(&mut self) -> Result<ApiVersionsResponse, PeerError> {
        let request = ApiVersionsRequest {
            client_software_name: "klamm".into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        };
        let api = api_of(ApiVersionsRequest::API_KEY);
        for version in [FIRST_API_VERSIONS, 3, 0] {
            let body = self.exchange(api, version, request.encoded(version)?).await?;
            // A peer that does not support the version answers in version 0.
            let error = Decoder::new(body.clone()).i16()?;
            if error == ErrorCode::UnsupportedVersion.code() {
                continue;
            }
            let response = ApiVersionsResponse::decode(&mut Decoder::new(body), version)?;
            if let Some(error) = ErrorCode::from_code(response.error_code)
                && error != ErrorCode::None
            {
                return Err(PeerError::ApiVersions(error));
            }
            let known = response.api_keys.iter();
            self.versions =
                known.map(|api| (api.api_key, api.min_version..=api.max_version)).collect();
            return Ok(response);
        }
        Err(PeerError::ApiVersions(ErrorCode::UnsupportedVersion))
    }

    /// The newest version of a request that both sides support, up to `newest`.
    pub(crate) fn version_up_to<Q: ApiMessage>(&self, newest: i16) -> Result<i16, PeerError> {
        let api = api_of(Q::API_KEY);
        let unsupported = || PeerError::UnsupportedVersion { api: api.name };
        let theirs = self.versions.get(&Q::API_KEY).ok_or_else(unsupported)?;
        let newest = newest.min(last_stable(api)).min(*theirs.end());
        let oldest = api.versions.0.max(*theirs.start());
        if newest < oldest { Err(unsupported()) } else { Ok(newest) }
    }

    /// The newest version of a request that both sides support.
    pub(crate) fn version<Q: ApiMessage>(&self) -> Result<i16, PeerError> {
        self.version_up_to::<Q>(i16::MAX)
    }

    /// Sends a request in the newest version that both sides support and reads its answer, within `limit`.
    pub(crate) async fn send<Q: ApiMessage, R: Message>(
        &mut self,
        request: &Q,
        limit: Duration,
    ) -> Result<R, PeerError> {
        let version = self.version::<Q>()?;
        self.send_in(request, version, limit).await
    }

    /// As [`Self::send`], in a version of the caller's choice.
    pub(crate) async fn send_in<Q: ApiMessage, R: Message>(
        &mut self,
        request: &Q,
        version: i16,
        limit: Duration,
    ) -> Result<R, PeerError> {
        let body = request.encoded(version)?;
        let exchange = self.exchange(api_of(Q::API_KEY), version, body);
        let answer = timeout(limit, exchange).await.unwrap_or(Err(PeerError::Timeout(limit)))?;
        Ok(R::decode(&mut Decoder::new(answer), version)?)
    }

    /// Sends one request and returns the body of its answer.
    async fn exchange(&mut self, api: &Api, version: i16, body: Bytes) -> Result<Bytes, PeerError> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = correlation_id.wrapping_add(1);
        let mut frame = BytesMut::with_capacity(64 + self.client_id.len() + body.len());
        frame.put_i32(0);
        frame.put_i16(api.key);
        frame.put_i16(version);
        frame.put_i32(correlation_id);
        let id_len = i16::try_from(self.client_id.len()).expect("client ids are short names");
        frame.put_i16(id_len);
        frame.put_slice(self.client_id.as_bytes());
        if version >= api.request_flexible_from {
            frame.put_u8(0);
        }
        frame.put_slice(&body);
        let len =
            i32::try_from(frame.len() - 4).expect("requests between nodes are far below 2 GiB");
        frame[..4].copy_from_slice(&len.to_be_bytes());
        self.stream.write_all(&frame).await?;
        let mut answer = Decoder::new(self.read_frame().await?);
        let got = answer.i32()?;
        if got != correlation_id {
            return Err(PeerError::Correlation { expected: correlation_id, got });
        }
        if version >= api.response_flexible_from && api.key != ApiVersionsRequest::API_KEY {
            answer.skip_tagged_fields()?;
        }
        Ok(answer.into_rest())
    }

    async fn read_frame(&mut self) -> Result<Bytes, PeerError> {
        let limit = self.silence_limit;
        let announced = heard(limit, self.stream.read_i32()).await?;
        let len = usize::try_from(announced).ok().filter(|len| *len <= MAX_RESPONSE_BYTES);
        let len = len.ok_or(PeerError::Length(announced))?;
        let mut frame = BytesMut::with_capacity(len.min(READ_BYTES));
        while frame.len() < len {
            let missing = len - frame.len();
            if frame.capacity() == frame.len() {
                frame.reserve(missing.min(READ_BYTES.max(frame.len())));
            }
            let mut limited = (&mut frame).limit(missing);
            if heard(limit, self.stream.read_buf(&mut limited)).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(frame.freeze())
    }
}

/// Reads, for no longer than the limit.
async fn heard<T>(
    limit: Option<Duration>,
    read: impl Future<Output = std::io::Result<T>>,
) -> Result<T, PeerError> {
    match limit {
        Some(limit) => Ok(timeout(limit, read).await.map_err(|_| PeerError::Timeout(limit))??),
        None => Ok(read.await?),
    }
}

fn api_of(key: i16) -> &'static Api {
    messages::APIS.iter().find(|api| api.key == key).expect("requests are of APIs of the schemas")
}

fn last_stable(api: &Api) -> i16 {
    if api.latest_unstable { api.versions.1 - 1 } else { api.versions.1 }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    async fn listener() -> (TcpListener, PeerAddress) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, PeerAddress { host: "127.0.0.1".into(), port })
    }

    #[tokio::test]
    async fn an_answer_of_absurd_length_reserves_nothing_and_is_refused() {
        let (listener, address) = listener().await;
        let connecting = Peer::connect(&address, "test".into(), LIMIT);
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&i32::MAX.to_be_bytes()).await.unwrap();
            stream
        };
        let (peer, _stream) = tokio::join!(connecting, answering);
        assert!(matches!(peer, Err(PeerError::Length(i32::MAX))));
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_is_given_up() {
        let (_listener, address) = listener().await;
        let silent = Peer::connect(&address, "test".into(), Duration::from_millis(50)).await;
        assert!(matches!(silent, Err(PeerError::Timeout(_))));
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_refused() {
        let (listener, address) = listener().await;
        drop(listener);
        let refused = Peer::connect(&address, "test".into(), LIMIT).await;
        assert!(refused.unwrap_err().is_refused());
    }
}
