//! Record batches from hostile clients: no panic, and no disproportionate allocation.
//!
//! All bytes that a test allocates are counted, freed or not, so each bound is also a bound of the peak. Allocations of
//! zstd's C code are not counted; its window is limited in the code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use klamm_protocol::batch::{
    BatchError, BatchHeader, Batches, HEADER_LEN, RecordBatch, TimestampType,
};
use klamm_protocol::batch_builder::BatchBuilder;
use klamm_protocol::compression::{
    Codec, Compression, DecompressError, Workspace, check_frame, compress, decompress,
};
use klamm_protocol::crc::crc32c;
use klamm_protocol::produce_validation::{self, AppendOrigin, InvalidRecords, Rules, Validated};
use klamm_protocol::record::{RecordData, RecordError};
use klamm_protocol::varint::write_varint;
use proptest::prelude::*;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const CODECS: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// Runs `work` and returns its result and the number of bytes that this thread allocated.
fn counted<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let mut result = None;
    let allocated = allocation_counter::measure(|| result = Some(work()));
    (result.unwrap(), usize::try_from(allocated.bytes_total).unwrap())
}

fn rules() -> Rules<'static> {
    Rules {
        topic: "t",
        partition: 0,
        max_message_size: 2 * MIB,
        compacted: false,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        now_ms: 1_000,
        target: None,
        origin: AppendOrigin::Client { version: 9 },
        validate_compressed: true,
        max_decompressed_size: 64 * MIB,
    }
}

fn validate(records: Bytes, rules: &Rules<'_>) -> Result<Validated, InvalidRecords> {
    produce_validation::validate(records, rules, &mut Workspace::default())
}

/// A batch with a valid checksum that claims `count` records of `body`.
fn sealed(codec: Compression, count: i32, body: &[u8]) -> Bytes {
    let header = BatchHeader {
        batch_length: i32::try_from(HEADER_LEN - 12 + body.len()).unwrap(),
        attributes: i16::from(codec.id()),
        last_offset_delta: count.wrapping_sub(1),
        record_count: count,
        ..BatchBuilder::new(0).build().unwrap().header
    };
    let mut bytes = [&header.write_to()[..], body].concat();
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// Only the start of a record whose value has `value_len` bytes.
fn record_start(value_len: i32) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 1];
    write_varint(&mut body, value_len);
    let mut record = Vec::new();
    write_varint(&mut record, i32::try_from(body.len()).unwrap() + value_len + 1);
    record.extend(body);
    record
}

/// A body that decompresses to `prefix` and 1 GiB of zeros.
fn bomb(codec: Compression, prefix: &[u8]) -> Vec<u8> {
    if codec == Compression::Lz4 {
        let block = compress(codec, &[0; 64 * KIB]);
        let mut body = compress(codec, prefix);
        body.truncate(body.len() - 4);
        body.extend(block[7..block.len() - 4].repeat(16 * KIB));
        body.extend([0; 4]);
        return body;
    }
    // gzip members, zstd frames and snappy frames may follow one another.
    let zeros = compress(codec, &vec![0; 16 * MIB]);
    [compress(codec, prefix), zeros.repeat(64)].concat()
}

#[test]
fn a_batch_that_claims_two_billion_records_allocates_nothing_for_them() {
    for body in [&[][..], &[0; 100]] {
        let bytes = sealed(Compression::None, i32::MAX, body);
        let batch = RecordBatch::parse(&bytes).unwrap();
        let (records, allocated) = counted(|| batch.records(MIB).unwrap().last().unwrap());
        assert!(records.is_err());
        assert!(allocated < KIB, "{allocated}");
        let (answer, allocated) = counted(|| validate(bytes, &rules()));
        assert!(matches!(answer, Err(InvalidRecords::Batch(BatchError::Record(_)))));
        assert!(allocated < KIB, "{allocated}");
    }
}

#[test]
fn a_record_that_claims_a_billion_headers_allocates_nothing_for_them() {
    let mut record = vec![0, 0, 0, 1, 1];
    write_varint(&mut record, 1 << 30);
    let mut body = Vec::new();
    write_varint(&mut body, i32::try_from(record.len()).unwrap());
    body.extend(&record);
    let header_count = RecordError::HeaderCount { count: 1 << 30 };
    for codec in [Compression::None].into_iter().chain(CODECS) {
        let bytes = sealed(codec, 1, &compress(codec, &body));
        let batch = RecordBatch::parse(&bytes).unwrap();
        let (records, allocated) = counted(|| batch.records(MIB).unwrap().last().unwrap());
        assert_eq!(records, Err(header_count.into()));
        assert!(allocated < 512 * KIB, "{codec} {allocated}");
        let (answer, allocated) = counted(|| validate(bytes, &rules()));
        assert_eq!(answer, Err(BatchError::from(header_count).into()));
        assert!(allocated < 512 * KIB, "{codec} {allocated}");
    }
}

