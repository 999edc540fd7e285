//! A following replica: the next fetch, and the effect of its answer on the log.

use super::Replica;
use crate::EpochHistory;
use crate::partition::delayed::FetchWaiter;
use crate::partition::event::LogEnds;
use crate::partition::follower::{FetchedPartition, Follow, NextFetch};
use crate::partition::role::Role;
use klamm_protocol::ids::{LeaderEpoch, Offset};

impl<P, F: FetchWaiter> Replica<P, F> {
    /// The fetch to send; none without a leader, or before newer metadata comes. The answer to an earlier fetch is
    /// ignored.
    ///
    /// The fetch offset acknowledges the records before it, so with `flush_before_ack` they must be on disk first.
    pub fn next_fetch(
        &mut self,
        ends: LogEnds,
        flush_before_ack: bool,
        epochs: &EpochHistory,
    ) -> Option<NextFetch> {
        let Role::Follower(follower) = &mut self.role else { return None };
        let must_flush = flush_before_ack && ends.flushed_offset < ends.log_end_offset;
        if follower.leader_id.is_none() || must_flush {
            return None;
        }
        follower.next_fetch(ends.log_end_offset, epochs)
    }

    /// Decides the action for an answer; none if this broker does not follow. `epochs` and `log_end_offset` are of this
    /// replica's log; the epochs are needed for a diverging answer.
    pub fn on_fetched(
        &mut self,
        answer: &FetchedPartition,
        epochs: &EpochHistory,
        log_end_offset: Offset,
    ) -> Option<Follow> {
        let Role::Follower(follower) = &mut self.role else { return None };
        Some(follower.on_fetched(answer, epochs, log_end_offset))
    }

    /// The answer's records have been appended; the log now ends at `log_end_offset`. Returns the new log start: the
    /// leader has deleted the records below, but records that are not known to be committed stay.
    #[must_use = "the log start is to be raised"]
    pub fn on_replicated(&mut self, answer: &FetchedPartition, log_end_offset: Offset) -> Offset {
        let Role::Follower(follower) = &mut self.role else {
            panic!("nobody but a follower appends what a leader has sent");
        };
        follower.on_appended(answer.high_watermark, log_end_offset);
        answer.log_start_offset.min(follower.high_watermark())
    }

    /// The leader of an epoch has returned its log start and end. The result is none if this broker does not follow,
    /// and [`Follow::Ignore`] if it follows in another epoch.
    pub fn on_leader_range(
        &mut self,
        epoch: LeaderEpoch,
        (leader_start, leader_end): (Offset, Offset),
        log_end_offset: Offset,
    ) -> Option<Follow> {
        let Role::Follower(follower) = &mut self.role else { return None };
        if follower.leader_epoch != epoch {
            return Some(Follow::Ignore);
        }
        Some(follower.on_leader_range(leader_start, leader_end, log_end_offset))
    }

    /// Whether the log may be truncated for the leader of `epoch`: not in another epoch, whose leader may have sent the
    /// records.
    pub fn may_cut(&self, epoch: LeaderEpoch) -> bool {
        self.follower().is_some_and(|follower| follower.leader_epoch == epoch)
    }

    /// The log has been truncated to this range. Offsets for which requests wait may be removed.
    ///
    /// # Panics
    /// Unless this broker follows.
    pub fn on_cut(&mut self, log_start_offset: Offset, log_end_offset: Offset) {
        let Role::Follower(follower) = &mut self.role else {
            panic!("nobody but a follower cuts its log");
        };
        follower.on_cut(log_start_offset, log_end_offset);
        self.give_up_waiting();
    }

    /// The log was truncated before its damage, for the leader of `epoch`. An answer to an earlier fetch does not apply
    /// to it. False if this broker does not follow in that epoch any more.
    pub fn on_repaired(&mut self, epoch: LeaderEpoch) -> bool {
        let Role::Follower(follower) = &mut self.role else { return false };
        if follower.leader_epoch != epoch {
            return false;
        }
        follower.forget_fetch();
        true
    }
}
