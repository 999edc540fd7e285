//! JoinGroup. (Kafka: `GroupMetadataManager.classicGroupJoin` and what it calls)

use std::collections::BTreeMap;

use bytestring::ByteString;
use klamm_protocol::messages::join_group_request::JoinGroupRequest;
use klamm_protocol::{ErrorCode, Uuid};

use super::ClassicGroup;
use super::context::GroupContext;
use super::member::{Member, detach_protocols, new_member_id};
use super::protocols::can_found_a_group;
use super::state::State;
use crate::group::config::NEW_MEMBER_JOIN_TIMEOUT_MS;
use crate::group::detach::detach;
use crate::group::on_commit::OnCommit;
use crate::group::shard::GroupShard;
use crate::runtime::{Effects, RequestToken, WriteFailure};

/// The maximum length of a string in records and in old responses.
const MAX_STRING_BYTES: usize = 32_767;
/// The length of the suffix of a member id, after the client or instance id: a dash and a uuid.
const MEMBER_ID_SUFFIX_BYTES: usize = 37;

/// A JoinGroup request and the facts about its client.
#[derive(Debug, Clone, PartialEq)]
pub struct JoinGroup {
    pub token: RequestToken,
    /// A new member gets an id with MEMBER_ID_REQUIRED and joins with a second request (KIP-394).
    pub requires_known_member_id: bool,
    /// The client supports `SkipAssignment`: a leader that rejoins can keep the current assignment (KIP-814).
    pub supports_skipping_assignment: bool,
    pub client_id: ByteString,
    /// As Java prints an address: `/127.0.0.1`.
    pub client_host: ByteString,
    /// Random; becomes part of the member id if a new one is needed.
    pub member_uuid: Uuid,
    pub request: JoinGroupRequest,
}

/// A JoinGroup that is refused: the error and the member id of the answer.
struct Refusal {
    error: ErrorCode,
    member_id: ByteString,
}

impl GroupShard {
    /// A member joins or rejoins. The answer comes with the next generation, or at once with the current generation, an
    /// error, or the member id to join with.
    pub fn on_join_group(&mut self, join: &JoinGroup, effects: &mut Effects<Self>) {
        if let Err(refusal) = self.join_group(join, effects) {
            effects.refuse_join(join.token, refusal.member_id, refusal.error);
        }
    }

    fn join_group(&mut self, join: &JoinGroup, effects: &mut Effects<Self>) -> Result<(), Refusal> {
        let request = &join.request;
        let refuse = |error| Refusal { error, member_id: request.member_id.clone() };
        self.check_request(join).map_err(refuse)?;
        if self.is_not_run(&request.group_id) {
            let member_id = ByteString::new();
            return Err(Refusal { error: ErrorCode::InconsistentGroupProtocol, member_id });
        }
        if !self.groups.contains_key(&request.group_id) {
            check_founder(request).map_err(refuse)?;
            self.create_group(&request.group_id, effects);
        }
        let mut context =
            self.classic_context(&request.group_id, effects).expect("the group exists now");
        if !context.accepts_joining_member(&request.member_id) {
            context.remove_member(&request.member_id);
            context.complete_join_if_all_joined();
            let member_id = ByteString::new();
            return Err(Refusal { error: ErrorCode::GroupMaxSizeReached, member_id });
        }
        if !context.group.supports_protocols(&request.protocol_type, &request.protocols) {
            return Err(refuse(ErrorCode::InconsistentGroupProtocol));
        }
        if request.member_id.is_empty() {
            context.join_new_member(join);
            return Ok(());
        }
        context.join_existing_member(join).map_err(refuse)
    }

