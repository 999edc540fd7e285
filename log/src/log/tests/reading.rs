//! Which records readers see.

use super::*;
use crate::disk::{Fault, Operation};

fn read(log: &Log, spec: FetchSpec) -> FetchedRecords {
    log.view().read(spec).unwrap()
}

#[test]
fn a_range_ends_at_max_bytes_but_the_first_batch_is_whole() {
    let mut log = open(&MemoryDisk::default(), LogConfig::default());
    let size = batch(3, 1).bytes.len() as u64;
    (0..4).for_each(|_| {
        append(&mut log, batch(3, 1));
    });
    let spec = FetchSpec { offset: 4, max_bytes: 1, min_one_message: true, upper_bound: 12 };
    let first = read(&log, spec);
    assert_eq!(first.records.unwrap().length, size);
    assert_eq!(first.base_offset, 3);
    let cut = read(&log, FetchSpec { max_bytes: size + 5, ..spec });
    assert_eq!(cut.records.unwrap().length, size + 5, "Kafka cuts inside the second batch too");
    let incomplete = read(&log, FetchSpec { min_one_message: false, max_bytes: 5, ..spec });
    assert!(incomplete.first_batch_incomplete);
    assert_eq!(incomplete.records.unwrap().length, 5);
    let none = read(&log, FetchSpec { min_one_message: false, max_bytes: 0, ..spec });
    assert!(none.records.is_none());
}

#[test]
fn nothing_at_or_above_the_upper_bound_is_given() {
    let mut log = open(&MemoryDisk::default(), small_segments());
    (0..30).for_each(|_| {
        append(&mut log, batch(3, 1));
    });
    for upper_bound in 0..=90 {
        let spec = FetchSpec { offset: 0, max_bytes: u64::MAX, min_one_message: true, upper_bound };
        let mut offset = 0;
        let mut last = -1;
        loop {
            let fetched = read(&log, FetchSpec { offset, ..spec });
            let records = bytes_of(&fetched);
            if records.is_empty() {
                break;
            }
            for batch in Batches::new(records) {
                let header = batch.unwrap().header;
                offset = header.next_offset();
                last = header.last_offset();
                assert!(header.base_offset < upper_bound);
            }
            assert!(fetched.next_offset_bound >= last);
        }
        // A bound inside a batch hides the batch unless it begins below; real high watermarks and last stable offsets
        // are at the bounds of batches.
        if upper_bound % 3 == 0 {
            assert_eq!(last, upper_bound - 1);
        }
    }
}

#[test]
fn a_view_does_not_change_while_the_log_does() {
    let mut log = open(&MemoryDisk::default(), small_segments());
    append(&mut log, batch(3, 1));
    let view = log.view();
    (0..30).for_each(|_| {
        append(&mut log, batch(3, 1));
    });
    let spec =
        FetchSpec { offset: 0, max_bytes: u64::MAX, min_one_message: true, upper_bound: i64::MAX };
    let records = view.read(spec).unwrap().records.unwrap().read().unwrap();
    assert_eq!(Batches::new(records).count(), 1);
    assert!(view.read(FetchSpec { offset: 3, ..spec }).unwrap().records.is_none());
    let beyond = view.read(FetchSpec { offset: 4, ..spec });
    assert!(matches!(beyond, Err(ReadError::OffsetOutOfRange { .. })));
}

#[test]
fn damaged_index_files_cost_time_and_never_give_a_wrong_answer() {
    let pristine = MemoryDisk::default();
    let mut log = open(&pristine, small_segments());
    (0..40).for_each(|n| {
        append(&mut log, batch(3, n));
    });
    log.flush().unwrap();
    let expected = offsets(&log, 0);
    log.close().unwrap();
    let index_files: Vec<_> =
        file_names(&pristine).into_iter().filter(|name| name.ends_with("index")).collect();
    assert!(index_files.len() > 6);
    for name in &index_files {
        let path = Path::new(DIR).join(name);
        let good = pristine.read(&path).unwrap();
        let mut damages = vec![Vec::new(), vec![0; good.len() + 16], vec![0xff; good.len()]];
        damages.push(good[..good.len().saturating_sub(1)].to_vec());
        damages.extend((0..good.len() * 8).map(|bit| {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            flipped
        }));
        for damage in damages {
            pristine.write_synced(&path, &damage).unwrap();
            let clean = LogOptions { clean_shutdown: true, ..options(small_segments()) };
            let log = Log::open(&storage(&pristine), Path::new(DIR), clean).unwrap();
            assert_eq!(offsets(&log, 0), expected, "{name}");
            for timestamp in [0, 7, 39, 40] {
                let found = log.view().offset_for(OffsetTarget::Timestamp(timestamp)).unwrap();
                let expected = (timestamp < 40).then_some(timestamp * 3);
                assert_eq!(found.map(|found| found.offset), expected, "{name}");
            }
            let newest = log.view().offset_for(OffsetTarget::MaxTimestamp).unwrap().unwrap();
            assert_eq!((newest.timestamp, newest.offset), (Some(39), 117), "{name}");
        }
        pristine.write_synced(&path, &good).unwrap();
    }
}

