//! Restores the producer state at an offset: from a snapshot and the records after it.

use super::opening_error;
use crate::error::{LogError, ReadError};
use crate::file_name::FileKind;
use crate::log::marker_of;
use crate::producer_snapshot;
use crate::producer_state::{Check, PendingUpdates, ProducerState};
use crate::segment::{BatchAt, BatchScan, PartitionHome, ScanError, Segment};
use crate::txn_index::{AbortedTxn, TxnIndex};
use bytes::Bytes;
use klamm_protocol::batch::BatchHeader;
use klamm_protocol::ids::Offset;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The producer state of the newest valid snapshot at or below `upto`; without one, an empty state at `start`. Damaged
/// snapshots are removed.
pub(crate) fn latest_snapshot(
    home: &PartitionHome,
    snapshots: &mut BTreeSet<Offset>,
    start: Offset,
    upto: Offset,
) -> Result<ProducerState, LogError> {
    while let Some(offset) = snapshots.range(..=upto).next_back().copied() {
        let path = home.file(&FileKind::ProducerSnapshot.name(offset));
        match home.disk.read(&path) {
            Ok(contents) => {
                if let Ok(entries) = producer_snapshot::decode(&contents) {
                    return Ok(ProducerState::restored(offset, entries));
                }
                home.disk.remove_file_if_exists(&path)?;
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        snapshots.remove(&offset);
    }
    Ok(ProducerState::new(start))
}

/// Replays records into a producer state up to `upto`, which it must not be above.
pub(crate) fn replay(
    segments: &[Arc<Segment>],
    state: &mut ProducerState,
    upto: Offset,
) -> Result<(), LogError> {
    let first = segments.partition_point(|s| s.base_offset() <= state.end_offset());
    for segment in &segments[first.saturating_sub(1)..] {
        if segment.base_offset() < upto {
            replay_segment(segment, state, upto)?;
        }
    }
    state.set_end_offset(upto);
    Ok(())
}

pub(super) fn replay_segment(
    segment: &Segment,
    state: &mut ProducerState,
    upto: Offset,
) -> Result<(), LogError> {
    let start = state.end_offset();
    let first = match segment.find(start, segment.size()) {
        Ok(Some(first)) => first,
        // Reads will report the damage.
        Ok(None) | Err(ReadError::Corrupt { .. }) => return Ok(()),
        Err(error) => return Err(opening_error(error)),
    };
    let file = segment.file()?;
    for batch in BatchScan::new(file.as_ref(), first.position, segment.size()) {
        let batch = match batch {
            Ok(batch) if batch.header.base_offset < upto => batch,
            Ok(_) | Err(ScanError::Corrupt { .. }) => break,
            Err(ScanError::Disk(error)) => return Err(error.into()),
        };
        replay_batch(segment, state, &batch)?;
    }
    Ok(())
}

fn replay_batch(
    segment: &Segment,
    state: &mut ProducerState,
    batch: &BatchAt,
) -> Result<(), LogError> {
    let mut body = Bytes::new();
    if batch.header.is_control() && batch.header.has_producer_id() {
        match segment.read_batch(batch) {
            Ok(whole) => body = whole.body(),
            Err(ReadError::Storage(error)) => return Err(error),
            // Reads will report the damage; an unreadable marker does not end a transaction.
            Err(_) => {}
        }
    }
    apply(state, &batch.header, &body, &mut TxnIndex::default());
    Ok(())
}

/// Applies a batch that was accepted before, and adds the transaction that it aborts to the index.
pub(super) fn apply(
    state: &mut ProducerState,
    header: &BatchHeader,
    body: &Bytes,
    txns: &mut TxnIndex,
) {
    let mut pending = PendingUpdates::default();
    let marker = marker_of(header, body);
    state
        .prepare(&mut pending, header, marker, Check::REPLICATION)
        .expect("replication checks nothing");
    state.apply(&pending);
    for txn in &pending.completed {
        if txn.aborted {
            txns.append(AbortedTxn {
                producer_id: txn.producer_id,
                first_offset: txn.first_offset,
                last_offset: txn.last_offset,
                last_stable_offset: state.last_stable_offset_after(txn),
            });
        }
        state.complete(txn);
    }
    state.set_end_offset(header.next_offset());
}
