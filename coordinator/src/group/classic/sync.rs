//! SyncGroup: the leader sends the generation's assignment, every member gets its part.
//!
//! Members get the assignment only after its record is committed, so that no member acts on a generation that a new
//! coordinator would not have. (Kafka: `classicGroupSyncToClassicGroup`)

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::sync_group_request::SyncGroupRequest;
use klamm_protocol::messages::sync_group_response::SyncGroupResponse;

use super::context::GroupContext;
use super::state::State;
use crate::group::detach::detach_bytes;
use crate::group::on_commit::OnCommit;
use crate::group::response::Response;
use crate::group::shard::GroupShard;
use crate::runtime::{Effects, RequestToken, WriteFailure};

impl GroupShard {
    /// A member requests its assignment; the leader's request has the assignments of all. If `requires_protocol`, the
    /// request must have the protocol's type and name (KIP-559).
    pub fn on_sync_group(
        &mut self,
        token: RequestToken,
        request: &SyncGroupRequest,
        requires_protocol: bool,
        effects: &mut Effects<Self>,
    ) {
        if let Err(error) = self.sync_group(token, request, requires_protocol, effects) {
            effects.refuse_sync(token, error);
        }
    }

    fn sync_group(
        &mut self,
        token: RequestToken,
        request: &SyncGroupRequest,
        requires_protocol: bool,
        effects: &mut Effects<Self>,
    ) -> Result<(), ErrorCode> {
        let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
        if requires_protocol && !names_protocol {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if request.group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let context = self.classic_context(&request.group_id, effects);
        context.ok_or(ErrorCode::UnknownMemberId)?.sync(token, request)
    }
}

impl GroupContext<'_> {
    fn sync(&mut self, token: RequestToken, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.check_sync(request)?;
        let member_id = &request.member_id;
        match self.group.state() {
            State::Empty => unreachable!("an empty group has no members to sync"),
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            State::CompletingRebalance => {
                self.note_sync(member_id);
                self.park_sync(member_id, token);
                if self.group.is_leader(member_id) && !self.group.storing_assignment {
                    self.store_assignment(request);
                }
                Ok(())
            }
            State::Stable => {
                self.note_sync(member_id);
                // A coordinator that has just been loaded may have read the generation from records that are not
                // committed yet. If they are lost, another coordinator assigns the same generation differently.
                let assigned = self.assigned(member_id);
                self.effects.reply_to_read(token, assigned);
                Ok(())
            }
        }
    }

