//! Space or descriptors are lacking for a while: unfinished operations are completed when there is room.

use super::*;
use crate::config::CleanupPolicy;
use crate::disk::{Disk, Fault, Operation};
use crate::log::Derived;
use klamm_protocol::time::Now;

/// A log of nine batches of ten records in several segments, flushed.
fn filled(disk: &MemoryDisk) -> Log {
    let mut log = open(disk, small_segments());
    for _ in 0..9 {
        append(&mut log, batch(10, 1));
    }
    log.flush().unwrap();
    log.set_high_watermark(90);
    assert_eq!(log.segment_count(), 3);
    log
}

fn lack(disk: &MemoryDisk, fault: Fault) {
    disk.lack_from(disk.mutations(), fault);
}

const BOTH: [Fault; 2] = [Fault::NoSpace, Fault::OutOfFileDescriptors];

#[test]
fn an_append_that_has_to_roll_is_refused_while_the_disk_is_full_and_taken_afterwards() {
    let disk = MemoryDisk::default();
    let mut log = filled(&disk);
    lack(&disk, Fault::NoSpace);
    for _ in 0..20 {
        let refused = try_append(&mut log, batch(10, 1)).unwrap_err();
        assert_eq!(refused.code(), klamm_protocol::ErrorCode::KafkaStorageError);
    }
    assert_eq!((log.log_end(), log.is_offline()), (90, false));
    disk.give_room();
    for _ in 0..20 {
        append(&mut log, batch(10, 1));
    }
    log.flush().unwrap();
    assert_eq!(offsets(&log, 0).last(), Some(&(280, 289)));
}

#[test]
fn records_count_as_flushed_while_there_is_no_space_for_what_is_derived_from_them() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, small_segments());
    append(&mut log, batch(10, 1));
    log.flush().unwrap();
    log.roll(0).unwrap();
    append(&mut log, batch(10, 1));
    log.assign_epoch(7);
    lack(&disk, Fault::NoSpace);
    let ticket = log.flush_ticket().unwrap().unwrap();
    let derived = ticket.run().unwrap();
    assert!(matches!(&derived, Derived::Waiting(lacking) if lacking.passes()), "{derived:?}");
    log.on_flushed(&ticket, &derived);
    assert_eq!((log.flushed_offset(), log.recovery_point()), (20, 10));
    assert!(log.flush_ticket().unwrap().is_some(), "the rest is still to be done");
    disk.give_room();
    log.flush().unwrap();
    assert_eq!(log.recovery_point(), 20);
    assert!(log.flush_ticket().unwrap().is_none());
}

#[test]
fn what_was_flushed_without_its_derived_files_survives_a_power_cut() {
    for seed in 0..50 {
        let disk = MemoryDisk::default();
        let mut log = filled(&disk);
        append(&mut log, batch(10, 1));
        let recovery_point = log.recovery_point();
        lack(&disk, Fault::NoSpace);
        while try_append(&mut log, batch(10, 1)).is_ok() {}
        log.flush().unwrap();
        let (expected, flushed) = (offsets(&log, 0), log.flushed_offset());
        assert_eq!(flushed, log.log_end());
        drop(log);
        disk.crash(seed);
        let options = LogOptions { recovery_point, ..options(small_segments()) };
        let log = Log::open(&storage(&disk), Path::new(DIR), options).unwrap();
        assert_eq!(offsets(&log, 0), expected, "seed {seed}");
    }
}

#[test]
fn half_an_append_is_cut_before_the_next_even_if_that_takes_a_second_try() {
    let disk = MemoryDisk::default();
    let mut log = filled(&disk);
    disk.fail_next(Operation::Write, Fault::NoSpace);
    // If space is lacking for a write, it may be lacking for a truncation too.
    disk.lack_from(disk.mutations() + 1, Fault::NoSpace);
    try_append(&mut log, batch(1, 1)).unwrap_err();
    disk.give_room();
    append(&mut log, batch(1, 1));
    log.flush().unwrap();
    drop(log);
    disk.crash(1);
    let log = open(&disk, small_segments());
    assert_eq!((log.log_end(), log.report().truncated), (91, None));
}

#[test]
fn a_truncation_shows_at_once_and_its_files_follow() {
    for fault in BOTH {
        for offset in [35, 60, 0] {
            let disk = MemoryDisk::default();
            let mut log = filled(&disk);
            // The handle of the truncated segment is open already.
            fetch(&log, offset, 1);
            lack(&disk, fault);
            assert!(log.truncate_to(offset, 0).unwrap_err().passes());
            assert!(!log.is_offline());
            let end = log.log_end();
            assert!(offsets(&log, log.log_start()).iter().all(|(_, last)| *last < end));
            try_append(&mut log, batch(1, 1)).unwrap_err();
            disk.give_room();
            log.truncate_to(offset, 0).unwrap();
            let end = log.log_end();
            assert!(end <= offset && end + 10 > offset, "{end} for {offset}");
            append(&mut log, batch(3, 1));
            log.flush().unwrap();
            let expected = offsets(&log, 0);
            drop(log);
            disk.crash(3);
            assert_eq!(offsets(&open(&disk, small_segments()), 0), expected, "{fault:?} {offset}");
        }
    }
}

