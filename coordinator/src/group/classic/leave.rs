//! LeaveGroup: members leave, or an administrator removes them.

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use klamm_protocol::messages::leave_group_response::{LeaveGroupResponse, MemberResponse};

use super::context::GroupContext;
use super::state::State;
use crate::group::response::Response;
use crate::group::shard::GroupShard;
use crate::runtime::{Effects, RequestToken};

impl GroupShard {
    /// Removes the request's `members` from the group. Versions below 3 name one member in a field of its own; the
    /// handler moves it into `members` and the answer's error back to the top level.
    pub fn on_leave_group(
        &mut self,
        token: RequestToken,
        request: &LeaveGroupRequest,
        effects: &mut Effects<Self>,
    ) {
        let mut response = LeaveGroupResponse::default();
        if request.group_id.is_empty() {
            response.error_code = ErrorCode::InvalidGroupId.code();
        } else if let Some(mut context) = self.classic_context(&request.group_id, effects) {
            response.members = context.leave(&request.members);
        } else {
            let unknown = |member| answer(member, ErrorCode::UnknownMemberId);
            response.members = request.members.iter().map(unknown).collect();
        }
        effects.reply_when_committed(token, Response::LeaveGroup(response));
    }
}

impl GroupContext<'_> {
    fn leave(&mut self, members: &[MemberIdentity]) -> Vec<MemberResponse> {
        let mut has_left = false;
        let mut answers = Vec::with_capacity(members.len());
        for member in members {
            let left = self.leaving_member_id(member);
            if let Ok(member_id) = &left {
                self.remove_member(member_id);
                has_left = true;
            }
            answers.push(answer(member, left.err().unwrap_or(ErrorCode::None)));
        }
        if has_left && self.group.state() != State::Empty {
            self.rebalance_or_complete_join();
        }
        answers
    }

    /// The member id that the request means. Without a member id, an administrator names a group instance id.
    fn leaving_member_id(&self, member: &MemberIdentity) -> Result<ByteString, ErrorCode> {
        let instance_id = member.group_instance_id.as_ref();
        if member.member_id.is_empty() {
            let owner =
                instance_id.and_then(|instance_id| self.group.static_member_id(instance_id));
            return owner.cloned().ok_or(ErrorCode::UnknownMemberId);
        }
        if !self.group.is_pending_member(&member.member_id) {
            self.group.validate_member(&member.member_id, instance_id)?;
        }
        Ok(member.member_id.clone())
    }
}

