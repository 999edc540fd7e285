//! Invalid compressed batches, in every codec, and Kafka 4.3.1's error codes for them. The conformance scenarios
//! `compressed` send the same batches to Kafka.

use super::*;
use crate::batch_builder::finish;
use crate::compression::compress;
use crate::error_code::ErrorCode;
use crate::record::{RecordData, RecordHeader};
use crate::varint::{write_varint, write_varlong};

const NOW: i64 = 1_700_000_000_000;
const CODECS: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
/// The result of a batch.
type Answer = Result<(), ErrorCode>;
/// Damage after which no further record can be decoded.
const UNREADABLE: Answer = Err(ErrorCode::UnknownServerError);
const INVALID: Answer = Err(ErrorCode::InvalidRecord);

fn rules() -> Rules<'static> {
    Rules {
        topic: "t",
        partition: 0,
        max_message_size: 1_048_588,
        compacted: false,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        now_ms: NOW,
        target: None,
        origin: AppendOrigin::Client { version: 9 },
        validate_compressed: true,
        max_decompressed_size: 100 * 1_048_588,
    }
}

/// The fields of a record, any of which may be wrong.
#[derive(Debug, Clone, Copy)]
struct Fields {
    size_off_by: i32,
    timestamp_delta: i64,
    offset_delta: i32,
    key_size: i32,
    value_size: i32,
    headers: &'static [u8],
}

/// A record with a key of one byte and a value of three.
const GOOD: Fields = Fields {
    size_off_by: 0,
    timestamp_delta: 0,
    offset_delta: 0,
    key_size: 1,
    value_size: 3,
    headers: &[0],
};
const SECOND: Fields = Fields { offset_delta: 1, ..GOOD };

impl Fields {
    fn write(&self, out: &mut Vec<u8>) {
        let mut body = vec![0];
        write_varlong(&mut body, self.timestamp_delta);
        write_varint(&mut body, self.offset_delta);
        write_varint(&mut body, self.key_size);
        body.extend(if self.key_size < 0 { &[][..] } else { b"k" });
        write_varint(&mut body, self.value_size);
        body.extend(if self.value_size < 0 { &[][..] } else { b"val" });
        body.extend(self.headers);
        write_varint(out, i32::try_from(body.len()).unwrap() + self.size_off_by);
        out.extend(body);
    }
}

fn records(fields: &[Fields]) -> Vec<u8> {
    let mut out = Vec::new();
    fields.iter().for_each(|record| record.write(&mut out));
    out
}

/// A batch whose header claims `count` records in `body`.
fn batch(codec: Compression, count: i32, body: &[u8]) -> Bytes {
    let header = BatchHeader {
        record_count: count,
        last_offset_delta: count - 1,
        base_timestamp: NOW,
        max_timestamp: NOW,
        ..crate::batch_builder::BatchBuilder::new(0).build().unwrap().header
    };
    finish(header, codec, body).unwrap().bytes
}

fn outcome(bytes: Bytes, rules: &Rules<'_>) -> Answer {
    let validated = validate(bytes, rules, &mut Workspace::default());
    validated.map(|_| ()).map_err(|error| error.code())
}

/// Validates two records, compressed in every codec.
fn of_two(fields: [Fields; 2], rules: &Rules<'_>) -> Vec<Answer> {
    let body = records(&fields);
    CODECS.map(|codec| outcome(batch(codec, 2, &compress(codec, &body)), rules)).to_vec()
}

#[test]
fn what_a_record_must_not_say_of_itself() {
    let cases = [
        ("nothing wrong", SECOND, Ok(())),
        ("a value beyond the end", Fields { value_size: 40, ..SECOND }, INVALID),
        ("a key beyond the end", Fields { key_size: 1_000_000, ..SECOND }, INVALID),
        ("a size beyond the end", Fields { size_off_by: 1, ..SECOND }, INVALID),
        ("a size below its fields", Fields { size_off_by: -2, ..SECOND }, INVALID),
        ("a negative size", Fields { size_off_by: -60, ..SECOND }, INVALID),
        ("no key", Fields { key_size: -1, ..SECOND }, Ok(())),
        ("a key of less than no bytes", Fields { key_size: -7, ..SECOND }, Ok(())),
        ("a value of less than no bytes", Fields { value_size: i32::MIN, ..SECOND }, Ok(())),
        ("fewer headers than none", Fields { headers: &[1], ..SECOND }, INVALID),
        ("more headers than bytes", Fields { headers: &[0x80, 1], ..SECOND }, INVALID),
        ("a header without a key", Fields { headers: &[2, 1, 0], ..SECOND }, INVALID),
        ("a header beyond the end", Fields { headers: &[2, 2, b'h', 20], ..SECOND }, INVALID),
        ("a header without a value", Fields { headers: &[2, 2, b'h', 1], ..SECOND }, Ok(())),
        ("a varint without an end", Fields { headers: &[0xff; 12], ..SECOND }, INVALID),
        ("an offset twice", Fields { offset_delta: 0, ..SECOND }, UNREADABLE),
        ("a gap in the offsets", Fields { offset_delta: 2, ..SECOND }, UNREADABLE),
        ("an offset below the first", Fields { offset_delta: -1, ..SECOND }, UNREADABLE),
        (
            "a timestamp too far ahead",
            Fields { timestamp_delta: 3_600_001, ..SECOND },
            Err(ErrorCode::InvalidTimestamp),
        ),
    ];
    for (what, fields, expected) in cases {
        assert_eq!(of_two([GOOD, fields], &rules()), [expected; 4], "{what}");
    }
}

