//! The golden messages in `golden_messages.txt.gz`, and every message of our schemas to hold against
//! them. The file's format is described where it is written: `tools/golden-messages`.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::RangeInclusive;

use bytes::Bytes;
use flate2::read::GzDecoder;
use klamm_protocol::decode::{DecodeError, Decoder};
use klamm_protocol::encode::EncodeError;
use klamm_protocol::message::Message;

/// What Kafka's class makes of one message.
#[derive(Debug)]
pub(crate) struct Golden {
    pub(crate) versions: RangeInclusive<i16>,
    /// The bytes of a new object in each version; `None` where Kafka refuses to write it.
    pub(crate) defaults: Vec<(i16, Option<Bytes>)>,
    pub(crate) frames: Vec<(i16, Bytes)>,
    /// The last frame of the first version, written in the second: its CRC-32, or `None` where Kafka
    /// refuses.
    pub(crate) rewrites: Vec<(i16, i16, Option<u32>)>,
}

/// The whole file.
#[derive(Debug, Default)]
pub(crate) struct Fixture {
    pub(crate) messages: BTreeMap<String, Golden>,
    /// Bytes, and what Kafka writes after having read them as a string.
    pub(crate) texts: Vec<(Bytes, Bytes)>,
    /// CRC-32 of what Kafka makes of all strings of a length.
    pub(crate) all_texts: Vec<(usize, u32)>,
}

impl Fixture {
    pub(crate) fn load() -> Self {
        let mut text = String::new();
        GzDecoder::new(&include_bytes!("golden_messages.txt.gz")[..])
            .read_to_string(&mut text)
            .expect("the fixture is gzip of ASCII");
        let mut this = Self::default();
        let mut current = String::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["message", name, first, last] => {
                    current = name.to_owned();
                    let golden = Golden {
                        versions: number(first)..=number(last),
                        defaults: Vec::new(),
                        frames: Vec::new(),
                        rewrites: Vec::new(),
                    };
                    this.messages.insert(current.clone(), golden);
                }
                ["text", from, to] => this.texts.push((bytes(from), bytes(to))),
                ["texts", length, sum] => {
                    this.all_texts.push((usize::from(number(length).unsigned_abs()), crc(sum)));
                }
                _ => this.messages.get_mut(&current).expect("a message goes first").line(&words),
            }
        }
        this
    }
}

impl Golden {
    fn line(&mut self, words: &[&str]) {
        match *words {
            ["default", version, "!"] => self.defaults.push((number(version), None)),
            ["default", version, hex] => self.defaults.push((number(version), Some(bytes(hex)))),
            ["frame", version, hex] => self.frames.push((number(version), bytes(hex))),
            ["rewrite", from, to, "!"] => self.rewrites.push((number(from), number(to), None)),
            ["rewrite", from, to, sum] => {
                self.rewrites.push((number(from), number(to), Some(crc(sum))));
            }
            _ => panic!("not a line of the fixture: {words:?}"),
        }
    }

    /// The last frame of a version: the one in which everything is set.
    pub(crate) fn full_frame(&self, version: i16) -> &Bytes {
        let frames = self.frames.iter().rev();
        let (_, frame) = frames
            .into_iter()
            .find(|(of, _)| *of == version)
            .expect("every version has a frame in the fixture");
        frame
    }
}

fn number(word: &str) -> i16 {
    word.parse().expect("the fixture's versions are numbers")
}

fn crc(word: &str) -> u32 {
    u32::from_str_radix(word, 16).expect("the fixture's sums are hexadecimal")
}

fn bytes(word: &str) -> Bytes {
    let digits = if word == "-" { "" } else { word };
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("bytes are hexadecimal"))
        .collect()
}

/// CRC-32 as Java's `CRC32` computes it.
pub(crate) fn crc_of(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// What came of writing a message that was read, and how many bytes its reading left over.
pub(crate) type Rewritten = (Result<Bytes, EncodeError>, usize);

/// One message of our schemas, without its type.
#[derive(Debug)]
pub(crate) struct Codec {
    pub(crate) name: &'static str,
    pub(crate) versions: RangeInclusive<i16>,
    pub(crate) default: fn(i16) -> Result<Bytes, EncodeError>,
    /// Reads bytes in one version and writes what they say in another.
    pub(crate) rewrite: fn(Bytes, i16, i16) -> Result<Rewritten, DecodeError>,
    /// Reads bytes in a version and forgets what they say.
    pub(crate) decode: fn(Bytes, i16) -> Result<(), DecodeError>,
}

impl Codec {
    fn of<M: Message + Default>() -> Self {
        Self {
            name: M::NAME,
            versions: M::VERSIONS,
            default: |version| M::default().encoded(version),
            rewrite: |bytes, from, to| {
                let mut decoder = Decoder::new(bytes);
                let message = M::decode(&mut decoder, from)?;
                Ok((message.encoded(to), decoder.remaining()))
            },
            decode: |bytes, version| M::decode(&mut Decoder::new(bytes), version).map(drop),
        }
    }

    /// Every message of our schemas.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        macro_rules! codec {
            ($kind:ident, $module:ident, $message:ident) => {
                all.push(Self::of::<klamm_protocol::messages::$module::$message>())
            };
        }
        klamm_protocol::for_each_message!(codec);
        all
    }
}