#[test]
fn a_bomb_stops_at_the_limit() {
    for codec in CODECS {
        let body = bomb(codec, &[]);
        let limit = 8 * MIB;
        let (result, allocated) = counted(|| decompress(codec, &body, limit));
        assert_eq!(result, Err(DecompressError::OutputTooLarge { limit }), "{codec}");
        assert!(allocated < 3 * limit, "{codec} {allocated}");
    }
}

#[test]
fn a_bomb_is_walked_piece_by_piece_and_refused_at_the_limit() {
    for codec in CODECS {
        let body = bomb(codec, &record_start(1 << 30));
        let bytes = sealed(codec, 1, &body);
        let rules = Rules { max_message_size: bytes.len(), ..rules() };
        let (answer, allocated) = counted(|| validate(bytes, &rules));
        let Err(InvalidRecords::Batch(BatchError::Decompress(error))) = answer else {
            panic!("{codec}: {answer:?}");
        };
        // zstd's ratio can exceed the accepted one.
        let limit = rules.max_decompressed_size.min(body.len() * 1_032);
        assert_eq!(error, DecompressError::OutputTooLarge { limit }, "{codec}");
        assert!(allocated < MIB, "{codec} {allocated}");
    }
}

#[test]
fn a_bomb_for_an_uncompressed_topic_stops_at_max_message_bytes() {
    for codec in CODECS {
        let bytes = sealed(codec, 1, &bomb(codec, &record_start(1 << 30)));
        let target = Some(Codec::from(Compression::None));
        let rules = Rules { max_message_size: bytes.len(), target, ..rules() };
        let allowed = 4 * bytes.len() + MIB;
        let (answer, allocated) = counted(|| validate(bytes, &rules));
        assert!(
            matches!(
                answer,
                Err(InvalidRecords::Batch(BatchError::Decompress(
                    DecompressError::OutputTooLarge { .. }
                )))
            ),
            "{codec}"
        );
        assert!(allocated < allowed, "{codec} {allocated}");
    }
}

#[test]
fn a_snappy_length_that_lies_allocates_nothing_for_it() {
    let lie = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
    let framed = [&compress(Compression::Snappy, b"")[..], &[0, 0, 0, 6], &lie].concat();
    // A size of six times 22 bytes is possible, but the block's contents are invalid.
    let believable = [130, 1, 0, 0, 0, 0];
    for body in [&lie[..], &framed, &believable] {
        let (result, allocated) = counted(|| decompress(Compression::Snappy, body, 1 << 40));
        assert!(result.is_err());
        assert!(allocated < KIB, "{allocated}");
        let bytes = sealed(Compression::Snappy, 1, body);
        let (answer, allocated) = counted(|| validate(bytes, &rules()));
        assert!(answer.is_err());
        assert!(allocated < KIB, "{allocated}");
    }
}

#[test]
fn an_lz4_frame_that_announces_large_blocks_allocates_by_what_it_holds() {
    // Blocks of up to 4 MiB, of which there is one, of one byte.
    let mut body = compress(Compression::Lz4, b"");
    body.truncate(4);
    body.extend([0x60, 0x70, 0x73, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let (result, allocated) = counted(|| decompress(Compression::Lz4, &body, MIB));
    assert_eq!(result, Ok(vec![]));
    assert!(allocated < KIB, "{allocated}");
}

#[test]
fn validating_an_uncompressed_batch_allocates_nothing() {
    let mut builder = BatchBuilder::new(0);
    for timestamp in 0..1_000 {
        builder.append(timestamp, Some(b"key"), Some(b"value"), &[]).unwrap();
    }
    let bytes = builder.build().unwrap().bytes;
    let (answer, allocated) = counted(|| validate(bytes, &rules()));
    assert!(answer.is_ok());
    assert!(allocated < 100, "{allocated}");
}

#[test]
fn validating_a_compressed_batch_where_others_were_validated_before_allocates_nothing() {
    let records = encoded_records(20_000);
    for codec in CODECS {
        let bytes = sealed(codec, 20_000, &compress(codec, &records));
        let mut workspace = Workspace::default();
        for round in 0..3 {
            let records = bytes.clone();
            let (answer, allocated) =
                counted(|| produce_validation::validate(records, &rules(), &mut workspace));
            assert!(answer.is_ok(), "{codec}");
            assert!(round == 0 || allocated < 100, "{codec} {allocated}");
        }
    }
}

#[test]
fn a_small_body_may_decompress_to_sixteen_mebibytes_and_no_further() {
    // The record's header needs a few bytes too.
    for (value_len, fits) in [(16 * MIB - KIB, true), (16 * MIB, false)] {
        let value = vec![0; value_len];
        let mut record = Vec::new();
        let data = RecordData { key: None, value: Some(&value), headers: &[] };
        data.write(&mut record, 0, 0).unwrap();
        let bytes = sealed(Compression::Zstd, 1, &compress(Compression::Zstd, &record));
        assert!(bytes.len() < 16 * KIB, "{}", bytes.len());
        assert_eq!(validate(bytes, &rules()).is_ok(), fits, "{value_len}");
    }
}

fn any_codec() -> impl Strategy<Value = Compression> {
    prop::sample::select(CODECS.to_vec())
}

/// Bytes with some positions changed: similar enough to a valid input to pass the first checks.
fn mutated(bytes: &[u8], changes: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (position, value) in changes {
        if !bytes.is_empty() {
            let position = position.index(bytes.len());
            bytes[position] = *value;
        }
    }
    bytes
}

fn some_changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..4)
}

