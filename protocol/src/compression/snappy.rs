//! Snappy in the two forms that Kafka's clients send: blocks in the framing of Java's `SnappyOutputStream` (xerial),
//! and one bare block (librdkafka, if it saves a byte or two).
//!
//! Written as by Java: blocks of 32 KiB. Read as by Java's `SnappyInputStream`: a frame header may be repeated between
//! blocks, and fewer than four bytes at the end are ignored.

use super::decompressor::{Piece, room};
use super::{Compression, DecompressError, take, take_array};
use crate::varint::read_unsigned_varint;

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// The magic, the version of the writer, and the oldest version of a reader.
const FRAME_HEADER_LEN: usize = 16;
const VERSION: u32 = 1;
const BLOCK_LEN: usize = 32 * 1024;
/// The densest snappy element is a copy of 64 bytes in three.
const MAX_RATIO: u64 = 22;

const fn malformed(defect: &'static str) -> DecompressError {
    DecompressError::Malformed { codec: Compression::Snappy, defect }
}

pub(super) fn compress(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME_HEADER_LEN + data.len() / 2);
    out.extend(MAGIC);
    out.extend(VERSION.to_be_bytes());
    out.extend(VERSION.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in data.chunks(BLOCK_LEN) {
        let length_position = out.len();
        let start = length_position + 4;
        out.resize(start + snap::raw::max_compress_len(block.len()), 0);
        let len = encoder.compress(block, &mut out[start..]).expect("the room was asked for");
        let length = u32::try_from(len).expect("32 KiB do not grow beyond 4 GiB");
        out[length_position..start].copy_from_slice(&length.to_be_bytes());
        out.truncate(start + len);
    }
    out
}

pub(super) fn check_frame(body: &[u8]) -> Result<u64, DecompressError> {
    let mut blocks = Blocks::new(body)?;
    let mut bound = 0;
    while let Some(block) = blocks.next()? {
        bound += block_len(block)? as u64;
    }
    Ok(bound)
}

/// The decompressed size that a block claims, if it is possible.
fn block_len(mut block: &[u8]) -> Result<usize, DecompressError> {
    let bound = block.len() as u64 * MAX_RATIO;
    let len =
        read_unsigned_varint(&mut block).map_err(|_| malformed("a block without a length"))?;
    if u64::from(len) > bound {
        return Err(malformed("a block cannot hold as much as it claims"));
    }
    // The first element must be a literal: there is no output to copy from yet.
    if len > 0 && block.first().is_none_or(|tag| tag & 0b11 != 0) {
        return Err(malformed("a block does not begin with a literal"));
    }
    usize::try_from(len).map_err(|_| malformed("a block without a length"))
}

/// The compressed blocks of a body, in either form.
#[derive(Debug)]
struct Blocks<'a> {
    rest: &'a [u8],
    framed: bool,
}

impl<'a> Blocks<'a> {
    fn new(body: &'a [u8]) -> Result<Self, DecompressError> {
        if body.is_empty() {
            return Err(malformed("no data"));
        }
        let framed = body.len() >= FRAME_HEADER_LEN && body.starts_with(&MAGIC);
        // `SnappyInputStream` does not check the versions in the first header.
        let rest = if framed { &body[FRAME_HEADER_LEN..] } else { body };
        Ok(Self { rest, framed })
    }

    fn next(&mut self) -> Result<Option<&'a [u8]>, DecompressError> {
        if !self.framed {
            let block = std::mem::take(&mut self.rest);
            return Ok(if block.is_empty() { None } else { Some(block) });
        }
        while self.rest.len() >= 4 && self.rest.starts_with(&MAGIC[..4]) {
            self.rest = after_frame_header(self.rest)?;
        }
        let Some(len) = take_array(&mut self.rest).map(u32::from_be_bytes) else {
            self.rest = &[];
            return Ok(None);
        };
        let len = usize::try_from(len).map_err(|_| malformed("block length"))?;
        take(&mut self.rest, len).map(Some).ok_or(malformed("a block is cut short"))
    }
}

