//! The record batches that are produced: valid and the same in every run; incompressible, or lines of JSON in a codec.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use klamm_protocol::batch_builder::BatchBuilder;
use klamm_protocol::compression::Compression;

/// What the lines of JSON are made of.
const WORDS: [&str; 12] = [
    "alpha",
    "bravo",
    "charlie",
    "delta",
    "order",
    "status",
    "pending",
    "shipped",
    "customer",
    "warehouse",
    "returned",
    "invoice",
];
/// Any seed but zero will do.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// A batch that is sent over and over.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    pub(crate) batch: Bytes,
    pub(crate) records: u32,
}

impl Payload {
    /// As many records with values of `value_len` bytes as fit into a batch of `batch_len` bytes before it is compressed,
    /// but at least one.
    pub(crate) fn new(value_len: usize, batch_len: usize, codec: Compression) -> Self {
        let mut random = Random(SEED);
        let now_ms = now_ms();
        let mut builder = BatchBuilder::new(0).compression(codec);
        loop {
            let before = builder.uncompressed_size();
            let value = match codec {
                Compression::None => random.bytes(value_len),
                _ => random.json(value_len),
            };
            builder.append(now_ms, None, Some(&value), &[]).expect("a batch is far below 2 GiB");
            let record_len = builder.uncompressed_size() - before;
            // The fields of a later record may take two bytes more than those of the last one.
            if builder.uncompressed_size() + record_len + 2 > batch_len {
                break;
            }
        }
        let records = u32::try_from(builder.record_count()).expect("records are counted from 0");
        let batch = builder.build().expect("a batch is far below 2 GiB");
        Self { batch: batch.bytes, records }
    }

    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.batch.len()).expect("usize fits")
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(since.as_millis()).expect("and before the year 292 million")
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words.flatten().take(len).collect()
    }

    fn word(&mut self) -> &'static str {
        let words = u64::try_from(WORDS.len()).expect("usize fits");
        WORDS[usize::try_from(self.next() % words).expect("an index fits")]
    }

    /// Events as applications write them: names that come again, numbers that do not.
    fn json(&mut self, len: usize) -> Vec<u8> {
        let mut text = String::with_capacity(2 * len);
        while text.len() < len {
            let (id, event, state) = (self.next() % 100_000_000, self.word(), self.word());
            let (amount, region) = (self.next() % 10_000, self.next() % 3);
            write!(
                text,
                r#"{{"id":{id},"event":"{event}","state":"{state}","amount":{amount},"region":"eu-west-{region}"}}"#
            )
            .expect("a string takes what is written to it");
        }
        text.truncate(len);
        text.into_bytes()
    }
}
