//! Messages from hostile clients: no decode panics, and none allocates more than eight times its
//! input plus 64 KiB.
//!
//! The allocator counts every byte ever allocated, freed or not, so each bound here is also one on
//! the peak.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "data/golden_fixture.rs"]
#[allow(dead_code, reason = "shared by tests that each use a part of it")]
mod fixture;

use bytes::Bytes;
use fixture::{Codec, Fixture};
use klamm_protocol::decode::DecodeError;

const KIB: usize = 1 << 10;

/// What a decode of so many bytes may allocate.
fn allowed(input: usize) -> usize {
    8 * input + 64 * KIB
}

/// Says which input it was when a decode panics.
struct Attempt<'a> {
    codec: &'a Codec,
    version: i16,
    input: &'a Bytes,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let shown = self.input.slice(..self.input.len().min(200));
            eprintln!("while decoding {} v{}: {shown:x}", self.codec.name, self.version);
        }
    }
}

/// What a decode came to, and the bytes that it allocated: never more than are allowed.
fn decode(codec: &Codec, version: i16, input: &Bytes) -> (Result<(), DecodeError>, usize) {
    let _attempt = Attempt { codec, version, input };
    let owned = input.clone();
    let mut result = None;
    let counted = allocation_counter::measure(|| result = Some((codec.decode)(owned, version)));
    let allocated = usize::try_from(counted.bytes_total).unwrap();
    assert!(allocated <= allowed(input.len()), "{allocated} bytes from {}", input.len());
    (result.unwrap(), allocated)
}

/// All frames of the fixture with their codecs.
fn for_each_frame(fixture: &Fixture, mut act: impl FnMut(&Codec, i16, &Bytes)) {
    for codec in Codec::all() {
        for (version, frame) in &fixture.messages[codec.name].frames {
            act(&codec, *version, frame);
        }
    }
}

/// The frames in which everything is set, one of each message and version.
fn for_each_full_frame(fixture: &Fixture, mut act: impl FnMut(&Codec, i16, &Bytes)) {
    for codec in Codec::all() {
        for version in codec.versions.clone() {
            act(&codec, version, fixture.messages[codec.name].full_frame(version));
        }
    }
}

/// Numbers that look random and are the same in every run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("less than a usize")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

#[test]
fn every_frame_that_ends_early_is_refused() {
    for_each_frame(&Fixture::load(), |codec, version, frame| {
        for end in 0..frame.len() {
            let (result, _) = decode(codec, version, &frame.slice(..end));
            assert!(result.is_err(), "{} v{version} of {end} bytes: {frame:x}", codec.name);
        }
    });
}

#[test]
fn a_flipped_bit_or_byte_anywhere_is_survived() {
    let mut numbers = Numbers(1);
    let mut outcomes = [0_usize; 2];
    for_each_frame(&Fixture::load(), |codec, version, frame| {
        for at in 0..frame.len() {
            for mask in [1 << numbers.below(8), 0xff] {
                let mut bytes = frame.to_vec();
                bytes[at] ^= mask;
                let (result, _) = decode(codec, version, &bytes.into());
                outcomes[usize::from(result.is_ok())] += 1;
            }
        }
    });
    assert!(outcomes.iter().all(|&count| count > 1000), "of both kinds: {outcomes:?}");
}

/// Lengths that promise more than is there, and what no encoder writes.
const IMPOSSIBLE_LENGTHS: &[&[u8]] = &[
    &[0x7f, 0xff, 0xff, 0xff],
    &[0xff, 0xff, 0xff, 0xff],
    &[0x80, 0x00, 0x00, 0x00],
    &[0x05, 0xf5, 0xe1, 0x00],
    &[0x7f, 0xff],
    &[0x80, 0x00],
    // 2^32 - 1, 2^31 - 1, 100,000,001, one of six bytes, and one that overflows in its fifth.
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0x07],
    &[0x81, 0xc2, 0xd7, 0x2f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0x80, 0x80, 0x80, 0x80, 0x10],
];

#[test]
fn an_impossible_length_at_any_position_is_survived() {
    for_each_full_frame(&Fixture::load(), |codec, version, frame| {
        for at in 0..=frame.len() {
            for length in IMPOSSIBLE_LENGTHS {
                let rest = frame.get(at + length.len()..).unwrap_or_default();
                let bytes = [&frame[..at], length, rest].concat();
                drop(decode(codec, version, &bytes.into()));
            }
        }
    });
}

