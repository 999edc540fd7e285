//! Record batches against those that Apache Kafka 4.3.1's own classes built (`data/JavaBatches.java`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use klamm_protocol::Uuid;
use klamm_protocol::batch::{HEADER_LEN, MAGIC, RecordBatch, TimestampType};
use klamm_protocol::batch_builder::{BatchBuilder, empty_batch};
use klamm_protocol::compression::Compression;
use klamm_protocol::compression::Workspace;
use klamm_protocol::control_record::{
    ControlRecord, EndTransaction, end_transaction_batch, quorum_batch,
};
use klamm_protocol::messages::k_raft_version_record::KRaftVersionRecord;
use klamm_protocol::messages::leader_change_message::{self, LeaderChangeMessage};
use klamm_protocol::messages::snapshot_footer_record::SnapshotFooterRecord;
use klamm_protocol::messages::snapshot_header_record::SnapshotHeaderRecord;
use klamm_protocol::messages::voters_record::{Endpoint, KRaftVersionFeature, Voter, VotersRecord};
use klamm_protocol::produce_validation::{AppendOrigin, Rules, validate};
use klamm_protocol::record::{Record, RecordHeader};

const T: i64 = 1_700_000_000_000;
const BASE: i64 = 100;
const LIMIT: usize = 1 << 20;
const CODECS: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn java(name: &str) -> RecordBatch {
    let hex = include_str!("data/java_batches.txt")
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no batch {name}"));
    let bytes: Vec<u8> = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let bytes = Bytes::from(bytes);
    let batch = RecordBatch::parse(&bytes).unwrap();
    assert_eq!(batch.bytes.len(), bytes.len());
    batch.check_crc().unwrap();
    batch
}

fn bytes(text: impl Into<String>) -> Bytes {
    text.into().into()
}

fn header(key: &str, value: Option<&'static [u8]>) -> RecordHeader {
    RecordHeader { key: bytes(key), value: value.map(Bytes::from_static) }
}

fn record(offset: i64, timestamp: i64, key: Option<Bytes>, value: Option<Bytes>) -> Record {
    Record { offset, timestamp, key, value, headers: vec![] }
}

fn small() -> Vec<Record> {
    let mut first = record(BASE, T, Some(bytes("key")), Some(bytes("value")));
    first.headers = vec![
        header("h", Some(b"1")),
        header("h", None),
        header("", Some(b"")),
        header("schlüssel", Some(&[0, 0xff])),
    ];
    vec![
        first,
        record(BASE + 1, T - 70_000, None, Some(bytes("no key"))),
        record(BASE + 2, T + 5_000_000, Some(bytes("tombstone")), None),
        record(BASE + 3, T, Some(bytes("")), Some(bytes(""))),
        record(BASE + 4, T + 1, Some(bytes("x".repeat(300))), Some(bytes("y".repeat(700)))),
    ]
}

fn large() -> Vec<Record> {
    (0..3_000)
        .map(|i| {
            let value = format!("value {i} ").repeat(10);
            record(BASE + i, T + i, Some(bytes(format!("key{i}"))), Some(bytes(value)))
        })
        .collect()
}

fn records_of(batch: &RecordBatch) -> Vec<Record> {
    batch.records(LIMIT).unwrap().map(Result::unwrap).collect()
}

fn build(mut builder: BatchBuilder, records: &[Record]) -> RecordBatch {
    for record in records {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder.append(record.timestamp, key, value, &record.headers).unwrap();
    }
    builder.build().unwrap()
}

#[test]
fn javas_batches_hold_the_records_that_were_put_into_them() {
    assert_eq!(records_of(&java("small-none")), small());
    for codec in CODECS {
        let batch = java(&format!("small-{codec}"));
        assert_eq!(batch.header.compression(), Ok(codec));
        assert_eq!(records_of(&batch), small(), "{codec}");
        assert_eq!(records_of(&java(&format!("large-{codec}"))), large(), "{codec}");
    }
}

#[test]
fn javas_headers_say_what_was_asked_for() {
    let header = java("transactional").header;
    assert_eq!((header.magic, header.base_offset, header.last_offset()), (MAGIC, BASE, BASE + 4));
    assert_eq!((header.producer_id, header.producer_epoch), (4_711, 3));
    assert_eq!((header.base_sequence, header.last_sequence()), (2_147_483_645, 1));
    assert_eq!((header.partition_leader_epoch, header.record_count), (9, 5));
    assert_eq!((header.base_timestamp, header.max_timestamp), (T, T + 5_000_000));
    assert!(header.is_transactional() && !header.is_control());
    let stamped = java("log-append-time");
    assert_eq!(stamped.header.timestamp_type(), TimestampType::LogAppendTime);
    assert!(records_of(&stamped).iter().all(|record| record.timestamp == T + 77));
    let horizon = java("delete-horizon");
    assert_eq!(horizon.header.delete_horizon_ms(), Some(T + 99));
    assert_eq!(records_of(&horizon), small());
    assert_eq!(records_of(&java("empty")), vec![]);
}

