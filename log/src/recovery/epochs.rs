//! The leader epochs of a log that is being opened: from the file, or from the batch headers.

use crate::checkpoint::{self, LEADER_EPOCH};
use crate::error::LogError;
use crate::leader_epoch_cache::LeaderEpochCache;
use crate::segment::{BatchScan, PartitionHome, ScanError, Segment};
use klamm_protocol::batch::BatchHeader;
use klamm_protocol::ids::none_if_negative;
use std::sync::Arc;

/// The epochs of the file, and whether it was damaged: a damaged file counts as empty.
pub(super) fn read(home: &PartitionHome) -> Result<(LeaderEpochCache, bool), LogError> {
    match checkpoint::read_epochs(home.disk.as_ref(), &home.file(LEADER_EPOCH)) {
        Ok(entries) => Ok((LeaderEpochCache::from_entries(entries), false)),
        Err(LogError::Malformed { .. }) => Ok((LeaderEpochCache::default(), true)),
        Err(error) => Err(error),
    }
}

/// The epochs in the batch headers.
pub(super) fn epochs_of(segments: &[Arc<Segment>]) -> Result<LeaderEpochCache, LogError> {
    let mut epochs = LeaderEpochCache::default();
    segments.iter().try_for_each(|segment| note_epochs_of(segment, &mut epochs))?;
    Ok(epochs)
}

pub(super) fn note_epochs_of(
    segment: &Segment,
    epochs: &mut LeaderEpochCache,
) -> Result<(), LogError> {
    let file = segment.file()?;
    for batch in BatchScan::new(file.as_ref(), 0, segment.size()) {
        match batch {
            Ok(batch) => note_epoch(epochs, &batch.header),
            Err(ScanError::Disk(error)) => return Err(error.into()),
            // Reads will report the damage.
            Err(ScanError::Corrupt { .. }) => break,
        }
    }
    Ok(())
}

pub(super) fn note_epoch(epochs: &mut LeaderEpochCache, header: &BatchHeader) {
    let Some(epoch) = none_if_negative(header.partition_leader_epoch) else { return };
    if epochs.latest().is_none_or(|latest| latest.epoch < epoch) {
        epochs.assign(epoch, header.base_offset);
    }
}
