//! A slow disk while a thread holds a partition's lock: the requests that need the partition wait, the others do not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use klamm_log::disk::MemoryDisk;
use klamm_log::log::Log;
use klamm_protocol::Uuid;
use klamm_replication::partition::Registration;
use tokio::runtime::{Builder, Runtime};

use super::LogManager;
pub(in crate::replica) use super::lacking::start;
use super::lacking::{append, offsets, until};
use crate::clock;
use crate::config::BrokerConfig;
use crate::replica::partition::{BrokerStatuses, Cut, Partition};
use crate::replica::settings::partition_config;

const LIMIT: Duration = Duration::from_secs(60);

/// A runtime with one worker: a task that blocks it holds up all others.
fn one_worker() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).build().unwrap()
}

fn registration(leader_epoch: i32) -> Registration {
    let replicas = vec![1, 2];
    Registration { leader_epoch, partition_epoch: leader_epoch, isr: vec![1], replicas }
}

/// A partition with a compacted log of small segments.
pub(in crate::replica) fn open(store: &LogManager, topic: &str) -> Arc<Partition> {
    let configs = BrokerConfig::from_pairs::<&str, &str>([]).unwrap();
    let mut config = partition_config(&configs, topic, &BTreeMap::new());
    config.log.segment_bytes = 400;
    config.log.cleanup_policy.compact = true;
    let wanted = (topic.to_owned().into(), Uuid::from_bytes([9; 16]), 0, config);
    store.open_all(vec![wanted]).into_iter().next().unwrap().unwrap()
}

/// A leader of one, with everything synced.
fn lead(store: &LogManager) -> Arc<Partition> {
    let partition = open(store, "t");
    partition.lead(&registration(1), &BrokerStatuses::new());
    partition
}

fn is_synced(partition: &Arc<Partition>) -> bool {
    let (recovery_point, _, log_end) = offsets(partition);
    recovery_point == log_end
}

/// Runs a task that needs the partition and one that does not, while `disk` holds a sync under the partition's lock.
/// Asserts that the second ends during the sync, and the first after it.
pub(super) fn assert_others_are_served(
    runtime: &Runtime,
    disk: &MemoryDisk,
    partition: &Arc<Partition>,
) {
    until("the sync", || disk.held_syncs() > 0);
    let needing = Arc::clone(partition);
    let (begins, began) = channel();
    let (seen, sees) = channel();
    runtime.spawn(async move {
        begins.send(()).unwrap();
        seen.send(needing.view().is_some()).unwrap();
    });
    let (ended, end) = channel();
    let both = began.recv_timeout(LIMIT).and_then(|()| {
        runtime.spawn(async move { ended.send(()).unwrap() });
        end.recv_timeout(LIMIT)
    });
    let is_kept_waiting = sees.try_recv().is_err();
    // Before any assertion: a blocked thread would keep a failing test from ending.
    disk.release_syncs();
    both.expect("the worker is not blocked");
    assert!(is_kept_waiting, "the lock is held");
    assert!(sees.recv_timeout(LIMIT).unwrap());
}

#[test]
fn a_truncation_that_waits_for_the_disk_holds_up_no_other_request() {
    let (disk, runtime) = (MemoryDisk::default(), one_worker());
    let store = start(&disk);
    let partition = lead(&store);
    append(&partition).unwrap();
    append(&partition).unwrap();
    until("the flush", || is_synced(&partition));
    assert!(partition.follow(Some(2), &registration(2)));
    disk.hold_syncs();
    let cut = Arc::clone(&partition);
    let cutting = std::thread::spawn(move || cut.cut(2, Cut::To(1)));
    assert_others_are_served(&runtime, &disk, &partition);
    cutting.join().unwrap().unwrap();
    assert_eq!(offsets(&partition).2, 1);
    store.end_flushers();
}

#[test]
fn retention_that_waits_for_the_disk_holds_up_no_other_request() {
    let (disk, runtime) = (MemoryDisk::default(), one_worker());
    let store = start(&disk);
    let partition = lead(&store);
    while partition.with_log(|log| log.segment_count()).unwrap() < 3 {
        append(&partition).unwrap();
    }
    until("the flush", || is_synced(&partition) && offsets(&partition).1 == offsets(&partition).2);
    let end = offsets(&partition).2;
    partition.with_log(|log| log.delete_records(end)).unwrap().unwrap();
    disk.hold_syncs();
    let expired = Arc::clone(&partition);
    let expiring = std::thread::spawn(move || {
        expired.with_log_on_disk(|log| log.apply_retention(clock::now())).unwrap()
    });
    assert_others_are_served(&runtime, &disk, &partition);
    assert!(!expiring.join().unwrap().unwrap().is_empty());
    store.end_flushers();
}

#[test]
fn an_append_that_rolls_a_compacted_log_holds_up_no_other_request() {
    let (disk, runtime) = (MemoryDisk::default(), one_worker());
    let store = start(&disk);
    let partition = lead(&store);
    let fits = |log: &mut Log| !log.may_sync_to_roll(150, 1, 0);
    while partition.with_log(fits).unwrap() {
        append(&partition).unwrap();
    }
    let segments = partition.with_log(|log| log.segment_count()).unwrap();
    until("the flush", || is_synced(&partition));
    disk.hold_syncs();
    let appended = Arc::clone(&partition);
    let appending = runtime.spawn(async move { append(&appended) });
    assert_others_are_served(&runtime, &disk, &partition);
    runtime.block_on(appending).unwrap().unwrap();
    assert_eq!(partition.with_log(|log| log.segment_count()).unwrap(), segments + 1);
    store.end_flushers();
}
