//! One question to a node over a connection of its own, encoded with Klamm's own codec.
//!
//! A node that is away, silent or confused is an error and never a panic: clusters are asked while their nodes fail.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use klamm_protocol::messages::request_header::RequestHeader;
use klamm_protocol::messages::response_header::ResponseHeader;
use klamm_protocol::{ApiMessage, Decoder, Message};

/// A node that is well answers in a few milliseconds; one that is stopped keeps its connections open and says nothing.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// What is asked here fits many times.
const MAX_ANSWER_LEN: usize = 16 * 1024 * 1024;

/// Sends `request` to `address` and returns the answer.
///
/// # Errors
/// When there is no connection or no readable answer within two seconds.
pub fn ask<Q: ApiMessage, R: ApiMessage>(
    address: &str,
    request: &Q,
    version: i16,
) -> io::Result<R> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    stream.write_all(&frame(request, version))?;
    let mut decoder = Decoder::new(read_frame(&mut stream)?);
    let header_version = i16::from(Q::is_flexible(version));
    ResponseHeader::decode(&mut decoder, header_version).map_err(io::Error::other)?;
    R::decode(&mut decoder, version).map_err(io::Error::other)
}

fn frame<Q: ApiMessage>(request: &Q, version: i16) -> BytesMut {
    let header = RequestHeader {
        request_api_key: Q::API_KEY,
        request_api_version: version,
        correlation_id: 0,
        client_id: Some("testbed".into()),
    };
    let header_version = if Q::is_flexible(version) { 2 } else { 1 };
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header.encode(&mut frame, header_version).expect("the header fits its version");
    request.encode(&mut frame, version).expect("the request fits its version");
    let length = i32::try_from(frame.len() - size_of::<i32>()).expect("a request is small");
    frame[..size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
    frame
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Bytes> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length)).map_err(io::Error::other)?;
    if length > MAX_ANSWER_LEN {
        return Err(io::Error::other(format!("an answer of {length} bytes")));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer.into())
}
