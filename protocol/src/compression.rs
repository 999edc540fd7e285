//! The compression codecs of record batches, as Kafka's clients and brokers write and read them.
//!
//! Invariants: decompression streams, and its memory is bounded by the input and by the caller's `max_output`, not by
//! length fields. It accepts and refuses the same compressed bodies as Kafka 4.3.1, except for zstd windows above 128
//! MiB.

mod decompressor;
mod gzip;
mod lz4;
mod snappy;
mod zstd;

use std::fmt;

pub use decompressor::{Decompressor, Workspace};

/// A compression codec, by the low three bits of a batch's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// No compression.
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy blocks in the framing of Java's `SnappyOutputStream` ("xerial"), or one bare block.
    Snappy,
    /// The LZ4 frame format with independent blocks (KIP-57).
    Lz4,
    /// RFC 8878 (KIP-110).
    Zstd,
}

/// A codec number that Kafka does not define.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression codec {id}")]
pub struct UnknownCompression {
    /// The number in the batch's attributes, 5 to 7.
    pub id: u8,
}

impl Compression {
    /// The codec with the number `id` in a batch's attributes.
    pub fn from_id(id: u8) -> Result<Self, UnknownCompression> {
        match id {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            _ => Err(UnknownCompression { id }),
        }
    }

    /// Its number in a batch's attributes.
    pub const fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Its name in Kafka's configuration and tools. For a topic's `compression.type`, no
    /// compression is called `uncompressed` instead.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A codec with its compression level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codec {
    compression: Compression,
    level: i32,
}

/// A compression level that Kafka does not allow for the codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{compression} does not support compression level {level}")]
pub struct InvalidLevel {
    /// The codec.
    pub compression: Compression,
    /// The refused level.
    pub level: i32,
}

impl Codec {
    /// A codec at a level in the range of `compression.gzip.level` (1 to 9, or -1 for zlib's own
    /// default), `compression.lz4.level` (1 to 17) or `compression.zstd.level` (-131072 to 22).
    ///
    /// Every lz4 level uses the fast compressor: valid frames, less dense than Java's from level 10 on. Codecs without
    /// levels ignore the level.
    pub fn new(compression: Compression, level: i32) -> Result<Self, InvalidLevel> {
        let allowed = match compression {
            Compression::None | Compression::Snappy => true,
            Compression::Gzip => level == -1 || (1..=9).contains(&level),
            Compression::Lz4 => (1..=17).contains(&level),
            Compression::Zstd => (-131_072..=22).contains(&level),
        };
        if !allowed {
            return Err(InvalidLevel { compression, level });
        }
        Ok(Self { compression, level })
    }

    /// The codec without its level.
    pub const fn compression(self) -> Compression {
        self.compression
    }
}

/// The codec at Kafka's default level.
impl From<Compression> for Codec {
    fn from(compression: Compression) -> Self {
        let level = match compression {
            Compression::None | Compression::Snappy => 0,
            Compression::Gzip => -1,
            Compression::Lz4 => 9,
            Compression::Zstd => 3,
        };
        Self { compression, level }
    }
}

/// Why a compressed body cannot be decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// The body violates its format.
    #[error("malformed {codec} data: {defect}")]
    Malformed {
        /// The codec of the batch.
        codec: Compression,
        /// The violated rule.
        defect: &'static str,
    },
    /// The body decompresses to more than the caller's limit.
    #[error("the data decompress to more than {limit} bytes")]
    OutputTooLarge {
        /// The caller's `max_output`.
        limit: usize,
    },
}

/// Compresses `data` as Kafka's clients would.
pub fn compress(codec: impl Into<Codec>, data: &[u8]) -> Vec<u8> {
    let codec = codec.into();
    match codec.compression {
        Compression::None => data.to_vec(),
        Compression::Gzip => gzip::compress(data, codec.level),
        Compression::Snappy => snappy::compress(data),
        Compression::Lz4 => lz4::compress(data),
        Compression::Zstd => zstd::compress(data, codec.level),
    }
}

/// Decompresses a whole body of at most `max_output` bytes.
pub fn decompress(
    compression: Compression,
    body: &[u8],
    max_output: usize,
) -> Result<Vec<u8>, DecompressError> {
    let mut workspace = Workspace::default();
    let mut decompressor = Decompressor::new(compression, body, max_output, &mut workspace)?;
    let mut output = Vec::new();
    while decompressor.advance()? {
        output.extend_from_slice(decompressor.chunk());
    }
    Ok(output)
}

