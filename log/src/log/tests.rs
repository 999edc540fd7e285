//! Tests of the log as a whole, over a disk in memory.

use super::*;
use crate::disk::MemoryDisk;
use crate::error::{AppendError, ReadError};
use crate::log_reader::{FetchSpec, FetchedRecords};
use crate::producer_state::AppendOrigin;
use bytes::Bytes;
use klamm_protocol::batch::{Batches, RecordBatch};
use klamm_protocol::batch_builder::BatchBuilder;
use klamm_protocol::control_record::EndTransaction;
use klamm_protocol::ids::ProducerId;
use klamm_protocol::time::Now;

mod flushing;
mod reading;
mod restart;
mod retention;
mod rolling;
mod transactions;
mod truncation;

pub(super) const DIR: &str = "/data/topic-0";

pub(super) fn storage(disk: &MemoryDisk) -> LogStorage {
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    LogStorage {
        disk: Arc::new(disk.clone()),
        files: OpenFiles::new(100),
        health: Arc::new(LogDirHealth::new(Path::new("/data"))),
    }
}

pub(super) fn options(config: LogConfig) -> LogOptions {
    LogOptions {
        config,
        recovery_point: 0,
        log_start: 0,
        clean_shutdown: false,
        topic_id: None,
        now_ms: 0,
    }
}

pub(super) fn open(disk: &MemoryDisk, config: LogConfig) -> Log {
    Log::open(&storage(disk), Path::new(DIR), options(config)).unwrap()
}

pub(super) fn small_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 1000,
        index_interval_bytes: 100,
        transaction_verification: false,
        ..LogConfig::default()
    }
}

/// A batch of `count` records of about ten bytes, stamped `timestamp`.
pub(super) fn batch(count: u32, timestamp: i64) -> RecordBatch {
    filled(BatchBuilder::new(0), count, timestamp)
}

fn filled(mut builder: BatchBuilder, count: u32, timestamp: i64) -> RecordBatch {
    for n in 0..count {
        let value = format!("value {n}");
        builder.append(timestamp, None, Some(value.as_bytes()), &[]).unwrap();
    }
    builder.build().unwrap()
}

pub(super) fn produced(id: ProducerId, epoch: i16, sequence: i32, count: u32) -> RecordBatch {
    filled(BatchBuilder::new(0).producer(id, epoch, sequence), count, 1000)
}

pub(super) fn in_transaction(id: ProducerId, epoch: i16, sequence: i32) -> RecordBatch {
    filled(BatchBuilder::new(0).producer(id, epoch, sequence).transactional(), 2, 1000)
}

pub(super) fn marker(id: ProducerId, epoch: i16, committed: bool) -> RecordBatch {
    let end = EndTransaction { committed, coordinator_epoch: 0 };
    klamm_protocol::control_record::end_transaction_batch(id, epoch, end, 1000).unwrap()
}

pub(super) fn by(origin: AppendOrigin, leader_epoch: LeaderEpoch) -> LeaderAppend {
    LeaderAppend { leader_epoch, origin, guard: None, transaction_version: 0 }
}

pub(super) fn try_append(log: &mut Log, batch: RecordBatch) -> Result<AppendInfo, AppendError> {
    log.append_as_leader(&[batch.into()], by(AppendOrigin::Client, 0), 0)
}

pub(super) fn append(log: &mut Log, batch: RecordBatch) -> AppendInfo {
    try_append(log, batch).unwrap()
}

pub(super) fn append_marker(log: &mut Log, batch: RecordBatch) -> AppendInfo {
    log.append_as_leader(&[batch.into()], by(AppendOrigin::Coordinator, 0), 0).unwrap()
}

pub(super) fn fetch(log: &Log, offset: Offset, max_bytes: u64) -> FetchedRecords {
    let upper_bound = log.log_end();
    let spec = FetchSpec { offset, max_bytes, min_one_message: true, upper_bound };
    log.view().read(spec).unwrap()
}

pub(super) fn bytes_of(fetched: &FetchedRecords) -> Bytes {
    fetched.records.as_ref().map_or_else(Bytes::new, |records| records.read().unwrap())
}

/// The first and last offsets of every batch from `offset` on.
pub(super) fn offsets(log: &Log, offset: Offset) -> Vec<(Offset, Offset)> {
    let mut found = Vec::new();
    let mut next = offset;
    loop {
        let records = bytes_of(&fetch(log, next, u64::MAX));
        if records.is_empty() {
            return found;
        }
        for batch in Batches::new(records) {
            let batch = batch.unwrap();
            batch.check_crc().unwrap();
            next = batch.header.next_offset();
            found.push((batch.header.base_offset, batch.header.last_offset()));
        }
    }
}

pub(super) fn file_names(disk: &MemoryDisk) -> Vec<String> {
    let entries = disk.list(Path::new(DIR)).unwrap();
    entries.into_iter().map(|entry| entry.name).collect()
}

#[test]
fn records_get_consecutive_offsets_and_come_back() {
    let mut log = open(&MemoryDisk::default(), LogConfig::default());
    let first = append(&mut log, batch(3, 10));
    let second = append(&mut log, batch(2, 20));
    assert_eq!((first.first_offset, first.last_offset), (0, 2));
    assert_eq!((second.first_offset, second.last_offset), (3, 4));
    assert_eq!(log.log_end(), 5);
    assert_eq!(offsets(&log, 0), [(0, 2), (3, 4)]);
    assert_eq!(offsets(&log, 4), [(3, 4)], "the batch that holds the offset");
}

