//! Reads a partition for the fetches of consumers and followers, and finds the latest offset for ListOffsets.
//!
//! The replica decides whether this broker may answer and which offsets the reader may see. The log is read without the
//! lock.

use std::sync::Arc;

use klamm_log::error::ReadError;
use klamm_log::log::Log;
use klamm_log::log_reader::{FetchSpec, LogView};
use klamm_log::txn_index::AbortedTxn;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{LeaderEpoch, Offset};
use klamm_replication::OffsetAndEpoch;
use klamm_replication::partition::{
    FetchPosition, FetchedLog, IsrProposal, ListIsolation, PartitionFetch, Reader, VisibleEnds,
};

use super::lacking::Attempt;
use super::{Partition, State};
use crate::clock;
use crate::net::response::Part;
use crate::replica::delayed::{FetchWaiter, WaitingFetch};

/// A fetch of one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadOptions {
    pub(crate) fetch_offset: Offset,
    pub(crate) max_bytes: usize,
    pub(crate) min_one_batch: bool,
    pub(crate) reader: Reader,
    /// The log start offset of a follower.
    pub(crate) log_start_offset: Offset,
    pub(crate) current_leader_epoch: Option<LeaderEpoch>,
    pub(crate) last_fetched_epoch: Option<LeaderEpoch>,
}

/// The result of a fetch of one partition.
#[derive(Debug)]
pub(crate) struct ReadOutcome {
    pub(crate) high_watermark: Offset,
    pub(crate) last_stable_offset: Offset,
    pub(crate) log_start_offset: Offset,
    /// Only for read_committed consumers.
    pub(crate) aborted_transactions: Option<Vec<AbortedTxn>>,
    pub(crate) diverging_epoch: Option<OffsetAndEpoch>,
    /// A change of the ISR, for the controller (AlterPartition).
    pub(crate) proposal: Option<IsrProposal>,
    pub(crate) parts: Vec<Part>,
}

impl ReadOutcome {
    /// Bytes of records.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(Part::len).sum()
    }
}

impl Partition {
    /// Reads for a fetch. Registers `waiter`, if there is one, to be woken when another read may return more.
    pub(crate) fn read(
        &self,
        options: &ReadOptions,
        waiter: Option<&Arc<FetchWaiter>>,
    ) -> Result<ReadOutcome, ErrorCode> {
        let (view, diverging_epoch, proposal) = self.check_fetch(options, waiter)?;
        let mut outcome = ReadOutcome {
            high_watermark: view.high_watermark(),
            last_stable_offset: view.last_stable_offset(),
            log_start_offset: view.log_start(),
            aborted_transactions: None,
            diverging_epoch,
            proposal,
            parts: Vec::new(),
        };
        if diverging_epoch.is_none() {
            self.read_records(&view, options, &mut outcome)?;
        }
        Ok(outcome)
    }

    /// Checks the fetch and applies it to the replica's state, under the partition's lock.
    fn check_fetch(
        &self,
        options: &ReadOptions,
        waiter: Option<&Arc<FetchWaiter>>,
    ) -> Result<(LogView, Option<OffsetAndEpoch>, Option<IsrProposal>), ErrorCode> {
        let fetch = partition_fetch(options);
        let mut state = self.lock();
        let State { log: Some(log), replica } = &mut *state else {
            return Err(ErrorCode::NotLeaderOrFollower);
        };
        let view = log.view();
        let fetched = fetched_log(&view, options.last_fetched_epoch);
        let waiter = waiter.map(WaitingFetch::of);
        let (position, proposal) = replica.on_fetch(&fetch, fetched, waiter)?;
        if let FetchPosition::Diverging(end) = position {
            return Ok((view, Some(end), None));
        }
        // If this fetch has moved the high watermark, its response has the new one.
        state.settle();
        let moved = state.log.as_ref().filter(|log| log.high_watermark() != view.high_watermark());
        let view = moved.map(Log::view).unwrap_or(view);
        Ok((view, None, proposal))
    }

    fn read_records(
        &self,
        view: &LogView,
        options: &ReadOptions,
        outcome: &mut ReadOutcome,
    ) -> Result<(), ErrorCode> {
        let spec = FetchSpec {
            offset: options.fetch_offset,
            max_bytes: options.max_bytes as u64,
            min_one_message: options.min_one_batch,
            upper_bound: options.reader.upper_bound(visible_ends(view)),
        };
        let fetched = view.read(spec).map_err(|error| self.read_error(&error))?;
        self.on_room(Attempt::Read);
        if matches!(options.reader, Reader::Consumer { read_committed: true, .. }) {
            let bound = fetched.next_offset_bound;
            outcome.aborted_transactions =
                Some(view.aborted_transactions(options.fetch_offset, bound));
        }
        if let Some(slice) = fetched.records
            && !fetched.first_batch_incomplete
        {
            let len = usize::try_from(slice.length).expect("a usize holds the size of a segment");
            let part = Part::File { file: slice.file, position: slice.position, len };
            outcome.parts.push(part);
        }
        Ok(())
    }

    fn read_error(&self, error: &ReadError) -> ErrorCode {
        if let ReadError::Corrupt { segment, .. } = error {
            return self.on_corrupt(*segment);
        }
        if let ReadError::Storage(storage) = error {
            self.on_storage_error(Attempt::Read, storage);
        }
        error.code()
    }

    /// The latest offset for ListOffsets at this isolation level, with its leader epoch.
    pub(crate) fn latest_offset(
        &self,
        isolation: ListIsolation,
    ) -> Result<(Offset, LeaderEpoch), ErrorCode> {
        let state = self.lock();
        let log = state.led_log()?;
        let ends = VisibleEnds {
            high_watermark: log.high_watermark(),
            last_stable_offset: log.last_stable_offset(),
            log_end_offset: log.log_end(),
        };
        state.replica.latest_offset(isolation, ends)
    }
}

fn partition_fetch(options: &ReadOptions) -> PartitionFetch {
    PartitionFetch {
        reader: options.reader,
        current_leader_epoch: options.current_leader_epoch,
        fetch_offset: options.fetch_offset,
        last_fetched_epoch: options.last_fetched_epoch,
        log_start_offset: options.log_start_offset,
        // Reading the clock takes a lock, so fetches of consumers skip it.
        now_ms: if options.reader.is_follower() { clock::now_ms() } else { 0 },
    }
}

fn fetched_log(view: &LogView, last_fetched_epoch: Option<LeaderEpoch>) -> FetchedLog {
    let epochs = view.leader_epochs();
    let end = last_fetched_epoch.and_then(|epoch| epochs.end_offset_for(epoch, view.log_end()));
    let epoch_end = end.map(|end| OffsetAndEpoch { offset: end.offset, epoch: end.epoch });
    FetchedLog { log_start_offset: view.log_start(), epoch_end }
}

fn visible_ends(view: &LogView) -> VisibleEnds {
    VisibleEnds {
        high_watermark: view.high_watermark(),
        last_stable_offset: view.last_stable_offset(),
        log_end_offset: view.log_end(),
    }
}
