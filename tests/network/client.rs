//! A connection as bytes: requests encoded, sent whole or in pieces, and answers as they come.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};

use bytes::{BufMut, Bytes, BytesMut};
use klamm_protocol::ApiMessage;
use klamm_protocol::decode::Decoder;
use klamm_protocol::messages::api_versions_request::ApiVersionsRequest;
use klamm_protocol::messages::api_versions_response::ApiVersionsResponse;
use klamm_protocol::messages::{APIS, Api};

use crate::LIMIT;

/// A client's end of a connection. Reads give up after `LIMIT`.
pub(crate) struct Client {
    stream: TcpStream,
    next_correlation_id: i32,
}

/// An answer: which request it belongs to, and the rest, response header included.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) correlation_id: i32,
    rest: Bytes,
}

impl Answer {
    /// The message, which answers a request of `version`.
    pub(crate) fn decode<R: ApiMessage>(&self, version: i16) -> R {
        let mut decoder = Decoder::new(self.rest.clone());
        let api_versions = ApiVersionsResponse::API_KEY;
        if version >= api(R::API_KEY).response_flexible_from && R::API_KEY != api_versions {
            decoder.skip_tagged_fields().unwrap();
        }
        R::decode(&mut decoder, version).unwrap()
    }
}

fn api(key: i16) -> &'static Api {
    APIS.iter().find(|api| api.key == key).unwrap()
}

/// A whole frame, length included.
pub(crate) fn frame<Q: ApiMessage>(request: &Q, version: i16, correlation_id: i32) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    frame.put_i16(Q::API_KEY);
    frame.put_i16(version);
    frame.put_i32(correlation_id);
    frame.put_i16(-1);
    if version >= api(Q::API_KEY).request_flexible_from {
        frame.put_u8(0);
    }
    request.encode(&mut frame, version).unwrap();
    set_length(&mut frame);
    frame
}

/// Writes a frame's length into its first four bytes.
pub(crate) fn set_length(frame: &mut BytesMut) {
    let length = i32::try_from(frame.len() - 4).unwrap();
    frame[..4].copy_from_slice(&length.to_be_bytes());
}

/// An ApiVersions v0 request that fills a frame of `length` bytes: what follows a body is ignored.
pub(crate) fn padded(length: usize) -> BytesMut {
    let mut frame = frame(&ApiVersionsRequest::default(), 0, 0);
    frame.resize(4 + length, 0);
    set_length(&mut frame);
    frame
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// Connects from another address of this machine.
    pub(crate) fn connect_from(ip: Ipv4Addr, address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((ip, 0).into()).unwrap();
            socket.connect(address).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        Self::over(stream)
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Self { stream, next_correlation_id: 0 }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes. A broker that has closed already is no failure: the answer tells.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes) {
            assert!(is_loss(error.kind()), "{error}");
        }
    }

    /// Sends a request and returns its correlation id.
    pub(crate) fn send<Q: ApiMessage>(&mut self, request: &Q, version: i16) -> i32 {
        let id = self.next_correlation_id;
        self.next_correlation_id += 1;
        self.raw(&frame(request, version, id));
        id
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// The next answer; `None` when the broker has closed the connection.
    pub(crate) fn receive(&mut self) -> Option<Answer> {
        let mut prefix = [0; 4];
        match self.stream.read_exact(&mut prefix) {
            Ok(()) => {}
            Err(error) if is_loss(error.kind()) => return None,
            Err(error) => panic!("no answer: {error}"),
        }
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(prefix)).unwrap()];
        self.stream.read_exact(&mut frame).unwrap();
        let mut rest = Bytes::from(frame);
        let correlation_id = rest.split_to(4);
        Some(Answer {
            correlation_id: i32::from_be_bytes(correlation_id[..].try_into().unwrap()),
            rest,
        })
    }

    pub(crate) fn call<Q: ApiMessage, R: ApiMessage>(&mut self, request: &Q, version: i16) -> R {
        let id = self.send(request, version);
        let answer = self.receive().expect("the broker answers");
        assert_eq!(answer.correlation_id, id);
        answer.decode(version)
    }

    /// Has a request answered, any.
    pub(crate) fn prove(&mut self) {
        let answer: ApiVersionsResponse = self.call(&ApiVersionsRequest::default(), 0);
        assert_eq!(answer.error_code, 0);
    }

    /// Whether the broker closes the connection without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.receive().is_none()
    }
}

fn is_loss(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}