#[test]
fn uncompressed_batches_are_built_byte_for_byte_as_java_does() {
    let plain = BatchBuilder::new(BASE);
    assert_eq!(build(plain.clone(), &small()).bytes, java("small-none").bytes);
    let plain = plain.leader_epoch(9);
    let transactional = plain.clone().producer(4_711, 3, 2_147_483_645).transactional();
    let transactional = build(transactional, &small());
    assert_eq!(transactional.bytes, java("transactional").bytes);
    let stamped = build(plain.clone().log_append_time(T + 77), &small());
    assert_eq!(stamped.bytes, java("log-append-time").bytes);
    let horizon = build(plain.delete_horizon(T + 99), &small());
    assert_eq!(horizon.bytes, java("delete-horizon").bytes);
    assert_eq!(empty_batch(&transactional.header).bytes, java("empty").bytes);
}

#[test]
fn transaction_markers_are_built_byte_for_byte_as_java_does() {
    for (name, committed) in [("end-abort", false), ("end-commit", true)] {
        let end = EndTransaction { committed, coordinator_epoch: 12 };
        let batch = end_transaction_batch(4_711, 3, end, T).unwrap();
        assert_eq!(batch.bytes, java(name).bytes, "{name}");
        let record = records_of(&java(name)).remove(0);
        assert_eq!(ControlRecord::read(&record), Ok(Some(ControlRecord::EndTransaction(end))));
    }
}

fn quorum_records() -> [(&'static str, ControlRecord); 5] {
    let voter = |voter_id| leader_change_message::Voter { voter_id, ..Default::default() };
    let change = LeaderChangeMessage {
        leader_id: 3,
        voters: vec![voter(1), voter(3)],
        granting_voters: vec![voter(3)],
        ..Default::default()
    };
    let snapshot =
        SnapshotHeaderRecord { last_contained_log_timestamp: T - 1, ..Default::default() };
    let version = KRaftVersionRecord { k_raft_version: 1, ..Default::default() };
    let endpoint = Endpoint { name: "CONTROLLER".into(), host: "localhost".into(), port: 9_093 };
    let voters = vec![Voter {
        voter_id: 1,
        voter_directory_id: Uuid::from_bytes([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]),
        endpoints: vec![endpoint],
        k_raft_version_feature: KRaftVersionFeature {
            min_supported_version: 0,
            max_supported_version: 1,
        },
    }];
    [
        ("leader-change", ControlRecord::LeaderChange(change)),
        ("snapshot-header", ControlRecord::SnapshotHeader(snapshot)),
        ("snapshot-footer", ControlRecord::SnapshotFooter(SnapshotFooterRecord::default())),
        ("kraft-version", ControlRecord::KRaftVersion(version)),
        ("kraft-voters", ControlRecord::KRaftVoters(VotersRecord { version: 0, voters })),
    ]
}

#[test]
fn the_quorums_records_are_built_byte_for_byte_as_java_does() {
    for (name, record) in quorum_records() {
        let batch = quorum_batch(BASE, 9, T, std::slice::from_ref(&record)).unwrap();
        assert_eq!(batch.bytes, java(name).bytes, "{name}");
        let read = ControlRecord::read(&records_of(&java(name)).remove(0));
        assert_eq!(read, Ok(Some(record)), "{name}");
    }
}

#[test]
fn compressed_batches_begin_with_the_frame_header_that_java_writes() {
    let header_lens = [10, 16, 7, 4];
    for (codec, len) in CODECS.into_iter().zip(header_lens) {
        let ours = build(BatchBuilder::new(BASE).compression(codec), &large());
        let javas = java(&format!("large-{codec}"));
        let frame = HEADER_LEN..HEADER_LEN + len;
        assert_eq!(ours.bytes[frame.clone()], javas.bytes[frame], "{codec}");
        assert_eq!(records_of(&ours), large());
    }
}

#[test]
fn what_a_java_producer_sends_is_accepted_walked_or_not() {
    for validate_compressed in [false, true] {
        let rules = Rules {
            topic: "t",
            partition: 0,
            max_message_size: LIMIT,
            compacted: false,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            now_ms: T + 5_000_000,
            target: None,
            origin: AppendOrigin::Client { version: 13 },
            validate_compressed,
            max_decompressed_size: LIMIT,
        };
        for codec in CODECS {
            for size in ["small", "large"] {
                let batch = java(&format!("{size}-{codec}"));
                let sent = batch.header.placed_at(0, -1);
                let records = [&sent.write_to()[..], &batch.body()].concat();
                let validated =
                    validate(records.into(), &rules, &mut Workspace::default()).unwrap();
                assert_eq!((validated.header, validated.body), (sent, batch.body()), "{codec}");
            }
        }
    }
}
