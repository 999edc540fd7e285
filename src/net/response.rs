//! One answer, ready to send: bytes in memory and ranges of log files, in order.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use klamm_log::disk::DiskFile;

/// A stretch of a response.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Memory(Bytes),
    /// Sent by the kernel from the page cache.
    File {
        file: Arc<dyn DiskFile>,
        position: u64,
        len: usize,
    },
}

impl Part {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File { len, .. } => *len,
        }
    }
}

/// A whole response frame, length included.
#[derive(Debug, Default)]
pub(crate) struct Response {
    pub(crate) parts: Vec<Part>,
}

impl Response {
    /// A response in memory; `frame` begins with room for the length.
    pub(crate) fn whole(mut frame: BytesMut) -> Self {
        let length = frame.len() - 4;
        write_length(&mut frame, length);
        Self { parts: vec![Part::Memory(frame.freeze())] }
    }

    /// A response that another node has encoded: its header and body.
    pub(crate) fn passed_on(body: &[u8]) -> Self {
        let mut frame = BytesMut::with_capacity(4 + body.len());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(body);
        Self::whole(frame)
    }

    /// Header and body, if all parts are in memory.
    pub(crate) fn into_body(self) -> Option<Bytes> {
        let mut body = BytesMut::new();
        for part in self.parts {
            match part {
                Part::Memory(bytes) => body.extend_from_slice(&bytes),
                Part::File { .. } => return None,
            }
        }
        Some(body.freeze().slice(4..))
    }

    /// A response in several parts. The first is in memory and begins with room for the length.
    pub(crate) fn parts(mut parts: Vec<Part>) -> Self {
        let length = parts.iter().map(Part::len).sum::<usize>() - 4;
        let Some(Part::Memory(head)) = parts.first_mut() else {
            unreachable!("a response begins with its header")
        };
        let mut frame = BytesMut::from(std::mem::take(head));
        write_length(&mut frame, length);
        *head = frame.freeze();
        Self { parts }
    }
}

fn write_length(frame: &mut BytesMut, length: usize) {
    let length = i32::try_from(length).expect("responses are far below 2 GiB: fetches are capped");
    frame[..4].copy_from_slice(&length.to_be_bytes());
}