#[test]
fn a_follower_keeps_the_leaders_bytes() {
    let mut leader = open(&MemoryDisk::default(), LogConfig::default());
    let mut follower = open(&MemoryDisk::default(), LogConfig::default());
    leader.append_as_leader(&[batch(3, 10).into()], by(AppendOrigin::Client, 5), 0).unwrap();
    leader.append_as_leader(&[batch(4, 10).into()], by(AppendOrigin::Client, 6), 0).unwrap();
    let records = bytes_of(&fetch(&leader, 0, u64::MAX));
    follower.append_as_follower(records.clone(), 6, 0).unwrap();
    assert_eq!(bytes_of(&fetch(&follower, 0, u64::MAX)), records);
    assert_eq!(follower.leader_epochs(), leader.leader_epochs());
    assert_eq!(follower.log_end(), 7);
    let error = follower.append_as_follower(records, 6, 0).unwrap_err();
    assert!(matches!(error, AppendError::UnexpectedOffset { found: 0, expected: 7 }), "{error}");
}

#[test]
fn a_follower_takes_whole_good_batches_of_known_epochs_only() {
    let mut leader = open(&MemoryDisk::default(), LogConfig::default());
    for epoch in [5, 5, 6] {
        leader.append_as_leader(&[batch(2, 1).into()], by(AppendOrigin::Client, epoch), 0).unwrap();
    }
    let records = bytes_of(&fetch(&leader, 0, u64::MAX));
    let mut follower = open(&MemoryDisk::default(), LogConfig::default());
    follower.append_as_follower(records.slice(..records.len() - 1), 6, 0).unwrap();
    assert_eq!(follower.log_end(), 4, "the batch that was cut short is left out");
    let mut behind = open(&MemoryDisk::default(), LogConfig::default());
    behind.append_as_follower(records.clone(), 5, 0).unwrap();
    assert_eq!(behind.log_end(), 4, "epoch 6 is not known to this replica");
    let mut damaged = records.to_vec();
    damaged[70] ^= 1;
    let mut strict = open(&MemoryDisk::default(), LogConfig::default());
    let error = strict.append_as_follower(damaged.into(), 6, 0).unwrap_err();
    assert!(matches!(error, AppendError::CorruptBatch { position: 0 }), "{error}");
    assert_eq!(strict.log_end(), 0);
}

#[test]
fn an_empty_follower_may_begin_inside_a_batch() {
    let mut leader = open(&MemoryDisk::default(), LogConfig::default());
    append(&mut leader, batch(10, 1));
    let records = bytes_of(&fetch(&leader, 0, u64::MAX));
    let mut follower = open(&MemoryDisk::default(), LogConfig::default());
    follower.truncate_fully_and_start_at(4, 0).unwrap();
    follower.append_as_follower(records, 0, 0).unwrap();
    assert_eq!((follower.log_start(), follower.log_end()), (0, 10));
}

#[test]
fn the_raft_leader_assigns_offsets_itself() {
    let mut log = open(&MemoryDisk::default(), LogConfig::default());
    let build = |base| {
        let mut builder = BatchBuilder::new(base).leader_epoch(3);
        builder.append(1, None, Some(b"x"), &[]).unwrap();
        builder.build().unwrap()
    };
    let how = by(AppendOrigin::RaftLeader, 3);
    log.append_as_leader(&[build(0).into()], how, 0).unwrap();
    let error = log.append_as_leader(&[build(5).into()], how, 0).unwrap_err();
    assert!(matches!(error, AppendError::UnexpectedOffset { found: 5, expected: 1 }), "{error}");
    let other_epoch = by(AppendOrigin::RaftLeader, 4);
    let error = log.append_as_leader(&[build(1).into()], other_epoch, 0).unwrap_err();
    assert!(matches!(error, AppendError::WrongLeaderEpoch { .. }), "{error}");
}

#[test]
fn the_directory_belongs_to_one_topic_id() {
    let disk = MemoryDisk::default();
    let id = Uuid::from_bytes([7; 16]);
    let with_id = |topic_id| LogOptions { topic_id, ..options(LogConfig::default()) };
    let log = Log::open(&storage(&disk), Path::new(DIR), with_id(Some(id))).unwrap();
    assert_eq!(log.topic_id(), Some(id));
    let log = Log::open(&storage(&disk), Path::new(DIR), with_id(None)).unwrap();
    assert_eq!(log.topic_id(), Some(id));
    let other = Some(Uuid::from_bytes([8; 16]));
    let error = Log::open(&storage(&disk), Path::new(DIR), with_id(other)).unwrap_err();
    assert!(matches!(error, LogError::InconsistentTopicId { .. }), "{error}");
}

#[test]
fn reads_outside_the_log_are_out_of_range() {
    let mut log = open(&MemoryDisk::default(), LogConfig::default());
    append(&mut log, batch(3, 10));
    let read = |offset| {
        let spec = FetchSpec { offset, max_bytes: 1, min_one_message: true, upper_bound: 3 };
        log.view().read(spec)
    };
    assert!(matches!(read(-1), Err(ReadError::OffsetOutOfRange { .. })));
    assert!(matches!(read(4), Err(ReadError::OffsetOutOfRange { .. })));
    assert!(read(3).unwrap().records.is_none());
}