#[test]
fn a_log_that_begins_anew_without_room_does_so_when_there_is_some() {
    for fault in BOTH {
        let disk = MemoryDisk::default();
        let mut log = filled(&disk);
        lack(&disk, fault);
        assert!(log.truncate_fully_and_start_at(500, 0).unwrap_err().passes());
        assert_eq!((log.log_start(), log.log_end(), log.is_offline()), (500, 500, false));
        assert_eq!(offsets(&log, 500), []);
        assert!(log.flush_ticket().is_err(), "nothing counts before the files have followed");
        disk.give_room();
        assert_eq!(append(&mut log, batch(2, 1)).first_offset, 500);
        log.flush().unwrap();
        drop(log);
        disk.crash(1);
        let log = open(&disk, small_segments());
        assert_eq!(offsets(&log, log.log_start()), [(500, 501)], "{fault:?}");
    }
}

#[test]
fn retention_goes_on_where_it_was_stopped() {
    for fault in BOTH {
        let disk = MemoryDisk::default();
        let mut log = filled(&disk);
        let cleanup_policy = CleanupPolicy { compact: false, delete: true };
        let config = LogConfig {
            retention_bytes: 100,
            file_delete_delay_ms: 5,
            cleanup_policy,
            ..small_segments()
        };
        log.set_config(config);
        lack(&disk, fault);
        assert!(log.apply_retention(Now::at(0)).unwrap_err().passes());
        disk.give_room();
        log.apply_retention(Now::at(10)).unwrap();
        log.apply_retention(Now::at(20)).unwrap();
        let names = disk.list(Path::new(DIR)).unwrap();
        let segments = names.iter().filter(|entry| entry.name.contains(".log")).count();
        assert_eq!(segments, log.segment_count(), "{fault:?}: {names:?}");
    }
}

#[test]
fn a_directory_keeps_its_name_without_descriptors_or_space() {
    for fault in BOTH {
        let disk = MemoryDisk::default();
        let mut log = filled(&disk);
        lack(&disk, fault);
        let renamed = Path::new("/data/topic-0.1f-delete");
        assert!(log.rename_dir(renamed).unwrap_err().passes());
        assert_eq!(log.dir(), Path::new(DIR));
        disk.give_room();
        log.rename_dir(renamed).unwrap();
        assert!(disk.exists(renamed).unwrap() && !disk.exists(Path::new(DIR)).unwrap());
    }
}

#[test]
fn opening_is_tried_again_from_any_operation_on_and_the_log_survives_a_power_cut_then() {
    for fault in BOTH {
        for from in 0.. {
            let disk = MemoryDisk::default();
            let storage = storage(&disk);
            let first = disk.mutations();
            disk.lack_from(first + from, fault);
            let topic_id = Some(Uuid::METADATA_TOPIC);
            let options = || LogOptions { topic_id, ..options(small_segments()) };
            let opened = Log::open(&storage, Path::new(DIR), options());
            let was_enough = opened.is_ok();
            drop(opened);
            disk.give_room();
            let mut log = Log::open(&storage, Path::new(DIR), options()).unwrap();
            append(&mut log, batch(3, 1));
            log.flush().unwrap();
            drop((log, storage));
            disk.crash(from);
            let log = open(&disk, small_segments());
            assert_eq!((log.log_end(), log.topic_id()), (3, topic_id), "{fault:?} from {from}");
            if was_enough {
                assert!(from > 4, "opening takes more than {from} operations");
                break;
            }
        }
    }
}

#[test]
fn more_logs_than_descriptors_are_written_read_and_opened_again() {
    const LOGS: i64 = 100;
    let disk = MemoryDisk::default();
    let storage = storage(&disk);
    disk.set_descriptors(12);
    let path = |n: i64| PathBuf::from(format!("/data/topic-{n}"));
    let mut logs: Vec<Log> = (0..LOGS)
        .map(|n| Log::open(&storage, &path(n), options(small_segments())).unwrap())
        .collect();
    for round in 0..3 {
        for log in &mut logs {
            assert_eq!(append(log, batch(5, 1)).first_offset, 5 * round);
            log.flush().unwrap();
        }
    }
    for log in logs.iter().rev() {
        assert_eq!(offsets(log, 0).len(), 3);
    }
    let ends: Vec<_> = logs.into_iter().map(|log| (log.log_end(), log.close().unwrap())).collect();
    assert!(ends.iter().all(|(end, ())| *end == 15));
    for n in 0..LOGS {
        let options =
            LogOptions { clean_shutdown: true, recovery_point: 15, ..options(small_segments()) };
        assert_eq!(Log::open(&storage, &path(n), options).unwrap().log_end(), 15);
    }
}

#[test]
fn a_disk_with_a_capacity_is_full_when_it_is_and_has_room_again_after_a_deletion() {
    let disk = MemoryDisk::default();
    let mut log = filled(&disk);
    disk.set_capacity(disk.used() + 400);
    let mut appended = 0;
    while try_append(&mut log, batch(1, 1)).is_ok() {
        appended += 1;
    }
    assert!((1..10).contains(&appended), "{appended}");
    let config = LogConfig { retention_bytes: 500, file_delete_delay_ms: 0, ..small_segments() };
    log.set_config(config);
    log.set_high_watermark(log.log_end());
    assert!(!log.apply_retention(Now::at(1)).unwrap().is_empty());
    append(&mut log, batch(1, 1));
}