    fn check_request(&self, join: &JoinGroup) -> Result<(), ErrorCode> {
        let request = &join.request;
        if request.group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let allowed = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        if !allowed.contains(&request.session_timeout_ms) {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        let prefix = request.group_instance_id.as_ref().unwrap_or(&join.client_id);
        if prefix.len() + MEMBER_ID_SUFFIX_BYTES > MAX_STRING_BYTES {
            return Err(ErrorCode::InvalidRequest);
        }
        Ok(())
    }

    /// Creates a group for its first member, and stores it at once, empty, so that it survives a failover.
    fn create_group(&mut self, group_id: &ByteString, effects: &mut Effects<Self>) {
        let group = ClassicGroup::new(group_id, effects.now.wall_ms);
        effects.write(group.metadata_record(&BTreeMap::new()));
        effects.on_commit(OnCommit::GroupCreated { group_id: group.group_id.clone() });
        self.insert_classic(group);
    }

    /// Removes a group whose first record the log refused, with its first member.
    pub(crate) fn forget_group(
        &mut self,
        group_id: &str,
        failure: WriteFailure,
        effects: &mut Effects<Self>,
    ) {
        if let Some(mut context) = self.classic_context(group_id, effects) {
            context.cancel_join();
            for member_id in context.group.member_ids() {
                context.cancel_session(&member_id);
                if let Some(token) = context.group.take_awaiting_join(&member_id) {
                    context.effects.refuse_join(token, member_id, failure.code());
                }
            }
        }
        self.groups.remove(group_id);
    }
}

/// Checks the first request of a group. Unlike in Kafka, a refused request leaves no empty group behind.
fn check_founder(request: &JoinGroupRequest) -> Result<(), ErrorCode> {
    if !request.member_id.is_empty() {
        return Err(ErrorCode::UnknownMemberId);
    }
    if !can_found_a_group(&request.protocol_type, &request.protocols) {
        return Err(ErrorCode::InconsistentGroupProtocol);
    }
    Ok(())
}

impl GroupContext<'_> {
    /// Checks `group.max.size`. During the join phase only members that have rejoined count, so that the last ones are
    /// refused if the limit was lowered; in other states all members count.
    fn accepts_joining_member(&self, member_id: &str) -> bool {
        let max_size = self.config.max_size;
        match self.group.state() {
            State::Empty => true,
            State::PreparingRebalance => {
                let member = self.group.member(member_id);
                member.is_some_and(|member| member.awaiting_join.is_some())
                    || self.group.awaiting_join_count() < max_size
            }
            State::CompletingRebalance | State::Stable => {
                self.group.has_member(member_id) || self.group.member_count() < max_size
            }
        }
    }

    fn join_new_member(&mut self, join: &JoinGroup) {
        let instance_id = join.request.group_instance_id.as_ref();
        let member_id = new_member_id(&join.client_id, instance_id, join.member_uuid);
        if let Some(instance_id) = instance_id {
            match self.group.static_member_id(instance_id).cloned() {
                Some(old_id) => self.replace_static_member(join, &old_id, &member_id),
                None => self.add_member(join, member_id),
            }
        } else if join.requires_known_member_id {
            self.group.add_pending_member(member_id.clone());
            self.schedule_session(&member_id, join.request.session_timeout_ms);
            self.effects.refuse_join(join.token, member_id, ErrorCode::MemberIdRequired);
        } else {
            self.add_member(join, member_id);
        }
    }

    fn join_existing_member(&mut self, join: &JoinGroup) -> Result<(), ErrorCode> {
        let member_id = &join.request.member_id;
        let instance_id = join.request.group_instance_id.as_ref();
        if self.group.is_pending_member(member_id) {
            // Only dynamic members get their id before they join.
            if instance_id.is_some() {
                return Err(ErrorCode::UnknownServerError);
            }
            self.add_member(join, detach(member_id));
            return Ok(());
        }
        self.group.validate_member(member_id, instance_id)?;
        if self.must_rebalance_for(join) {
            self.update_member(join, member_id);
            self.rebalance_or_complete_join();
        } else {
            self.answer_join(join.token, member_id, /* skip_assignment */ false);
        }
        Ok(())
    }

    /// Whether a member's JoinGroup needs a rebalance. If not, the member only missed the last answer.
    fn must_rebalance_for(&self, join: &JoinGroup) -> bool {
        let member = self.group.member(&join.request.member_id).expect("the member was validated");
        let has_changed = member.protocols != join.request.protocols;
        match self.group.state() {
            State::PreparingRebalance => true,
            State::CompletingRebalance => has_changed,
            // A leader rejoins when something outside its metadata has changed, such as topics.
            State::Stable => has_changed || self.group.is_leader(&member.member_id),
            State::Empty => unreachable!("an empty group has no members"),
        }
    }

    pub(crate) fn update_member(&mut self, join: &JoinGroup, member_id: &ByteString) {
        self.group.set_protocols(member_id, &join.request.protocols);
        let member = self.group.member_mut(member_id).expect("only members are updated");
        member.rebalance_timeout_ms = join.request.rebalance_timeout_ms;
        member.session_timeout_ms = join.request.session_timeout_ms;
        self.park_join(member_id, join.token);
    }

