//! The future log of a replica: a copy in another log directory of this broker, which will replace the replica's log
//! (KIP-113).
//!
//! A background task copies all records, committed or not. The future log has no effect until it has caught up, is
//! synced, and replaces the log, all under the partition's lock. The functions here block for the disk.

use std::sync::Arc;

use klamm_log::error::{AppendError, LogError, ReadError};
use klamm_log::log::Log;
use klamm_log::log_reader::{FetchSpec, LogView};
use klamm_protocol::Uuid;
use klamm_protocol::ids::{LeaderEpoch, Offset};
use klamm_replication::partition::{Alignment, LogRange};

use super::Partition;
use super::follow::history;
use crate::clock;
use crate::replica::flusher::Flusher;

/// The most bytes of one read.
const COPY_BYTES: u64 = 1024 * 1024;
/// The most bytes copied between two syncs: a longer sync would hold up other users of the disk.
const UNSYNCED_BYTES: u64 = 16 * 1024 * 1024;
/// How many reads the replacement makes under the partition's lock, for records appended since the last copy. If they
/// do not suffice, the replacement is tried again later.
const FINAL_READS: usize = 2;

/// A future log, and its directory.
#[derive(Debug)]
pub(crate) struct FutureReplica {
    pub(crate) log: Log,
    /// The index of its log directory in the log manager.
    pub(crate) place: usize,
    pub(crate) directory_id: Uuid,
    pub(crate) flusher: Arc<Flusher>,
    /// Bytes copied since the last sync.
    pub(crate) unsynced_bytes: u64,
}

/// Why copying failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MoveError {
    #[error("the replica cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("the copy cannot be written: {0}")]
    Append(#[from] AppendError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The result of one copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Copied {
    pub(crate) bytes: u64,
    /// The future log is synced and ends where the replica ended at the time of the read.
    pub(crate) is_level: bool,
    /// The future log's directory.
    pub(crate) directory_id: Uuid,
}

impl Partition {
    /// Runs `act` on the future log, if there is one.
    pub(crate) fn with_future<R>(&self, act: impl FnOnce(&mut FutureReplica) -> R) -> Option<R> {
        self.lock_future().as_mut().map(act)
    }

    /// The index of the future log's directory.
    pub(crate) fn future_place(&self) -> Option<usize> {
        self.with_future(|future| future.place)
    }

    /// How many offsets the future log is behind the replica.
    pub(crate) fn future_lag(&self) -> Option<Offset> {
        let end = self.with_future(|future| future.log.log_end())?;
        Some(self.view()?.log_end() - end)
    }

    /// Begins a move to another directory. Returns the future log if the replica has one already, or its log is closed.
    pub(crate) fn begin_move(&self, future: FutureReplica) -> Result<(), Box<FutureReplica>> {
        let mut guard = self.lock_future();
        if guard.is_some() || self.view().is_none() {
            return Err(Box::new(future));
        }
        *guard = Some(future);
        Ok(())
    }

    /// Removes the future log: the move is cancelled.
    pub(crate) fn take_future(&self) -> Option<FutureReplica> {
        self.lock_future().take()
    }

    /// Copies the next records; `None` when there is no future log or the log is closed.
    pub(crate) fn copy_to_future(&self) -> Result<Option<Copied>, MoveError> {
        let mut guard = self.lock_future();
        let (Some(future), Some(view)) = (&mut *guard, self.view()) else { return Ok(None) };
        align(&mut future.log, &view)?;
        let bytes = copy(&mut future.log, &view)?;
        future.unsynced_bytes += bytes;
        let is_level = future.log.log_end() == view.log_end();
        if is_level || future.unsynced_bytes >= UNSYNCED_BYTES {
            future.log.flush()?;
            future.unsynced_bytes = 0;
        }
        Ok(Some(Copied { bytes, is_level, directory_id: future.directory_id }))
    }

    /// Replaces the log by the future log once that has caught up, and then returns the old log. `exchange` renames the
    /// directories of both.
    pub(crate) fn replace_with_future(
        &self,
        exchange: impl FnOnce(&mut Log, &mut FutureReplica) -> Result<(), LogError>,
    ) -> Result<Option<Log>, MoveError> {
        let mut guard = self.lock_future();
        let mut state = self.lock_for_disk();
        let (Some(future), Some(log)) = (&mut *guard, &mut state.log) else { return Ok(None) };
        let view = log.view();
        align(&mut future.log, &view)?;
        for _ in 0..FINAL_READS {
            copy(&mut future.log, &view)?;
        }
        if future.log.log_end() != log.log_end() {
            return Ok(None);
        }
        if let Some(epoch) =
            log.latest_epoch().filter(|epoch| future.log.latest_epoch() != Some(*epoch))
        {
            // The leader of this epoch has not appended yet, so no record carries the epoch to the future log.
            future.log.assign_epoch(epoch);
        }
        // The replica has reported offsets as synced: the future log must be synced as far.
        future.log.flush()?;
        exchange(log, future)?;
        let future = guard.take().expect("it was just looked at");
        let flushed = future.log.flushed_offset();
        let replaced = std::mem::replace(log, future.log);
        self.flushing.set_flusher(future.flusher);
        state.replica.on_flushed(flushed, clock::now_ms());
        // The waiting fetches have views of the old log.
        state.replica.wake_fetches();
        Ok(Some(replaced))
    }
}

/// Truncates the future log where it diverges from the replica.
fn align(copy: &mut Log, replica: &LogView) -> Result<(), LogError> {
    let now_ms = clock::now_ms();
    let (own, leading) = (history(copy.leader_epochs()), history(replica.leader_epochs()));
    let copied = LogRange { epochs: &own, start: copy.log_start(), end: copy.log_end() };
    let (start, end) = (replica.log_start(), replica.log_end());
    match klamm_replication::partition::align(copied, LogRange { epochs: &leading, start, end }) {
        None => {}
        Some(Alignment::TruncateTo(end)) => drop(copy.truncate_to(end, now_ms)?),
        Some(Alignment::TruncateFullyAndStartAt(start)) => {
            copy.truncate_fully_and_start_at(start, now_ms)?;
        }
    }
    Ok(())
}

/// Copies at most one read, the high watermark and the log start offset. Returns the bytes of records.
fn copy(copy: &mut Log, replica: &LogView) -> Result<u64, MoveError> {
    let spec = FetchSpec {
        offset: copy.log_end(),
        max_bytes: COPY_BYTES,
        min_one_message: true,
        upper_bound: replica.log_end(),
    };
    let mut bytes = 0;
    if let Some(records) = replica.read(spec)?.records {
        copy.append_as_follower(records.read()?, LeaderEpoch::MAX, clock::now_ms())?;
        bytes = records.length;
    }
    copy.set_high_watermark(replica.high_watermark());
    if replica.log_start() <= copy.high_watermark() {
        copy.delete_records(replica.log_start())?;
    }
    Ok(bytes)
}
