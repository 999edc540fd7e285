//! The state of a log after a clean or unclean stop.

use super::*;

fn reopen(disk: &MemoryDisk, recovery_point: Offset, clean_shutdown: bool) -> Log {
    let options = LogOptions { recovery_point, clean_shutdown, ..options(small_segments()) };
    Log::open(&storage(disk), Path::new(DIR), options).unwrap()
}

fn filled(disk: &MemoryDisk) -> Log {
    let mut log = open(disk, small_segments());
    (0..30).for_each(|n| {
        append(&mut log, batch(3, n));
    });
    log
}

#[test]
fn a_clean_log_is_believed_and_appended_to() {
    let disk = MemoryDisk::default();
    let log = filled(&disk);
    let segments = log.segment_count();
    log.close().unwrap();
    let mut log = reopen(&disk, 90, true);
    assert_eq!(log.report(), &RecoveryReport::default());
    assert_eq!((log.log_end(), log.flushed_offset(), log.segment_count()), (90, 90, segments));
    assert_eq!(append(&mut log, batch(1, 99)).first_offset, 90);
    assert_eq!(offsets(&log, 88), [(87, 89), (90, 90)]);
}

#[test]
fn a_log_that_was_only_opened_keeps_its_files() {
    let disk = MemoryDisk::default();
    filled(&disk).close().unwrap();
    let before = file_names(&disk);
    reopen(&disk, 90, true).close().unwrap();
    assert_eq!(file_names(&disk), before);
    assert_eq!(reopen(&disk, 90, true).log_end(), 90);
}

#[test]
fn an_unclean_log_is_read_from_the_recovery_point_on() {
    let disk = MemoryDisk::default();
    let mut log = filled(&disk);
    log.flush().unwrap();
    let bases: Vec<_> = log.segments.iter().map(|segment| segment.base_offset()).collect();
    drop(log);
    let recovery_point = bases[2] + 1;
    let log = reopen(&disk, recovery_point, false);
    assert_eq!(log.report().segments_recovered, bases.len() - 2);
    assert_eq!((log.log_end(), log.flushed_offset()), (90, recovery_point));
    assert_eq!(offsets(&log, 0).len(), 30);
}

#[test]
fn index_files_from_before_a_restart_are_not_believed_after_an_append() {
    for seed in 0..40 {
        let disk = MemoryDisk::default();
        let mut log = open(&disk, small_segments());
        append(&mut log, in_transaction(1, 0, 0));
        log.close().unwrap();
        let mut log = reopen(&disk, 2, true);
        append_marker(&mut log, marker(1, 0, false));
        log.flush().unwrap();
        let recovery_point = log.flushed_offset();
        // The next segment begins at the recovery point, and no flush has sealed the old one.
        log.roll(0).unwrap();
        drop(log);
        disk.crash(seed);
        let log = reopen(&disk, recovery_point, false);
        assert_eq!(log.view().aborted_transactions(0, 3).len(), 1, "crash {seed}");
    }
}

#[test]
fn a_torn_end_is_cut_and_reported() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, LogConfig::default());
    append(&mut log, batch(3, 1));
    append(&mut log, batch(3, 1));
    drop(log);
    let path = Path::new(DIR).join("00000000000000000000.log");
    let contents = disk.read(&path).unwrap();
    disk.write_synced(&path, &contents[..contents.len() - 1]).unwrap();
    let log = open(&disk, LogConfig::default());
    assert_eq!(offsets(&log, 0), [(0, 2)]);
    let bytes = contents.len() as u64 / 2 - 1;
    let cut = Truncated { offset: 3, bytes, below_recovery_point: false };
    assert_eq!(log.report().truncated, Some(cut));
    assert_eq!(disk.read(&path).unwrap().len(), contents.len() / 2);
}

