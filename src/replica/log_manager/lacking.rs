//! Log directories without space or descriptors for a while: logs are opened, flushed and deleted meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use klamm_log::disk::{Disk, Fault, MemoryDisk, Operation};
use klamm_log::error::Severity;
use klamm_log::log::Log;
use klamm_protocol::batch_builder::BatchBuilder;
use klamm_protocol::{ErrorCode, Uuid};
use klamm_replication::partition::Registration;

use super::logs::WantedPartition;
use super::{LogManager, OpenError, full_places, has_room_again};
use crate::config::BrokerConfig;
use crate::controller::metadata_log::{METADATA_LOG_DIR, QUORUM_STATE};
use crate::replica::partition::{
    AppendFailure, AppendOptions, BrokerStatuses, Partition, ReadOptions, Reader,
};
use crate::replica::settings::partition_config;

const TOPIC_ID: Uuid = Uuid::from_bytes([9; 16]);
const LIMIT: Duration = Duration::from_secs(60);
const BOTH: [Fault; 2] = [Fault::NoSpace, Fault::OutOfFileDescriptors];

/// Starts on a directory. One that was in use gets a metadata log.
pub(in crate::replica) fn start(disk: &MemoryDisk) -> LogManager {
    if disk.exists(Path::new("/data/meta.properties")).unwrap() {
        let metadata_log = Path::new("/data").join(METADATA_LOG_DIR);
        disk.create_dir_all(&metadata_log).unwrap();
        disk.write_synced(&metadata_log.join(QUORUM_STATE), b"").unwrap();
    }
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let config = BrokerConfig::from_pairs([("log.dirs", "/data")]).unwrap();
    LogManager::open(&disk, &config).unwrap()
}

/// Partitions of a topic whose segments hold a few records each.
fn wanted(topic_id: Uuid, index: i32) -> WantedPartition {
    let configs = BrokerConfig::from_pairs::<&str, &str>([]).unwrap();
    let mut config = partition_config(&configs, "t", &BTreeMap::new());
    config.log.segment_bytes = 400;
    ("t".into(), topic_id, index, config)
}

fn try_open(store: &LogManager, topic_id: Uuid) -> Result<Arc<Partition>, OpenError> {
    let opened = store.open_all(vec![wanted(topic_id, 0)]);
    opened.into_iter().next().expect("one was wanted")
}

pub(super) fn lead(store: &LogManager) -> Arc<Partition> {
    let partition = try_open(store, TOPIC_ID).unwrap();
    let registration =
        Registration { leader_epoch: 1, partition_epoch: 1, replicas: vec![1], isr: vec![1] };
    partition.lead(&registration, &BrokerStatuses::new());
    partition
}

pub(super) fn append(partition: &Arc<Partition>) -> Result<(), AppendFailure> {
    let mut builder = BatchBuilder::new(0);
    builder.append(1, Some(b"k"), Some(&[7; 50]), &[]).unwrap();
    let records = builder.build().unwrap().bytes;
    partition.append(records, &AppendOptions::coordinator(), 0).map(drop)
}

pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// What the task does that watches for room.
fn look_for_room(store: &LogManager) {
    for place in full_places(store) {
        assert!(has_room_again(store, place, 1), "there is room");
    }
}

pub(super) fn offsets(partition: &Arc<Partition>) -> (i64, i64, i64) {
    let all = |log: &mut Log| (log.recovery_point(), log.high_watermark(), log.log_end());
    partition.with_log(all).unwrap()
}

#[test]
fn what_is_appended_while_there_is_little_room_is_committed_and_what_is_derived_follows() {
    let disk = MemoryDisk::default();
    let store = start(&disk);
    let partition = lead(&store);
    append(&partition).unwrap();
    until("the first flush", || offsets(&partition) == (1, 1, 1));
    // Until the first roll only the records themselves take space.
    while partition.with_log(|log| log.segment_count()).unwrap() < 2 {
        append(&partition).unwrap();
        if partition.with_log(|log| log.segment_count()).unwrap() == 2 {
            disk.lack_from(disk.mutations(), Fault::NoSpace);
        }
    }
    let refused = append(&partition).unwrap_err();
    assert_eq!(refused.code, ErrorCode::KafkaStorageError);
    let end = partition.view().unwrap().log_end();
    until("the high watermark", || offsets(&partition).1 == end);
    assert!(!partition.is_offline() && store.failed_directories().is_empty());
    disk.give_room();
    append(&partition).expect_err("the directory is full until that is looked at");
    look_for_room(&store);
    append(&partition).unwrap();
    until("everything to be flushed", || offsets(&partition) == (end + 1, end + 1, end + 1));
    store.end_flushers();
}

#[test]
fn a_leadership_that_begins_without_room_is_written_down_when_there_is_some() {
    let disk = MemoryDisk::default();
    let store = start(&disk);
    let partition = lead(&store);
    append(&partition).unwrap();
    until("the flush", || offsets(&partition) == (1, 1, 1));
    let in_epoch = |leader_epoch| Registration {
        leader_epoch,
        partition_epoch: leader_epoch,
        replicas: vec![1],
        isr: vec![1],
    };
    assert!(partition.follow(Some(2), &in_epoch(2)));
    disk.lack_from(disk.mutations(), Fault::NoSpace);
    partition.lead(&in_epoch(3), &BrokerStatuses::new());
    append(&partition).unwrap_err();
    assert!(!partition.is_offline());
    disk.give_room();
    look_for_room(&store);
    append(&partition).unwrap();
    until("the flush", || offsets(&partition) == (2, 2, 2));
    store.end_flushers();
    drop((store, partition));
    disk.crash(1);
    let view = try_open(&start(&disk), TOPIC_ID).unwrap().view().unwrap();
    assert_eq!(view.leader_epochs().entries().collect::<Vec<_>>(), [(1, 0), (3, 1)]);
}

