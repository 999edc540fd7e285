//! Cutting the byte stream of a connection into frames: a four-byte length, then that many bytes.
//!
//! A buffer grows with the bytes received, never with the length that a peer announces. Frames are slices of the buffer
//! they were received into. An idle connection holds no buffer: free buffers are in a small pool of each thread, still
//! warm in its cache.

use std::cell::RefCell;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::net::TcpStream;

/// The length prefix of a frame.
const PREFIX_LEN: usize = 4;
/// The minimum capacity of a buffer from the pool, and the maximum size of one read.
const BUFFER_BYTES: usize = 64 * 1024;
/// Frames and beginnings of frames up to this size are copied out of their buffer before they wait; otherwise they
/// would keep all of it in memory.
const SMALL_FRAME_BYTES: usize = 1024;
/// Larger buffers are freed instead of pooled.
const POOLED_BUFFER_MAX_BYTES: usize = 2 * 1024 * 1024;
/// The maximum number of buffers in a thread's pool.
const POOLED_BUFFERS: usize = 4;

thread_local! {
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Why a byte stream is not a sequence of frames.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {length} bytes, where 1 to {max} are accepted{hint}")]
    Length { length: i32, max: usize, hint: &'static str },
}

/// The result of one attempt to read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    Bytes,
    /// The socket has no more bytes: wait until it is readable.
    Nothing,
    /// The peer will send nothing more.
    End,
}

/// The receiving half of a connection.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    /// The capacity of the receive buffer, without the frames that were returned.
    pub(crate) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// Reads available bytes, up to one buffer.
    pub(crate) fn fill(&mut self, stream: &TcpStream) -> io::Result<Filled> {
        self.make_room();
        match stream.try_read_buf(&mut self.buffer) {
            Ok(0) => Ok(Filled::End),
            Ok(_) => Ok(Filled::Bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.rest();
                Ok(Filled::Nothing)
            }
            Err(error) => Err(error),
        }
    }

    /// The next complete frame, without its length; `None` if it has not arrived.
    pub(crate) fn next_frame(&mut self, max: usize) -> Result<Option<Bytes>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_LEN>() else { return Ok(None) };
        let length = frame_length(*prefix, max)?;
        if self.buffer.len() - PREFIX_LEN < length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_LEN);
        if length <= SMALL_FRAME_BYTES {
            let frame = Bytes::copy_from_slice(&self.buffer[..length]);
            self.buffer.advance(length);
            return Ok(Some(frame));
        }
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Returns an almost empty buffer to the thread's pool, unless a frame still uses a part of it. The beginning of a
    /// frame stays in a small buffer of its own.
    pub(crate) fn rest(&mut self) {
        if self.buffer.len() > SMALL_FRAME_BYTES || self.buffer.capacity() <= SMALL_FRAME_BYTES {
            return;
        }
        let beginning = BytesMut::from(&self.buffer[..]);
        self.buffer.clear();
        if !self.buffer.try_reclaim(BUFFER_BYTES) {
            self.buffer.extend_from_slice(&beginning);
            return;
        }
        let buffer = std::mem::replace(&mut self.buffer, beginning);
        if buffer.capacity() > POOLED_BUFFER_MAX_BYTES {
            return;
        }
        POOL.with_borrow_mut(|pool| {
            if pool.len() < POOLED_BUFFERS {
                pool.push(buffer);
            }
        });
    }

    /// Reserves space for at least one read. A new frame gets a pooled buffer. The buffer of a larger frame grows to at
    /// most twice what has arrived, and by no more than the frame still needs.
    fn make_room(&mut self) {
        if self.buffer.capacity() <= SMALL_FRAME_BYTES {
            let pooled = POOL.with_borrow_mut(Vec::pop);
            let mut buffer = pooled.unwrap_or_else(|| BytesMut::with_capacity(BUFFER_BYTES));
            buffer.extend_from_slice(&self.buffer);
            self.buffer = buffer;
            return;
        }
        let missing = self.buffer.first_chunk::<PREFIX_LEN>().map_or(0, |prefix| {
            let length = usize::try_from(i32::from_be_bytes(*prefix)).unwrap_or(0);
            (length + PREFIX_LEN).saturating_sub(self.buffer.len())
        });
        let wanted = missing.clamp(1, self.buffer.len().max(BUFFER_BYTES));
        if self.buffer.capacity() - self.buffer.len() < wanted {
            self.buffer.reserve(wanted.max(BUFFER_BYTES / 4));
        }
    }
}