fn answer(member: &MemberIdentity, error: ErrorCode) -> MemberResponse {
    MemberResponse {
        member_id: member.member_id.clone(),
        group_instance_id: member.group_instance_id.clone(),
        error_code: error.code(),
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::join_group_request::JoinGroupRequest;

    use super::*;
    use crate::group::harness::{GROUP, Harness, joining};

    fn identity(member_id: &str, instance_id: Option<&'static str>) -> MemberIdentity {
        MemberIdentity {
            member_id: member_id.into(),
            group_instance_id: instance_id.map(ByteString::from_static),
            ..Default::default()
        }
    }

    fn errors(response: &LeaveGroupResponse) -> Vec<ErrorCode> {
        let errors = response.members.iter().map(|member| member.error_code);
        errors.map(|code| ErrorCode::from_code(code).unwrap()).collect()
    }

    #[test]
    fn when_the_last_member_leaves_the_group_is_empty_and_that_is_stored() {
        let mut harness = Harness::new();
        let members = harness.stable(1);
        let stored = harness.log.len();
        assert_eq!(harness.leave(&members[0]), ErrorCode::None);
        assert_eq!(harness.state_name(), "Empty");
        assert_eq!(harness.log.len(), stored + 1);
        let stored = harness.stored_group();
        assert_eq!((stored.generation, stored.members.len()), (2, 0));
        assert_eq!((&*stored.protocol_type, &stored.protocol), ("consumer", &None));
        assert_eq!(harness.leave(&members[0]), ErrorCode::UnknownMemberId);
    }

    #[test]
    fn the_answer_waits_for_the_record() {
        let mut harness = Harness::new();
        let members = harness.stable(1);
        harness.holds_commits = true;
        let members = vec![identity(&members[0], None)];
        let request = LeaveGroupRequest { group_id: GROUP.into(), members, ..Default::default() };
        let token = harness.send(|shard, token, effects| {
            shard.on_leave_group(token, &request, effects);
        });
        assert!(harness.is_waiting(token));
        harness.advance(5_000);
        let Response::LeaveGroup(response) = harness.answer(token) else { panic!() };
        assert_eq!(response.error_code, ErrorCode::CoordinatorNotAvailable.code());
    }

    #[test]
    fn a_leaving_member_makes_the_others_join_again() {
        let mut harness = Harness::new();
        let members = harness.stable(3);
        assert_eq!(harness.leave(&members[0]), ErrorCode::None);
        assert_eq!(harness.state_name(), "PreparingRebalance");
        let first = harness.join(3, joining(&members[1]));
        assert!(harness.is_waiting(first));
        // The last missing member leaves too, so the join phase ends.
        assert_eq!(harness.leave(&members[2]), ErrorCode::None);
        assert_eq!(harness.join_answer(first).generation_id, 2);
    }

    #[test]
    fn what_a_leaving_member_waits_for_is_answered() {
        let mut harness = Harness::new();
        let members = harness.joined(2);
        let sync = harness.sync(1, &members[1], &[]);
        harness.leave(&members[1]);
        let unknown = ErrorCode::UnknownMemberId.code();
        assert_eq!(harness.sync_answer(sync).error_code, unknown);
        let join = harness.join(3, joining(""));
        let joined = harness.group().member_ids();
        let newcomer = joined.iter().find(|member| **member != members[0]).unwrap();
        harness.leave(newcomer);
        assert_eq!(harness.join_answer(join).error_code, unknown);
        assert_eq!(harness.join_answer(join).member_id, "");
    }

    #[test]
    fn static_members_leave_by_member_id_or_are_removed_by_instance_id() {
        let mut harness = Harness::new();
        let mut ids = Vec::new();
        for instance_id in ["i1", "i2", "i3"] {
            let instance_id = Some(ByteString::from_static(instance_id));
            ids.push(
                harness.join(5, JoinGroupRequest { group_instance_id: instance_id, ..joining("") }),
            );
        }
        harness.advance(9_000);
        let ids: Vec<_> = ids.iter().map(|token| harness.join_answer(*token).member_id).collect();
        let response = harness.leave_all(vec![
            identity("", Some("i1")),
            identity(&ids[1], Some("i2")),
            identity(&ids[2], Some("i1")),
            identity("other", Some("i3")),
            identity("", Some("i4")),
            identity("", None),
        ]);
        let expected = [
            ErrorCode::None,
            ErrorCode::None,
            ErrorCode::UnknownMemberId,
            ErrorCode::FencedInstanceId,
            ErrorCode::UnknownMemberId,
            ErrorCode::UnknownMemberId,
        ];
        assert_eq!(errors(&response), expected);
        assert_eq!(harness.group().member_ids(), [ids[2].clone()]);
    }

    #[test]
    fn an_id_that_was_given_out_can_be_given_back() {
        let mut harness = Harness::new();
        let token = harness.join(4, joining(""));
        let member_id = harness.join_answer(token).member_id;
        assert_eq!(harness.leave(&member_id), ErrorCode::None);
        assert_eq!(harness.leave(&member_id), ErrorCode::UnknownMemberId);
        assert_eq!(harness.state_name(), "Empty");
    }

    #[test]
    fn unknown_groups_answer_per_member_and_an_empty_id_as_a_whole() {
        let mut harness = Harness::new();
        let response = harness.leave_all(vec![identity("m", None)]);
        assert_eq!((response.error_code, errors(&response)), (0, vec![ErrorCode::UnknownMemberId]));
        let token = harness.send(|shard, token, effects| {
            shard.on_leave_group(token, &LeaveGroupRequest::default(), effects);
        });
        let Response::LeaveGroup(response) = harness.answer(token) else { panic!() };
        assert_eq!(response.error_code, ErrorCode::InvalidGroupId.code());
    }
}
