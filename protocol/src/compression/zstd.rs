//! Zstandard (RFC 8878): a sequence of frames, no dictionary.
//!
//! The window is limited to 128 MiB, as in Kafka's reader, and to less if the caller's output limit is small.

use ::zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::decompressor::Piece;
use super::{Compression, DecompressError, take, take_array};

const FRAME_MAGIC: u32 = 0xfd2f_b528;
/// Skippable frames; the low four bits are free.
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;
const MAX_BLOCK_LEN: u64 = 128 * 1024;
/// The window that every reader should support (RFC 8878, section 3.1.1.1.2): 8 MiB.
const MIN_WINDOW_LOG_LIMIT: u32 = 23;
/// The largest window that Kafka's reader accepts: 128 MiB.
const MAX_WINDOW_LOG_LIMIT: u32 = 27;

const fn malformed(defect: &'static str) -> DecompressError {
    DecompressError::Malformed { codec: Compression::Zstd, defect }
}

const CUT_SHORT: DecompressError = malformed("a frame is cut short");

pub(super) fn compress(data: &[u8], level: i32) -> Vec<u8> {
    ::zstd::bulk::compress(data, level).expect("zstd compresses any data that is in memory")
}

pub(super) fn check_frame(mut body: &[u8]) -> Result<u64, DecompressError> {
    let mut bound = 0u64;
    loop {
        let magic = take_array(&mut body).map(u32::from_le_bytes).ok_or(CUT_SHORT)?;
        if magic & !0xf == SKIPPABLE_MAGIC {
            let len = take_array(&mut body).map(u32::from_le_bytes).ok_or(CUT_SHORT)?;
            take(&mut body, usize::try_from(len).map_err(|_| CUT_SHORT)?).ok_or(CUT_SHORT)?;
        } else if magic == FRAME_MAGIC {
            let header = check_header(&mut body)?;
            bound = bound.saturating_add(check_blocks(&mut body)?);
            take(&mut body, if header.has_checksum { 4 } else { 0 }).ok_or(CUT_SHORT)?;
        } else {
            return Err(malformed("not a frame"));
        }
        if body.is_empty() {
            return Ok(bound);
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct FrameHeader {
    /// A checksum follows the blocks.
    has_checksum: bool,
    /// How far back a block may refer, which is the memory that a decoder needs.
    window_len: u64,
}

/// Skips a frame's header, after its magic number.
fn check_header(input: &mut &[u8]) -> Result<FrameHeader, DecompressError> {
    let [descriptor] = take_array(input).ok_or(CUT_SHORT)?;
    if descriptor & 0b1000 != 0 {
        return Err(malformed("a reserved bit is set"));
    }
    let single_segment = descriptor & 0b10_0000 != 0;
    let mut window_len = 0;
    if !single_segment {
        let [window] = take_array(input).ok_or(CUT_SHORT)?;
        window_len = (8 + u64::from(window & 0b111)) << (7 + (window >> 3));
        if window_len > 1 << MAX_WINDOW_LOG_LIMIT {
            return Err(malformed("the window is larger than 128 MiB"));
        }
    }
    let dictionary_len = [0, 1, 2, 4][usize::from(descriptor & 0b11)];
    let dictionary = take(input, dictionary_len).ok_or(CUT_SHORT)?;
    if dictionary.iter().any(|byte| *byte != 0) {
        return Err(malformed("a dictionary is needed"));
    }
    let content_size_len = match descriptor >> 6 {
        0 => usize::from(single_segment),
        class => 1 << class,
    };
    let content_size = take(input, content_size_len).ok_or(CUT_SHORT)?;
    if single_segment {
        window_len = content_size.iter().rev().fold(0, |len, byte| len << 8 | u64::from(*byte));
    }
    Ok(FrameHeader { has_checksum: descriptor & 0b100 != 0, window_len })
}

/// The window of the frame at the start of `body`; 0 if it is not a frame.
fn window_len(mut body: &[u8]) -> u64 {
    if take_array(&mut body).map(u32::from_le_bytes) != Some(FRAME_MAGIC) {
        return 0;
    }
    check_header(&mut body).map_or(0, |header| header.window_len)
}

/// Skips the blocks of a frame and returns the maximum size that they can decompress to.
fn check_blocks(input: &mut &[u8]) -> Result<u64, DecompressError> {
    let mut bound = 0u64;
    loop {
        let [a, b, c] = take_array(input).ok_or(CUT_SHORT)?;
        let header = u32::from_le_bytes([a, b, c, 0]);
        let size = u64::from(header >> 3);
        if size > MAX_BLOCK_LEN {
            return Err(malformed("a block is larger than 128 KiB"));
        }
        let (stored_len, output_len) = match header >> 1 & 0b11 {
            0 => (size, size),
            1 => (1, size),
            2 => (size, MAX_BLOCK_LEN),
            _ => return Err(malformed("a block of no known type")),
        };
        take(input, usize::try_from(stored_len).map_err(|_| CUT_SHORT)?).ok_or(CUT_SHORT)?;
        bound = bound.saturating_add(output_len);
        if header & 1 == 1 {
            return Ok(bound);
        }
    }
}

/// A decoder that is reused for one body after the other.
#[derive(Default)]
pub(super) struct Context {
    decoder: Option<Decoder<'static>>,
    /// The last body had a larger window than the one that is kept.
    oversized: bool,
}

impl Context {
    fn start(&mut self, window_log: u32) -> std::io::Result<()> {
        let decoder = match &mut self.decoder {
            Some(decoder) => {
                decoder.reinit()?;
                decoder
            }
            none => none.insert(Decoder::new()?),
        };
        decoder.set_parameter(DParameter::WindowLogMax(window_log))
    }

    /// Frees the memory of an unusually large window.
    pub(super) fn trim(&mut self) {
        if std::mem::take(&mut self.oversized) {
            self.decoder = None;
        }
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("oversized", &self.oversized).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(super) struct Stream<'a> {
    rest: &'a [u8],
    mid_frame: bool,
}

impl<'a> Stream<'a> {
    pub(super) fn new(
        body: &'a [u8],
        max_output: usize,
        context: &mut Context,
    ) -> Result<Self, DecompressError> {
        let output_log = usize::BITS - max_output.leading_zeros();
        let window_log = output_log.clamp(MIN_WINDOW_LOG_LIMIT, MAX_WINDOW_LOG_LIMIT);
        context.start(window_log).map_err(|_| malformed("no decoder"))?;
        Ok(Self { rest: body, mid_frame: false })
    }

    pub(super) fn advance(
        &mut self,
        context: &mut Context,
        output: &mut [u8],
    ) -> Result<Option<Piece<'a>>, DecompressError> {
        loop {
            if !self.mid_frame {
                if self.rest.is_empty() {
                    return Ok(None);
                }
                context.oversized |= window_len(self.rest) > 1 << MIN_WINDOW_LOG_LIMIT;
            }
            let decoder = context.decoder.as_mut().expect("the stream has started the decoder");
            let mut input = InBuffer::around(self.rest);
            let mut output = OutBuffer::around(&mut *output);
            let wanted = decoder
                .run(&mut input, &mut output)
                .map_err(|_| malformed("a frame does not decompress"))?;
            let (consumed, len) = (input.pos(), output.pos());
            self.rest = &self.rest[consumed..];
            self.mid_frame = wanted != 0;
            if len > 0 {
                return Ok(Some(Piece::Output(len)));
            }
            if consumed == 0 && self.mid_frame {
                return Err(CUT_SHORT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::decompress;
    use super::*;

    fn read(body: &[u8]) -> Result<Vec<u8>, DecompressError> {
        decompress(Compression::Zstd, body, 1 << 24)
    }

    #[test]
    fn frames_follow_one_another_and_skippable_ones_are_skipped() {
        let skippable = [&(SKIPPABLE_MAGIC + 3).to_le_bytes()[..], &[2, 0, 0, 0], b"no"].concat();
        let body = [compress(b"one ", 3), skippable, compress(b"two", 19)].concat();
        assert_eq!(read(&body).unwrap(), b"one two");
        assert!(check_frame(&body).is_ok());
    }

    #[test]
    fn a_stream_without_content_size_and_with_checksum_is_read() {
        use std::io::Write;
        let data = b"a stream of unknown length ".repeat(30_000);
        let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(&data).unwrap();
        let body = encoder.finish().unwrap();
        assert!(read(&body).unwrap() == data);
        assert!(check_frame(&body).unwrap() >= data.len() as u64);
        assert!(check_frame(&body[..body.len() - 1]).is_err());
    }

    #[test]
    fn what_follows_a_frame_and_is_none_is_an_error() {
        let body = [compress(b"text", 3), b"tail".to_vec()].concat();
        assert!(read(&body).is_err());
        assert_eq!(check_frame(&body), Err(malformed("not a frame")));
    }

    #[test]
    fn a_window_above_the_limit_is_refused_before_it_is_allocated() {
        // Window descriptor 18 << 3: 2^28 bytes. One raw block of one byte.
        let huge = [&FRAME_MAGIC.to_le_bytes()[..], &[0, 18 << 3, 0x09, 0, 0, b'x']].concat();
        assert_eq!(check_frame(&huge), Err(malformed("the window is larger than 128 MiB")));
        assert!(read(&huge).is_err());
        let largest = [&FRAME_MAGIC.to_le_bytes()[..], &[0, 17 << 3, 0x09, 0, 0, b'x']].concat();
        assert!(check_frame(&largest).is_ok());
        assert_eq!(decompress(Compression::Zstd, &largest, 1 << 27).unwrap(), b"x");
    }

    #[test]
    fn a_frame_that_needs_a_dictionary_is_refused() {
        let body = [&FRAME_MAGIC.to_le_bytes()[..], &[0b10_0001, 7, 1, 0x09, 0, 0, b'x']].concat();
        assert_eq!(check_frame(&body), Err(malformed("a dictionary is needed")));
        assert!(read(&body).is_err());
    }
}
