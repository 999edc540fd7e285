//! A connection to a broker: frames out, frames in, on a blocking socket.
//!
//! Invariants: nothing waits longer than [`ANSWER_LIMIT`]; answers come in the order of their requests; the buffer of an answer
//! is used again for the next.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use klamm_protocol::messages::request_header::RequestHeader;
use klamm_protocol::{ApiMessage, Decoder, Message};

/// Longer than the slowest sane answer: Apache Kafka's first appends to 1,000 partitions take many seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const CLIENT_ID: &str = "load";
/// Small answers are read together with their length.
const READ_BUFFER_LEN: usize = 16 * 1024;
/// Behind the length, the API key and the version.
const CORRELATION_ID_AT: usize = 8;
/// No answer to what is asked here is larger.
const MAX_ANSWER_LEN: usize = 64 * 1024 * 1024;

/// A request ready to be sent, any number of times.
#[derive(Debug, Clone)]
pub(crate) struct RequestFrame(BytesMut);

impl RequestFrame {
    pub(crate) fn encode<M: ApiMessage>(request: &M, version: i16) -> Self {
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        let header = RequestHeader {
            request_api_key: M::API_KEY,
            request_api_version: version,
            correlation_id: 0,
            client_id: Some(CLIENT_ID.into()),
        };
        let header_version = if M::is_flexible(version) { 2 } else { 1 };
        header.encode(&mut frame, header_version).expect("the header fits its version");
        request.encode(&mut frame, version).expect("the request fits its version");
        let len = i32::try_from(frame.len() - size_of::<i32>()).expect("a request is below 2 GiB");
        frame[..size_of::<i32>()].copy_from_slice(&len.to_be_bytes());
        Self(frame)
    }

    fn set_correlation_id(&mut self, id: i32) {
        self.0[CORRELATION_ID_AT..][..size_of::<i32>()].copy_from_slice(&id.to_be_bytes());
    }
}

/// A connection, as its two directions: they may be used by two threads.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) requests: Requests,
    pub(crate) answers: Answers,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let reader = BufReader::with_capacity(READ_BUFFER_LEN, stream.try_clone()?);
        Ok(Self {
            requests: Requests { stream, next_id: 0 },
            answers: Answers { reader, next_id: 0, buffer: Vec::new() },
        })
    }

    /// Sends one request and reads its answer.
    ///
    /// # Panics
    /// When the connection fails or the answer is not one.
    pub(crate) fn call<Q: ApiMessage, A: Message>(&mut self, request: &Q, version: i16) -> A {
        self.requests.send(&mut RequestFrame::encode(request, version));
        self.answers.next(version)
    }
}

/// The direction to the broker.
#[derive(Debug)]
pub(crate) struct Requests {
    stream: TcpStream,
    next_id: i32,
}

impl Requests {
    /// # Panics
    /// When the connection fails.
    pub(crate) fn send(&mut self, frame: &mut RequestFrame) {
        frame.set_correlation_id(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        self.stream.write_all(&frame.0).expect("the broker takes the request");
    }
}

/// The direction from the broker.
#[derive(Debug)]
pub(crate) struct Answers {
    reader: BufReader<TcpStream>,
    next_id: i32,
    buffer: Vec<u8>,
}

impl Answers {
    /// Reads the answer to the oldest request that has none yet.
    ///
    /// # Panics
    /// When the connection fails or the answer is not one.
    pub(crate) fn next<A: Message>(&mut self, version: i16) -> A {
        self.next_with(version, |answer| answer)
    }

    /// Reads the answer to the oldest request that has none yet, and hands it to `look` where it lies.
    ///
    /// # Panics
    /// When the connection fails or the answer is not one.
    pub(crate) fn next_with<A: Message, T>(
        &mut self,
        version: i16,
        look: impl FnOnce(A) -> T,
    ) -> T {
        let len = self.read_frame();
        let whole = Bytes::from(std::mem::take(&mut self.buffer));
        let mut decoder = Decoder::new(whole.slice(..len));
        let id = decoder.i32().expect("an answer starts with its correlation id");
        assert_eq!(id, self.next_id, "answers come in the order of their requests");
        self.next_id = self.next_id.wrapping_add(1);
        // ApiVersions alone keeps the old response header (KIP-511); it is asked at version 0 only.
        if A::is_flexible(version) {
            decoder.skip_tagged_fields().expect("the response header is one");
        }
        let answer = A::decode(&mut decoder, version).expect("the answer is one");
        assert_eq!(decoder.remaining(), 0, "bytes behind the answer");
        drop(decoder);
        let seen = look(answer);
        // Copied only if `look` kept slices of it.
        self.buffer = whole.into();
        seen
    }

    /// Leaves a frame at the front of the buffer and returns its length.
    fn read_frame(&mut self) -> usize {
        let mut len = [0; 4];
        self.reader.read_exact(&mut len).expect("the broker answers in time");
        let len = usize::try_from(i32::from_be_bytes(len)).expect("a frame's length is positive");
        assert!(len <= MAX_ANSWER_LEN, "an answer of {len} bytes");
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        self.reader.read_exact(&mut self.buffer[..len]).expect("the broker answers in full");
        len
    }
}