/// Skips a frame header between blocks. Like `SnappyInputStream`, does not check the rest of one that begins like a
/// header.
fn after_frame_header(mut input: &[u8]) -> Result<&[u8], DecompressError> {
    let header = take(&mut input, FRAME_HEADER_LEN).ok_or(malformed("header is cut short"))?;
    let version = header[8..12].try_into().map(i32::from_be_bytes).expect("four bytes");
    if header.starts_with(&MAGIC) && version < VERSION.cast_signed() {
        return Err(malformed("incompatible version"));
    }
    Ok(input)
}

#[derive(Debug)]
pub(super) struct Stream<'a> {
    blocks: Blocks<'a>,
    decoder: snap::raw::Decoder,
}

impl<'a> Stream<'a> {
    pub(super) fn new(body: &'a [u8]) -> Result<Self, DecompressError> {
        Ok(Self { blocks: Blocks::new(body)?, decoder: snap::raw::Decoder::new() })
    }

    /// The block's size is compared with `remaining` before its output is allocated, because a bare block may have any
    /// size.
    pub(super) fn advance(
        &mut self,
        output: &mut Vec<u8>,
        remaining: usize,
        too_large: DecompressError,
    ) -> Result<Option<Piece<'a>>, DecompressError> {
        let Some(block) = self.blocks.next()? else { return Ok(None) };
        let len = block_len(block)?;
        if len > remaining {
            return Err(too_large);
        }
        self.decoder
            .decompress(block, room(output, len))
            .map_err(|_| malformed("a block does not decompress"))?;
        Ok(Some(Piece::Output(len)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::decompress;
    use super::*;

    fn read(body: &[u8]) -> Result<Vec<u8>, DecompressError> {
        decompress(Compression::Snappy, body, 1 << 20)
    }

    #[test]
    fn a_bare_block_is_read() {
        let body = snap::raw::Encoder::new().compress_vec(b"librdkafka librdkafka").unwrap();
        assert_eq!(read(&body).unwrap(), b"librdkafka librdkafka");
    }

    #[test]
    fn frames_may_be_joined_and_a_few_bytes_at_the_end_are_ignored() {
        let body = [compress(b"one "), compress(b"two"), vec![0, 0, 0]].concat();
        assert_eq!(read(&body).unwrap(), b"one two");
    }

    #[test]
    fn a_block_beyond_the_end_is_an_error() {
        let mut body = compress(b"some text");
        body.pop();
        assert_eq!(read(&body), Err(malformed("a block is cut short")));
    }

    #[test]
    fn a_block_that_claims_four_gibibytes_is_refused_by_its_length() {
        let lie = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
        assert_eq!(read(&lie), Err(malformed("a block cannot hold as much as it claims")));
        let mut framed = compress(b"");
        framed.extend([0, 0, 0, 6]);
        framed.extend(lie);
        assert_eq!(read(&framed), Err(malformed("a block cannot hold as much as it claims")));
        assert!(check_frame(&framed).is_err());
    }

    #[test]
    fn the_first_header_may_have_any_version_and_a_later_one_must_have_one() {
        for version in [0i32, -1, 2, i32::MIN] {
            let mut other = compress(b"text");
            other[8..12].copy_from_slice(&version.to_be_bytes());
            assert_eq!(read(&other).unwrap(), b"text", "{version}");
            let later = [compress(b"one "), other].concat();
            let expected = match version {
                2 => Ok(b"one text".to_vec()),
                _ => Err(malformed("incompatible version")),
            };
            assert_eq!(read(&later), expected, "{version}");
        }
    }

    #[test]
    fn a_frame_header_without_blocks_is_empty() {
        assert_eq!(read(&compress(b"")).unwrap(), b"");
    }
}
