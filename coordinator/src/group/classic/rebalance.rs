//! The way from one generation to the next: prepare, wait for the members, start.
//!
//! (Kafka: `GroupMetadataManager.prepareRebalance`, `completeClassicGroupJoin` and what they call)

use std::collections::BTreeMap;

use bytestring::ByteString;
use klamm_protocol::ErrorCode;

use super::InitialRebalance;
use super::context::GroupContext;
use super::state::State;

impl GroupContext<'_> {
    /// A member has joined, changed or left: begins a rebalance, or completes the running one if all members have
    /// joined.
    pub(crate) fn rebalance_or_complete_join(&mut self) {
        if self.group.state() == State::PreparingRebalance {
            self.complete_join_if_all_joined();
        } else {
            self.prepare_rebalance();
        }
    }

    /// Begins a rebalance, for which every member must rejoin. An empty group first waits for more members.
    pub(crate) fn prepare_rebalance(&mut self) {
        if self.group.state() == State::CompletingRebalance {
            self.drop_assignments(ErrorCode::RebalanceInProgress);
        }
        self.group.storing_assignment = false;
        self.group.clear_pending_sync();
        self.cancel_sync();
        if self.group.state() == State::Empty {
            self.group.transition_to(State::PreparingRebalance, self.effects.now.wall_ms);
            self.begin_initial_delay();
            return;
        }
        self.group.transition_to(State::PreparingRebalance, self.effects.now.wall_ms);
        if self.group.has_all_members_joined() {
            self.complete_join();
        } else {
            self.schedule_join(self.group.rebalance_timeout_ms());
        }
    }

    fn begin_initial_delay(&mut self) {
        let delay_ms = self.config.initial_rebalance_delay_ms;
        self.group.initial_rebalance = Some(InitialRebalance {
            delay_ms,
            remaining_ms: self.group.rebalance_timeout_ms().saturating_sub(delay_ms).max(0),
            new_member_added: false,
        });
        self.schedule_join(delay_ms);
    }

    /// Ends the join phase early if all members have joined, but never during the initial delay.
    pub(crate) fn complete_join_if_all_joined(&mut self) {
        if self.group.state() == State::PreparingRebalance
            && self.group.initial_rebalance.is_none()
            && self.group.has_all_members_joined()
        {
            self.complete_join();
        }
    }

    /// The join timer: a round of the initial delay, or the whole join phase, is over.
    pub(crate) fn on_join_timer(&mut self) {
        if self.group.state() != State::PreparingRebalance {
            return;
        }
        match self.group.initial_rebalance {
            Some(initial) if initial.new_member_added && initial.remaining_ms != 0 => {
                let delay_ms = self.config.initial_rebalance_delay_ms.min(initial.remaining_ms);
                self.group.initial_rebalance = Some(InitialRebalance {
                    delay_ms,
                    remaining_ms: initial.remaining_ms.saturating_sub(initial.delay_ms).max(0),
                    new_member_added: false,
                });
                self.schedule_join(delay_ms);
            }
            _ => self.complete_join(),
        }
    }

    /// Ends the join phase: removes members that have not rejoined (static members stay until their session ends), and
    /// starts the next generation.
    fn complete_join(&mut self) {
        self.cancel_join();
        for member_id in self.dynamic_members_not_joined() {
            self.remove_member(&member_id);
        }
        if !self.group.elect_joined_leader() && self.group.member_count() > 0 {
            // Only static members are left and none has rejoined: the join phase continues until they rejoin or their
            // sessions end.
            self.group.initial_rebalance = None;
            self.schedule_join(self.group.rebalance_timeout_ms());
            return;
        }
        self.group.init_next_generation(self.effects.now.wall_ms);
        if self.group.state() == State::Empty {
            let record = self.group.metadata_record(&BTreeMap::new());
            self.effects.write(record);
        } else {
            self.answer_joined_members();
            self.schedule_sync();
        }
    }

    fn dynamic_members_not_joined(&self) -> Vec<ByteString> {
        let gone = self
            .group
            .members()
            .filter(|member| member.awaiting_join.is_none() && member.group_instance_id.is_none());
        gone.map(|member| member.member_id.clone()).collect()
    }

    fn answer_joined_members(&mut self) {
        for member_id in self.group.member_ids() {
            if let Some(token) = self.group.take_awaiting_join(&member_id) {
                self.answer_join(token, &member_id, /* skip_assignment */ false);
            }
            if let Some(member) = self.group.member_mut(&member_id) {
                member.is_new = false;
            }
            self.restart_session(&member_id);
            self.group.expect_sync_from(&member_id);
        }
    }

    /// The sync timer: removes members that have not sent SyncGroup.
    pub(crate) fn on_sync_timer(&mut self) {
        let is_waiting = matches!(self.group.state(), State::CompletingRebalance | State::Stable);
        let missing = self.group.pending_sync();
        if !is_waiting || missing.is_empty() {
            return;
        }
        for member_id in missing {
            self.remove_member(&member_id);
        }
        self.prepare_rebalance();
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::join_group_request::JoinGroupRequest;

    use crate::group::config::GroupConfig;
    use crate::group::harness::{GROUP, Harness, REBALANCE_MS, SESSION_MS, joining};

    #[test]
    fn when_the_last_missing_member_expires_the_initial_delay_is_over() {
        let mut harness = Harness::with_config(GroupConfig {
            initial_rebalance_delay_ms: 60_000,
            ..GroupConfig::default()
        });
        harness.join(4, joining(""));
        let joined = harness.join(3, joining(""));
        harness.advance(i64::from(SESSION_MS) - 1);
        assert!(harness.is_waiting(joined));
        harness.advance(1);
        assert_eq!(harness.join_answer(joined).generation_id, 1);
    }

    #[test]
    fn a_static_member_that_stays_away_is_waited_for_no_longer_than_one_rebalance_timeout_at_a_time()
     {
        let mut harness = Harness::new();
        let request = JoinGroupRequest {
            group_instance_id: Some("i1".into()),
            session_timeout_ms: 600_000,
            ..joining("")
        };
        let token = harness.join(5, request);
        harness.advance(3_000);
        let fixed = harness.join_answer(token).member_id;
        harness.sync(1, &fixed, &[]);
        let token = harness.join(4, joining(""));
        let passing = harness.join_answer(token).member_id;
        harness.join(4, joining(&passing));
        harness.leave(&passing);
        harness.advance(i64::from(REBALANCE_MS));
        assert_eq!(harness.state_name(), "PreparingRebalance", "nobody is there to lead");
        let newcomer = harness.join(3, joining(""));
        harness.advance(i64::from(REBALANCE_MS));
        let answer = harness.join_answer(newcomer);
        assert_eq!((answer.leader, answer.members.len()), (answer.member_id, 2));
    }

    #[test]
    fn a_generation_never_becomes_negative() {
        let mut harness = Harness::new();
        let members = harness.stable(1);
        let group = harness.shard_mut().groups.get_mut(GROUP).unwrap();
        group.as_classic_mut().unwrap().generation_id = i32::MAX;
        let token = harness.join(3, joining(&members[0]));
        assert_eq!(harness.join_answer(token).generation_id, 0);
    }
}
