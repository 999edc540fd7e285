//! The groups of one partition of `__consumer_offsets`: who owns what, time, and unloading.
//!
//! Invariants: every request token given to an event is answered exactly once, at the latest by
//! `on_unloaded`; an event's records are appended, or refused, before the next event is decided.

use klamm_protocol::time::Now;
use std::collections::BTreeMap;

use bytestring::ByteString;

use super::classic::ClassicGroup;
use super::config::GroupConfig;
use super::draft::Draft;
use super::offset_expiry::Cleanup;
use super::stored::Stored;
use super::timers::{Timer, Timers};
use super::turn::GroupTurn;
use super::write::Writes;
use crate::outcome::{Outcome, Reply, WriteFailure};

/// A running group coordinator for one partition. See [`crate::group`] for how a driver runs it.
#[derive(Debug)]
pub struct GroupShard {
    pub(crate) config: GroupConfig,
    pub(crate) stored: Stored,
    /// The classic groups, with their members as they are now.
    pub(crate) groups: BTreeMap<ByteString, ClassicGroup>,
    pub(crate) timers: Timers,
    pub(crate) writes: Writes,
    pub(crate) cleanup: Cleanup,
}

impl GroupShard {
    /// A group's turn, if the group exists.
    pub(crate) fn turn<'a>(
        &'a mut self,
        group_id: &str,
        draft: &'a mut Draft,
        now: Now,
    ) -> Option<GroupTurn<'a>> {
        let group = self.groups.get_mut(group_id)?;
        Some(GroupTurn { group, timers: &mut self.timers, config: &self.config, draft, now })
    }

    /// When [`Self::on_tick`] is due, by the steady clock. May lie in the past.
    #[must_use]
    pub fn next_deadline_ms(&self) -> i64 {
        let due = [self.timers.next_deadline_ms(), self.writes.next_deadline_ms()];
        due.into_iter().flatten().fold(self.cleanup.next_deadline_ms(), i64::min)
    }

    /// Time has passed: ends sessions, join phases, waits and offsets that are due.
    ///
    /// One call ends with the first records to append, so that what belongs to one group is one
    /// batch; [`Self::next_deadline_ms`] then asks for another call at once.
    pub fn on_tick(&mut self, now: Now) -> Outcome {
        let mut draft = Draft::default();
        self.fail_overdue_writes(&mut draft, now);
        while draft.records.is_empty()
            && let Some(timer) = self.timers.pop_due(now.steady_ms)
        {
            self.on_timer(&timer, &mut draft, now);
        }
        if draft.records.is_empty() {
            self.clean_up(&mut draft, now);
        }
        self.finish(draft, now)
    }

    fn on_timer(&mut self, timer: &Timer, draft: &mut Draft, now: Now) {
        let (Timer::Session { group_id, .. } | Timer::Join { group_id } | Timer::Sync { group_id }) =
            timer;
        // A group that was deleted has left its timers behind.
        let Some(mut turn) = self.turn(group_id, draft, now) else { return };
        match timer {
            Timer::Session { member_id, .. } => turn.on_session_timer(member_id),
            Timer::Join { .. } => turn.on_join_timer(),
            Timer::Sync { .. } => turn.on_sync_timer(),
        }
    }

    /// This broker is no longer the coordinator: all that still wait are sent to look for the new one.
    #[must_use = "the replies must be sent"]
    pub fn on_unloaded(mut self) -> Vec<Reply> {
        let failure = WriteFailure::unloaded();
        let mut draft = Draft::default();
        for write in self.writes.take_all() {
            draft.replies.extend(write.into_refusals(failure));
        }
        for group in self.groups.values_mut() {
            for member_id in group.member_ids() {
                if let Some(token) = group.take_awaiting_join(&member_id) {
                    draft.refuse_join(token, member_id.clone(), failure.code());
                }
                let member = group.member_mut(&member_id).expect("ids are the members'");
                if let Some(token) = member.awaiting_sync.take() {
                    draft.refuse_sync(token, failure.code());
                }
            }
        }
        draft.replies
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::ErrorCode;
    use klamm_protocol::time::Now;

    use crate::group::config::GroupConfig;
    use crate::group::harness::{GROUP, Harness, SESSION_MS, committing, fetch_one, joining};
    use crate::outcome::Response;

    #[test]
    fn unloading_answers_all_that_wait() {
        let mut harness = Harness::new();
        let members = harness.joined(2);
        let sync = harness.sync(1, &members[1], &[]);
        harness.holds_commits = true;
        let mut to_other = committing(5);
        to_other.group_id = "other".into();
        let commit = harness.commit_request(9, &to_other);
        let fetch = harness.fetch(&fetch_one(), false);
        let mut to_third = joining("");
        to_third.group_id = "third".into();
        let join = harness.join(3, to_third);
        harness.fail_over();
        let not_coordinator = ErrorCode::NotCoordinator;
        assert_eq!(harness.sync_answer(sync).error_code, not_coordinator.code());
        assert_eq!(harness.commit_error(commit), not_coordinator);
        assert_eq!(harness.join_answer(join).error_code, not_coordinator.code());
        let Response::OffsetFetch(fetched) = harness.answer(fetch) else { panic!() };
        assert_eq!(fetched.error_code, not_coordinator.code());
    }

    #[test]
    fn a_stable_group_goes_on_after_a_restart_with_all_it_had() {
        let mut harness = Harness::new();
        let members = harness.stable(2);
        let before = harness.shard.on_describe_groups(&[GROUP.into()], 5);
        let mut harness = harness.restart();
        assert_eq!(harness.shard.on_describe_groups(&[GROUP.into()], 5), before);
        for member in &members {
            assert_eq!(harness.heartbeat(1, member), ErrorCode::None);
        }
        let leader = harness.shard.groups[GROUP].leader_id.clone();
        assert_eq!(leader.as_ref(), Some(&members[0]));
        // Sessions begin anew with the load.
        harness.advance(i64::from(SESSION_MS) - 1);
        assert_eq!(harness.state_name(), "Stable");
        harness.advance(1);
        assert_eq!(harness.state_name(), "Empty");
    }

    #[test]
    fn an_idle_shard_wakes_up_for_the_next_check_only() {
        let config = GroupConfig::default();
        let harness = Harness::new();
        let due = harness.now_ms + config.offsets_retention_check_interval_ms;
        assert_eq!(harness.shard.next_deadline_ms(), due);
    }

    #[test]
    #[should_panic(expected = "the driver reports on an append before the next event")]
    fn a_driver_that_forgets_to_append_is_told() {
        let mut harness = Harness::new();
        let first = harness.token();
        let outcome = harness.shard.on_offset_commit(first, 9, &committing(1), Now::at(0));
        assert_eq!(outcome.records.len(), 1);
        let second = harness.token();
        let outcome = harness.shard.on_offset_commit(second, 9, &committing(2), Now::at(0));
        assert!(outcome.replies.is_empty());
    }
}