/// Checks the frame of a compressed body without decompressing it: magic numbers, header fields and checksums, and that
/// its blocks are contiguous up to the end mark.
///
/// Returns the maximum number of bytes that the body can decompress to. A gzip body has no block lengths, so only its
/// header is checked.
pub fn check_frame(compression: Compression, body: &[u8]) -> Result<u64, DecompressError> {
    match compression {
        Compression::None => Ok(body.len() as u64),
        Compression::Gzip => gzip::check_frame(body),
        Compression::Snappy => snappy::check_frame(body),
        Compression::Lz4 => lz4::check_frame(body),
        Compression::Zstd => zstd::check_frame(body),
    }
}

/// Takes `len` bytes from the front of `input`.
fn take<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(head)
}

/// Takes `N` bytes from the front of `input`.
fn take_array<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    fn samples() -> Vec<Vec<u8>> {
        let text = b"the quick brown fox jumps over the lazy dog ".repeat(5_000);
        let mut seed = 12_345u32;
        let noise = (0..300_000)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                seed.to_be_bytes()[0]
            })
            .collect();
        vec![vec![], vec![1], vec![0; 65_536], vec![7; 65_537], text, noise]
    }

    #[test]
    fn every_codec_gives_back_what_it_was_given() {
        for compression in ALL {
            for data in samples() {
                let body = compress(compression, &data);
                assert!(check_frame(compression, &body).unwrap() >= data.len() as u64);
                let back = decompress(compression, &body, data.len()).unwrap();
                assert!(back == data, "{compression} of {} bytes", data.len());
            }
        }
    }

    #[test]
    fn one_byte_above_the_limit_is_an_error() {
        for compression in ALL {
            for data in samples().into_iter().filter(|data| !data.is_empty()) {
                let body = compress(compression, &data);
                let limit = data.len() - 1;
                assert_eq!(
                    decompress(compression, &body, limit),
                    Err(DecompressError::OutputTooLarge { limit }),
                    "{compression}"
                );
            }
        }
    }

    #[test]
    fn a_body_that_is_cut_short_is_never_read_as_whole() {
        let data = b"0123456789".repeat(20_000);
        for compression in [Compression::Gzip, Compression::Lz4, Compression::Zstd] {
            let body = compress(compression, &data);
            // For zstd an empty body is not a truncated frame, but no data.
            let least = usize::from(compression == Compression::Zstd);
            for len in [least, 1, 5, body.len() / 2, body.len() - 1] {
                let cut = decompress(compression, &body[..len], data.len());
                assert!(cut.is_err(), "{compression} cut to {len} bytes");
            }
        }
    }

    #[test]
    fn five_nonsense_bytes_fail_the_frame_check_of_every_codec() {
        for compression in &ALL[1..] {
            assert!(check_frame(*compression, &[1, 2, 3, 4, 5]).is_err(), "{compression}");
            assert!(check_frame(*compression, &[]).is_err(), "{compression}");
        }
    }

    #[test]
    fn every_level_that_kafka_allows_compresses() {
        let data = b"abc".repeat(1_000);
        let levels = [(Compression::Gzip, [-1, 1, 9]), (Compression::Lz4, [1, 9, 17])];
        let zstd = (Compression::Zstd, [-131_072, 1, 22]);
        for (compression, levels) in levels.into_iter().chain([zstd]) {
            for level in levels {
                let body = compress(Codec::new(compression, level).unwrap(), &data);
                assert_eq!(decompress(compression, &body, data.len()).unwrap(), data);
            }
        }
    }

    #[test]
    fn a_level_that_kafka_refuses_is_refused() {
        for (compression, level) in [
            (Compression::Gzip, 0),
            (Compression::Gzip, 10),
            (Compression::Lz4, 0),
            (Compression::Lz4, 18),
            (Compression::Zstd, 23),
            (Compression::Zstd, -131_073),
        ] {
            let refused = InvalidLevel { compression, level };
            assert_eq!(Codec::new(compression, level), Err(refused));
        }
    }

    #[test]
    fn ids_of_no_codec_are_errors() {
        for compression in ALL {
            assert_eq!(Compression::from_id(compression.id()), Ok(compression));
        }
        assert_eq!(Compression::from_id(5), Err(UnknownCompression { id: 5 }));
    }
}
