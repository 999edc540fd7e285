//! Idempotence and transactions through the log: answers, last stable offset, aborted transactions.

use super::*;
use klamm_protocol::ErrorCode;

fn code(outcome: Result<AppendInfo, AppendError>) -> ErrorCode {
    outcome.unwrap_err().code()
}

#[test]
fn a_repeated_batch_is_answered_with_its_first_offsets() {
    let mut log = open(&MemoryDisk::default(), small_segments());
    append(&mut log, batch(7, 1));
    for n in 0..6 {
        append(&mut log, produced(5, 0, n * 2, 2));
    }
    let end = log.log_end();
    let repeated = append(&mut log, produced(5, 0, 4, 2));
    assert_eq!((repeated.first_offset, repeated.last_offset), (11, 12));
    assert_eq!((repeated.duplicate, repeated.log_append_time_ms), (true, Some(1000)));
    assert_eq!(log.log_end(), end);
    let older = try_append(&mut log, produced(5, 0, 0, 2));
    assert_eq!(code(older), ErrorCode::OutOfOrderSequenceNumber, "the window is five batches");
    let overlap = try_append(&mut log, produced(5, 0, 5, 2));
    assert_eq!(code(overlap), ErrorCode::OutOfOrderSequenceNumber);
}

#[test]
fn sequences_and_epochs_are_checked() {
    let mut log = open(&MemoryDisk::default(), small_segments());
    append(&mut log, produced(5, 3, 77, 2));
    assert_eq!(
        code(try_append(&mut log, produced(5, 3, 80, 1))),
        ErrorCode::OutOfOrderSequenceNumber
    );
    assert_eq!(code(try_append(&mut log, produced(5, 2, 79, 1))), ErrorCode::InvalidProducerEpoch);
    assert_eq!(
        code(try_append(&mut log, produced(5, 4, 79, 1))),
        ErrorCode::OutOfOrderSequenceNumber
    );
    append(&mut log, produced(5, 3, 79, 1));
    append(&mut log, produced(5, 4, 0, 1));
    append(&mut log, produced(6, 0, i32::MAX, 1));
    append(&mut log, produced(6, 0, 0, 1));
}

#[test]
fn the_last_stable_offset_waits_for_the_oldest_transaction() {
    let mut log = open(&MemoryDisk::default(), small_segments());
    append(&mut log, batch(2, 1));
    append(&mut log, in_transaction(1, 0, 0));
    append(&mut log, in_transaction(2, 0, 0));
    log.set_high_watermark(6);
    assert_eq!(log.last_stable_offset(), 2);
    append_marker(&mut log, marker(1, 0, true));
    assert_eq!(log.last_stable_offset(), 2, "the marker is not committed");
    log.set_high_watermark(7);
    assert_eq!(log.last_stable_offset(), 4);
    append_marker(&mut log, marker(2, 0, false));
    log.set_high_watermark(8);
    assert_eq!(log.last_stable_offset(), 8);
    let aborted = log.view().aborted_transactions(0, 8);
    let found: Vec<_> = aborted.iter().map(|txn| (txn.producer_id, txn.first_offset)).collect();
    assert_eq!(found, [(2, 4)]);
    assert_eq!(aborted[0].last_stable_offset, 8);
    assert!(log.view().aborted_transactions(0, 4).is_empty());
    assert!(log.view().aborted_transactions(8, 9).is_empty());
}

#[test]
fn a_marker_without_data_changes_no_offset() {
    let mut log = open(&MemoryDisk::default(), small_segments());
    append_marker(&mut log, marker(9, 0, false));
    assert!(log.view().aborted_transactions(0, 1).is_empty());
    assert_eq!(log.producers().first_unstable_offset(), None);
}

#[test]
fn a_transaction_is_not_mixed_with_other_records() {
    let mut log = open(&MemoryDisk::default(), small_segments());
    append(&mut log, in_transaction(1, 0, 0));
    assert_eq!(code(try_append(&mut log, produced(1, 0, 2, 1))), ErrorCode::InvalidTxnState);
    assert_eq!(log.log_end(), 2);
}

