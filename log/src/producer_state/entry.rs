//! One producer in one partition.

use klamm_protocol::batch::{BatchHeader, NO_PRODUCER_EPOCH, NO_SEQUENCE, NO_TIMESTAMP};
use klamm_protocol::ids::{Offset, ProducerEpoch, ProducerId};

/// The number of batches that a producer may have in flight and resend (`max.in.flight.requests.per.connection` of an
/// idempotent producer).
pub(crate) const BATCHES_KEPT: usize = 5;

/// A batch that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchMetadata {
    pub last_sequence: i32,
    pub last_offset: Offset,
    /// Last offset less first offset, and last sequence less first sequence.
    pub offset_delta: i32,
    /// The largest timestamp of the batch, in milliseconds.
    pub timestamp: i64,
}

impl BatchMetadata {
    pub fn first_offset(&self) -> Offset {
        self.last_offset - Offset::from(self.offset_delta)
    }

    /// Sequences wrap from 2^31-1 to 0.
    pub fn first_sequence(&self) -> i32 {
        if self.last_sequence >= self.offset_delta {
            return self.last_sequence - self.offset_delta;
        }
        i32::MAX - (self.offset_delta - self.last_sequence) + 1
    }
}

/// The state of a producer, in the terms of the batch headers and the snapshot file: epochs are compared as they are
/// there, with -1 below all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerEntry {
    pub producer_id: ProducerId,
    /// [`NO_PRODUCER_EPOCH`], which is below every epoch, before the first batch.
    pub epoch: ProducerEpoch,
    /// The coordinator epoch of the last marker; -1, which is below every one, before the first marker.
    pub coordinator_epoch: i32,
    /// Milliseconds, as the batch header has them: [`NO_TIMESTAMP`] in a batch without timestamps.
    pub last_timestamp: i64,
    /// The first offset of the open transaction in this partition.
    pub txn_first_offset: Option<Offset>,
    batches: [BatchMetadata; BATCHES_KEPT],
    batch_count: usize,
}

impl ProducerEntry {
    /// A producer without records.
    pub fn unknown(producer_id: ProducerId) -> Self {
        Self {
            producer_id,
            epoch: NO_PRODUCER_EPOCH,
            coordinator_epoch: -1,
            last_timestamp: NO_TIMESTAMP,
            txn_first_offset: None,
            batches: [BatchMetadata::default(); BATCHES_KEPT],
            batch_count: 0,
        }
    }

    /// The last batches of the epoch, oldest first.
    pub fn batches(&self) -> &[BatchMetadata] {
        &self.batches[..self.batch_count]
    }

    pub fn last_batch(&self) -> Option<&BatchMetadata> {
        self.batches().last()
    }

    /// [`NO_SEQUENCE`], which the first sequence follows, if the epoch has no batch.
    pub fn last_sequence(&self) -> i32 {
        self.last_batch().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    /// The batch that was appended before with exactly these sequences.
    pub fn duplicate_of(&self, header: &BatchHeader) -> Option<BatchMetadata> {
        let range = (header.base_sequence, header.last_sequence());
        let is_same =
            |batch: &&BatchMetadata| (batch.first_sequence(), batch.last_sequence) == range;
        (header.producer_epoch == self.epoch)
            .then(|| self.batches().iter().find(is_same).copied())?
    }

    pub(crate) fn add_batch(&mut self, epoch: ProducerEpoch, batch: BatchMetadata) {
        self.enter_epoch(epoch);
        if self.batch_count == BATCHES_KEPT {
            self.batches.rotate_left(1);
            self.batch_count -= 1;
        }
        self.batches[self.batch_count] = batch;
        self.batch_count += 1;
        self.last_timestamp = batch.timestamp;
    }

    /// A new epoch starts its sequences again.
    pub(crate) fn enter_epoch(&mut self, epoch: ProducerEpoch) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches = [BatchMetadata::default(); BATCHES_KEPT];
            self.batch_count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(last_sequence: i32, offset_delta: i32) -> BatchMetadata {
        BatchMetadata { last_sequence, last_offset: 100, offset_delta, timestamp: 5 }
    }

    #[test]
    fn the_first_sequence_wraps_backwards() {
        assert_eq!(batch(9, 9).first_sequence(), 0);
        assert_eq!(batch(0, 1).first_sequence(), i32::MAX);
        assert_eq!(batch(2, 5).first_sequence(), i32::MAX - 2);
        assert_eq!(batch(9, 9).first_offset(), 91);
    }

    #[test]
    fn five_batches_are_kept_and_an_epoch_clears_them() {
        let mut entry = ProducerEntry::unknown(1);
        (0..7).for_each(|sequence| entry.add_batch(0, batch(sequence, 0)));
        let kept = entry.batches().iter().map(|batch| batch.last_sequence).collect::<Vec<_>>();
        assert_eq!(kept, [2, 3, 4, 5, 6]);
        entry.add_batch(1, batch(0, 0));
        assert_eq!(entry.batches().len(), 1);
    }
}
