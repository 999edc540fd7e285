//! Reading a partition that this broker leads: for fetches, and where listings of offsets end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use klamm_log::error::ReadError;
use klamm_log::log_reader::{FetchSpec, LogView};
use klamm_log::txn_index::AbortedTxn;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_replication::OffsetAndEpoch;
use klamm_replication::partition::{FetchPosition, check_leader_epoch, check_position};

use super::Partition;
use crate::net::response::Part;
use crate::partition::waiting::FetchWaiter;

/// The fetch of a consumer (`FetchRequest.CONSUMER_REPLICA_ID`).
const CONSUMER: BrokerId = -1;
/// A fetch that may read up to the log's end (`FetchRequest.DEBUGGING_CONSUMER_ID`).
const DEBUGGING_CONSUMER: BrokerId = -2;
/// What a fetch asks of one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadOptions {
    pub(crate) fetch_offset: Offset,
    pub(crate) max_bytes: usize,
    pub(crate) min_one_batch: bool,
    pub(crate) replica_id: BrokerId,
    pub(crate) read_committed: bool,
    pub(crate) current_leader_epoch: LeaderEpoch,
    pub(crate) last_fetched_epoch: LeaderEpoch,
}

/// How far a listing of offsets may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListIsolation {
    /// Up to the log's end: replicas and debuggers.
    None,
    ReadUncommitted,
    ReadCommitted,
}

/// What a fetch finds.
#[derive(Debug)]
pub(crate) struct ReadOutcome {
    pub(crate) high_watermark: Offset,
    pub(crate) last_stable_offset: Offset,
    pub(crate) log_start_offset: Offset,
    /// For readers of committed transactions only.
    pub(crate) aborted_transactions: Option<Vec<AbortedTxn>>,
    pub(crate) diverging_epoch: Option<OffsetAndEpoch>,
    pub(crate) parts: Vec<Part>,
}

impl ReadOutcome {
    /// Bytes of records.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(Part::len).sum()
    }
}

impl Partition {
    /// Reads for a fetch; with a waiter, the fetch is told when reading again may find more.
    pub(crate) fn read(
        &self,
        options: &ReadOptions,
        waiter: Option<&Arc<FetchWaiter>>,
    ) -> Result<ReadOutcome, ErrorCode> {
        let view = {
            let mut state = self.lock();
            let (log, leader) = state.log_and_leader()?;
            check_leader_epoch(options.current_leader_epoch, leader.leader_epoch())?;
            if options.replica_id >= 0 && leader.followers().all(|(id, _)| id != options.replica_id)
            {
                return Err(ErrorCode::NotLeaderOrFollower);
            }
            let view = log.view();
            if let Some(waiter) = waiter {
                state.fetches.add(waiter);
            }
            view
        };
        let mut outcome = ReadOutcome {
            high_watermark: view.high_watermark(),
            last_stable_offset: view.last_stable_offset(),
            log_start_offset: view.log_start(),
            aborted_transactions: None,
            diverging_epoch: None,
            parts: Vec::new(),
        };
        if let FetchPosition::Diverging(end) = position(&view, options)? {
            outcome.diverging_epoch = Some(end);
            return Ok(outcome);
        }
        self.read_records(&view, options, &mut outcome)?;
        Ok(outcome)
    }

    fn read_records(
        &self,
        view: &LogView,
        options: &ReadOptions,
        outcome: &mut ReadOutcome,
    ) -> Result<(), ErrorCode> {
        let upper_bound = match options.replica_id {
            CONSUMER if options.read_committed => view.last_stable_offset(),
            CONSUMER => view.high_watermark(),
            DEBUGGING_CONSUMER.. => view.log_end(),
            _ => view.high_watermark(),
        };
        let spec = FetchSpec {
            offset: options.fetch_offset,
            max_bytes: options.max_bytes as u64,
            min_one_message: options.min_one_batch,
            upper_bound,
        };
        let fetched = view.read(spec).map_err(|error| self.read_error(&error))?;
        if options.read_committed {
            let bound = fetched.next_offset_bound;
            outcome.aborted_transactions =
                Some(view.aborted_transactions(options.fetch_offset, bound));
        }
        if let Some(slice) = fetched.records
            && !fetched.first_batch_incomplete
        {
            let len = usize::try_from(slice.length).expect("a range is no longer than was asked");
            let part = Part::File { file: slice.file, position: slice.position, len };
            outcome.parts.push(part);
        }
        Ok(())
    }

    fn read_error(&self, error: &ReadError) -> ErrorCode {
        if let ReadError::Storage(storage) = error {
            tracing::error!("{}-{} could not be read: {storage}", self.topic, self.index);
            if storage.is_disk_failure() {
                self.offline.store(true, Ordering::Release);
            }
        }
        error.code()
    }

    /// Where a listing of offsets ends for this kind of reader, and the leader's epoch with it.
    ///
    /// A consumer is not told of an end before this epoch has committed something, or offsets could
    /// go backwards after an election (KIP-207).
    pub(crate) fn latest_offset(
        &self,
        isolation: ListIsolation,
    ) -> Result<(Offset, LeaderEpoch), ErrorCode> {
        let mut state = self.lock();
        let (log, leader) = state.log_and_leader()?;
        let offset = match isolation {
            ListIsolation::None => log.log_end(),
            ListIsolation::ReadUncommitted => log.high_watermark(),
            ListIsolation::ReadCommitted => log.last_stable_offset(),
        };
        if isolation != ListIsolation::None {
            leader.check_offsets_available()?;
        }
        Ok((offset, leader.leader_epoch()))
    }
}

/// Compares where the fetcher's log ends with this one (KIP-595).
fn position(view: &LogView, options: &ReadOptions) -> Result<FetchPosition, ErrorCode> {
    let end = view.leader_epochs().end_offset_for(options.last_fetched_epoch, view.log_end());
    let end = end.map(|end| OffsetAndEpoch { offset: end.offset, epoch: end.epoch });
    check_position(options.fetch_offset, options.last_fetched_epoch, end, view.log_start())
}