fn encoded_records(count: i32) -> Vec<u8> {
    let mut records = Vec::new();
    for offset_delta in 0..count {
        let value = [b'v'; 40];
        let data = RecordData { key: Some(b"key"), value: Some(&value), headers: &[] };
        data.write(&mut records, offset_delta, 0).unwrap();
    }
    records
}

fn read_everything(bytes: Bytes) {
    for batch in Batches::new(bytes).flatten() {
        batch.check_crc().ok();
        if let Ok(records) = batch.records(MIB) {
            assert!(records.count() <= batch.bytes.len() + MIB);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_bytes_make_reading_or_validating_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        read_everything(bytes.clone().into());
        prop_assert!(validate(bytes.into(), &rules()).is_err());
    }

    #[test]
    fn no_damage_to_a_good_batch_makes_reading_or_validating_panic(
        codec in any_codec(),
        changes in some_changes(),
        compressed in any::<bool>(),
    ) {
        let codec = if compressed { codec } else { Compression::None };
        let good = sealed(codec, 5, &compress(codec, &encoded_records(5)));
        let damaged: Bytes = mutated(&good, &changes).into();
        read_everything(damaged.clone());
        let accepted = validate(damaged.clone(), &rules()).is_ok();
        // Only a change of the leader epoch (bytes 12 to 15) stays undetected: the checksum does not cover it.
        prop_assert!(!accepted || damaged[16..] == good[16..] && damaged[..12] == good[..12]);
    }

    #[test]
    fn damaged_bodies_behind_a_good_checksum_are_read_within_bounds(
        codec in any_codec(),
        changes in some_changes(),
        count in any::<i32>(),
    ) {
        let body = mutated(&compress(codec, &encoded_records(5)), &changes);
        for count in [5, count] {
            let bytes = sealed(codec, count, &body);
            read_everything(bytes.clone());
            let (_, allocated) = counted(|| validate(bytes.clone(), &rules()));
            prop_assert!(allocated < 512 * KIB + 64 * body.len(), "{allocated}");
            let target = Some(Codec::from(Compression::None));
            validate(bytes, &Rules { target, ..rules() }).ok();
        }
    }

    #[test]
    fn the_frame_check_refuses_nothing_that_decompresses_and_bounds_it(
        codec in any_codec(),
        data in prop::collection::vec(any::<u8>(), 0..200),
        repeat in 1usize..400,
        changes in some_changes(),
    ) {
        let body = mutated(&compress(codec, &data.repeat(repeat)), &changes);
        if let Ok(output) = decompress(codec, &body, MIB) {
            let bound = check_frame(codec, &body).unwrap();
            prop_assert!(bound >= output.len() as u64, "{bound} < {}", output.len());
        }
    }

    #[test]
    fn records_are_judged_alike_compressed_and_uncompressed(
        codec in any_codec(),
        changes in some_changes(),
        count in 1i32..8,
    ) {
        let records = mutated(&encoded_records(5), &changes);
        let plain = validate(sealed(Compression::None, count, &records), &rules());
        let walked = validate(sealed(codec, count, &compress(codec, &records)), &rules());
        match (plain, walked) {
            // As in Kafka: only uncompressed records may have other offsets.
            (Ok(plain), Err(InvalidRecords::OffsetsNotConsecutive)) => prop_assert!(plain.rebuilt),
            (Ok(plain), Ok(walked)) => {
                prop_assert_eq!(plain.header.max_timestamp, walked.header.max_timestamp);
                prop_assert_eq!(plain.rebuilt, walked.rebuilt);
            }
            (Err(plain), Err(walked)) => prop_assert_eq!(plain.code(), walked.code()),
            (plain, walked) => prop_assert!(false, "{plain:?} but {walked:?}"),
        }
    }
}
