//! Reading a partition of `__consumer_offsets` from its start, so that its groups can be coordinated.

use klamm_coordinator::group::{GroupLoader, ReplayError, Replayed};
use klamm_log::error::{ReadError, Severity};
use klamm_log::log_reader::{FetchSpec, LogView};
use klamm_protocol::batch::{BatchError, Batches, RecordBatch};
use klamm_protocol::control_record::{ControlRecord, ControlRecordError};
use klamm_protocol::ids::Offset;

/// What the records of one batch may decompress to. Coordinators write batches of
/// `max.message.bytes` at most; no setting of it that is of use comes near this.
const MAX_DECOMPRESSED_BYTES: usize = 256 * 1024 * 1024;

/// Why a partition cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("holds a damaged batch at or above offset {offset}: {source}")]
    Batch { offset: Offset, source: BatchError },
    #[error("holds bytes at offset {offset} that are no batch")]
    NoBatch { offset: Offset },
    #[error("holds a damaged control record at offset {offset}: {source}")]
    Control { offset: Offset, source: ControlRecordError },
    #[error("holds a record at offset {offset} that cannot be replayed: {source}")]
    Replay { offset: Offset, source: ReplayError },
}

impl LoadError {
    /// Trying again later may succeed.
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

/// What was read.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) loader: GroupLoader,
    pub(super) records: u64,
    /// Records of types that no version of Kafka up to 4.3.1 writes.
    pub(super) unknown: u64,
}

/// Replays all records of the view; `None` when `stopped` says so meanwhile. Blocks.
pub(super) fn load(
    view: &LogView,
    buffer_bytes: u64,
    stopped: impl Fn() -> bool,
) -> Result<Option<Loaded>, LoadError> {
    let mut loaded = Loaded { loader: GroupLoader::new(), records: 0, unknown: 0 };
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
        // What is left of the log has been compacted away.
        let Some(records) = fetched.records else { break };
        offset = loaded.replay_batches(Batches::new(records.read()?), offset)?;
    }
    Ok(Some(loaded))
}

impl Loaded {
    /// Replays what is at or above `from`, and returns the offset to go on with.
    fn replay_batches(&mut self, batches: Batches, from: Offset) -> Result<Offset, LoadError> {
        let mut next = from;
        for batch in batches {
            let batch = batch.map_err(|source| LoadError::Batch { offset: next, source })?;
            self.replay_batch(&batch, from)?;
            next = batch.header.next_offset();
        }
        if next == from { Err(LoadError::NoBatch { offset: from }) } else { Ok(next) }
    }

    fn replay_batch(&mut self, batch: &RecordBatch, from: Offset) -> Result<(), LoadError> {
        let header = batch.header;
        let damaged = |source| LoadError::Batch { offset: header.base_offset, source };
        batch.check_crc().map_err(damaged)?;
        for record in batch.records(MAX_DECOMPRESSED_BYTES).map_err(damaged)? {
            let record = record.map_err(damaged)?;
            let offset = record.offset;
            if offset < from {
                continue;
            }
            self.records += 1;
            if header.is_control() {
                let control = ControlRecord::read(&record)
                    .map_err(|source| LoadError::Control { offset, source })?;
                if let Some(ControlRecord::EndTransaction(end)) = control {
                    self.loader.replay_txn_marker(header.producer_id, end.committed);
                }
                continue;
            }
            let key = record.key.unwrap_or_default();
            let replayed = self
                .loader
                .replay(offset, producer_of(batch), key, record.value)
                .map_err(|source| LoadError::Replay { offset, source })?;
            self.unknown += u64::from(matches!(replayed, Replayed::UnknownType { .. }));
        }
        Ok(())
    }
}

/// The producer whose transaction a batch belongs to, or -1.
fn producer_of(batch: &RecordBatch) -> i64 {
    if batch.header.is_transactional() { batch.header.producer_id } else { -1 }
}