#[test]
fn offsets_are_found_by_timestamp() {
    let mut log = open(&MemoryDisk::default(), small_segments());
    // Two records per batch; timestamps rise by 10 per batch, except that batch 20 has a late one.
    for n in 0..40 {
        append(&mut log, batch(2, if n == 20 { 1_000 } else { n * 10 }));
    }
    let find = |target| {
        let found = log.view().offset_for(target).unwrap();
        found.map(|found| (found.timestamp, found.offset, found.leader_epoch))
    };
    assert_eq!(find(OffsetTarget::Timestamp(0)), Some((Some(0), 0, Some(0))));
    assert_eq!(find(OffsetTarget::Timestamp(91)), Some((Some(100), 20, Some(0))));
    assert_eq!(find(OffsetTarget::Timestamp(195)), Some((Some(1_000), 40, Some(0))));
    assert_eq!(find(OffsetTarget::Timestamp(1_001)), None);
    assert_eq!(find(OffsetTarget::MaxTimestamp), Some((Some(1_000), 40, Some(0))));
    assert_eq!(find(OffsetTarget::Earliest), Some((None, 0, Some(0))));
    assert_eq!(find(OffsetTarget::Latest), Some((None, 80, Some(0))));
    assert_eq!(find(OffsetTarget::LatestTiered), None);
    log.set_high_watermark(80);
    log.delete_records(25).unwrap();
    let find = |target| log.view().offset_for(target).unwrap().map(|found| found.offset);
    assert_eq!(find(OffsetTarget::Timestamp(0)), Some(25), "the deleted range is skipped");
    assert_eq!(find(OffsetTarget::Earliest), Some(25));
}

#[test]
fn without_any_timestamp_the_first_record_has_the_largest() {
    let mut log = open(&MemoryDisk::default(), small_segments());
    let largest = |log: &Log| {
        let found = log.view().offset_for(OffsetTarget::MaxTimestamp).unwrap();
        found.map(|found| (found.timestamp, found.offset))
    };
    assert_eq!(largest(&log), None);
    (0..40).for_each(|_| {
        append(&mut log, batch(2, -1));
    });
    assert_eq!(largest(&log), Some((None, 0)));
    append(&mut log, batch(2, 5));
    assert_eq!(largest(&log), Some((Some(5), 80)));
}

#[test]
fn idle_segments_are_closed_and_opened_again() {
    let disk = MemoryDisk::default();
    let storage = LogStorage { files: OpenFiles::new(4), ..storage(&disk) };
    let mut log = Log::open(&storage, Path::new(DIR), options(small_segments())).unwrap();
    (0..100).for_each(|n| {
        append(&mut log, batch(3, n));
    });
    log.flush().unwrap();
    assert!(log.segment_count() > 10);
    let expected: Vec<_> = (0..100).map(|n| (n * 3, n * 3 + 2)).collect();
    assert_eq!(offsets(&log, 0), expected);
    assert!(storage.files.count() <= 4, "{} open", storage.files.count());
}

#[test]
fn running_out_of_descriptors_closes_idle_files_and_is_no_disk_failure() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, small_segments());
    (0..40).for_each(|n| {
        append(&mut log, batch(3, n));
    });
    log.close().unwrap();
    let clean = LogOptions { clean_shutdown: true, ..options(small_segments()) };
    let storage = storage(&disk);
    let log = Log::open(&storage, Path::new(DIR), clean).unwrap();
    disk.fail_next(Operation::Open, Fault::OutOfFileDescriptors);
    assert_eq!(offsets(&log, 0).len(), 40, "the second attempt succeeds");
    assert!(storage.health.check().is_ok());
}