    fn add_member(&mut self, join: &JoinGroup, member_id: ByteString) {
        if let Some(initial) = &mut self.group.initial_rebalance {
            initial.new_member_added = true;
        }
        let request = &join.request;
        let member = Member {
            member_id: member_id.clone(),
            group_instance_id: request.group_instance_id.as_ref().map(detach),
            client_id: detach(&join.client_id),
            client_host: detach(&join.client_host),
            rebalance_timeout_ms: join.request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: detach_protocols(&request.protocols),
            assignment: bytes::Bytes::new(),
            awaiting_join: Some(join.token),
            awaiting_sync: None,
            is_new: true,
        };
        self.group.add(member, &request.protocol_type);
        self.schedule_session(&member_id, NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.rebalance_or_complete_join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::config::GroupConfig;
    use crate::group::harness::{Harness, REBALANCE_MS, SESSION_MS, joining, protocol};

    fn error(harness: &Harness, token: RequestToken) -> ErrorCode {
        ErrorCode::from_code(harness.join_answer(token).error_code).unwrap()
    }

    fn refused(request: JoinGroupRequest) -> (Harness, ErrorCode) {
        let mut harness = Harness::new();
        let token = harness.join(9, request);
        let error = error(&harness, token);
        (harness, error)
    }

    #[test]
    fn requests_that_cannot_be_right_are_refused_and_leave_nothing_behind() {
        let cases = [
            (JoinGroupRequest { group_id: "".into(), ..joining("") }, ErrorCode::InvalidGroupId),
            (
                JoinGroupRequest { session_timeout_ms: 5_999, ..joining("") },
                ErrorCode::InvalidSessionTimeout,
            ),
            (
                JoinGroupRequest { session_timeout_ms: 1_800_001, ..joining("") },
                ErrorCode::InvalidSessionTimeout,
            ),
            (joining("nobody"), ErrorCode::UnknownMemberId),
            (
                JoinGroupRequest { protocols: Vec::new(), ..joining("") },
                ErrorCode::InconsistentGroupProtocol,
            ),
            (
                JoinGroupRequest { protocol_type: "".into(), ..joining("") },
                ErrorCode::InconsistentGroupProtocol,
            ),
            (
                JoinGroupRequest {
                    group_instance_id: Some("i".repeat(32_760).into()),
                    ..joining("")
                },
                ErrorCode::InvalidRequest,
            ),
        ];
        for (request, expected) in cases {
            let (harness, error) = refused(request);
            assert_eq!(error, expected);
            assert_eq!((harness.log.len(), harness.shard().groups.len()), (0, 0), "{expected:?}");
        }
    }

    #[test]
    fn a_new_dynamic_member_fetches_its_id_first_and_joins_with_it() {
        let mut harness = Harness::new();
        let first = harness.join(4, joining(""));
        assert_eq!(error(&harness, first), ErrorCode::MemberIdRequired);
        let member_id = harness.join_answer(first).member_id;
        assert!(member_id.starts_with("client-"));
        assert_eq!(harness.log.len(), 1, "the new group is stored, empty");
        assert_eq!(harness.state_name(), "Empty");

        let second = harness.join(4, joining(&member_id));
        assert!(harness.is_waiting(second), "the initial rebalance is delayed");
        harness.advance(3_000);
        let answer = harness.join_answer(second);
        assert_eq!((answer.error_code, answer.generation_id), (0, 1));
        assert_eq!(answer.leader, member_id);
        assert_eq!(answer.protocol_name.as_deref(), Some("range"));
        assert_eq!(answer.members.len(), 1);
        assert_eq!(harness.state_name(), "CompletingRebalance");
    }

    #[test]
    fn an_id_that_was_given_out_expires_with_its_session() {
        let mut harness = Harness::new();
        let first = harness.join(4, joining(""));
        let member_id = harness.join_answer(first).member_id;
        harness.advance(i64::from(SESSION_MS));
        let late = harness.join(4, joining(&member_id));
        assert_eq!(error(&harness, late), ErrorCode::UnknownMemberId);
    }

    #[test]
    fn a_given_out_id_cannot_come_back_as_a_static_member() {
        let mut harness = Harness::new();
        let first = harness.join(4, joining(""));
        let member_id = harness.join_answer(first).member_id;
        let request =
            JoinGroupRequest { group_instance_id: Some("i".into()), ..joining(&member_id) };
        let second = harness.join(5, request);
        assert_eq!(error(&harness, second), ErrorCode::UnknownServerError);
    }

    #[test]
    fn a_refusal_names_no_generation_and_no_protocol() {
        let mut harness = Harness::new();
        let token = harness.join(9, joining("nobody"));
        let answer = harness.join_answer(token);
        assert_eq!(
            (answer.generation_id, answer.protocol_type, answer.protocol_name),
            (-1, None, None)
        );
        assert_eq!((&*answer.leader, &*answer.member_id), ("", "nobody"));
    }

    #[test]
    fn each_new_member_prolongs_the_initial_delay_up_to_the_rebalance_timeout() {
        let mut harness = Harness::new();
        let first = harness.join(3, joining(""));
        for _ in 0..20 {
            harness.advance(2_000);
            if !harness.is_waiting(first) {
                break;
            }
            harness.join(3, joining(""));
        }
        assert_eq!(harness.join_answer(first).error_code, 0);
        let waited = harness.now_ms - 1_000_000;
        assert!((18_000..=22_000).contains(&waited), "waited {waited} ms");
        assert_eq!(i64::from(REBALANCE_MS), 20_000);
    }

    #[test]
    fn only_the_leader_sees_the_members() {
        let mut harness = Harness::new();
        let tokens = [harness.join(3, joining("")), harness.join(3, joining(""))];
        harness.advance(6_000);
        let answers = tokens.map(|token| harness.join_answer(token));
        for answer in &answers {
            let is_leader = answer.leader == answer.member_id;
            assert_eq!(answer.members.len(), if is_leader { 2 } else { 0 });
        }
        assert_eq!(answers[0].leader, answers[1].leader);
    }

    #[test]
    fn members_without_a_shared_protocol_are_refused() {
        let mut harness = Harness::new();
        let members = harness.stable(1);
        let other = JoinGroupRequest { protocols: vec![protocol("sticky", "m")], ..joining("") };
        let token = harness.join(3, other);
        assert_eq!(error(&harness, token), ErrorCode::InconsistentGroupProtocol);
        let other = JoinGroupRequest { protocol_type: "connect".into(), ..joining("") };
        let token = harness.join(3, other);
        assert_eq!(error(&harness, token), ErrorCode::InconsistentGroupProtocol);
        let known =
            JoinGroupRequest { protocols: vec![protocol("sticky", "m")], ..joining(&members[0]) };
        let token = harness.join(3, known);
        assert_eq!(error(&harness, token), ErrorCode::InconsistentGroupProtocol);
        assert_eq!(harness.join_answer(token).member_id, members[0]);
    }

    #[test]
    fn the_protocol_with_the_most_first_choices_wins() {
        let mut harness = Harness::new();
        let (a, b) = (protocol("a", "1"), protocol("b", "2"));
        let request = |protocols| JoinGroupRequest { protocols, ..joining("") };
        let token = harness.join(3, request(vec![a.clone(), b.clone()]));
        harness.join(3, request(vec![b.clone(), a.clone()]));
        harness.join(3, request(vec![protocol("c", "3"), b, a]));
        harness.advance(9_000);
        assert_eq!(harness.join_answer(token).protocol_name.as_deref(), Some("b"));
    }

    #[test]
    fn a_member_that_missed_the_answer_gets_it_again_without_a_rebalance() {
        let mut harness = Harness::new();
        let members = harness.joined(2);
        for member in &members {
            let token = harness.join(3, joining(member));
            assert_eq!(harness.join_answer(token).generation_id, 1);
        }
        assert_eq!(harness.state_name(), "CompletingRebalance");
    }

    #[test]
    fn in_a_stable_group_the_leader_forces_a_rebalance_and_an_unchanged_follower_does_not() {
        let mut harness = Harness::new();
        let members = harness.stable(2);
        let follower = harness.join(3, joining(&members[1]));
        assert_eq!(harness.join_answer(follower).generation_id, 1);
        assert_eq!(harness.state_name(), "Stable");
        let leader = harness.join(3, joining(&members[0]));
        assert_eq!(harness.state_name(), "PreparingRebalance");
        let follower = harness.join(3, joining(&members[1]));
        assert_eq!(harness.join_answer(leader).generation_id, 2);
        assert_eq!(harness.join_answer(follower).generation_id, 2);
    }

    #[test]
    fn changed_metadata_forces_a_rebalance_before_and_after_the_sync() {
        for is_stable in [false, true] {
            let mut harness = Harness::new();
            let members = if is_stable { harness.stable(2) } else { harness.joined(2) };
            let changed = JoinGroupRequest {
                protocols: vec![protocol("range", "other")],
                ..joining(&members[1])
            };
            let token = harness.join(3, changed);
            assert!(harness.is_waiting(token));
            assert_eq!(harness.state_name(), "PreparingRebalance");
        }
    }

    #[test]
    fn a_repeated_join_takes_the_place_of_the_earlier_one_which_is_answered() {
        let mut harness = Harness::new();
        let members = harness.stable(2);
        let earlier = harness.join(3, joining(&members[0]));
        let later = harness.join(3, joining(&members[0]));
        assert_eq!(error(&harness, earlier), ErrorCode::RebalanceInProgress);
        assert!(harness.is_waiting(later));
    }

    #[test]
    fn dynamic_members_that_do_not_join_again_are_left_behind() {
        let mut harness = Harness::new();
        let members = harness.stable(2);
        let token = harness.join(3, joining(&members[0]));
        // The follower sends heartbeats, but does not rejoin.
        for _ in 0..4 {
            harness.advance(5_000);
            harness.heartbeat(1, &members[1]);
        }
        let answer = harness.join_answer(token);
        assert_eq!((answer.generation_id, answer.members.len()), (2, 1));
        let late = harness.join(3, joining(&members[1]));
        assert_eq!(error(&harness, late), ErrorCode::UnknownMemberId);
    }

    #[test]
    fn a_leader_that_does_not_join_again_loses_its_place() {
        let mut harness = Harness::new();
        let members = harness.stable(2);
        let changed = JoinGroupRequest {
            protocols: vec![protocol("range", "other")],
            ..joining(&members[1])
        };
        let token = harness.join(3, changed);
        harness.advance(i64::from(REBALANCE_MS));
        assert_eq!(harness.join_answer(token).leader, members[1]);
    }

    #[test]
    fn a_full_group_takes_no_new_member_in_any_state() {
        let config = GroupConfig { max_size: 2, ..GroupConfig::default() };
        let mut harness = Harness::with_config(config.clone());
        harness.join(3, joining(""));
        harness.join(3, joining(""));
        let during_join = harness.join(3, joining(""));
        assert_eq!(error(&harness, during_join), ErrorCode::GroupMaxSizeReached);
        harness.advance(6_000);
        let during_sync = harness.join(3, joining(""));
        assert_eq!(error(&harness, during_sync), ErrorCode::GroupMaxSizeReached);

        let mut harness = Harness::with_config(config);
        let members = harness.stable(2);
        let when_stable = harness.join(3, joining(""));
        assert_eq!(error(&harness, when_stable), ErrorCode::GroupMaxSizeReached);
        let known = harness.join(3, joining(&members[1]));
        assert_eq!(error(&harness, known), ErrorCode::None);
    }

    #[test]
    fn after_the_limit_was_lowered_the_last_to_come_back_is_out() {
        let mut harness = Harness::new();
        let members = harness.stable(2);
        let mut harness = harness.restart();
        harness.config.max_size = 1;
        let mut harness = harness.restart();
        assert_eq!(harness.state_name(), "PreparingRebalance");
        let first = harness.join(3, joining(&members[1]));
        let second = harness.join(3, joining(&members[0]));
        assert_eq!(error(&harness, second), ErrorCode::GroupMaxSizeReached);
        assert_eq!(harness.join_answer(first).generation_id, 2);
    }

    #[test]
    fn a_new_member_that_waits_too_long_is_told_to_start_anew() {
        let mut harness = Harness::with_config(GroupConfig {
            initial_rebalance_delay_ms: 10 * 60 * 1_000,
            ..GroupConfig::default()
        });
        let token = harness
            .join(3, JoinGroupRequest { rebalance_timeout_ms: 20 * 60 * 1_000, ..joining("") });
        harness.advance(5 * 60 * 1_000);
        assert_eq!(error(&harness, token), ErrorCode::UnknownMemberId);
    }

    #[test]
    fn without_its_first_record_there_is_no_group() {
        let mut harness = Harness::new();
        harness.next_append_error = Some(ErrorCode::NotLeaderOrFollower);
        let token = harness.join(3, joining(""));
        assert_eq!(error(&harness, token), ErrorCode::NotCoordinator);
        assert_eq!(harness.state_name(), "Dead");
        let again = harness.join(3, joining(""));
        assert!(harness.is_waiting(again));
        harness.advance(3_000);
        assert_eq!(error(&harness, again), ErrorCode::None);
    }
}
