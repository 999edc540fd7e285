//! When a new segment begins, and reads across many segments.

use super::*;

#[test]
fn a_full_segment_is_followed_by_a_new_one() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, small_segments());
    for _ in 0..30 {
        append(&mut log, batch(5, 10));
    }
    assert!(log.segment_count() > 3, "{} segments", log.segment_count());
    let expected: Vec<_> = (0..30).map(|n| (n * 5, n * 5 + 4)).collect();
    assert_eq!(offsets(&log, 0), expected);
    assert_eq!(offsets(&log, 77), expected[15..]);
    log.flush().unwrap();
    let names = file_names(&disk);
    let sealed = names.iter().filter(|name| name.ends_with(".index")).count();
    assert_eq!(sealed + 1, log.segment_count(), "every segment but the active one has an index");
    assert_eq!(offsets(&log, 77), expected[15..], "also with the thinned index");
}

#[test]
fn a_segment_rolls_by_the_age_of_its_records() {
    let config = LogConfig { segment_ms: 1000, ..LogConfig::default() };
    let mut log = open(&MemoryDisk::default(), config);
    append(&mut log, batch(1, 5_000));
    append(&mut log, batch(1, 6_000));
    assert_eq!(log.segment_count(), 1);
    append(&mut log, batch(1, 6_001));
    assert_eq!(log.segment_count(), 2);
}

#[test]
fn a_segment_without_timestamps_rolls_by_its_own_age() {
    let config = LogConfig { segment_ms: 1000, ..LogConfig::default() };
    let mut log = open(&MemoryDisk::default(), config);
    let how = by(AppendOrigin::Client, 0);
    log.append_as_leader(&[batch(1, -1).into()], how, 500).unwrap();
    log.append_as_leader(&[batch(1, -1).into()], how, 1000).unwrap();
    assert_eq!(log.segment_count(), 1);
    log.append_as_leader(&[batch(1, -1).into()], how, 1001).unwrap();
    assert_eq!(log.segment_count(), 2);
}

#[test]
fn a_segment_rolls_before_its_index_overflows() {
    let config =
        LogConfig { segment_index_bytes: 5 * 12, index_interval_bytes: 0, ..LogConfig::default() };
    let disk = MemoryDisk::default();
    let mut log = open(&disk, config);
    for n in 0..20 {
        append(&mut log, batch(1, n));
    }
    log.flush().unwrap();
    assert!(log.segment_count() > 3);
    for name in file_names(&disk).iter().filter(|name| name.ends_with(".timeindex")) {
        let size = disk.read(&Path::new(DIR).join(name)).unwrap().len();
        assert!(size <= 5 * 12, "{name} has {size} bytes");
    }
}

#[test]
fn a_segment_rolls_before_relative_offsets_overflow() {
    let mut log = open(&MemoryDisk::default(), LogConfig::default());
    let far = |base| {
        let mut builder = BatchBuilder::new(base);
        builder.append(1, None, Some(b"x"), &[]).unwrap();
        builder.build().unwrap().bytes
    };
    log.append_as_follower(far(0), 0, 0).unwrap();
    log.append_as_follower(far(i64::from(i32::MAX)), 0, 0).unwrap();
    assert_eq!(log.segment_count(), 1);
    log.append_as_follower(far(i64::from(i32::MAX) + 1), 0, 0).unwrap();
    assert_eq!(log.segment_count(), 2);
    let last = i64::from(i32::MAX) + 1;
    assert_eq!(offsets(&log, 1), [(last - 1, last - 1), (last, last)]);
}

#[test]
fn batches_far_apart_that_arrive_together_get_segments_of_their_own() {
    let mut log = open(&MemoryDisk::default(), LogConfig::default());
    let mut records = Vec::new();
    for n in 0..5 {
        let mut builder = BatchBuilder::new(n * i64::from(i32::MAX));
        builder.append(1, None, Some(b"x"), &[]).unwrap();
        records.extend_from_slice(&builder.build().unwrap().bytes);
    }
    log.append_as_follower(records.into(), 0, 0).unwrap();
    assert_eq!(log.segment_count(), 3, "two fit into one");
    let far = i64::from(i32::MAX);
    let expected: Vec<_> = (0..5).map(|n| (n * far, n * far)).collect();
    assert_eq!(offsets(&log, 0), expected);
}

#[test]
fn records_larger_than_a_segment_are_refused() {
    let mut log = open(&MemoryDisk::default(), small_segments());
    let error = try_append(&mut log, batch(100, 1)).unwrap_err();
    assert!(matches!(error, AppendError::LargerThanSegment { limit: 1000, .. }), "{error}");
    assert_eq!((log.log_end(), log.segment_count()), (0, 1));
}

#[test]
fn an_empty_segment_does_not_roll() {
    let mut log = open(&MemoryDisk::default(), LogConfig::default());
    log.roll(0).unwrap();
    assert_eq!(log.segment_count(), 1);
    append(&mut log, batch(1, 1));
    log.roll(0).unwrap();
    log.roll(0).unwrap();
    assert_eq!(log.segment_count(), 2);
}
