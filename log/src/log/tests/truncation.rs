//! Truncation of the log's end, and its effect on readers.

use super::*;
use crate::file_name::FileKind;

fn filled(disk: &MemoryDisk) -> Log {
    let mut log = open(disk, small_segments());
    for epoch in 0..30 {
        let how = by(AppendOrigin::Client, epoch);
        log.append_as_leader(&[batch(3, 1).into()], how, 0).unwrap();
    }
    log.set_high_watermark(90);
    log
}

#[test]
fn everything_at_and_above_the_offset_is_gone() {
    for cut in (0..=90).step_by(3) {
        let disk = MemoryDisk::default();
        let mut log = filled(&disk);
        log.flush().unwrap();
        assert_eq!(log.truncate_to(cut, 0).unwrap(), cut < 90);
        let expected: Vec<_> = (0..cut / 3).map(|n| (n * 3, n * 3 + 2)).collect();
        assert_eq!(offsets(&log, 0), expected);
        assert_eq!((log.log_end(), log.high_watermark()), (cut, cut));
        assert!(log.flushed_offset() <= cut);
        let latest = (cut > 0).then(|| i32::try_from(cut / 3).unwrap() - 1);
        assert_eq!(log.latest_epoch(), latest);
        let how = by(AppendOrigin::Client, 100);
        let info = log.append_as_leader(&[batch(2, 1).into()], how, 0).unwrap();
        assert_eq!(info.first_offset, cut);
        let end = latest.and_then(|epoch| log.end_offset_for_epoch(epoch));
        assert_eq!(end.map(|end| end.offset), latest.map(|_| cut));
        log.close().unwrap();
    }
}

#[test]
fn a_batch_that_holds_the_offset_goes_as_a_whole() {
    let mut log = filled(&MemoryDisk::default());
    log.truncate_to(10, 0).unwrap();
    assert_eq!(log.log_end(), 10);
    assert_eq!(offsets(&log, 0), [(0, 2), (3, 5), (6, 8)]);
    assert!(fetch(&log, 9, 1).records.is_none());
    append(&mut log, batch(1, 1));
    assert_eq!(offsets(&log, 9), [(10, 10)]);
}

#[test]
fn truncation_at_the_end_drops_an_epoch_without_records() {
    let mut log = filled(&MemoryDisk::default());
    log.assign_epoch(99);
    assert_eq!(log.latest_epoch(), Some(99));
    assert!(!log.truncate_to(90, 0).unwrap());
    assert_eq!(log.latest_epoch(), Some(29));
}

#[test]
fn a_log_may_start_over_at_any_offset() {
    let disk = MemoryDisk::default();
    let mut log = filled(&disk);
    log.truncate_fully_and_start_at(1000, 0).unwrap();
    assert_eq!((log.log_start(), log.log_end(), log.high_watermark()), (1000, 1000, 1000));
    assert_eq!((log.segment_count(), log.latest_epoch()), (1, None));
    append(&mut log, batch(2, 1));
    assert_eq!(offsets(&log, 1000), [(1000, 1001)]);
    log.truncate_fully_and_start_at(1000, 0).unwrap();
    append(&mut log, batch(5, 1));
    log.remove_deleted_files(i64::MAX).unwrap();
    assert_eq!(offsets(&log, 1000), [(1000, 1004)]);
}

#[test]
fn a_truncation_below_the_log_starts_over() {
    let mut log = filled(&MemoryDisk::default());
    log.delete_records(60).unwrap();
    log.apply_retention(Now::at(0)).unwrap();
    log.truncate_to(5, 0).unwrap();
    assert_eq!((log.log_start(), log.log_end()), (5, 5));
}

#[test]
fn a_view_from_before_never_shows_what_was_written_over() {
    let mut log = filled(&MemoryDisk::default());
    let view = log.view();
    log.truncate_to(84, 0).unwrap();
    let mut builder = BatchBuilder::new(0);
    builder.append(1, None, Some(b"another length"), &[]).unwrap();
    append(&mut log, builder.build().unwrap());
    let spec = FetchSpec { offset: 88, max_bytes: 1, min_one_message: true, upper_bound: 90 };
    match view.read(spec) {
        Ok(fetched) => assert!(bytes_of(&fetched).is_empty()),
        Err(ReadError::Corrupt { .. } | ReadError::Truncated) => {}
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn producers_are_as_they_were_at_the_cut() {
    let mut log = open(&MemoryDisk::default(), small_segments());
    let mut states = Vec::new();
    for n in 0..40 {
        states.push((log.log_end(), log.producers().clone()));
        append(&mut log, produced(n % 3, 0, i32::try_from(n / 3 * 2).unwrap(), 2));
    }
    log.flush().unwrap();
    for (offset, expected) in states.into_iter().rev() {
        log.truncate_to(offset, 0).unwrap();
        let known: Vec<_> = log.producers().producers().collect();
        assert_eq!(known.len(), expected.len());
        for (known, expected) in known.iter().zip(expected.producers()) {
            assert_eq!(known.last_batch(), expected.last_batch());
            assert_eq!(known.epoch, expected.epoch);
        }
    }
}

#[test]
fn a_segment_goes_as_a_whole_however_damaged_its_records_are() {
    let disk = MemoryDisk::default();
    let mut log = filled(&disk);
    log.flush().unwrap();
    let second = log.segments[1].base_offset();
    let path = log.dir().join(FileKind::Log.name(second));
    let rubbish = vec![0xff; disk.read(&path).unwrap().len()];
    disk.write_synced(&path, &rubbish).unwrap();
    log.truncate_to(second, 0).unwrap();
    assert_eq!((log.segment_count(), log.log_end()), (1, second));
    assert_eq!(offsets(&log, 0).last().map(|(_, last)| *last), Some(second - 1));
    append(&mut log, batch(3, 1));
    assert_eq!(offsets(&log, second), [(second, second + 2)]);
}
