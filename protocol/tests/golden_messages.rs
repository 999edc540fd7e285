//! Every message in every version, byte for byte against what Apache Kafka 4.3.1's classes write.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "data/golden_fixture.rs"]
#[allow(dead_code, reason = "shared by tests that each use a part of it")]
mod fixture;

use bytes::Bytes;
use fixture::{Codec, Fixture, crc_of};

/// Fails with all the differences, not just the first.
fn assert_none(differences: &[String]) {
    let count = differences.len();
    assert!(
        differences.is_empty(),
        "{count} differences:\n{}",
        differences[..count.min(40)].join("\n")
    );
}

#[test]
fn the_fixture_has_every_message_of_our_schemas_in_every_version_and_no_other() {
    let fixture = Fixture::load();
    let ours: Vec<_> =
        Codec::all().iter().map(|c| (c.name.to_owned(), c.versions.clone())).collect();
    for (name, versions) in &ours {
        let golden = fixture.messages.get(name).unwrap_or_else(|| panic!("{name}: not in Kafka"));
        assert_eq!(golden.versions, *versions, "{name}");
        for version in versions.clone() {
            let frames = golden.frames.iter().filter(|(of, _)| *of == version).count();
            assert!(frames > 0, "{name} v{version} has no frame");
        }
        let defaults: Vec<i16> = golden.defaults.iter().map(|(version, _)| *version).collect();
        assert_eq!(defaults, versions.clone().collect::<Vec<_>>(), "{name}");
    }
    let missing: Vec<_> =
        fixture.messages.keys().filter(|name| !ours.iter().any(|(our, _)| our == *name)).collect();
    assert!(missing.is_empty(), "messages of Kafka that our schemas lack: {missing:?}");
    assert_eq!(ours.len(), fixture.messages.len(), "a message is there twice");
}

#[test]
fn every_frame_of_kafka_is_read_to_its_end_and_written_again_as_it_was() {
    let fixture = Fixture::load();
    let mut differences = Vec::new();
    for codec in Codec::all() {
        for (version, frame) in &fixture.messages[codec.name].frames {
            let what = format!("{} v{version}", codec.name);
            match (codec.rewrite)(frame.clone(), *version, *version) {
                Err(error) => differences.push(format!("{what} is not read: {error}: {frame:x}")),
                Ok((_, left @ 1..)) => differences.push(format!("{what}: {left} bytes left")),
                Ok((Err(error), _)) => differences.push(format!("{what} is not written: {error}")),
                Ok((Ok(bytes), _)) if bytes != *frame => {
                    differences.push(format!("{what}:\n  {frame:x} became\n  {bytes:x}"));
                }
                Ok(_) => {}
            }
        }
    }
    assert_none(&differences);
}

#[test]
fn a_default_message_is_written_as_kafka_writes_a_new_object_or_refused_where_kafka_refuses() {
    let fixture = Fixture::load();
    let mut differences = Vec::new();
    for codec in Codec::all() {
        for (version, golden) in &fixture.messages[codec.name].defaults {
            let ours = (codec.default)(*version);
            if ours.as_ref().ok() != golden.as_ref() {
                let name = codec.name;
                differences.push(format!("{name} v{version}: {ours:?} where Kafka has {golden:?}"));
            }
        }
    }
    assert_none(&differences);
}

/// What a version has no place for is left out or refused: the same by us and by Kafka.
#[test]
fn a_message_read_in_one_version_is_written_in_any_other_as_kafka_writes_it() {
    let fixture = Fixture::load();
    let mut differences = Vec::new();
    for codec in Codec::all() {
        let golden = &fixture.messages[codec.name];
        for &(from, to, sum) in &golden.rewrites {
            let what = format!("{} v{from} as v{to}", codec.name);
            let frame = golden.full_frame(from).clone();
            let (ours, _) = (codec.rewrite)(frame, from, to).expect("the frame test is green");
            if ours.as_ref().ok().map(|bytes| crc_of(bytes)) != sum {
                let kafka = if sum.is_some() { "writes it otherwise" } else { "refuses" };
                differences.push(format!("{what}: Kafka {kafka}, we say {ours:x?}"));
            }
        }
    }
    assert_none(&differences);
}

/// The bytes that `GoldenMessages.TEXT_BYTES` lists: the ends of every range of UTF-8's table.
const TEXT_BYTES: [u8; 27] = [
    0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec,
    0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xfe, 0xff,
];

fn as_string(text: &[u8]) -> Bytes {
    use klamm_protocol::decode::Decoder;
    let length = i16::try_from(text.len()).unwrap();
    let frame = [&length.to_be_bytes(), text].concat();
    Decoder::new(frame.into()).string(false).unwrap().into_bytes()
}

#[test]
fn bytes_that_are_not_utf_8_are_replaced_as_java_replaces_them() {
    let fixture = Fixture::load();
    assert!(fixture.texts.len() > 10);
    for (from, to) in &fixture.texts {
        assert_eq!(as_string(from), *to, "{from:x}");
    }
}

#[test]
fn all_strings_of_utf_8s_corner_bytes_are_read_as_java_reads_them() {
    let fixture = Fixture::load();
    assert_eq!(fixture.all_texts.len(), 4);
    for &(length, sum) in &fixture.all_texts {
        let mut crc = flate2::Crc::new();
        for number in 0..TEXT_BYTES.len().pow(u32::try_from(length).unwrap()) {
            let digits = (0..length).rev();
            let text: Vec<u8> = digits
                .map(|digit| {
                    let place = TEXT_BYTES.len().pow(u32::try_from(digit).unwrap());
                    TEXT_BYTES[number / place % TEXT_BYTES.len()]
                })
                .collect();
            crc.update(&as_string(&text));
        }
        assert_eq!(crc.sum(), sum, "strings of {length} bytes");
    }
}
