//! Which records retention and DeleteRecords remove.

use super::*;

fn filled(disk: &MemoryDisk, config: LogConfig) -> Log {
    let mut log = open(disk, config);
    (0..30).for_each(|n| {
        append(&mut log, batch(3, n * 100));
    });
    log.set_high_watermark(90);
    log
}

#[test]
fn old_segments_go_by_time() {
    let config = LogConfig { retention_ms: 1000, ..small_segments() };
    let disk = MemoryDisk::default();
    let mut log = filled(&disk, config);
    let segments = log.segment_count();
    assert!(log.apply_retention(Now::at(1000)).unwrap().is_empty());
    let deleted = log.apply_retention(Now::at(2500)).unwrap();
    assert!(!deleted.is_empty() && deleted.len() < segments, "{deleted:?}");
    assert!(deleted.iter().all(|segment| segment.reason == DeletionReason::RetentionMs));
    let first = log.segments[0].largest_timestamp().unwrap().unwrap().timestamp;
    assert!(first >= 1500, "{first}");
    assert_eq!(log.log_start(), log.segments[0].base_offset());
    assert_eq!(log.leader_epochs().earliest().unwrap().offset, log.log_start());
}

#[test]
fn every_segment_may_go_and_the_offsets_stay() {
    let config = LogConfig { retention_ms: 1000, ..small_segments() };
    let disk = MemoryDisk::default();
    let mut log = filled(&disk, config);
    log.apply_retention(Now::at(1_000_000)).unwrap();
    assert_eq!((log.log_start(), log.log_end(), log.segment_count()), (90, 90, 1));
    assert_eq!(append(&mut log, batch(1, 1)).first_offset, 90);
    assert!(
        log.apply_retention(Now::at(1_000_000)).unwrap().is_empty(),
        "nothing of it is committed"
    );
}

#[test]
fn nothing_above_the_high_watermark_goes() {
    let config = LogConfig { retention_ms: 0, ..small_segments() };
    let mut log = filled(&MemoryDisk::default(), config);
    log.set_high_watermark(10);
    log.apply_retention(Now::at(1_000_000)).unwrap();
    assert!(log.log_start() <= 10, "{}", log.log_start());
}

#[test]
fn segments_go_by_size_down_to_the_limit() {
    let config = LogConfig { retention_bytes: 1500, ..small_segments() };
    let mut log = filled(&MemoryDisk::default(), config);
    let deleted = log.apply_retention(Now::at(0)).unwrap();
    assert!(deleted.iter().all(|segment| segment.reason == DeletionReason::RetentionBytes));
    let first = log.segments[0].size();
    assert!(log.size() >= 1500 && log.size() - first < 1500, "{}", log.size());
}

#[test]
fn a_compacted_log_keeps_its_records() {
    let cleanup_policy = crate::config::CleanupPolicy { delete: false, compact: true };
    let config = LogConfig { cleanup_policy, retention_ms: 0, ..small_segments() };
    let mut log = filled(&MemoryDisk::default(), config);
    assert!(log.apply_retention(Now::at(1_000_000)).unwrap().is_empty());
    log.delete_records(40).unwrap();
    let deleted = log.apply_retention(Now::at(1_000_000)).unwrap();
    assert!(!deleted.is_empty());
    assert!(deleted.iter().all(|segment| segment.reason == DeletionReason::LogStart));
}

#[test]
fn delete_records_moves_the_start_up_to_the_high_watermark() {
    let mut log = filled(&MemoryDisk::default(), small_segments());
    log.set_high_watermark(50);
    assert!(matches!(log.delete_records(51), Err(ReadError::OffsetOutOfRange { .. })));
    assert_eq!(log.delete_records(31).unwrap(), 31);
    assert_eq!(log.delete_records(7).unwrap(), 31, "it never moves back");
    assert_eq!(offsets(&log, 31)[0], (30, 32));
    let deleted = log.apply_retention(Now::at(0)).unwrap();
    assert!(deleted.iter().all(|segment| segment.base_offset < 31));
    assert!(log.segments[0].base_offset() <= 31);
}

#[test]
fn files_are_removed_after_their_delay_and_readers_finish() {
    let config = LogConfig { retention_ms: 1000, file_delete_delay_ms: 500, ..small_segments() };
    let disk = MemoryDisk::default();
    let mut log = filled(&disk, config);
    log.flush().unwrap();
    let view = log.view();
    log.apply_retention(Now::at(1_000_000)).unwrap();
    assert!(file_names(&disk).iter().any(|name| name.ends_with(".log.deleted")));
    let spec = FetchSpec { offset: 0, max_bytes: 1, min_one_message: true, upper_bound: 90 };
    assert_eq!(view.read(spec).unwrap().base_offset, 0);
    log.remove_deleted_files(1_000_499).unwrap();
    assert!(file_names(&disk).iter().any(|name| name.ends_with(".deleted")));
    log.remove_deleted_files(1_000_500).unwrap();
    assert!(!file_names(&disk).iter().any(|name| name.ends_with(".deleted")));
    assert_eq!(view.read(spec).unwrap().base_offset, 0, "through the open file");
}

#[test]
fn records_without_timestamp_age_by_the_file() {
    let config = LogConfig { retention_ms: 1000, ..small_segments() };
    let disk = MemoryDisk::default();
    disk.set_now_ms(5000);
    let mut log = open(&disk, config);
    append(&mut log, batch(3, -1));
    log.set_high_watermark(3);
    assert!(log.apply_retention(Now::at(6000)).unwrap().is_empty());
    assert_eq!(log.apply_retention(Now::at(6001)).unwrap().len(), 1);
}

#[test]
fn days_that_the_clock_skips_delete_nothing_until_they_are_believed_and_delays_take_their_time() {
    let disk = MemoryDisk::default();
    let config =
        LogConfig { retention_ms: 1_000, file_delete_delay_ms: 60_000, ..small_segments() };
    let mut log = open(&disk, config);
    (0..10).for_each(|_| {
        append(&mut log, batch(2, 10_000));
    });
    log.set_high_watermark(20);
    let ten_days = 10 * 86_400_000;
    let ahead = Now { steady_ms: 10_500, wall_ms: 10_500 + ten_days, retention_ms: 10_500 };
    assert!(log.apply_retention(ahead).unwrap().is_empty());
    let behind = Now { wall_ms: 10_500 - ten_days, retention_ms: 10_500 - ten_days, ..ahead };
    assert!(log.apply_retention(behind).unwrap().is_empty());
    let believed = Now { retention_ms: ahead.wall_ms, ..ahead };
    assert!(!log.apply_retention(believed).unwrap().is_empty());
    let deleted_files = || {
        let names = disk.list(Path::new(DIR)).unwrap();
        names.iter().filter(|entry| entry.name.ends_with(".deleted")).count()
    };
    log.remove_deleted_files(ahead.steady_ms + 59_999).unwrap();
    assert!(deleted_files() > 0, "readers get their time by the steady clock");
    log.remove_deleted_files(ahead.steady_ms + 60_000).unwrap();
    assert_eq!(deleted_files(), 0);
}