/// The length in a frame's prefix, if it is allowed.
fn frame_length(prefix: [u8; PREFIX_LEN], max: usize) -> Result<usize, FrameError> {
    let length = i32::from_be_bytes(prefix);
    match usize::try_from(length) {
        Ok(len) if (1..=max).contains(&len) => Ok(len),
        _ => Err(FrameError::Length { length, max, hint: foreign_protocol(prefix) }),
    }
}

/// A hint about peers that speak another protocol: the usual reason for absurd lengths.
fn foreign_protocol(prefix: [u8; PREFIX_LEN]) -> &'static str {
    match &prefix {
        [0x16, 3, ..] => ": the client speaks TLS, this listener is PLAINTEXT",
        b"GET " | b"POST" | b"HEAD" | b"PUT " => ": the client speaks HTTP, this is a Kafka port",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &[u8]) -> FrameReader {
        FrameReader { buffer: bytes.into() }
    }

    #[test]
    fn frames_come_out_whole_and_in_order() {
        let mut reader = reader(b"\0\0\0\x02ab\0\0\0\x01c\0\0");
        assert_eq!(reader.next_frame(100).unwrap().unwrap(), "ab");
        assert_eq!(reader.next_frame(100).unwrap().unwrap(), "c");
        assert_eq!(reader.next_frame(100).unwrap(), None);
    }

    #[test]
    fn lengths_beyond_the_limit_are_refused_before_anything_is_kept_for_them() {
        for prefix in [[0x7f, 0xff, 0xff, 0xff], [0xff; 4], [0; 4], [0, 0, 0, 101]] {
            assert!(reader(&prefix).next_frame(100).is_err(), "{prefix:?}");
        }
    }

    #[test]
    fn tls_and_http_are_named_in_the_error() {
        let error = |bytes: &[u8]| reader(bytes).next_frame(100).unwrap_err().to_string();
        assert!(error(b"\x16\x03\x01\0").contains("TLS"));
        assert!(error(b"GET / HTTP/1.1").contains("HTTP"));
    }

    #[test]
    fn an_announced_length_reserves_nothing() {
        let mut reader = reader(&[0, 0x60, 0, 0, 1]);
        reader.make_room();
        assert!(reader.buffer.capacity() <= 2 * BUFFER_BYTES);
    }

    #[test]
    fn a_small_frame_that_waits_does_not_keep_its_buffer() {
        POOL.with_borrow_mut(Vec::clear);
        let mut reader = FrameReader::default();
        reader.make_room();
        reader.buffer.extend_from_slice(b"\0\0\0\x02ab");
        let frame = reader.next_frame(100).unwrap().unwrap();
        reader.rest();
        assert_eq!(POOL.with_borrow(Vec::len), 1);
        assert_eq!(frame, "ab");
    }

    #[test]
    fn the_beginning_of_a_frame_waits_without_its_buffer_and_goes_on_in_another() {
        POOL.with_borrow_mut(Vec::clear);
        let mut reader = FrameReader::default();
        reader.make_room();
        reader.buffer.extend_from_slice(b"\0\0\0\x02a");
        reader.rest();
        assert_eq!(POOL.with_borrow(Vec::len), 1);
        assert!(reader.buffer.capacity() <= SMALL_FRAME_BYTES);
        reader.make_room();
        assert_eq!(POOL.with_borrow(Vec::len), 0);
        reader.buffer.extend_from_slice(b"b");
        assert_eq!(reader.next_frame(100).unwrap().unwrap(), "ab");
    }

    #[test]
    fn a_buffer_that_a_waiting_frame_is_part_of_is_not_given_away() {
        POOL.with_borrow_mut(Vec::clear);
        let mut reader = FrameReader::default();
        reader.make_room();
        reader.buffer.extend_from_slice(&[&[0, 0, 8, 0][..], &[7; 2048], b"\0\0"].concat());
        let frame = reader.next_frame(4096).unwrap().unwrap();
        reader.rest();
        assert_eq!(POOL.with_borrow(Vec::len), 0);
        assert_eq!((frame.len(), &reader.buffer[..]), (2048, &b"\0\0"[..]));
    }
}
