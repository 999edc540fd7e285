//! Following the leader: what to fetch, and what the answer does to the log.

use super::Replica;
use crate::EpochHistory;
use crate::partition::delayed::FetchWaiter;
use crate::partition::event::LogEnds;
use crate::partition::follower::{FetchedPartition, Follow, FollowerState, NextFetch};
use crate::partition::role::Role;
use klamm_protocol::ids::{LeaderEpoch, Offset};

impl<P, F: FetchWaiter> Replica<P, F> {
    /// The fetch to send; none while there is nobody to fetch from, or while only the metadata can help. An earlier one
    /// is abandoned.
    ///
    /// The offset that is fetched acknowledges what is before it, so with `flush_before_ack` everything is to be on disk
    /// first.
    pub fn next_fetch(
        &mut self,
        ends: LogEnds,
        flush_before_ack: bool,
        epochs: &EpochHistory,
    ) -> Option<NextFetch> {
        let Role::Follower(follower) = &mut self.role else { return None };
        if follower.leader_id < 0 || (flush_before_ack && ends.flushed_offset < ends.log_end_offset)
        {
            return None;
        }
        follower.next_fetch(ends.log_end_offset, epochs)
    }

    /// Decides what an answer calls for; nothing if this broker does not follow. `epochs` and `log_end_offset` are of the
    /// own log; the epochs are needed where the answer diverges.
    pub fn on_fetched(
        &mut self,
        answer: &FetchedPartition,
        epochs: &EpochHistory,
        log_end_offset: Offset,
    ) -> Option<Follow> {
        let Role::Follower(follower) = &mut self.role else { return None };
        Some(follower.on_fetched(answer, epochs, log_end_offset))
    }

    /// The answer's records have been appended; the log now ends at `log_end_offset`. Returns where the log is to start:
    /// the leader has deleted what is below, but what is not known to be committed stays.
    #[must_use = "the log start is to be raised"]
    pub fn on_replicated(&mut self, answer: &FetchedPartition, log_end_offset: Offset) -> Offset {
        let Role::Follower(follower) = &mut self.role else {
            panic!("nobody but a follower appends what a leader has sent");
        };
        follower.on_appended(answer.high_watermark, log_end_offset);
        answer.log_start_offset.min(follower.high_watermark())
    }

    /// The leader of an epoch says where its log starts and ends; nothing if this broker does not follow, and
    /// [`Follow::Ignore`] if it follows in another epoch.
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

    /// Whether the log may be cut as the leader of `epoch` has called for: never in another epoch, whose leader may have
    /// sent what is there.
    pub fn may_cut(&self, epoch: LeaderEpoch) -> bool {
        self.follower().is_some_and(|follower| follower.leader_epoch == epoch)
    }

    /// The log has been cut, and covers this now. Offsets that were waited for may be gone.
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

    /// The log has been repaired, or is another one: an answer that is under way says nothing about it.
    pub fn on_repaired(&mut self) -> bool {
        let Role::Follower(follower) = &mut self.role else { return false };
        *follower = FollowerState::new(
            follower.leader_id,
            follower.leader_epoch,
            follower.partition_epoch,
            follower.high_watermark(),
        );
        true
    }
}
