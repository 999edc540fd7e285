//! The LZ4 frame format in Kafka's dialect (KIP-57): independent blocks, no dictionary. As in Kafka, a content checksum
//! is skipped and not verified; block checksums are verified.
//!
//! Written as by Kafka: blocks of 64 KiB, no checksum except the header's. One frame only: bytes after the end mark are
//! ignored.

use lz4_flex::block;
use twox_hash::XxHash32;

use super::decompressor::{Piece, room};
use super::{Compression, DecompressError, take, take_array};

const MAGIC: [u8; 4] = 0x184d_2204u32.to_le_bytes();
/// Version 1, independent blocks.
const FLAGS: u8 = 0b0110_0000;
/// Blocks of at most 64 KiB.
const BLOCK_DESCRIPTOR: u8 = 4 << 4;
const BLOCK_LEN: usize = 64 * 1024;
/// The bit of a block's length that marks it as stored.
const STORED: u32 = 1 << 31;
/// A match needs one byte per 255 bytes of its length.
const MAX_RATIO: usize = 255;

const fn malformed(defect: &'static str) -> DecompressError {
    DecompressError::Malformed { codec: Compression::Lz4, defect }
}

const CUT_SHORT: DecompressError = malformed("the frame is cut short");

pub(super) fn compress(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(15 + data.len() / 2);
    out.extend(MAGIC);
    out.extend([FLAGS, BLOCK_DESCRIPTOR, header_checksum(&[FLAGS, BLOCK_DESCRIPTOR])]);
    for block in data.chunks(BLOCK_LEN) {
        let length_position = out.len();
        let start = length_position + 4;
        out.resize(start + block::get_maximum_output_size(block.len()), 0);
        let len = block::compress_into(block, &mut out[start..]).expect("the room was asked for");
        let length = if len < block.len() {
            out.truncate(start + len);
            u32::try_from(len).expect("a block is at most 64 KiB")
        } else {
            out.truncate(start);
            out.extend_from_slice(block);
            u32::try_from(block.len()).expect("a block is at most 64 KiB") | STORED
        };
        out[length_position..start].copy_from_slice(&length.to_le_bytes());
    }
    out.extend([0; 4]);
    out
}

fn header_checksum(descriptor: &[u8]) -> u8 {
    XxHash32::oneshot(0, descriptor).to_le_bytes()[1]
}

pub(super) fn check_frame(body: &[u8]) -> Result<u64, DecompressError> {
    let mut frame = Frame::new(body)?;
    let mut bound = 0;
    while let Some(block) = frame.next_block()? {
        bound += frame.max_output_of(block) as u64;
    }
    Ok(bound)
}

#[derive(Debug, Clone, Copy)]
struct Block<'a> {
    data: &'a [u8],
    stored: bool,
    checksum: Option<u32>,
}

/// The blocks of a frame whose header has been checked.
#[derive(Debug)]
struct Frame<'a> {
    rest: &'a [u8],
    max_block_len: usize,
    block_checksums: bool,
    content_checksum: bool,
    ended: bool,
}

impl<'a> Frame<'a> {
    fn new(body: &'a [u8]) -> Result<Self, DecompressError> {
        let mut rest = body;
        if take_array(&mut rest).ok_or(CUT_SHORT)? != MAGIC {
            return Err(malformed("not a frame"));
        }
        let [flags, descriptor] = *rest.first_chunk().ok_or(CUT_SHORT)?;
        if flags >> 6 != 1 || flags & 0b11 != 0 {
            return Err(malformed("unknown version or flags"));
        }
        if flags & 0b10_0000 == 0 {
            return Err(malformed("linked blocks are not supported"));
        }
        let size_class = descriptor >> 4;
        if descriptor & 0b1000_1111 != 0 || size_class < 4 {
            return Err(malformed("unknown block size"));
        }
        let content_size_len = if flags & 0b1000 == 0 { 0 } else { 8 };
        let hashed = take(&mut rest, 2 + content_size_len).ok_or(CUT_SHORT)?;
        if take_array(&mut rest).ok_or(CUT_SHORT)? != [header_checksum(hashed)] {
            return Err(malformed("wrong header checksum"));
        }
        Ok(Self {
            rest,
            max_block_len: 1 << (2 * size_class + 8),
            block_checksums: flags & 0b1_0000 != 0,
            content_checksum: flags & 0b100 != 0,
            ended: false,
        })
    }

