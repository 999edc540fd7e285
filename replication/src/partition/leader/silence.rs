//! Followers that are silent while the high watermark waits for them.
//!
//! A follower that is alive has a fetch under way all the time. One that gets no further for
//! `failover.follower.silence.ms` although the leader has records for it cannot be reached, is paused, or waits for its
//! disk: it leaves the ISR long before `replica.lag.time.max.ms`, and writes go on. Never at the price of a majority:
//! the ISR keeps min.insync.replicas members and more than half of the replicas.
//!
//! Time is counted in checks, [`SILENCE_CHECKS`] in that time. A leader that was paused itself has made none meanwhile,
//! and blames no follower.

use super::LeaderState;
use crate::partition::isr::{IsrChange, IsrProposal};
use crate::partition::remote_replica::RemoteReplica;
use klamm_protocol::ids::BrokerId;
use std::collections::BTreeSet;

/// The number of checks in `failover.follower.silence.ms`, while a follower holds back the high watermark.
pub const SILENCE_CHECKS: u32 = 10;

impl LeaderState {
    /// Whether the high watermark waits for a follower. The shell then calls [`Self::on_silence_check`] in intervals,
    /// until it does not.
    pub(in crate::partition) fn is_held_back(&self) -> bool {
        self.high_watermark < self.own_offset()
            && !self.followers.is_empty()
            && !self.is_under_min_isr()
    }

    /// Looks for followers that have held back the high watermark for `failover.follower.silence.ms` without getting
    /// further. Proposes to remove them from the ISR; the high watermark no longer waits for one that is only about to
    /// join.
    pub(in crate::partition) fn on_silence_check(&mut self, now_ms: i64) -> Option<IsrProposal> {
        let own_offset = self.own_offset();
        let waits_for = |(id, follower): (&BrokerId, &RemoteReplica)| {
            let holds_back = follower.log_end_offset < Some(own_offset);
            (holds_back && self.counts(*id, follower, now_ms)).then_some(*id)
        };
        let waited_for: BTreeSet<BrokerId> = self.followers.iter().filter_map(waits_for).collect();
        let mut silent = BTreeSet::new();
        for (id, follower) in &mut self.followers {
            follower.on_silence_check(waited_for.contains(id));
            if !follower.is_silent() {
                continue;
            }
            if self.isr.is_in_maximal_isr(*id) {
                silent.insert(*id);
            } else {
                follower.on_taken_out_of_isr();
            }
        }
        self.advance_high_watermark(now_ms);
        let removed: BTreeSet<BrokerId> = self.isr.isr().intersection(&silent).copied().collect();
        let kept: BTreeSet<BrokerId> = self.isr.isr().difference(&silent).copied().collect();
        let may_shrink = self.isr.pending().is_none() && kept.len() >= sufficient_isr(self);
        if removed.is_empty() || !may_shrink {
            return None;
        }
        for (_, follower) in self.followers.iter_mut().filter(|(id, _)| removed.contains(id)) {
            follower.on_removed_for_silence(now_ms, self.config.follower_silence_ms);
        }
        Some(self.propose(kept, IsrChange::Shrink(removed)))
    }

    /// Whether a follower that the high watermark waits for is silent: nothing can be committed before it is heard from
    /// again, or has left the ISR.
    pub(in crate::partition) fn is_stalled(&self, now_ms: i64) -> bool {
        let is_silent = |(id, follower): (&BrokerId, &RemoteReplica)| {
            follower.is_silent() && self.counts(*id, follower, now_ms)
        };
        self.is_held_back() && self.followers.iter().any(is_silent)
    }

    /// Whether the follower may join the ISR: the controller would accept it, and it is not on probation for its
    /// silence, unless the ISR needs every member.
    pub(super) fn may_join(&self, follower: &RemoteReplica, now_ms: i64) -> bool {
        let is_needed = || self.isr.isr().len() < sufficient_isr(self);
        follower.is_isr_eligible() && (!follower.is_on_probation(now_ms) || is_needed())
    }
}

/// The leader cannot serve its followers: none of them is to blame for its silence until now.
pub(in crate::partition) fn forgive(leader: &mut LeaderState) {
    leader.followers.values_mut().for_each(|follower| follower.on_silence_check(false));
}

/// The size of the ISR that silence alone leaves in place: min.insync.replicas, and a majority of the replicas.
fn sufficient_isr(leader: &LeaderState) -> usize {
    let replicas = leader.followers.len() + 1;
    leader.effective_min_isr().max(replicas / 2 + 1)
}
