//! Heartbeat: a member renews its session, and learns whether it has to rejoin.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::heartbeat_request::HeartbeatRequest;

use super::state::State;
use crate::group::shard::GroupShard;
use crate::runtime::Effects;

impl GroupShard {
    /// Extends a member's session. Returns NONE or an error; REBALANCE_IN_PROGRESS extends the session too.
    #[must_use]
    pub fn on_heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        effects: &mut Effects<Self>,
    ) -> ErrorCode {
        self.heartbeat(request, effects).err().unwrap_or(ErrorCode::None)
    }

    fn heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        effects: &mut Effects<Self>,
    ) -> Result<(), ErrorCode> {
        if request.group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let context = self.classic_context(&request.group_id, effects);
        let mut context = context.ok_or(ErrorCode::UnknownMemberId)?;
        context.group.validate_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != context.group.generation_id {
            return Err(ErrorCode::IllegalGeneration);
        }
        context.restart_session(&request.member_id);
        match context.group.state() {
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            State::Empty | State::CompletingRebalance | State::Stable => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::harness::{GROUP, Harness, SESSION_MS, committing, joining};

    #[test]
    fn a_heartbeat_needs_a_group_a_member_its_instance_and_its_generation() {
        let mut harness = Harness::new();
        let members = harness.stable(1);
        let good = HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id: 1,
            member_id: members[0].clone(),
            ..Default::default()
        };
        let cases = [
            (good.clone(), ErrorCode::None),
            (HeartbeatRequest { group_id: "".into(), ..good.clone() }, ErrorCode::InvalidGroupId),
            (HeartbeatRequest { group_id: "h".into(), ..good.clone() }, ErrorCode::UnknownMemberId),
            (
                HeartbeatRequest { member_id: "m".into(), ..good.clone() },
                ErrorCode::UnknownMemberId,
            ),
            (
                HeartbeatRequest { group_instance_id: Some("i".into()), ..good.clone() },
                ErrorCode::UnknownMemberId,
            ),
            (HeartbeatRequest { generation_id: 0, ..good }, ErrorCode::IllegalGeneration),
        ];
        for (request, expected) in cases {
            let error = harness.call(|shard, effects| shard.on_heartbeat(&request, effects));
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn heartbeats_keep_a_member_in_every_state_and_tell_of_a_rebalance() {
        let mut harness = Harness::new();
        let members = harness.joined(2);
        assert_eq!(harness.heartbeat(1, &members[0]), ErrorCode::None);
        harness.sync(1, &members[1], &[]);
        harness.sync(1, &members[0], &[]);
        harness.join(3, joining(&members[0]));
        for _ in 0..3 {
            harness.advance(6_000);
            assert_eq!(harness.heartbeat(1, &members[1]), ErrorCode::RebalanceInProgress);
        }
    }

    #[test]
    fn a_member_without_heartbeats_is_removed_when_its_session_ends() {
        let mut harness = Harness::new();
        let members = harness.stable(1);
        harness.advance(i64::from(SESSION_MS) - 1);
        assert_eq!(harness.state_name(), "Stable");
        harness.advance(1);
        assert_eq!(harness.state_name(), "Empty");
        assert_eq!(harness.heartbeat(1, &members[0]), ErrorCode::UnknownMemberId);
        assert_eq!(harness.generation(), 2);
    }

    #[test]
    fn a_group_that_only_commits_offsets_has_no_members_to_hear_from() {
        let mut harness = Harness::new();
        harness.commit_offset(&committing(1));
        assert_eq!(harness.heartbeat(0, &"m".into()), ErrorCode::UnknownMemberId);
    }
}
