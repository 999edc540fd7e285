//! gzip (RFC 1952), as Java's `GZIPInputStream` reads it: a sequence of members; bytes after the first that are not a
//! member are ignored.

use std::io::Write;

use flate2::write::GzEncoder;
use flate2::{Crc, FlushDecompress, Status};

use super::decompressor::Piece;
use super::{Compression, DecompressError, take, take_array};

/// Two magic bytes and the only method, deflate.
const MEMBER_START: [u8; 3] = [0x1f, 0x8b, 8];
/// Flags of the optional fields of a header.
const HEADER_CHECKSUM: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
/// The size of a header without optional fields, and of the trailer with checksum and length.
const MIN_LEN: usize = 10 + 8;
/// The number of bytes after a member that Java ignores without a check: no further member fits into it.
const LARGEST_IGNORED_TAIL: usize = 18;
/// The maximum ratio of deflate: 258 bytes in two bits, 1032:1.
const MAX_RATIO: u64 = 1_032;

const fn malformed(defect: &'static str) -> DecompressError {
    DecompressError::Malformed { codec: Compression::Gzip, defect }
}

const CUT_SHORT: DecompressError = malformed("a member is cut short");

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

/// The state of the decompressor, about 40 KiB, reused for one body after the other.
#[derive(Debug, Default)]
pub(super) struct Inflater(Option<flate2::Decompress>);

impl Inflater {
    fn start(&mut self) {
        match &mut self.0 {
            Some(inflate) => inflate.reset(false),
            none => *none = Some(flate2::Decompress::new(false)),
        }
    }

    fn inflate(&mut self) -> &mut flate2::Decompress {
        self.0.as_mut().expect("a stream starts the inflater before it uses it")
    }
}

#[derive(Debug)]
pub(super) struct Stream<'a> {
    rest: &'a [u8],
    /// Checksum and length of the output of the current member.
    given: Crc,
    at: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Data,
    Trailer,
    End,
}

impl<'a> Stream<'a> {
    pub(super) fn new(body: &'a [u8], inflater: &mut Inflater) -> Result<Self, DecompressError> {
        let rest = after_header(body)?;
        inflater.start();
        Ok(Self { rest, given: Crc::new(), at: Place::Data })
    }

    pub(super) fn advance(
        &mut self,
        inflater: &mut Inflater,
        output: &mut [u8],
    ) -> Result<Option<Piece<'a>>, DecompressError> {
        loop {
            match self.at {
                Place::End => return Ok(None),
                Place::Trailer => self.end_member(inflater)?,
                Place::Data => {
                    let len = self.inflate(inflater.inflate(), output)?;
                    if len > 0 {
                        return Ok(Some(Piece::Output(len)));
                    }
                }
            }
        }
    }

    /// Fills `output` as far as possible and returns the number of bytes.
    fn inflate(
        &mut self,
        inflate: &mut flate2::Decompress,
        output: &mut [u8],
    ) -> Result<usize, DecompressError> {
        let (total_in, total_out) = (inflate.total_in(), inflate.total_out());
        let status = inflate
            .decompress(self.rest, output, FlushDecompress::None)
            .map_err(|_| malformed("the deflate stream is damaged"))?;
        let consumed = within(self.rest, inflate.total_in() - total_in);
        let len = within(output, inflate.total_out() - total_out);
        self.rest = &self.rest[consumed..];
        self.given.update(&output[..len]);
        if status == Status::StreamEnd {
            self.at = Place::Trailer;
        } else if consumed == 0 && len == 0 {
            return Err(CUT_SHORT);
        }
        Ok(len)
    }

    /// Checks a member's trailer and continues with the next member, if there is one.
    fn end_member(&mut self, inflater: &mut Inflater) -> Result<(), DecompressError> {
        let checksum = take_array(&mut self.rest).map(u32::from_le_bytes).ok_or(CUT_SHORT)?;
        let len = take_array(&mut self.rest).map(u32::from_le_bytes).ok_or(CUT_SHORT)?;
        if (checksum, len) != (self.given.sum(), self.given.amount()) {
            return Err(malformed("wrong checksum or length"));
        }
        match after_header(self.rest) {
            Ok(rest) if self.rest.len() > LARGEST_IGNORED_TAIL => {
                (self.rest, self.at) = (rest, Place::Data);
                self.given.reset();
                inflater.start();
            }
            _ => self.at = Place::End,
        }
        Ok(())
    }
}

fn within(bytes: &[u8], count: u64) -> usize {
    usize::try_from(count)
        .ok()
        .filter(|count| *count <= bytes.len())
        .expect("inflating takes and gives no more than it is given")
}

/// Skips the header of the member at the start of `body`.
fn after_header(body: &[u8]) -> Result<&[u8], DecompressError> {
    if !body.starts_with(&MEMBER_START) {
        return Err(malformed("not a gzip header"));
    }
    let mut rest = body;
    let [_, _, _, flags, ..] = take_array::<10>(&mut rest).ok_or(CUT_SHORT)?;
    if flags & EXTRA != 0 {
        let len = take_array(&mut rest).map(u16::from_le_bytes).ok_or(CUT_SHORT)?;
        take(&mut rest, usize::from(len)).ok_or(CUT_SHORT)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let end = rest.iter().position(|byte| *byte == 0).ok_or(CUT_SHORT)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & HEADER_CHECKSUM != 0 {
        let mut header = Crc::new();
        header.update(&body[..body.len() - rest.len()]);
        let stored = take_array(&mut rest).map(u16::from_le_bytes).ok_or(CUT_SHORT)?;
        if u32::from(stored) != header.sum() & 0xffff {
            return Err(malformed("wrong header checksum"));
        }
    }
    Ok(rest)
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
    fn a_header_without_a_member_is_a_tail() {
        let plain = compress(b"text", -1);
        for tail in [&plain[..10], &plain[..18]] {
            let body = [&plain[..], tail].concat();
            assert_eq!(decompress(Compression::Gzip, &body, 100).unwrap(), b"text");
        }
        let body = [&plain[..], &plain[..19]].concat();
        assert!(decompress(Compression::Gzip, &body, 100).is_err());
    }

    #[test]
    fn a_wrong_checksum_is_an_error() {
        let mut body = compress(b"checked", -1);
        let crc_position = body.len() - 8;
        body[crc_position] ^= 1;
        assert!(decompress(Compression::Gzip, &body, 100).is_err());
    }

    #[test]
    fn optional_header_fields_are_stepped_over_and_their_checksum_is_verified() {
        let plain = compress(b"named", -1);
        let fields = [&[3, 0][..], b"abc", b"name\0", b"comment\0"].concat();
        let flags = HEADER_CHECKSUM | EXTRA | NAME | COMMENT;
        let header = [&plain[..3], &[flags], &plain[4..10], &fields].concat();
        let mut crc = Crc::new();
        crc.update(&header);
        let checksum = (crc.sum() & 0xffff).to_le_bytes();
        let body = [&header[..], &checksum[..2], &plain[10..]].concat();
        assert_eq!(decompress(Compression::Gzip, &body, 100).unwrap(), b"named");
        let wrong = [&header[..], &[checksum[0] ^ 1, checksum[1]], &plain[10..]].concat();
        let refused = malformed("wrong header checksum");
        assert_eq!(decompress(Compression::Gzip, &wrong, 100), Err(refused));
    }

    #[test]
    fn an_empty_member_between_others_ends_nothing() {
        let body = [compress(b"a", -1), compress(b"", -1), compress(b"b", -1)].concat();
        assert_eq!(decompress(Compression::Gzip, &body, 100).unwrap(), b"ab");
    }
}