#[test]
fn a_read_error_takes_the_directory_offline() {
    let disk = MemoryDisk::default();
    let storage = storage(&disk);
    let mut log = Log::open(&storage, Path::new(DIR), options(LogConfig::default())).unwrap();
    append(&mut log, batch(3, 1));
    disk.fail_next(Operation::Read, Fault::Io);
    let spec = FetchSpec { offset: 0, max_bytes: 1, min_one_message: true, upper_bound: 3 };
    log.view().read(spec).unwrap_err();
    assert!(matches!(storage.health.check(), Err(LogError::Offline { .. })));
    let error = try_append(&mut log, batch(1, 1)).unwrap_err();
    assert_eq!(error.code(), klamm_protocol::ErrorCode::KafkaStorageError);
}

#[test]
fn a_byte_that_the_disk_has_damaged_in_a_sealed_segment_is_never_given() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, small_segments());
    (0..30).for_each(|_| {
        append(&mut log, batch(3, 1));
    });
    let end = log.view().segments[1].base_offset();
    assert!(log.view().sealed_segments() > 1);
    log.close().unwrap();
    let path = Path::new(DIR).join("00000000000000000000.log");
    let intact = disk.read(&path).unwrap();
    let all = FetchSpec { offset: 0, max_bytes: u64::MAX, min_one_message: true, upper_bound: end };
    // After a clean shutdown records are not checked before they are read.
    let reopened = || {
        let options = LogOptions { clean_shutdown: true, ..options(small_segments()) };
        Log::open(&storage(&disk), Path::new(DIR), options).unwrap()
    };
    assert_eq!(read(&reopened(), all).records.unwrap().length, intact.len() as u64);
    for position in 0..intact.len() {
        // The leader epoch of a batch is not part of its checksum.
        let mut damaged = intact.clone();
        damaged[position] ^= 1;
        let epochs = Batches::new(intact.clone().into()).scan(0, |at, batch| {
            let start = *at;
            *at += batch.unwrap().bytes.len();
            Some(start + 12..start + 16)
        });
        if epochs.into_iter().any(|epoch| epoch.contains(&position)) {
            continue;
        }
        disk.write_synced(&path, &damaged).unwrap();
        let log = reopened();
        let verified = log.view().verify(0);
        assert!(
            matches!(verified, Err(ReadError::Corrupt { segment: 0, .. })),
            "{position}: {verified:?}"
        );
        let given = log.view().read(all);
        // A first batch with an offset far above the others hides them all.
        let is_empty = given.as_ref().is_ok_and(|given| given.records.is_none());
        let is_refused = matches!(given, Err(ReadError::Corrupt { segment: 0, .. }));
        assert!(is_refused || is_empty, "{position}: {given:?}");
    }
    disk.write_synced(&path, &intact).unwrap();
    assert_eq!(reopened().view().verify(0).unwrap(), intact.len() as u64);
}

#[test]
fn records_from_before_1970_have_no_largest_timestamp_but_are_found_by_their_own() {
    let mut log = open(&MemoryDisk::default(), small_segments());
    for timestamp in [-5_000, -7_000, -3_000] {
        let mut old = batch(2, timestamp);
        // The header of such a batch after validation.
        old.header =
            old.header.with_max_timestamp(klamm_protocol::batch::TimestampType::CreateTime, -1);
        append(&mut log, old);
    }
    let find = |log: &Log, target| {
        let found = log.view().offset_for(target).unwrap();
        found.map(|found| (found.timestamp, found.offset))
    };
    assert_eq!(find(&log, OffsetTarget::MaxTimestamp), None);
    assert_eq!(find(&log, OffsetTarget::Timestamp(-7_000)), Some((Some(-5_000), 0)));
    assert_eq!(find(&log, OffsetTarget::Timestamp(-4_000)), Some((Some(-3_000), 4)));
    assert_eq!(find(&log, OffsetTarget::Timestamp(0)), None);
    append(&mut log, batch(2, 5));
    assert_eq!(find(&log, OffsetTarget::MaxTimestamp), Some((Some(5), 6)));
    assert_eq!(find(&log, OffsetTarget::Timestamp(0)), Some((Some(5), 6)));
}