#[test]
fn a_leader_that_cannot_serve_its_followers_does_not_hold_that_against_them() {
    let disk = MemoryDisk::default();
    let store = start(&disk);
    let partition = lead(&store);
    let registration =
        Registration { leader_epoch: 2, partition_epoch: 2, replicas: vec![1, 2], isr: vec![1, 2] };
    partition.lead(&registration, &BrokerStatuses::new());
    append(&partition).unwrap();
    let read = || {
        let options = ReadOptions {
            fetch_offset: 0,
            max_bytes: 1000,
            min_one_batch: true,
            reader: Reader::Follower { id: 2, broker_epoch: None },
            log_start_offset: 0,
            current_leader_epoch: Some(2),
            last_fetched_epoch: None,
        };
        partition.read(&options, None)
    };
    disk.fail_next(Operation::Read, Fault::OutOfFileDescriptors);
    assert_eq!(read().unwrap_err(), ErrorCode::KafkaStorageError);
    let much_later = i64::MAX / 2;
    assert_eq!(partition.check_isr(much_later), None);
    read().unwrap();
    assert!(partition.check_isr(much_later).is_some(), "now it is the follower's own fault");
    // A leader whose disk has failed removes no follower from the ISR either.
    let registration = Registration { leader_epoch: 3, partition_epoch: 3, ..registration };
    partition.lead(&registration, &BrokerStatuses::new());
    partition.fail();
    assert_eq!(partition.check_isr(much_later), None);
    store.end_flushers();
}

#[test]
fn a_log_that_cannot_be_opened_keeps_what_the_last_run_has_written_down_of_it() {
    for fault in BOTH {
        let disk = MemoryDisk::default();
        let store = start(&disk);
        let partition = lead(&store);
        for _ in 0..3 {
            append(&partition).unwrap();
        }
        until("the flush", || offsets(&partition).1 == 3);
        partition.with_log(|log| log.delete_records(2)).unwrap().unwrap();
        store.close(&[partition], Some(1));
        drop(store);
        let store = start(&disk);
        if fault == Fault::NoSpace {
            // Opening the log needs space only to create this file again.
            disk.remove_file(Path::new("/data/t-0/partition.metadata")).unwrap();
        }
        disk.lack_from(disk.mutations(), fault);
        assert!(
            try_open(&store, TOPIC_ID).unwrap_err().source.severity() == Severity::Passes,
            "{fault:?}"
        );
        disk.give_room();
        // The node continues meanwhile, and may be stopped.
        store.write_checkpoints(&[]);
        store.close(&[], Some(2));
        drop(store);
        let store = start(&disk);
        let view = try_open(&store, TOPIC_ID).unwrap().view().unwrap();
        assert_eq!((view.log_start(), view.high_watermark(), view.log_end()), (2, 3, 3));
        store.end_flushers();
    }
}

#[test]
fn a_directory_is_not_left_in_order_with_a_log_in_it_that_nobody_has_verified() {
    let disk = MemoryDisk::default();
    let store = start(&disk);
    let partition = lead(&store);
    append(&partition).unwrap();
    partition.flush().unwrap();
    store.end_flushers();
    drop((store, partition));
    disk.crash(1);
    let mark = Path::new("/data/.kafka_cleanshutdown");
    let store = start(&disk);
    disk.lack_from(disk.mutations(), Fault::OutOfFileDescriptors);
    try_open(&store, TOPIC_ID).unwrap_err();
    disk.give_room();
    store.close(&[], Some(2));
    drop(store);
    assert!(!disk.exists(mark).unwrap());
    let store = start(&disk);
    let partition = try_open(&store, TOPIC_ID).unwrap();
    store.close(&[partition], Some(3));
    assert!(disk.exists(mark).unwrap());
}

#[test]
fn what_cannot_be_deleted_for_now_is_deleted_later_and_never_taken_for_a_new_log() {
    for fault in BOTH {
        let disk = MemoryDisk::default();
        let store = start(&disk);
        let partition = lead(&store);
        append(&partition).unwrap();
        until("the flush", || offsets(&partition).1 == 1);
        disk.lack_from(disk.mutations(), fault);
        store.delete(&partition);
        assert!(disk.exists(Path::new("/data/t-0")).unwrap(), "{fault:?}");
        let other = Uuid::from_bytes([8; 16]);
        assert!(
            try_open(&store, other).unwrap_err().source.severity() == Severity::Passes,
            "{fault:?}"
        );
        disk.give_room();
        assert_eq!(try_open(&store, other).unwrap().view().unwrap().log_end(), 0);
        store.remove_deleted(i64::MAX);
        let directories = disk.list(Path::new("/data")).unwrap();
        let directories = directories.into_iter().filter(|entry| entry.is_dir);
        assert_eq!(directories.map(|entry| entry.name).collect::<Vec<_>>(), ["t-0"]);
        assert!(store.failed_directories().is_empty());
        store.end_flushers();
    }
}

#[test]
fn a_partition_that_never_came_to_be_can_be_deleted() {
    let disk = MemoryDisk::default();
    let store = start(&disk);
    disk.lack_from(disk.mutations(), Fault::NoSpace);
    try_open(&store, TOPIC_ID).unwrap_err();
    store.delete_unopened(&"t".into(), 0);
    disk.give_room();
    assert_eq!(store.place_of(&"t".into(), 0), None);
    assert_eq!(try_open(&store, TOPIC_ID).unwrap().view().unwrap().log_end(), 0);
    store.end_flushers();
}
