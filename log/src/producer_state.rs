//! The idempotent and transactional producers of a partition: the last batches of each (to detect duplicates and gaps),
//! and the open transactions.
//!
//! Kafka's `ProducerStateManager` without its files. Derived from the log alone: replaying the records below an offset
//! gives the same state as appending them did. Only the verifications of [`ProducerState::start_verification`] are not
//! in the log; losing one costs a client one retry.

mod entry;
mod update;

pub use entry::{BatchMetadata, ProducerEntry};
pub(crate) use update::{Check, PendingUpdates};

use crate::error::AppendError;
use klamm_protocol::ids::{Offset, ProducerEpoch, ProducerId};
use klamm_protocol::time::Now;
use std::collections::BTreeMap;

/// The origin of records, which determines the checks (Kafka's `AppendOrigin`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A producer: sequences, epochs and transactions are checked.
    Client,
    /// A group or transaction coordinator: epochs and transactions are checked.
    Coordinator,
    /// The metadata quorum's leader: offsets are already assigned, and kept.
    RaftLeader,
    /// Fetched from a leader, or replayed from this log: the records are accepted without checks.
    Replication,
}

/// The proof that a transaction was verified with its coordinator before its first write to this partition (KIP-890).
/// Valid for one verification only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerificationGuard(u64);

/// The end marker of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTxnMarker {
    pub committed: bool,
    pub coordinator_epoch: i32,
    /// `transaction.version` of the cluster when the marker was requested; 0 if unknown.
    pub transaction_version: i16,
}

