//! A static member that rejoins without its member id replaces its former member id (KIP-345).
//!
//! In a stable group whose protocol stays the same no rebalance is needed: the new id is stored and the member keeps
//! the old assignment. (Kafka: `updateStaticMemberThenRebalanceOrCompleteJoin`)

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use klamm_protocol::messages::join_group_response::JoinGroupResponse;

use super::context::GroupContext;
use super::join::JoinGroup;
use super::state::State;
use crate::group::on_commit::OnCommit;
use crate::group::response::Response;
use crate::runtime::{RequestToken, WriteFailure};

/// A replacement whose record is not committed yet, with the data to answer or to undo it.
#[derive(Debug, Clone, PartialEq)]
pub struct Replacement {
    pub(crate) group_id: ByteString,
    generation_id: i32,
    token: RequestToken,
    old_member_id: ByteString,
    new_member_id: ByteString,
    former_leader_id: Option<ByteString>,
    former_protocols: Vec<JoinGroupRequestProtocol>,
    former_rebalance_timeout_ms: i32,
    former_session_timeout_ms: i32,
    can_skip_assignment: bool,
}

impl GroupContext<'_> {
    pub(crate) fn replace_static_member(
        &mut self,
        join: &JoinGroup,
        old_id: &ByteString,
        new_id: &ByteString,
    ) {
        self.fence(old_id);
        let replacement = self.replacement(join, old_id, new_id);
        self.group.replace_static_member(old_id, new_id);
        self.update_member(join, new_id);
        self.restart_session(new_id);
        match self.group.state() {
            State::Stable if self.keeps_its_protocol() => self.store_replacement(replacement),
            // The leader may have got the old id already, and its assignment would lack the new one.
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(),
            State::PreparingRebalance => self.complete_join_if_all_joined(),
            State::Empty => unreachable!("an empty group has no static members"),
        }
    }

    /// Answers parked requests of the old id with FENCED_INSTANCE_ID.
    fn fence(&mut self, old_id: &ByteString) {
        if let Some(token) = self.group.take_awaiting_join(old_id) {
            self.effects.refuse_join(token, old_id.clone(), ErrorCode::FencedInstanceId);
        }
        let old = self.group.member_mut(old_id).expect("a static member's id is a member's");
        if let Some(token) = old.awaiting_sync.take() {
            self.effects.refuse_sync(token, ErrorCode::FencedInstanceId);
        }
        self.cancel_session(old_id);
    }

    fn replacement(
        &self,
        join: &JoinGroup,
        old_id: &ByteString,
        new_id: &ByteString,
    ) -> Replacement {
        let old = self.group.member(old_id).expect("a static member's id is a member's");
        Replacement {
            group_id: self.group.group_id.clone(),
            generation_id: self.group.generation_id,
            token: join.token,
            old_member_id: old_id.clone(),
            new_member_id: new_id.clone(),
            former_leader_id: self.group.leader_id.clone(),
            former_protocols: old.protocols.clone(),
            former_rebalance_timeout_ms: old.rebalance_timeout_ms,
            former_session_timeout_ms: old.session_timeout_ms,
            can_skip_assignment: join.supports_skipping_assignment,
        }
    }

    fn keeps_its_protocol(&self) -> bool {
        self.group.protocol_name.as_ref() == Some(&self.group.select_protocol())
    }

    fn store_replacement(&mut self, replacement: Replacement) {
        let assignments: BTreeMap<ByteString, Bytes> = self
            .group
            .members()
            .map(|member| (member.member_id.clone(), member.assignment.clone()))
            .collect();
        let record = self.group.metadata_record(&assignments);
        self.effects.write(record);
        self.effects.on_commit(OnCommit::StaticMemberReplaced(replacement));
    }

    /// The new id is committed: the member continues in the current generation.
    pub(crate) fn on_replacement_stored(&mut self, replacement: &Replacement) {
        if !self.still_waits(replacement) {
            return;
        }
        let new_id = &replacement.new_member_id;
        self.group.take_awaiting_join(new_id);
        if replacement.can_skip_assignment {
            let is_leader = self.group.is_leader(new_id);
            self.answer_join(replacement.token, new_id, /* skip_assignment */ is_leader);
            return;
        }
        // The answer names another leader, so that an old client without `SkipAssignment` does not compute an
        // assignment.
        let response = self.replacement_answer(replacement, new_id.clone(), ErrorCode::None);
        self.effects.reply(replacement.token, response);
    }

    /// The new id could not be committed: restores the old one.
    pub(crate) fn on_replacement_failed(
        &mut self,
        replacement: &Replacement,
        failure: WriteFailure,
    ) {
        if !self.still_waits(replacement) {
            return;
        }
        let new_id = &replacement.new_member_id;
        let old_id = &replacement.old_member_id;
        self.group.take_awaiting_join(new_id);
        self.group.set_protocols(new_id, &replacement.former_protocols);
        self.group.replace_static_member(new_id, old_id);
        let member = self.group.member_mut(old_id).expect("it has its place back");
        member.rebalance_timeout_ms = replacement.former_rebalance_timeout_ms;
        member.session_timeout_ms = replacement.former_session_timeout_ms;
        self.cancel_session(new_id);
        self.restart_session(old_id);
        let nobody = ByteString::new();
        let response = self.replacement_answer(replacement, nobody, failure.code());
        self.effects.reply(replacement.token, response);
    }

    /// Whether the request still waits for this replacement; `false` after a rebalance or another replacement.
    fn still_waits(&self, replacement: &Replacement) -> bool {
        let member = self.group.member(&replacement.new_member_id);
        self.group.state() == State::Stable
            && self.group.generation_id == replacement.generation_id
            && member.is_some_and(|member| member.awaiting_join == Some(replacement.token))
    }

    fn replacement_answer(
        &self,
        replacement: &Replacement,
        member_id: ByteString,
        error: ErrorCode,
    ) -> Response {
        Response::JoinGroup(JoinGroupResponse {
            error_code: error.code(),
            generation_id: self.group.generation_id,
            protocol_type: self.group.protocol_type.clone(),
            protocol_name: self.group.protocol_name.clone(),
            leader: replacement.former_leader_id.clone().unwrap_or_default(),
            member_id,
            ..Default::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::join_group_request::JoinGroupRequest;

    use super::*;
    use crate::group::harness::{Harness, joining, protocol};

    fn joining_static() -> JoinGroupRequest {
        JoinGroupRequest { group_instance_id: Some("i1".into()), ..joining("") }
    }

    fn error(harness: &Harness, token: RequestToken) -> ErrorCode {
        ErrorCode::from_code(harness.join_answer(token).error_code).unwrap()
    }

    /// A stable group whose only member is static and the leader.
    fn stable_static() -> (Harness, ByteString) {
        let mut harness = Harness::new();
        let token = harness.join(5, joining_static());
        harness.advance(3_000);
        let member_id = harness.join_answer(token).member_id;
        harness.sync(1, &member_id, &[(&member_id, "a")]);
        assert_eq!(harness.state_name(), "Stable");
        (harness, member_id)
    }

    #[test]
    fn a_static_member_joins_at_once_under_an_id_that_starts_with_its_instance_id() {
        let (_, member_id) = stable_static();
        assert!(member_id.starts_with("i1-"));
    }

    #[test]
    fn a_returning_static_member_keeps_generation_and_assignment() {
        let (mut harness, old_id) = stable_static();
        let token = harness.join(9, joining_static());
        let answer = harness.join_answer(token);
        assert_eq!((answer.error_code, answer.generation_id), (0, 1));
        assert!(
            answer.skip_assignment,
            "a leader is told to keep its assignment from version 9 on"
        );
        assert_eq!((answer.members.len(), &answer.leader), (1, &answer.member_id));
        assert_ne!(answer.member_id, old_id);
        assert_eq!(harness.state_name(), "Stable");
        let synced = harness.sync(1, &answer.member_id, &[]);
        assert_eq!(&harness.sync_answer(synced).assignment[..], b"a");
        assert_eq!(harness.heartbeat(1, &old_id), ErrorCode::UnknownMemberId);
    }

    #[test]
    fn an_older_client_is_told_that_its_former_self_leads() {
        let (mut harness, old_id) = stable_static();
        let token = harness.join(8, joining_static());
        let answer = harness.join_answer(token);
        assert_eq!((&answer.leader, answer.skip_assignment), (&old_id, false));
        assert!(answer.members.is_empty());
    }

    #[test]
    fn the_former_self_is_fenced_wherever_it_names_its_instance() {
        let (mut harness, old_id) = stable_static();
        harness.join(9, joining_static());
        let as_old = JoinGroupRequest { member_id: old_id.clone(), ..joining_static() };
        let token = harness.join(9, as_old);
        assert_eq!(error(&harness, token), ErrorCode::FencedInstanceId);
        let group = harness.group();
        let instance: ByteString = "i1".into();
        let fenced = group.validate_member(&old_id, Some(&instance));
        assert_eq!(fenced, Err(ErrorCode::FencedInstanceId));
        let unknown: ByteString = "i2".into();
        let unknown = group.validate_member(&old_id, Some(&unknown));
        assert_eq!(unknown, Err(ErrorCode::UnknownMemberId));
    }

    #[test]
    fn requests_that_wait_under_the_old_id_are_fenced() {
        let mut harness = Harness::new();
        let waiting_join = harness.join(5, joining_static());
        let again = harness.join(5, joining_static());
        assert_eq!(error(&harness, waiting_join), ErrorCode::FencedInstanceId);
        harness.join(3, joining(""));
        harness.advance(6_000);
        let answer = harness.join_answer(again);
        harness.holds_commits = true;
        let waiting_sync = harness.sync(1, &answer.member_id, &[]);
        let third = harness.join(5, joining_static());
        let fenced = harness.sync_answer(waiting_sync);
        assert_eq!(fenced.error_code, ErrorCode::FencedInstanceId.code());
        // Between JoinGroup and SyncGroup the leader may have the old id, so all members rejoin.
        assert!(harness.is_waiting(third));
        assert_eq!(harness.state_name(), "PreparingRebalance");
    }

    #[test]
    fn a_change_of_the_groups_protocol_needs_a_rebalance() {
        let (mut harness, _) = stable_static();
        let protocols = vec![protocol("new", "m"), protocol("range", "m")];
        let token = harness.join(9, JoinGroupRequest { protocols, ..joining_static() });
        let answer = harness.join_answer(token);
        assert_eq!((answer.generation_id, answer.protocol_name.as_deref()), (2, Some("new")));
        assert!(!answer.skip_assignment);
    }

    #[test]
    fn the_new_id_is_told_only_when_it_is_stored() {
        let (mut harness, _) = stable_static();
        harness.holds_commits = true;
        let token = harness.join(9, joining_static());
        assert!(harness.is_waiting(token));
        harness.commit();
        assert_eq!(error(&harness, token), ErrorCode::None);
    }

    #[test]
    fn if_the_new_id_cannot_be_stored_the_old_one_goes_on() {
        let (mut harness, old_id) = stable_static();
        harness.next_append_error = Some(ErrorCode::KafkaStorageError);
        let token = harness.join(9, joining_static());
        let answer = harness.join_answer(token);
        assert_eq!(answer.error_code, ErrorCode::NotCoordinator.code());
        assert_eq!((&*answer.member_id, &answer.leader), ("", &old_id));
        assert_eq!(harness.heartbeat(1, &old_id), ErrorCode::None);
        let synced = harness.sync(1, &old_id, &[]);
        assert_eq!(&harness.sync_answer(synced).assignment[..], b"a");
    }

    #[test]
    fn if_the_commit_takes_too_long_the_old_id_goes_on() {
        let (mut harness, old_id) = stable_static();
        harness.holds_commits = true;
        let token = harness.join(9, joining_static());
        harness.advance(5_000);
        assert_eq!(error(&harness, token), ErrorCode::CoordinatorNotAvailable);
        assert_eq!(harness.heartbeat(1, &old_id), ErrorCode::None);
        assert!(harness.waiting().is_empty());
    }

    #[test]
    fn a_rebalance_meanwhile_takes_the_waiting_request_over() {
        let (mut harness, _) = stable_static();
        harness.holds_commits = true;
        let token = harness.join(9, joining_static());
        let newcomer = harness.join(3, joining(""));
        assert_eq!(harness.join_answer(token).generation_id, 2);
        assert_eq!(harness.join_answer(newcomer).generation_id, 2);
        harness.commit();
        assert!(harness.waiting().is_empty());
    }

    #[test]
    fn a_static_member_that_stays_away_keeps_its_place_until_its_session_ends() {
        let (mut harness, member_id) = stable_static();
        let newcomer = harness.join(3, joining(""));
        harness.advance(9_000);
        assert!(harness.is_waiting(newcomer), "the join phase waits for the static member");
        assert!(harness.group().has_member(&member_id));
        harness.advance(1_000);
        assert_eq!(harness.join_answer(newcomer).members.len(), 1);
    }
}
