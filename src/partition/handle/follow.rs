//! Following the leader of a partition: what to fetch, and what the answer does to the log.
//!
//! The bytes of the leader are appended as they came. What the role decides is carried out under the same
//! lock, but for truncations: they sync, so the fetcher makes them where blocking is allowed.

use std::sync::Arc;

use bytes::Bytes;
use klamm_log::error::{AppendError, LogError};
use klamm_log::log::Log;
use klamm_protocol::ids::{LeaderEpoch, Offset};
use klamm_replication::partition::{FetchedPartition, Follow, FollowerState, NextFetch};
use klamm_replication::{EpochHistory, EpochStart};
use tracing::{error, warn};

use super::Partition;
use super::role::Role;
use crate::clock;
use crate::partition::waiting::Countdown;

/// How a follower's log is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Everything at or above the offset goes.
    To(Offset),
    /// Everything goes, the next record gets the offset.
    FullyAndStartAt(Offset),
}

impl Cut {
    /// Where the log ends afterwards, at most.
    pub(crate) fn end(self) -> Offset {
        let (Self::To(offset) | Self::FullyAndStartAt(offset)) = self;
        offset
    }
}

/// What is to be done after an answer of the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Fetch on.
    Again,
    /// Cut the log, then fetch on.
    Cut(Cut),
    /// Ask the leader where its log starts and ends.
    FindLeaderRange,
    /// Fetch again after a pause.
    BackOff,
    /// The replica needs a change of the metadata, or an operator.
    Stuck,
}

impl Partition {
    /// What to fetch next and where the own log starts; `None` while there is nothing to fetch.
    pub(crate) fn next_fetch(&self) -> Option<(NextFetch, Offset)> {
        if self.is_offline() {
            return None;
        }
        let flushes = self.config().flushes_before_ack();
        let mut guard = self.lock();
        let state = &mut *guard;
        let (Some(log), Role::Follower(follower)) = (&state.log, &mut state.role) else {
            return None;
        };
        // The offset that is fetched acknowledges what is before it.
        if flushes && log.flushed_offset() < log.log_end() {
            return None;
        }
        let latest = log.leader_epochs().latest();
        let latest = latest.map(|at| EpochStart { epoch: at.epoch, start_offset: at.offset });
        let next = follower.next_fetch(log.log_end(), &EpochHistory::from_entries(latest))?;
        Some((next, log.log_start()))
    }

    /// Has what was appended here synced if the next fetch needs that, and adds it to the countdown.
    pub(crate) fn sync_before_fetch(self: &Arc<Self>, countdown: &Arc<Countdown>) {
        if self.is_offline() || !self.config().flushes_before_ack() {
            return;
        }
        let mut state = self.lock();
        let Some(log) = &state.log else { return };
        let end = log.log_end();
        if log.flushed_offset() < end {
            state.flushes.add(end, countdown);
            drop(state);
            self.request_flush();
        }
    }

    /// Does what an answer of the leader calls for.
    pub(crate) fn on_fetched(
        self: &Arc<Self>,
        answer: &FetchedPartition,
        records: Bytes,
    ) -> Progress {
        let mut guard = self.lock();
        let state = &mut *guard;
        let (Some(log), Role::Follower(follower)) = (&mut state.log, &mut state.role) else {
            return Progress::Stuck;
        };
        let epochs = match answer.diverging {
            Some(_) => history(log),
            None => EpochHistory::default(),
        };
        match follower.on_fetched(answer, &epochs, log.log_end()) {
            Follow::Append { log_start_offset } => {
                let segments = log.segment_count();
                let moved = match append(log, follower, records, answer.high_watermark) {
                    Ok(moved) => moved,
                    Err(failure) => {
                        drop(guard);
                        return self.append_failed(&failure);
                    }
                };
                let rolled = log.segment_count() != segments;
                let moved = state.on_high_watermark(moved);
                if let Some(log) = &mut state.log {
                    self.raise_log_start(log, log_start_offset);
                }
                drop(guard);
                self.announce(moved);
                if rolled {
                    self.request_flush();
                }
                Progress::Again
            }
            Follow::TruncateTo(end) => Progress::Cut(Cut::To(end)),
            Follow::TruncateFullyAndStartAt(start) => Progress::Cut(Cut::FullyAndStartAt(start)),
            Follow::FindLeaderRange => Progress::FindLeaderRange,
            Follow::AwaitMetadata => Progress::Stuck,
            Follow::BackOff => Progress::BackOff,
            Follow::Ignore => Progress::Again,
        }
    }

