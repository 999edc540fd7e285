//! The checks of a batch against a producer's state, and the state after it. The state changes only after all batches
//! of an append have passed the checks (Kafka's `ProducerAppendInfo`).

use super::{
    AppendOrigin, BatchMetadata, CompletedTxn, EndTxnMarker, ProducerEntry, ProducerState,
    Verification, VerificationGuard,
};
use crate::error::AppendError;
use klamm_protocol::batch::{BatchHeader, NO_PRODUCER_EPOCH};
use klamm_protocol::ids::{Offset, ProducerEpoch, ProducerId};

/// The parameters of the checks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check {
    pub(crate) origin: AppendOrigin,
    pub(crate) guard: Option<VerificationGuard>,
    /// `transaction.partition.verification.enable`
    pub(crate) verify_transactions: bool,
}

impl Check {
    /// For records that the leader or this log has accepted before.
    pub(crate) const REPLICATION: Self =
        Self { origin: AppendOrigin::Replication, guard: None, verify_transactions: false };
}

/// The changes of an append.
#[derive(Debug, Default)]
pub(crate) struct PendingUpdates {
    entries: Vec<ProducerEntry>,
    started: Vec<(Offset, ProducerId)>,
    pub(crate) completed: Vec<CompletedTxn>,
    verified: Vec<ProducerId>,
}

impl ProducerState {
    /// The earlier append of the same batch, if the producer has sent it again.
    pub(crate) fn duplicate_of(&self, header: &BatchHeader) -> Option<BatchMetadata> {
        self.producer(header.producer_id)?.duplicate_of(header)
    }

    /// Checks a batch with its final offset and adds its changes to `pending`.
    pub(crate) fn prepare(
        &self,
        pending: &mut PendingUpdates,
        header: &BatchHeader,
        marker: Option<EndTxnMarker>,
        check: Check,
    ) -> Result<(), AppendError> {
        if !header.has_producer_id() {
            return Ok(());
        }
        self.check_verified(header, check)?;
        let current = self.producer(header.producer_id);
        let position = match pending.position(header.producer_id) {
            Some(position) => position,
            None => {
                let unknown = ProducerEntry::unknown(header.producer_id);
                pending.entries.push(current.copied().unwrap_or(unknown));
                pending.entries.len() - 1
            }
        };
        let verification = self.verifications.get(&header.producer_id);
        let entry = &mut pending.entries[position];
        match marker {
            Some(marker) => {
                pending.completed.extend(end_transaction(entry, header, marker, check)?);
            }
            // The log cleaner has removed the marker of the control batch, and with it the transaction.
            None if header.is_control() => {}
            None => {
                let is_known = current.is_some_and(|entry| entry.epoch != NO_PRODUCER_EPOCH);
                if check.origin != AppendOrigin::Replication {
                    check_epoch(entry, header)?;
                }
                if check.origin == AppendOrigin::Client {
                    check_sequence(entry, header, verification, is_known)?;
                }
                pending.started.extend(append_data(entry, header, check)?);
            }
        }
        if header.is_transactional() && !begins_next_transaction(verification, header) {
            pending.verified.push(header.producer_id);
        }
        Ok(())
    }

    /// The first write of a transaction needs the proof of its verification (KIP-890).
    fn check_verified(&self, header: &BatchHeader, check: Check) -> Result<(), AppendError> {
        let producer_id = header.producer_id;
        let from_outside = matches!(check.origin, AppendOrigin::Client | AppendOrigin::Coordinator);
        if !from_outside
            || !header.is_transactional()
            || self.has_ongoing_transaction(producer_id, header.producer_epoch)
        {
            return Ok(());
        }
        if let Some(entry) = self.producer(producer_id) {
            check_epoch(entry, header)?;
        }
        if !check.verify_transactions || header.is_control() {
            return Ok(());
        }
        let expected = self.verifications.get(&producer_id).map(|entry| entry.guard);
        if expected.is_none() || expected != check.guard {
            return Err(AppendError::NotInTransaction { producer_id });
        }
        Ok(())
    }

    /// Checks a batch outside of transactions, with its final offset, and applies it, as an append to a log does: for
    /// users with another kind of log (the cluster simulation). If the batch is a duplicate, returns the earlier append
    /// and changes nothing.
    pub fn append(
        &mut self,
        header: &BatchHeader,
        origin: AppendOrigin,
    ) -> Result<Option<BatchMetadata>, AppendError> {
        if origin == AppendOrigin::Client
            && let Some(earlier) = self.duplicate_of(header)
        {
            return Ok(Some(earlier));
        }
        let mut pending = PendingUpdates::default();
        let check = Check { origin, guard: None, verify_transactions: false };
        self.prepare(&mut pending, header, None, check)?;
        self.apply(&pending);
        self.set_end_offset(header.next_offset());
        Ok(None)
    }

    /// Applies the changes. The caller then completes the transactions in `completed`, in order.
    pub(crate) fn apply(&mut self, pending: &PendingUpdates) {
        for entry in &pending.entries {
            self.producers.insert(entry.producer_id, *entry);
        }
        self.ongoing.extend(pending.started.iter().copied());
        for producer_id in &pending.verified {
            self.verifications.remove(producer_id);
        }
    }
}

