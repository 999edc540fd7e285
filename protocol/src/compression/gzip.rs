//! gzip (RFC 1952), as Java's `GZIPInputStream` reads it: members one behind the other, and
//! anything that is not a member after the first is ignored.

use std::io::{Read, Write};

use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use super::{CHUNK_LEN, Compression, DecompressError};

/// Two magic bytes and the only method there is, deflate.
const MEMBER_START: [u8; 3] = [0x1f, 0x8b, 8];
/// Header without optional fields, and the trailer of checksum and length.
const MIN_LEN: usize = 10 + 8;
/// Deflate cannot shrink further than this: 258 bytes in two bits, 1032:1.
const MAX_RATIO: u64 = 1_032;

const fn malformed(defect: &'static str) -> DecompressError {
    DecompressError::Malformed { codec: Compression::Gzip, defect }
}

pub(super) fn compress(data: &[u8], level: i32) -> Vec<u8> {
    // -1 is zlib's own default level.
    let level =
        u32::try_from(level).map_or(flate2::Compression::default(), flate2::Compression::new);
    let mut encoder = GzEncoder::new(Vec::with_capacity(data.len() / 4), level);
    encoder.write_all(data).expect("writing to memory does not fail");
    encoder.finish().expect("writing to memory does not fail")
}

pub(super) fn check_frame(body: &[u8]) -> Result<u64, DecompressError> {
    if !body.starts_with(&MEMBER_START) {
        return Err(malformed("not a gzip header"));
    }
    if body.len() < MIN_LEN {
        return Err(malformed("shorter than header and trailer"));
    }
    let (flags, first_block) = (body[3], body[10]);
    if flags == 0 && first_block & 0b110 == 0b110 {
        return Err(malformed("the first deflate block has no known type"));
    }
    Ok(body.len() as u64 * MAX_RATIO)
}

#[derive(Debug)]
pub(super) struct Stream<'a> {
    member: GzDecoder<&'a [u8]>,
    buffer: Vec<u8>,
    filled: usize,
}

impl<'a> Stream<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { member: GzDecoder::new(body), buffer: vec![0; CHUNK_LEN], filled: 0 }
    }

    pub(super) fn advance(&mut self) -> Result<bool, DecompressError> {
        loop {
            self.filled = self
                .member
                .read(&mut self.buffer)
                .map_err(|_| malformed("the deflate stream or its checksum is wrong"))?;
            if self.filled > 0 {
                return Ok(true);
            }
            let rest: &'a [u8] = self.member.get_ref();
            if !rest.starts_with(&MEMBER_START) {
                return Ok(false);
            }
            self.member = GzDecoder::new(rest);
        }
    }

    pub(super) fn chunk(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }
}

#[cfg(test)]
mod tests {
    use super::super::decompress;
    use super::*;

    #[test]
    fn members_follow_one_another_and_a_tail_is_ignored() {
        let mut body = compress(b"one ", -1);
        body.extend(compress(b"two", 9));
        body.extend(b"tail");
        assert_eq!(decompress(Compression::Gzip, &body, 100).unwrap(), b"one two");
    }

    #[test]
    fn a_wrong_checksum_is_an_error() {
        let mut body = compress(b"checked", -1);
        let crc_position = body.len() - 8;
        body[crc_position] ^= 1;
        assert!(decompress(Compression::Gzip, &body, 100).is_err());
    }

    #[test]
    fn an_empty_member_between_others_ends_nothing() {
        let body = [compress(b"a", -1), compress(b"", -1), compress(b"b", -1)].concat();
        assert_eq!(decompress(Compression::Gzip, &body, 100).unwrap(), b"ab");
    }
}
