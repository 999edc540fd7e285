//! Reading a partition: for fetches of consumers and of followers, and where listings of offsets end.
//!
//! Only the leader answers followers. Each reading for a follower's fetch tells the role where the follower is:
//! a fetch that waits here is as good a proof as one that comes.

use std::sync::Arc;

use klamm_log::error::ReadError;
use klamm_log::log::Log;
use klamm_log::log_reader::{FetchSpec, LogView};
use klamm_log::txn_index::AbortedTxn;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_replication::OffsetAndEpoch;
use klamm_replication::partition::{
    FetchPosition, FollowerFetch, IsrProposal, check_leader_epoch, check_position,
};

use super::Partition;
use super::lacking::Attempt;
use super::role::Role;
use crate::clock;
use crate::net::response::Part;
use crate::replica::delayed::FetchWaiter;

/// Who reads, and how far that one may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Up to the high watermark, or the last stable offset; some may read `from_followers` (KIP-392).
    Consumer { read_committed: bool, from_followers: bool },
    /// Up to the log's end (`FetchRequest.DEBUGGING_CONSUMER_ID`).
    Debugger,
    /// Another broker's replica: up to the log's end, and what is before the offset it holds.
    Follower { id: BrokerId, broker_epoch: i64 },
}

impl Reader {
    /// As a fetch request names its sender.
    pub(crate) fn of(
        (replica_id, broker_epoch): (BrokerId, i64),
        read_committed: bool,
        from_followers: bool,
    ) -> Self {
        match replica_id {
            0.. => Self::Follower { id: replica_id, broker_epoch },
            DEBUGGING_CONSUMER => Self::Debugger,
            _ => Self::Consumer { read_committed, from_followers },
        }
    }

    pub(crate) fn is_follower(self) -> bool {
        matches!(self, Self::Follower { .. })
    }
}

/// A fetch that may read up to the log's end (`FetchRequest.DEBUGGING_CONSUMER_ID`).
const DEBUGGING_CONSUMER: BrokerId = -2;

/// What a fetch asks of one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadOptions {
    pub(crate) fetch_offset: Offset,
    pub(crate) max_bytes: usize,
    pub(crate) min_one_batch: bool,
    pub(crate) reader: Reader,
    /// Where a follower's log starts.
    pub(crate) log_start_offset: Offset,
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
    /// A change of the ISR, to be sent to the controller.
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
    /// Reads for a fetch; with a waiter, the fetch is told when reading again may find more.
    pub(crate) fn read(
        &self,
        options: &ReadOptions,
        waiter: Option<&Arc<FetchWaiter>>,
    ) -> Result<ReadOutcome, ErrorCode> {
        let (view, diverging_epoch, proposal) = self.look(options, waiter)?;
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

    /// The checks of a fetch and what it proves, under the partition's lock.
    fn look(
        &self,
        options: &ReadOptions,
        waiter: Option<&Arc<FetchWaiter>>,
    ) -> Result<(LogView, Option<OffsetAndEpoch>, Option<IsrProposal>), ErrorCode> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(log) = &state.log else { return Err(ErrorCode::NotLeaderOrFollower) };
        check_role(&state.role, options)?;
        let view = log.view();
        if let Some(waiter) = waiter {
            match options.reader {
                Reader::Consumer { .. } => state.consumers.add(waiter),
                Reader::Debugger | Reader::Follower { .. } => state.followers.add(waiter),
            }
        }
        if let FetchPosition::Diverging(end) = position(&view, options)? {
            return Ok((view, Some(end), None));
        }
        let (Reader::Follower { id, broker_epoch }, Role::Leader(leader)) =
            (options.reader, &mut state.role)
        else {
            return Ok((view, None, None));
        };
        if !(view.log_start()..=view.log_end()).contains(&options.fetch_offset) {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let progress = leader.on_follower_fetch(FollowerFetch {
            follower: id,
            broker_epoch,
            current_leader_epoch: options.current_leader_epoch,
            fetch_offset: options.fetch_offset,
            log_start_offset: options.log_start_offset,
            now_ms: clock::now_ms(),
        })?;
        if progress.log_start_moved {
            state.deletions.wake();
        }
        let moved = state.on_high_watermark(progress.high_watermark);
        // The follower learns of the high watermark that it has just moved.
        let view = if moved.is_some() { state.log.as_ref().map_or(view, Log::view) } else { view };
        drop(guard);
        self.announce(moved);
        Ok((view, None, progress.proposal))
    }

    fn read_records(
        &self,
        view: &LogView,
        options: &ReadOptions,
        outcome: &mut ReadOutcome,
    ) -> Result<(), ErrorCode> {
        let upper_bound = match options.reader {
            Reader::Consumer { read_committed: true, .. } => view.last_stable_offset(),
            Reader::Consumer { .. } => view.high_watermark(),
            Reader::Debugger | Reader::Follower { .. } => view.log_end(),
        };
        let spec = FetchSpec {
            offset: options.fetch_offset,
            max_bytes: options.max_bytes as u64,
            min_one_message: options.min_one_batch,
            upper_bound,
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
            let len = usize::try_from(slice.length).expect("a range is no longer than was asked");
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

/// Whether this broker may answer the reader at all.
fn check_role(role: &Role, options: &ReadOptions) -> Result<(), ErrorCode> {
    let epoch = role.leader_epoch().ok_or(ErrorCode::NotLeaderOrFollower)?;
    check_leader_epoch(options.current_leader_epoch, epoch)?;
    let from_followers = matches!(options.reader, Reader::Consumer { from_followers: true, .. });
    if !from_followers && !matches!(role, Role::Leader(_)) {
        return Err(ErrorCode::NotLeaderOrFollower);
    }
    let (Role::Leader(leader), Reader::Follower { id, .. }) = (role, options.reader) else {
        return Ok(());
    };
    match leader.followers().any(|(known, _)| known == id) {
        true => Ok(()),
        // The follower's metadata may be newer than ours, and it says which it means.
        false if options.current_leader_epoch >= 0 => Err(ErrorCode::UnknownLeaderEpoch),
        false => Err(ErrorCode::NotLeaderOrFollower),
    }
}

/// Compares where the fetcher's log ends with this one (KIP-595).
fn position(view: &LogView, options: &ReadOptions) -> Result<FetchPosition, ErrorCode> {
    let end = view.leader_epochs().end_offset_for(options.last_fetched_epoch, view.log_end());
    let end = end.map(|end| OffsetAndEpoch { offset: end.offset, epoch: end.epoch });
    check_position(options.fetch_offset, options.last_fetched_epoch, end, view.log_start())
}
