//! The end of a member's session.

use bytestring::ByteString;

use super::context::GroupContext;
use super::state::State;

impl GroupContext<'_> {
    /// The session timer of a member, or of an assigned member id whose client has not joined.
    pub(crate) fn on_session_timer(&mut self, member_id: &ByteString) {
        if self.group.is_pending_member(member_id) {
            self.remove_member(member_id);
            self.complete_join_if_group_is_whole();
            return;
        }
        let is_owed_an_answer =
            self.group.member(member_id).is_none_or(|member| member.has_satisfied_heartbeat());
        if is_owed_an_answer {
            return;
        }
        self.remove_member(member_id);
        match self.group.state() {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(),
            State::PreparingRebalance => self.complete_join_if_group_is_whole(),
            State::Empty => {}
        }
    }

    /// Completes the join phase if all members have joined. As in Kafka, this also ends the initial delay, only here.
    fn complete_join_if_group_is_whole(&mut self) {
        if self.group.state() == State::PreparingRebalance && self.group.has_all_members_joined() {
            self.group.initial_rebalance = None;
            self.complete_join_if_all_joined();
        }
    }
}
