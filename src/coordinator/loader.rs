//! Loads a coordinator: reads its partition from the start and replays the records.

use klamm_coordinator::runtime::{Shard, ShardLoader};
use klamm_log::error::{ReadError, Severity};
use klamm_log::log_reader::{FetchSpec, LogView};
use klamm_protocol::batch::{BatchError, Batches, RecordBatch};
use klamm_protocol::control_record::{ControlRecord, ControlRecordError};
use klamm_protocol::ids::{Offset, ProducerId, none_if_minus_one};

/// The maximum decompressed size of one batch. Coordinators write batches of `max.message.bytes` at most, and no useful
/// value of it comes near this limit.
const MAX_DECOMPRESSED_BYTES: usize = 256 * 1024 * 1024;

/// Why a partition cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError<E> {
    #[error("cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("holds a damaged batch at or above offset {offset}: {source}")]
    Batch { offset: Offset, source: BatchError },
    #[error("holds bytes at offset {offset} that are no batch")]
    NoBatch { offset: Offset },
    #[error("holds a damaged control record at offset {offset}: {source}")]
    Control { offset: Offset, source: ControlRecordError },
    #[error("holds a record at offset {offset} that cannot be replayed: {source}")]
    Replay { offset: Offset, source: E },
}

impl<E> LoadError<E> {
    /// A later retry may succeed.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Read(failure) => failure.severity() == Some(Severity::Passes),
            Self::Batch { .. }
            | Self::NoBatch { .. }
            | Self::Control { .. }
            | Self::Replay { .. } => false,
        }
    }
}

/// Replays all records of the view; `None` if `stopped` returns true meanwhile. Blocks.
pub(super) fn load<S: Shard>(
    mut loader: ShardLoader<S>,
    view: &LogView,
    buffer_bytes: u64,
    stopped: impl Fn() -> bool,
) -> Result<Option<ShardLoader<S>>, LoadError<S::ReplayError>> {
    let mut offset = view.log_start();
    while offset < view.log_end() {
        if stopped() {
            return Ok(None);
        }
        let fetched = view.read(FetchSpec {
            offset,
            max_bytes: buffer_bytes,
            min_one_message: true,
            upper_bound: view.log_end(),
        })?;
        // Compaction has removed the rest of the log.
        let Some(records) = fetched.records else { break };
        offset = replay_batches(&mut loader, Batches::new(records.read()?), offset)?;
    }
    Ok(Some(loader))
}

/// Replays the records at or above `from`, and returns the next offset.
fn replay_batches<S: Shard>(
    loader: &mut ShardLoader<S>,
    batches: Batches,
    from: Offset,
) -> Result<Offset, LoadError<S::ReplayError>> {
    let mut next = from;
    for batch in batches {
        let batch = batch.map_err(|source| LoadError::Batch { offset: next, source })?;
        replay_batch(loader, &batch, from)?;
        next = batch.header.next_offset();
    }
    if next == from { Err(LoadError::NoBatch { offset: from }) } else { Ok(next) }
}

fn replay_batch<S: Shard>(
    loader: &mut ShardLoader<S>,
    batch: &RecordBatch,
    from: Offset,
) -> Result<(), LoadError<S::ReplayError>> {
    let header = batch.header;
    let damaged = |source| LoadError::Batch { offset: header.base_offset, source };
    batch.check_crc().map_err(damaged)?;
    for record in batch.records(MAX_DECOMPRESSED_BYTES).map_err(damaged)? {
        let record = record.map_err(damaged)?;
        let offset = record.offset;
        if offset < from {
            continue;
        }
        if header.is_control() {
            let control = ControlRecord::read(&record)
                .map_err(|source| LoadError::Control { offset, source })?;
            if let Some(ControlRecord::EndTransaction(end)) = control {
                loader.replay_end_transaction(header.producer_id, end.committed);
            }
            continue;
        }
        let key = record.key.unwrap_or_default();
        loader
            .replay(offset, producer_of(batch), key, record.value)
            .map_err(|source| LoadError::Replay { offset, source })?;
    }
    Ok(())
}

/// The producer whose transaction a batch belongs to.
fn producer_of(batch: &RecordBatch) -> Option<ProducerId> {
    none_if_minus_one(batch.header.producer_id).filter(|_| batch.header.is_transactional())
}