    fn check_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.group.validate_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.group.generation_id {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |asked: &Option<ByteString>, actual| asked.is_some() && asked != actual;
        if differs(&request.protocol_type, &self.group.protocol_type)
            || differs(&request.protocol_name, &self.group.protocol_name)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn note_sync(&mut self, member_id: &ByteString) {
        self.group.note_sync_from(member_id);
        if !self.group.has_pending_sync() {
            self.cancel_sync();
        }
    }

    /// Parks a SyncGroup request. As for JoinGroup, an earlier request of the same member is answered.
    fn park_sync(&mut self, member_id: &ByteString, token: RequestToken) {
        let member = self.group.member_mut(member_id).expect("the member was validated");
        if let Some(earlier) = member.awaiting_sync.replace(token) {
            self.effects.refuse_sync(earlier, ErrorCode::RebalanceInProgress);
        }
    }

    fn store_assignment(&mut self, request: &SyncGroupRequest) {
        let of_members =
            request.assignments.iter().filter(|part| self.group.has_member(&part.member_id));
        let assignments: BTreeMap<ByteString, Bytes> = of_members
            .map(|part| (part.member_id.clone(), detach_bytes(&part.assignment)))
            .collect();
        let record = self.group.metadata_record(&assignments);
        self.group.storing_assignment = true;
        self.effects.write(record);
        self.effects.on_commit(OnCommit::AssignmentStored {
            group_id: self.group.group_id.clone(),
            generation_id: self.group.generation_id,
            assignments,
        });
    }

    /// The generation's record is committed: the group is Stable and waiting members get their assignment. Does nothing
    /// if a rebalance has begun meanwhile.
    pub(crate) fn on_assignment_stored(
        &mut self,
        generation_id: i32,
        mut assignments: BTreeMap<ByteString, Bytes>,
    ) {
        if !self.is_storing(generation_id) {
            return;
        }
        self.group.storing_assignment = false;
        for member in self.group.members_mut() {
            member.assignment = assignments.remove(&member.member_id).unwrap_or_default();
        }
        for member_id in self.group.member_ids() {
            let member = self.group.member_mut(&member_id).expect("ids are the members'");
            if let Some(token) = member.awaiting_sync.take() {
                let assigned = self.assigned(&member_id);
                self.effects.reply(token, assigned);
                self.restart_session(&member_id);
            }
        }
        self.group.transition_to(State::Stable, self.effects.now.wall_ms);
    }

    /// The generation's record could not be committed: no member gets an assignment and all rejoin.
    pub(crate) fn on_assignment_failed(&mut self, generation_id: i32, failure: WriteFailure) {
        if self.is_storing(generation_id) {
            self.drop_assignments(failure.code());
            self.prepare_rebalance();
        }
    }

    fn is_storing(&self, generation_id: i32) -> bool {
        self.group.storing_assignment && self.group.generation_id == generation_id
    }

    /// Clears the assignments of the generation and answers waiting SyncGroup requests with `error`.
    pub(crate) fn drop_assignments(&mut self, error: ErrorCode) {
        for member_id in self.group.member_ids() {
            let member = self.group.member_mut(&member_id).expect("ids are the members'");
            member.assignment = Bytes::new();
            if let Some(token) = member.awaiting_sync.take() {
                self.effects.refuse_sync(token, error);
                self.restart_session(&member_id);
            }
        }
    }

    /// The answer with a member's assignment.
    fn assigned(&self, member_id: &ByteString) -> Response {
        let member = self.group.member(member_id).expect("only members are answered");
        Response::SyncGroup(SyncGroupResponse {
            protocol_type: self.group.protocol_type.clone(),
            protocol_name: self.group.protocol_name.clone(),
            assignment: member.assignment.clone(),
            ..Default::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::harness::{GROUP, Harness, REBALANCE_MS, SESSION_MS, joining};

    fn error(harness: &Harness, token: RequestToken) -> ErrorCode {
        ErrorCode::from_code(harness.sync_answer(token).error_code).unwrap()
    }

    fn request(member_id: &ByteString) -> SyncGroupRequest {
        SyncGroupRequest {
            group_id: GROUP.into(),
            generation_id: 1,
            member_id: member_id.clone(),
            ..Default::default()
        }
    }

    fn ask(
        harness: &mut Harness,
        requires_protocol: bool,
        request: &SyncGroupRequest,
    ) -> RequestToken {
        harness.send(|shard, token, effects| {
            shard.on_sync_group(token, request, requires_protocol, effects);
        })
    }

    #[test]
    fn everybody_gets_the_leaders_assignment_once_it_is_committed() {
        let mut harness = Harness::new();
        let members = harness.joined(3);
        harness.holds_commits = true;
        let early = harness.sync(1, &members[1], &[]);
        assert_eq!(harness.log.len(), 1, "a follower's sync stores nothing");
        let leader = harness.sync(1, &members[0], &[(&members[0], "x"), (&members[1], "y")]);
        let late = harness.sync(1, &members[2], &[]);
        assert!([early, leader, late].iter().all(|token| harness.is_waiting(*token)));
        assert_eq!(harness.state_name(), "CompletingRebalance");
        harness.commit();
        let assignment = |token| harness.sync_answer(token).assignment;
        assert_eq!([&assignment(leader)[..], &assignment(early)[..]], [b"x", b"y"]);
        assert_eq!(&assignment(late)[..], b"", "a member that the leader left out gets nothing");
        let answer = harness.sync_answer(leader);
        assert_eq!(answer.protocol_type.as_deref(), Some("consumer"));
        assert_eq!(answer.protocol_name.as_deref(), Some("range"));
        assert_eq!(harness.state_name(), "Stable");
        let again = harness.sync(1, &members[0], &[]);
        assert_eq!(&harness.sync_answer(again).assignment[..], b"x");
    }

    #[test]
    fn a_loaded_generation_is_told_once_it_is_known_to_be_committed() {
        // Found by the cluster simulation: the records were lost, and the generation was assigned again.
        let mut harness = Harness::new();
        let members = harness.stable(1);
        harness.load();
        let early = harness.sync(1, &members[0], &[]);
        assert!(harness.is_waiting(early));
        harness.commit();
        assert_eq!(&harness.sync_answer(early).assignment[..], b"a");
    }

    #[test]
    fn requests_that_do_not_fit_the_group_are_refused() {
        let mut harness = Harness::new();
        let members = harness.joined(1);
        let good = request(&members[0]);
        let cases = [
            (
                false,
                SyncGroupRequest { group_id: "".into(), ..good.clone() },
                ErrorCode::InvalidGroupId,
            ),
            (
                false,
                SyncGroupRequest { group_id: "h".into(), ..good.clone() },
                ErrorCode::UnknownMemberId,
            ),
            (false, request(&"nobody".into()), ErrorCode::UnknownMemberId),
            (
                false,
                SyncGroupRequest { generation_id: 2, ..good.clone() },
                ErrorCode::IllegalGeneration,
            ),
            (
                false,
                SyncGroupRequest { group_instance_id: Some("i".into()), ..good.clone() },
                ErrorCode::UnknownMemberId,
            ),
            (true, good.clone(), ErrorCode::InconsistentGroupProtocol),
            (
                true,
                SyncGroupRequest {
                    protocol_type: Some("connect".into()),
                    protocol_name: Some("range".into()),
                    ..good.clone()
                },
                ErrorCode::InconsistentGroupProtocol,
            ),
            (
                true,
                SyncGroupRequest {
                    protocol_type: Some("consumer".into()),
                    protocol_name: Some("sticky".into()),
                    ..good
                },
                ErrorCode::InconsistentGroupProtocol,
            ),
        ];
        for (requires_protocol, request, expected) in cases {
            let token = ask(&mut harness, requires_protocol, &request);
            assert_eq!(error(&harness, token), expected, "{request:?}");
        }
        assert_eq!(harness.state_name(), "CompletingRebalance");
    }

    #[test]
    fn during_a_rebalance_members_are_sent_back_to_join() {
        let mut harness = Harness::new();
        let members = harness.stable(2);
        harness.join(3, joining(&members[0]));
        let token = harness.sync(1, &members[1], &[]);
        assert_eq!(error(&harness, token), ErrorCode::RebalanceInProgress);
    }

    #[test]
    fn a_rebalance_sends_waiting_members_back_and_undoes_the_stored_assignment() {
        let mut harness = Harness::new();
        let members = harness.joined(2);
        harness.holds_commits = true;
        let follower = harness.sync(1, &members[1], &[]);
        let leader = harness.sync(1, &members[0], &[(&members[0], "x")]);
        harness.join(3, joining(""));
        assert_eq!(error(&harness, follower), ErrorCode::RebalanceInProgress);
        assert_eq!(error(&harness, leader), ErrorCode::RebalanceInProgress);
        harness.commit();
        assert_eq!(harness.state_name(), "PreparingRebalance");
        let group = harness.group();
        assert!(group.members().all(|member| member.assignment.is_empty()));
    }

    #[test]
    fn a_leader_that_syncs_twice_stores_one_assignment() {
        let mut harness = Harness::new();
        let members = harness.joined(1);
        harness.holds_commits = true;
        let first = harness.sync(1, &members[0], &[(&members[0], "x")]);
        let second = harness.sync(1, &members[0], &[(&members[0], "y")]);
        assert_eq!(error(&harness, first), ErrorCode::RebalanceInProgress);
        assert_eq!(harness.log.len(), 2);
        harness.commit();
        assert_eq!(&harness.sync_answer(second).assignment[..], b"x");
    }

    #[test]
    fn if_the_assignment_cannot_be_stored_all_join_again() {
        for fails_to_append in [true, false] {
            let mut harness = Harness::new();
            let members = harness.joined(2);
            let follower = harness.sync(1, &members[1], &[]);
            if fails_to_append {
                harness.next_append_error = Some(ErrorCode::NotEnoughReplicas);
            }
            harness.holds_commits = true;
            let leader = harness.sync(1, &members[0], &[(&members[0], "x")]);
            harness.advance(5_000);
            assert_eq!(error(&harness, leader), ErrorCode::CoordinatorNotAvailable);
            assert_eq!(error(&harness, follower), ErrorCode::CoordinatorNotAvailable);
            assert_eq!(harness.state_name(), "PreparingRebalance");
            harness.commit();
            assert_eq!(harness.state_name(), "PreparingRebalance");
        }
    }

    #[test]
    fn members_that_never_sync_are_removed_and_the_others_join_again() {
        let mut harness = Harness::new();
        let members = harness.joined(2);
        harness.sync(1, &members[0], &[(&members[0], "x")]);
        assert_eq!(harness.state_name(), "Stable");
        for _ in 0..4 {
            harness.advance(i64::from(REBALANCE_MS) / 4);
            harness.heartbeat(1, &members[0]);
            harness.heartbeat(1, &members[1]);
        }
        assert_eq!(harness.state_name(), "PreparingRebalance");
        assert!(!harness.group().has_member(&members[1]));
    }

    #[test]
    fn if_nobody_syncs_the_group_falls_empty() {
        let mut harness = Harness::new();
        let members = harness.joined(1);
        harness.advance(i64::from(SESSION_MS));
        assert_eq!(harness.state_name(), "Empty");
        let token = harness.sync(1, &members[0], &[]);
        assert_eq!(error(&harness, token), ErrorCode::UnknownMemberId);
    }
}