#[test]
fn a_flipped_bit_ends_the_log_where_it_is_and_is_not_silent() {
    let disk = MemoryDisk::default();
    let mut log = filled(&disk);
    log.flush().unwrap();
    drop(log);
    let path = Path::new(DIR).join("00000000000000000000.log");
    let mut contents = disk.read(&path).unwrap();
    contents[70] ^= 4;
    disk.write_synced(&path, &contents).unwrap();
    let log = reopen(&disk, 5, false);
    assert_eq!(log.log_end(), 0);
    assert!(log.report().truncated.unwrap().below_recovery_point);
}

#[test]
fn a_damaged_epoch_file_is_made_anew_from_the_records() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, LogConfig::default());
    for epoch in [2, 2, 5] {
        let how = by(AppendOrigin::Client, epoch);
        log.append_as_leader(&[batch(2, 1).into()], how, 0).unwrap();
    }
    let expected = log.leader_epochs().clone();
    log.close().unwrap();
    let path = Path::new(DIR).join("leader-epoch-checkpoint");
    disk.write_synced(&path, b"0\n9\nrubbish").unwrap();
    let mut log = reopen(&disk, 6, true);
    assert_eq!(log.leader_epochs(), &expected);
    log.flush().unwrap();
    assert_eq!(disk.read(&path).unwrap(), b"0\n2\n2 0\n5 4\n");
}

#[test]
fn a_log_below_its_checkpointed_start_begins_anew_there() {
    let disk = MemoryDisk::default();
    filled(&disk).close().unwrap();
    let beyond = LogOptions { log_start: 500, ..options(small_segments()) };
    let log = Log::open(&storage(&disk), Path::new(DIR), beyond).unwrap();
    assert_eq!((log.log_start(), log.log_end(), log.segment_count()), (500, 500, 1));
}

#[test]
fn leftovers_of_deletion_and_compaction_are_dealt_with() {
    let disk = MemoryDisk::default();
    filled(&disk).close().unwrap();
    let dir = Path::new(DIR);
    let first = disk.read(&dir.join("00000000000000000000.log")).unwrap();
    for name in ["00000000000000000000.log.deleted", "00000000000000000003.index.cleaned"] {
        disk.write_synced(&dir.join(name), b"x").unwrap();
    }
    disk.write_synced(&dir.join("00000000000000000077.timeindex"), b"orphan").unwrap();
    disk.write_synced(&dir.join("00000000000000000000-0000000001.checkpoint.deleted"), b"")
        .unwrap();
    let log = reopen(&disk, 90, true);
    assert_eq!(offsets(&log, 0).len(), 30);
    drop(log);
    let names = file_names(&disk);
    let marked: Vec<_> = names.iter().filter(|name| name.ends_with(".deleted")).collect();
    assert_eq!(marked, ["00000000000000000000-0000000001.checkpoint.deleted"]);
    assert!(!names.iter().any(|name| name.ends_with(".cleaned") || name.contains("77.timeindex")));
    // A finished swap replaces the segment that it covers: here by the first batch of it alone.
    let size = Batches::new(first.clone().into()).next().unwrap().unwrap().bytes.len();
    disk.write_synced(&dir.join("00000000000000000000.log.swap"), &first[..size]).unwrap();
    let log = reopen(&disk, 90, true);
    assert_eq!(log.report().segments_recovered, 1, "the index files went with the old segment");
    assert_eq!(offsets(&log, 0)[..2], [(0, 2), (offsets(&log, 3)[0])]);
}

#[test]
fn a_directory_may_be_renamed_while_it_is_read() {
    let disk = MemoryDisk::default();
    let mut log = filled(&disk);
    log.flush().unwrap();
    let view = log.view();
    log.rename_dir(Path::new("/data/topic-0.1f-delete")).unwrap();
    let spec = FetchSpec { offset: 0, max_bytes: 1, min_one_message: true, upper_bound: 90 };
    assert!(view.read(spec).unwrap().records.is_some());
    append(&mut log, batch(1, 1));
    log.close().unwrap();
    assert!(!disk.exists(Path::new(DIR)).unwrap());
}
