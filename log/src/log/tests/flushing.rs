//! Which records count as flushed, and the effect of a failed sync.

use super::*;
use crate::disk::{Fault, Operation};

#[test]
fn only_what_a_ticket_covers_is_flushed() {
    let mut log = open(&MemoryDisk::default(), LogConfig::default());
    append(&mut log, batch(3, 1));
    assert_eq!(log.flushed_offset(), 0);
    let ticket = log.flush_ticket().unwrap().unwrap();
    append(&mut log, batch(2, 1));
    let derived = ticket.run().unwrap();
    assert_eq!(log.flushed_offset(), 0, "the owner has not been told");
    log.on_flushed(&ticket, &derived);
    assert_eq!(log.flushed_offset(), 3);
    log.flush().unwrap();
    assert_eq!(log.flushed_offset(), 5);
    assert!(log.flush_ticket().unwrap().is_none());
}

#[test]
fn an_epoch_without_records_is_flushed_too() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, LogConfig::default());
    log.flush().unwrap();
    log.assign_epoch(7);
    log.flush().unwrap();
    let file = disk.read(&Path::new(DIR).join("leader-epoch-checkpoint")).unwrap();
    assert_eq!(file, b"0\n1\n7 0\n");
}

#[test]
fn a_failed_sync_is_never_retried() {
    let disk = MemoryDisk::default();
    let storage = storage(&disk);
    let mut log = Log::open(&storage, Path::new(DIR), options(LogConfig::default())).unwrap();
    append(&mut log, batch(3, 1));
    let ticket = log.flush_ticket().unwrap().unwrap();
    disk.fail_next(Operation::Sync, Fault::Io);
    ticket.run().unwrap_err();
    assert!(matches!(ticket.run(), Err(LogError::Offline { .. })), "though it would succeed now");
    assert!(log.flush_ticket().is_err());
    assert!(try_append(&mut log, batch(1, 1)).is_err());
    assert_eq!(log.flushed_offset(), 0);
    assert!(storage.health.failure().unwrap().contains("fdatasync"));
}

#[test]
fn a_ticket_from_before_a_truncation_changes_nothing() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, small_segments());
    (0..20).for_each(|_| {
        append(&mut log, batch(3, 1));
    });
    let ticket = log.flush_ticket().unwrap().unwrap();
    log.truncate_to(15, 0).unwrap();
    let before = file_names(&disk);
    let derived = ticket.run().unwrap();
    log.on_flushed(&ticket, &derived);
    assert_eq!(log.flushed_offset(), 0);
    assert_eq!(file_names(&disk), before, "no index file or snapshot of what was cut");
}

#[test]
fn a_full_disk_costs_the_append_and_nothing_else() {
    let disk = MemoryDisk::default();
    let storage = storage(&disk);
    let mut log = Log::open(&storage, Path::new(DIR), options(LogConfig::default())).unwrap();
    append(&mut log, batch(3, 1));
    disk.fail_next(Operation::Write, Fault::NoSpace);
    let error = try_append(&mut log, batch(30, 1)).unwrap_err();
    assert_eq!(error.code(), klamm_protocol::ErrorCode::KafkaStorageError);
    assert!(storage.health.check().is_ok(), "the disk is full, not broken");
    assert_eq!(log.log_end(), 3);
    // Shorter than the partial write.
    append(&mut log, batch(1, 1));
    assert_eq!(offsets(&log, 0), [(0, 2), (3, 3)]);
    log.flush().unwrap();
    disk.crash(1);
    let log = open(&disk, LogConfig::default());
    assert_eq!(offsets(&log, 0), [(0, 2), (3, 3)]);
    assert_eq!(log.report().truncated, None, "nothing of the failed append is left");
}

#[test]
fn a_write_error_takes_the_directory_offline() {
    let disk = MemoryDisk::default();
    let storage = storage(&disk);
    let mut log = Log::open(&storage, Path::new(DIR), options(LogConfig::default())).unwrap();
    disk.fail_next(Operation::Write, Fault::Io);
    try_append(&mut log, batch(3, 1)).unwrap_err();
    assert!(storage.health.check().is_err());
}