/// A transaction that ended in this partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompletedTxn {
    pub producer_id: ProducerId,
    pub first_offset: Offset,
    /// The offset of the marker.
    pub last_offset: Offset,
    pub aborted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Verification {
    guard: VerificationGuard,
    started_ms: i64,
    lowest_sequence: i32,
    epoch: ProducerEpoch,
    supports_epoch_bump: bool,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct ProducerState {
    producers: BTreeMap<ProducerId, ProducerEntry>,
    /// Open transactions by their first offset in this partition.
    ongoing: BTreeMap<Offset, ProducerId>,
    /// Ended transactions, by first offset, whose marker (the value) is not below the high watermark.
    unreplicated: BTreeMap<Offset, Offset>,
    verifications: BTreeMap<ProducerId, Verification>,
    guards_given: u64,
    end_offset: Offset,
}

impl PartialEq for ProducerState {
    /// Compares the state that is derived from the log, without verifications.
    fn eq(&self, other: &Self) -> bool {
        self.producers == other.producers
            && self.ongoing == other.ongoing
            && self.end_offset == other.end_offset
    }
}

impl ProducerState {
    /// An empty state at an offset.
    pub fn new(end_offset: Offset) -> Self {
        Self { end_offset, ..Self::default() }
    }

    /// The state of a snapshot at `end_offset`.
    pub fn restored(end_offset: Offset, entries: Vec<ProducerEntry>) -> Self {
        let mut state = Self::new(end_offset);
        for entry in entries {
            if let Some(first_offset) = entry.txn_first_offset {
                state.ongoing.insert(first_offset, entry.producer_id);
            }
            state.producers.insert(entry.producer_id, entry);
        }
        state
    }

    /// The offset after the last record that the state includes.
    pub fn end_offset(&self) -> Offset {
        self.end_offset
    }

    /// Every producer, by id.
    pub fn producers(&self) -> impl Iterator<Item = &ProducerEntry> {
        self.producers.values()
    }

    /// The number of producers.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    pub fn producer(&self, producer_id: ProducerId) -> Option<&ProducerEntry> {
        self.producers.get(&producer_id)
    }

    pub fn has_ongoing_transaction(&self, producer_id: ProducerId, epoch: ProducerEpoch) -> bool {
        self.producer(producer_id)
            .is_some_and(|entry| entry.txn_first_offset.is_some() && entry.epoch == epoch)
    }

    /// The first offset that a `read_committed` consumer must not see yet: that of the oldest transaction that is open,
    /// or whose marker is not committed.
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        let undecided = self.ongoing.keys().next();
        let unreplicated = self.unreplicated.keys().next();
        undecided.into_iter().chain(unreplicated).min().copied()
    }

    /// The last timestamp of the oldest open transaction: an old one may be a hanging transaction.
    pub fn oldest_transaction_timestamp(&self) -> Option<i64> {
        let (_, producer_id) = self.ongoing.first_key_value()?;
        self.producer(*producer_id).map(|entry| entry.last_timestamp)
    }

    /// Drops the ended transactions whose marker is below the high watermark (or log start).
    pub fn on_high_watermark(&mut self, high_watermark: Offset) {
        self.unreplicated.retain(|_, marker| *marker >= high_watermark);
    }

    /// Removes producers without a write for `producer.id.expiration.ms`, unless they are in a transaction.
    pub fn remove_expired(&mut self, now: Now, expiration_ms: i64) {
        self.producers.retain(|_, entry| {
            entry.txn_first_offset.is_some()
                || now.retention_ms.saturating_sub(entry.last_timestamp) < expiration_ms
        });
        self.verifications
            .retain(|_, entry| now.steady_ms.saturating_sub(entry.started_ms) < expiration_ms);
    }

    /// Begins the verification of a transaction's first write to this partition, before the request to the coordinator.
    /// `None`: the transaction is already open and needs no verification.
    pub fn start_verification(
        &mut self,
        producer_id: ProducerId,
        epoch: ProducerEpoch,
        sequence: i32,
        supports_epoch_bump: bool,
        now_ms: i64,
    ) -> Result<Option<VerificationGuard>, AppendError> {
        if let Some(entry) = self.producer(producer_id)
            && epoch < entry.epoch
        {
            let (offset, current) = (self.end_offset, entry.epoch);
            let incoming = epoch;
            return Err(AppendError::InvalidProducerEpoch {
                producer_id,
                offset,
                incoming,
                current,
            });
        }
        if self.has_ongoing_transaction(producer_id, epoch) {
            return Ok(None);
        }
        self.guards_given += 1;
        let fresh = Verification {
            guard: VerificationGuard(self.guards_given),
            started_ms: now_ms,
            lowest_sequence: sequence,
            epoch,
            supports_epoch_bump,
        };
        let entry = self.verifications.entry(producer_id).or_insert(fresh);
        entry.note(sequence, epoch);
        Ok(Some(entry.guard))
    }

    /// The state includes every record below `offset`, even if the last ones are of no producer.
    pub(crate) fn set_end_offset(&mut self, offset: Offset) {
        self.end_offset = offset;
    }

    /// The last stable offset after the end of `completed`.
    pub(crate) fn last_stable_offset_after(&self, completed: &CompletedTxn) -> Offset {
        let mut others = self.ongoing.iter().filter(|(_, id)| **id != completed.producer_id);
        others.next().map_or(completed.last_offset + 1, |(first_offset, _)| *first_offset)
    }

    /// Copies the verifications, which are not in the log, from the state before a truncation.
    pub(crate) fn keep_verifications_of(&mut self, other: &Self) {
        self.verifications.clone_from(&other.verifications);
        self.guards_given = other.guards_given;
    }

    pub(crate) fn complete(&mut self, completed: &CompletedTxn) {
        self.ongoing.remove(&completed.first_offset);
        self.unreplicated.insert(completed.first_offset, completed.last_offset);
    }
}

impl Verification {
    /// Keeps the lowest sequence of the epoch: if a higher one were appended first, the lower one would fail for ever.
    fn note(&mut self, sequence: i32, epoch: ProducerEpoch) {
        if epoch == self.epoch {
            self.lowest_sequence = self.lowest_sequence.min(sequence);
        } else if epoch > self.epoch {
            self.epoch = epoch;
            self.lowest_sequence = sequence;
        }
    }
}

#[cfg(test)]
mod tests;
