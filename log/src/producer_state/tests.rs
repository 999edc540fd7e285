//! Tests of the state by itself; those through the log are with the log.

use super::*;
use klamm_protocol::batch_builder::BatchBuilder;

fn header(id: ProducerId, base: Offset, sequence: i32) -> klamm_protocol::batch::BatchHeader {
    let mut builder = BatchBuilder::new(base).producer(id, 0, sequence).transactional();
    builder.append(1, None, None, &[]).unwrap();
    builder.build().unwrap().header
}

fn apply(state: &mut ProducerState, id: ProducerId, base: Offset, sequence: i32) {
    let mut pending = PendingUpdates::default();
    state.prepare(&mut pending, &header(id, base, sequence), None, Check::REPLICATION).unwrap();
    state.apply(&pending);
}

#[test]
fn nothing_changes_before_the_update_is_applied() {
    let state = ProducerState::new(0);
    let mut pending = PendingUpdates::default();
    state.prepare(&mut pending, &header(1, 0, 0), None, Check::REPLICATION).unwrap();
    assert!(state.is_empty());
    assert_eq!(state, ProducerState::new(0));
}

#[test]
fn batches_of_one_append_build_on_each_other() {
    let state = ProducerState::new(0);
    let check = Check { origin: AppendOrigin::Client, guard: None, verify_transactions: false };
    let mut pending = PendingUpdates::default();
    state.prepare(&mut pending, &header(1, 0, 0), None, check).unwrap();
    state.prepare(&mut pending, &header(1, 1, 1), None, check).unwrap();
    let mut state = state;
    state.apply(&pending);
    assert_eq!(state.producer(1).unwrap().last_sequence(), 1);
    assert_eq!(state.producer(1).unwrap().txn_first_offset, Some(0));
}

#[test]
fn an_ended_transaction_is_unstable_until_its_marker_is_committed() {
    let mut state = ProducerState::new(0);
    apply(&mut state, 1, 10, 0);
    apply(&mut state, 2, 20, 0);
    let end = CompletedTxn { producer_id: 1, first_offset: 10, last_offset: 30, aborted: true };
    assert_eq!(state.last_stable_offset_after(&end), 20);
    state.complete(&end);
    assert_eq!(state.first_unstable_offset(), Some(10));
    state.on_high_watermark(30);
    assert_eq!(state.first_unstable_offset(), Some(10));
    state.on_high_watermark(31);
    assert_eq!(state.first_unstable_offset(), Some(20));
}