    fn next_block(&mut self) -> Result<Option<Block<'a>>, DecompressError> {
        if self.ended {
            return Ok(None);
        }
        let word = take_array(&mut self.rest).map(u32::from_le_bytes).ok_or(CUT_SHORT)?;
        let len = usize::try_from(word & !STORED).map_err(|_| CUT_SHORT)?;
        if len == 0 {
            self.ended = true;
            let checksum_len = if self.content_checksum { 4 } else { 0 };
            take(&mut self.rest, checksum_len).ok_or(CUT_SHORT)?;
            return Ok(None);
        }
        if len > self.max_block_len {
            return Err(malformed("a block is larger than the header allows"));
        }
        let data = take(&mut self.rest, len).ok_or(CUT_SHORT)?;
        let checksum = if self.block_checksums {
            Some(take_array(&mut self.rest).map(u32::from_le_bytes).ok_or(CUT_SHORT)?)
        } else {
            None
        };
        Ok(Some(Block { data, stored: word & STORED != 0, checksum }))
    }

    fn max_output_of(&self, block: Block<'_>) -> usize {
        if block.stored {
            return block.data.len();
        }
        self.max_block_len.min(block.data.len().saturating_mul(MAX_RATIO))
    }
}

#[derive(Debug)]
pub(super) struct Stream<'a> {
    frame: Frame<'a>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(body: &'a [u8]) -> Result<Self, DecompressError> {
        Ok(Self { frame: Frame::new(body)? })
    }

    pub(super) fn advance(
        &mut self,
        output: &mut Vec<u8>,
    ) -> Result<Option<Piece<'a>>, DecompressError> {
        let Some(block) = self.frame.next_block()? else { return Ok(None) };
        if block.checksum.is_some_and(|checksum| checksum != XxHash32::oneshot(0, block.data)) {
            return Err(malformed("wrong block checksum"));
        }
        if block.stored {
            return Ok(Some(Piece::Stored(block.data)));
        }
        let room = room(output, self.frame.max_output_of(block));
        let len = block::decompress_into(block.data, room)
            .map_err(|_| malformed("a block does not decompress"))?;
        Ok(Some(Piece::Output(len)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    use super::super::decompress;
    use super::*;

    fn read(body: &[u8]) -> Result<Vec<u8>, DecompressError> {
        decompress(Compression::Lz4, body, 1 << 24)
    }

    fn frame(info: FrameInfo, data: &[u8]) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn frames_of_other_writers_are_read_with_all_their_options() {
        let data = b"some words and some more words; ".repeat(20_000);
        for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max4MB] {
            let info = FrameInfo::new()
                .block_size(size)
                .block_mode(BlockMode::Independent)
                .block_checksums(true)
                .content_checksum(true)
                .content_size(Some(data.len() as u64));
            let body = frame(info, &data);
            assert!(read(&body).unwrap() == data);
            assert!(check_frame(&body).unwrap() >= data.len() as u64);
        }
    }

    #[test]
    fn linked_blocks_are_refused_as_kafka_does() {
        let body = frame(FrameInfo::new().block_mode(BlockMode::Linked), b"text");
        assert_eq!(read(&body), Err(malformed("linked blocks are not supported")));
    }

    #[test]
    fn other_readers_read_our_frames() {
        let data = b"some words and some more words; ".repeat(20_000);
        let body = compress(&data);
        let mut out = Vec::new();
        lz4_flex::frame::FrameDecoder::new(&*body).read_to_end(&mut out).unwrap();
        assert!(out == data);
    }

    #[test]
    fn a_wrong_checksum_of_header_or_block_is_an_error() {
        let mut body = compress(b"text");
        body[6] ^= 1;
        assert_eq!(read(&body), Err(malformed("wrong header checksum")));
        let info = FrameInfo::new().block_mode(BlockMode::Independent).block_checksums(true);
        let mut body = frame(info, b"text");
        let last_of_block = body.len() - 9;
        body[last_of_block] ^= 1;
        assert_eq!(read(&body), Err(malformed("wrong block checksum")));
    }

    #[test]
    fn what_follows_the_end_mark_is_ignored() {
        let body = [compress(b"text"), vec![1, 2, 3]].concat();
        assert_eq!(read(&body).unwrap(), b"text");
    }

    #[test]
    fn a_block_above_the_size_of_the_header_is_an_error() {
        let mut body = compress(b"");
        body.truncate(7);
        body.extend(70_000u32.to_le_bytes());
        body.extend(vec![0; 70_000]);
        assert_eq!(read(&body), Err(malformed("a block is larger than the header allows")));
    }
}