    /// The leader has deleted what is below, by retention or because it was asked to.
    fn raise_log_start(&self, log: &mut Log, leader_start: Offset) {
        let start = leader_start.min(log.high_watermark());
        if start > log.log_start()
            && let Err(failure) = log.delete_records(start)
        {
            error!("{}-{}: the log start stays: {failure}", self.topic, self.index);
        }
    }

    fn append_failed(&self, failure: &AppendError) -> Progress {
        error!("{}-{} cannot follow its leader: {failure}", self.topic, self.index);
        match failure {
            AppendError::Storage(storage) if storage.is_disk_failure() => {
                self.fail();
                Progress::Stuck
            }
            // Damaged on the way, or a disk that is full: it may pass.
            AppendError::Storage(LogError::Disk(_)) | AppendError::CorruptBatch { .. } => {
                Progress::BackOff
            }
            _ => Progress::Stuck,
        }
    }

    /// The leader has said where its log starts and ends.
    pub(crate) fn on_leader_range(
        &self,
        epoch: LeaderEpoch,
        (leader_start, leader_end): (Offset, Offset),
    ) -> Progress {
        let mut guard = self.lock();
        let state = &mut *guard;
        let (Some(log), Role::Follower(follower)) = (&state.log, &mut state.role) else {
            return Progress::Stuck;
        };
        if follower.leader_epoch != epoch {
            return Progress::Again;
        }
        match follower.on_leader_range(leader_start, leader_end, log.log_end()) {
            Follow::TruncateTo(end) => Progress::Cut(Cut::To(end)),
            Follow::TruncateFullyAndStartAt(start) => Progress::Cut(Cut::FullyAndStartAt(start)),
            _ => Progress::BackOff,
        }
    }

    /// Cuts the log, if this broker still follows in that epoch. Blocks for the disk.
    ///
    /// The recovery point on disk must not be above the cut: see
    /// [`crate::partition::store::LogStore::cut`].
    pub(crate) fn cut(&self, epoch: LeaderEpoch, cut: Cut) -> Result<(), LogError> {
        let now_ms = clock::now_ms();
        let mut state = self.lock();
        if !matches!(&state.role, Role::Follower(follower) if follower.leader_epoch == epoch) {
            return Ok(());
        }
        let Some(log) = &mut state.log else { return Ok(()) };
        let (end, flushed) = (log.log_end(), log.flushed_offset());
        if cut.end() < end {
            warn!(
                "{}-{} follows epoch {epoch}: its log is cut from offset {end} ({flushed} synced) \
                 to {}",
                self.topic,
                self.index,
                cut.end()
            );
        }
        match cut {
            Cut::To(offset) => drop(log.truncate_to(offset, now_ms)?),
            Cut::FullyAndStartAt(offset) => log.truncate_fully_and_start_at(offset, now_ms)?,
        }
        // Offsets that were waited for may be gone.
        state.give_up_waiting();
        Ok(())
    }
}

/// Appends what the leader sent. Returns the high watermark if that moved it.
fn append(
    log: &mut Log,
    follower: &mut FollowerState,
    records: Bytes,
    high_watermark: Offset,
) -> Result<Option<Offset>, AppendError> {
    if !records.is_empty() {
        log.append_as_follower(records, follower.leader_epoch, clock::now_ms())?;
    }
    Ok(follower.on_appended(high_watermark, log.log_end()))
}

fn history(log: &Log) -> EpochHistory {
    let starts = log.leader_epochs().entries();
    EpochHistory::from_entries(
        starts.map(|(epoch, start_offset)| EpochStart { epoch, start_offset }),
    )
}