/// An array whose elements are all there, each as small as can be: what takes the most memory for
/// its bytes. Behind a good start of every length there is one that fits into the last array.
#[test]
fn a_flood_of_the_smallest_elements_at_any_position_stays_within_the_budget() {
    const FLOOD: usize = 24 * KIB;
    let fixture = Fixture::load();
    let (mut most, mut refused) = (0, 0);
    for codec in Codec::all() {
        let version = *codec.versions.end();
        let frame = fixture.messages[codec.name].full_frame(version);
        for at in 0..=frame.len() {
            // Zeroes are empty or null, and ones are empty in compact encoding.
            for (filler, size) in [(0, 1), (0, 4), (1, 1), (1, 8), (0, 40)] {
                let count = u32::try_from(FLOOD / size).unwrap();
                for length in [count.to_be_bytes().to_vec(), varint(count)] {
                    let bytes = [&frame[..at], &length, &[filler; FLOOD]].concat();
                    let (result, allocated) = decode(&codec, version, &bytes.into());
                    most = most.max(allocated);
                    refused += usize::from(matches!(result, Err(DecodeError::BudgetExceeded(_))));
                }
            }
        }
    }
    assert!(most > 4 * FLOOD, "the floods reached no array: {most} bytes at most");
    assert!(refused > 0, "no flood came to the end of the budget");
}

fn varint(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
    bytes
}

#[test]
fn random_bytes_are_survived_by_every_message_in_every_version() {
    const ATTEMPTS: usize = 150;
    let mut numbers = Numbers(2);
    let mut outcomes = [0_usize; 2];
    for codec in Codec::all() {
        for version in codec.versions.clone() {
            for attempt in 0..ATTEMPTS {
                let longest = if attempt % 10 == 0 { 1000 } else { 40 };
                let length = numbers.below(longest);
                let bytes: Bytes = (0..length).map(|_| likely_byte(&mut numbers)).collect();
                let (result, _) = decode(&codec, version, &bytes);
                outcomes[usize::from(result.is_ok())] += 1;
            }
        }
    }
    assert!(outcomes.iter().all(|&count| count > 1000), "of both kinds: {outcomes:?}");
}

/// Bytes of which lengths, nulls and flags are made, and any others.
fn likely_byte(numbers: &mut Numbers) -> u8 {
    match numbers.below(8) {
        0..=2 => 0,
        3 | 4 => 1 + numbers.byte() % 4,
        5 => 0xff,
        _ => numbers.byte(),
    }
}

/// Requests that brought down other decoders of this protocol: `Vec::with_capacity` of a length from
/// the wire.
#[test]
fn short_requests_that_ask_for_gigabytes_are_refused_without_allocating() {
    let codecs = Codec::all();
    let topics_12 = [&[0xff; 4][..], &[0; 17], &[0; 4], &[0xff; 4], &varint(100_000_001)].concat();
    let attacks: &[(&str, i16, &[u8])] = &[
        ("MetadataRequest", 4, &[0x7f, 0xff, 0xff, 0xff]),
        ("MetadataRequest", 12, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("MetadataRequest", 12, &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ("FetchRequest", 12, &topics_12),
        ("ProduceRequest", 9, &[0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("ListPartitionReassignmentsRequest", 0, &[0, 0, 0, 0, 2, 1, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("DeleteTopicsRequest", 1, &[0x7f, 0xff, 0xff, 0xff]),
        ("DeleteGroupsRequest", 0, &[0x7f, 0xff, 0xff, 0xff]),
        ("OffsetFetchRequest", 1, &[0, 0, 0x7f, 0xff, 0xff, 0xff]),
        ("DescribeTopicPartitionsRequest", 0, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
    ];
    for &(name, version, bytes) in attacks {
        let codec = codecs.iter().find(|codec| codec.name == name).expect("a message of Kafka");
        let (result, allocated) = decode(codec, version, &Bytes::copy_from_slice(bytes));
        let lied =
            matches!(result, Err(DecodeError::ImpossibleCount { .. } | DecodeError::VarintTooLong));
        assert!(lied, "{name} v{version}: {result:?}");
        assert!(allocated < 4 * KIB, "{name} v{version}: {allocated} bytes");
    }
}

#[test]
fn a_gigabyte_of_tagged_fields_that_are_not_there_is_refused() {
    let codecs = Codec::all();
    let header = codecs.iter().find(|codec| codec.name == "RequestHeader").unwrap();
    let header_with = |tags: &[u8]| Bytes::from([&[0_u8; 8][..], &[0xff, 0xff], tags].concat());
    assert_eq!(decode(header, 2, &header_with(&[0])).0, Ok(()));
    for tags in [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]] {
        let (result, allocated) = decode(header, 2, &header_with(tags));
        assert!(result.is_err() && allocated < KIB, "{result:?}, {allocated} bytes");
    }
}