impl PendingUpdates {
    fn position(&self, producer_id: ProducerId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.producer_id == producer_id)
    }
}

/// With an epoch bump per transaction, the next transaction may have been verified before the marker of this one
/// arrives: its guard stays.
fn begins_next_transaction(verification: Option<&Verification>, header: &BatchHeader) -> bool {
    verification.is_some_and(|entry| {
        entry.supports_epoch_bump && header.is_control() && header.producer_epoch == entry.epoch
    })
}

fn append_data(
    entry: &mut ProducerEntry,
    header: &BatchHeader,
    check: Check,
) -> Result<Option<(Offset, ProducerId)>, AppendError> {
    let batch = BatchMetadata {
        last_sequence: header.last_sequence(),
        last_offset: header.last_offset(),
        offset_delta: header.last_offset_delta,
        timestamp: header.max_timestamp,
    };
    entry.add_batch(header.producer_epoch, batch);
    match (entry.txn_first_offset, header.is_transactional()) {
        (Some(_), false) if check.origin != AppendOrigin::Replication => {
            Err(AppendError::ExpectedTransactional { producer_id: header.producer_id })
        }
        (None, true) => {
            entry.txn_first_offset = Some(header.base_offset);
            Ok(Some((header.base_offset, header.producer_id)))
        }
        _ => Ok(None),
    }
}

fn end_transaction(
    entry: &mut ProducerEntry,
    header: &BatchHeader,
    marker: EndTxnMarker,
    check: Check,
) -> Result<Option<CompletedTxn>, AppendError> {
    if check.origin != AppendOrigin::Replication {
        check_marker_epoch(entry, header, marker)?;
        check_coordinator_epoch(entry, header, marker)?;
    }
    // A marker without data in this partition changes neither the last stable offset nor the index.
    let completed = entry.txn_first_offset.take().map(|first_offset| CompletedTxn {
        producer_id: header.producer_id,
        first_offset,
        last_offset: header.base_offset,
        aborted: !marker.committed,
    });
    entry.enter_epoch(header.producer_epoch);
    entry.coordinator_epoch = marker.coordinator_epoch;
    entry.last_timestamp = header.max_timestamp;
    Ok(completed)
}

fn check_epoch(entry: &ProducerEntry, header: &BatchHeader) -> Result<(), AppendError> {
    if header.producer_epoch < entry.epoch {
        return Err(invalid_epoch(entry, header));
    }
    Ok(())
}

/// From `transaction.version` 2 on every transaction bumps the epoch, so that its marker has a higher one than its
/// data. A duplicate marker has the same epoch: it is accepted if no transaction is open, and also at the maximum
/// epoch, which cannot be bumped.
fn check_marker_epoch(
    entry: &ProducerEntry,
    header: &BatchHeader,
    marker: EndTxnMarker,
) -> Result<(), AppendError> {
    if marker.transaction_version < 2 {
        return check_epoch(entry, header);
    }
    let is_retry = header.producer_epoch == entry.epoch
        && (entry.txn_first_offset.is_none() || header.producer_epoch == ProducerEpoch::MAX);
    if header.producer_epoch <= entry.epoch && !is_retry {
        return Err(invalid_epoch(entry, header));
    }
    Ok(())
}

fn invalid_epoch(entry: &ProducerEntry, header: &BatchHeader) -> AppendError {
    AppendError::InvalidProducerEpoch {
        producer_id: header.producer_id,
        offset: header.base_offset,
        incoming: header.producer_epoch,
        current: entry.epoch,
    }
}

fn check_coordinator_epoch(
    entry: &ProducerEntry,
    header: &BatchHeader,
    marker: EndTxnMarker,
) -> Result<(), AppendError> {
    let (incoming, current) = (marker.coordinator_epoch, entry.coordinator_epoch);
    if incoming < current {
        let producer_id = header.producer_id;
        return Err(AppendError::TransactionCoordinatorFenced { producer_id, incoming, current });
    }
    Ok(())
}

/// An unknown producer may begin with any sequence: its earlier records may have been deleted.
fn check_sequence(
    entry: &ProducerEntry,
    header: &BatchHeader,
    verification: Option<&Verification>,
    is_known: bool,
) -> Result<(), AppendError> {
    let incoming = header.base_sequence;
    let out_of_order = |current: i32| AppendError::OutOfOrderSequence {
        producer_id: header.producer_id,
        offset: header.base_offset,
        incoming,
        current,
    };
    if let Some(verification) = verification {
        if verification.supports_epoch_bump && incoming != 0 && entry.batches().is_empty() {
            return Err(out_of_order(-1));
        }
        if incoming > verification.lowest_sequence {
            return Err(out_of_order(verification.lowest_sequence));
        }
    }
    if !is_known {
        return Ok(());
    }
    let last = entry.last_sequence();
    let follows = if header.producer_epoch == entry.epoch {
        i64::from(incoming) == i64::from(last) + 1 || (incoming == 0 && last == i32::MAX)
    } else {
        incoming == 0
    };
    if follows { Ok(()) } else { Err(out_of_order(last)) }
}