#[test]
fn the_header_must_count_the_records_that_are_there() {
    let body = records(&[GOOD, SECOND]);
    for codec in CODECS {
        let compressed = compress(codec, &body);
        let counted = |count| outcome(batch(codec, count, &compressed), &rules());
        assert_eq!(counted(2), Ok(()), "{codec}");
        for count in [1, 3, 4, 1_000_000, i32::MAX] {
            assert_eq!(counted(count), INVALID, "{codec} {count}");
        }
        let nothing = outcome(batch(codec, 1, &compress(codec, b"")), &rules());
        assert_eq!(nothing, INVALID, "{codec}");
        for tail in [&[0][..], &[12], &records(&[SECOND])] {
            let longer = compress(codec, &[&body[..], tail].concat());
            assert_eq!(outcome(batch(codec, 2, &longer), &rules()), INVALID, "{codec}");
        }
    }
}

#[test]
fn a_compacted_topic_takes_no_record_without_a_key() {
    let rules = Rules { compacted: true, ..rules() };
    assert_eq!(of_two([GOOD, SECOND], &rules), [Ok(()); 4]);
    let keyless = Fields { key_size: -1, ..SECOND };
    assert_eq!(of_two([GOOD, keyless], &rules), [INVALID; 4]);
}

#[test]
fn a_body_that_is_cut_anywhere_is_refused() {
    let value: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    let mut body = Vec::new();
    RecordData { value: Some(&value), ..RecordData::default() }.write(&mut body, 0, 0).unwrap();
    for codec in CODECS {
        let whole = compress(codec, &body);
        assert_eq!(outcome(batch(codec, 1, &whole), &rules()), Ok(()), "{codec}");
        for cut in [1, 2, 4, 8, 20, whole.len() / 2, whole.len() - 20, whole.len() - 1] {
            let part = batch(codec, 1, &whole[..whole.len() - cut]);
            assert_eq!(outcome(part, &rules()), UNREADABLE, "{codec} {cut}");
        }
    }
    // For Kafka's zstd reader an empty body is the end of the data, for the others an error.
    let empty = CODECS.map(|codec| outcome(batch(codec, 1, b""), &rules()));
    assert_eq!(empty, [UNREADABLE, UNREADABLE, UNREADABLE, INVALID]);
}

#[test]
fn what_follows_the_compressed_data_matters_to_some_codecs() {
    let body = records(&[GOOD, SECOND]);
    let cases: [(&[u8], [Answer; 4]); 4] = [
        (&[0], [Ok(()), Ok(()), Ok(()), UNREADABLE]),
        (&[0; 3], [Ok(()), Ok(()), Ok(()), UNREADABLE]),
        (&[1, 2, 3, 4], [Ok(()), UNREADABLE, Ok(()), UNREADABLE]),
        (&[0; 8], [Ok(()), UNREADABLE, Ok(()), UNREADABLE]),
    ];
    for (tail, expected) in cases {
        let answers = CODECS.map(|codec| {
            let compressed = [&compress(codec, &body)[..], tail].concat();
            outcome(batch(codec, 2, &compressed), &rules())
        });
        assert_eq!(answers, expected, "{tail:?}");
    }
}

#[test]
fn records_of_any_size_are_read_across_the_pieces_of_the_output() {
    let sizes = [0, 1, 30_000, 64 * 1024, 3, 65_500, 65_536, 65_537, 700_000, 5, 131_072];
    let mut body = Vec::new();
    for (offset_delta, size) in (0..).zip(sizes) {
        let value: Vec<u8> =
            (0..size).map(|at: usize| (at.wrapping_mul(at) >> 3).to_le_bytes()[0]).collect();
        let headers = vec![RecordHeader { key: "h".into(), value: None }; size % 7];
        let data = RecordData { key: Some(b"key"), value: Some(&value), headers: &headers };
        data.write(&mut body, offset_delta, 1).unwrap();
    }
    let count = i32::try_from(sizes.len()).unwrap();
    let large = Rules { max_message_size: 1 << 22, ..rules() };
    let mut workspace = Workspace::default();
    for codec in CODECS.into_iter().chain(CODECS) {
        let bytes = batch(codec, count, &compress(codec, &body));
        let validated = validate(bytes, &large, &mut workspace).unwrap();
        assert_eq!(validated.header.max_timestamp, NOW + 1, "{codec}");
    }
}

#[test]
fn a_workspace_serves_on_after_every_kind_of_failure() {
    let good = records(&[GOOD, SECOND]);
    let mut workspace = Workspace::default();
    for codec in CODECS {
        let whole = compress(codec, &good);
        let cut = &whole[..whole.len() - 5];
        let bomb = compress(codec, &vec![0; 1 << 20]);
        for body in [cut, &[1, 2, 3, 4, 5], &bomb] {
            let tight = Rules { max_decompressed_size: 100_000, ..rules() };
            assert!(validate(batch(codec, 2, body), &tight, &mut workspace).is_err());
            for other in CODECS {
                let bytes = batch(other, 2, &compress(other, &good));
                assert!(validate(bytes, &rules(), &mut workspace).is_ok(), "{codec} {other}");
            }
        }
    }
}