#[test]
fn the_first_write_of_a_transaction_needs_its_verification() {
    let config = LogConfig { transaction_verification: true, ..small_segments() };
    let mut log = open(&MemoryDisk::default(), config);
    let outcome = try_append(&mut log, in_transaction(1, 0, 0));
    assert_eq!(code(outcome), ErrorCode::InvalidTxnState);
    let guard = log.producers_mut().start_verification(1, 0, 0, true, 0).unwrap();
    let verified = LeaderAppend { guard, ..by(AppendOrigin::Client, 0) };
    log.append_as_leader(&[in_transaction(1, 0, 0).into()], verified, 0).unwrap();
    assert_eq!(log.producers_mut().start_verification(1, 0, 2, true, 0).unwrap(), None);
    append(&mut log, in_transaction(1, 0, 2));
    append_marker(&mut log, marker(1, 1, false));
    let late = log.append_as_leader(&[in_transaction(1, 1, 0).into()], verified, 0);
    assert_eq!(code(late), ErrorCode::InvalidTxnState, "a guard is good for one transaction");
    let outcome = log.producers_mut().start_verification(1, 0, 0, true, 0);
    assert_eq!(outcome.unwrap_err().code(), ErrorCode::InvalidProducerEpoch);
}

#[test]
fn a_verified_producer_cannot_skip_a_sequence_that_failed() {
    let config = LogConfig { transaction_verification: true, ..small_segments() };
    let mut log = open(&MemoryDisk::default(), config);
    let first = log.producers_mut().start_verification(1, 0, 0, false, 0).unwrap();
    let second = log.producers_mut().start_verification(1, 0, 2, false, 0).unwrap();
    assert_eq!(first, second);
    let how = LeaderAppend { guard: second, ..by(AppendOrigin::Client, 0) };
    let overtaking = log.append_as_leader(&[in_transaction(1, 0, 2).into()], how, 0);
    assert_eq!(code(overtaking), ErrorCode::OutOfOrderSequenceNumber);
    log.append_as_leader(&[in_transaction(1, 0, 0).into()], how, 0).unwrap();
}

#[test]
fn an_old_marker_is_fenced() {
    let mut log = open(&MemoryDisk::default(), small_segments());
    append(&mut log, in_transaction(1, 5, 0));
    let how = |transaction_version| LeaderAppend {
        transaction_version,
        ..by(AppendOrigin::Coordinator, 0)
    };
    let old = log.append_as_leader(&[marker(1, 4, true).into()], how(0), 0);
    assert_eq!(code(old), ErrorCode::InvalidProducerEpoch);
    let not_bumped = log.append_as_leader(&[marker(1, 5, true).into()], how(2), 0);
    assert_eq!(code(not_bumped), ErrorCode::InvalidProducerEpoch);
    log.append_as_leader(&[marker(1, 6, true).into()], how(2), 0).unwrap();
    log.append_as_leader(&[marker(1, 6, true).into()], how(2), 0).expect("a retried marker");
    let end = EndTransaction { committed: true, coordinator_epoch: -1 };
    let fenced = klamm_protocol::control_record::end_transaction_batch(1, 7, end, 1).unwrap();
    let fenced = log.append_as_leader(&[fenced.into()], how(2), 0);
    assert_eq!(code(fenced), ErrorCode::TransactionCoordinatorFenced);
}

#[test]
fn silent_producers_are_forgotten_unless_in_a_transaction() {
    let mut log = open(&MemoryDisk::default(), small_segments());
    append(&mut log, produced(1, 0, 0, 1));
    append(&mut log, in_transaction(2, 0, 0));
    log.producers_mut().remove_expired(Now::at(1_999), 1_000);
    assert_eq!(log.producers().len(), 2);
    log.producers_mut().remove_expired(Now::at(2_000), 1_000);
    assert_eq!(log.producers().producers().map(|p| p.producer_id).collect::<Vec<_>>(), [2]);
    assert_eq!(log.producers().oldest_transaction_timestamp(), Some(1_000));
}

#[test]
fn producers_and_aborted_transactions_survive_a_restart() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, small_segments());
    for n in 0..20 {
        append(&mut log, in_transaction(1, 0, n * 2));
        append_marker(&mut log, marker(1, 0, n % 2 == 0));
    }
    append(&mut log, in_transaction(2, 3, 0));
    let aborted = log.view().aborted_transactions(0, 100);
    assert_eq!(aborted.len(), 10);
    log.close().unwrap();
    let clean = LogOptions { clean_shutdown: true, ..options(small_segments()) };
    let mut log = Log::open(&storage(&disk), Path::new(DIR), clean).unwrap();
    assert_eq!(log.view().aborted_transactions(0, 100), aborted);
    log.set_high_watermark(62);
    assert_eq!(log.producers().first_unstable_offset(), Some(60));
    assert!(append(&mut log, in_transaction(2, 3, 0)).duplicate);
    drop(log);
    let mut log = open(&disk, small_segments());
    assert_eq!(log.view().aborted_transactions(0, 100), aborted, "rebuilt from the records");
    log.set_high_watermark(62);
    assert_eq!(log.producers().first_unstable_offset(), Some(60));
}
