//! One group's turn in an event: the group and all that its decisions may touch.

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::join_group_response::{JoinGroupResponse, JoinGroupResponseMember};
use klamm_protocol::time::Now;

use super::classic::ClassicGroup;
use super::config::GroupConfig;
use super::draft::Draft;
use super::timers::{Timer, Timers};
use crate::outcome::{RequestToken, Response};

/// A group, its timers and the event's draft.
#[derive(Debug)]
pub(crate) struct GroupTurn<'a> {
    pub(crate) group: &'a mut ClassicGroup,
    pub(crate) timers: &'a mut Timers,
    pub(crate) config: &'a GroupConfig,
    pub(crate) draft: &'a mut Draft,
    pub(crate) now: Now,
}

impl GroupTurn<'_> {
    pub(crate) fn schedule_join(&mut self, delay_ms: i32) {
        let timer = Timer::Join { group_id: self.group.group_id.clone() };
        self.timers.schedule(timer, self.now.steady_ms.saturating_add(i64::from(delay_ms)));
    }

    pub(crate) fn cancel_join(&mut self) {
        self.timers.cancel(Timer::Join { group_id: self.group.group_id.clone() });
    }

    pub(crate) fn schedule_sync(&mut self) {
        let timer = Timer::Sync { group_id: self.group.group_id.clone() };
        let delay_ms = i64::from(self.group.rebalance_timeout_ms());
        self.timers.schedule(timer, self.now.steady_ms.saturating_add(delay_ms));
    }

    pub(crate) fn cancel_sync(&mut self) {
        self.timers.cancel(Timer::Sync { group_id: self.group.group_id.clone() });
    }

    /// Gives a member its session timeout from now on.
    pub(crate) fn restart_session(&mut self, member_id: &ByteString) {
        if let Some(member) = self.group.member(member_id) {
            let timeout_ms = member.session_timeout_ms;
            self.schedule_session(member_id, timeout_ms);
        }
    }

    pub(crate) fn schedule_session(&mut self, member_id: &ByteString, timeout_ms: i32) {
        let timer = self.session_timer(member_id);
        self.timers.schedule(timer, self.now.steady_ms.saturating_add(i64::from(timeout_ms)));
    }

    pub(crate) fn cancel_session(&mut self, member_id: &ByteString) {
        let timer = self.session_timer(member_id);
        self.timers.cancel(timer);
    }

    fn session_timer(&self, member_id: &ByteString) -> Timer {
        Timer::Session { group_id: self.group.group_id.clone(), member_id: member_id.clone() }
    }

    /// Takes a member out and answers what it waits for: the client, if it lives, starts anew.
    pub(crate) fn remove_member(&mut self, member_id: &ByteString) {
        self.cancel_session(member_id);
        let Some(member) = self.group.remove(member_id) else { return };
        if let Some(token) = member.awaiting_join {
            self.draft.refuse_join(token, ByteString::new(), ErrorCode::UnknownMemberId);
        }
        if let Some(token) = member.awaiting_sync {
            self.draft.refuse_sync(token, ErrorCode::UnknownMemberId);
        }
    }

    /// Parks a JoinGroup request until the join phase ends.
    ///
    /// A request of the same member that was parked before is answered, so that none is lost: its
    /// client either gave up or sends the next one right behind it.
    pub(crate) fn park_join(&mut self, member_id: &ByteString, token: RequestToken) {
        if let Some(earlier) = self.group.await_join(member_id, token) {
            self.draft.refuse_join(earlier, member_id.clone(), ErrorCode::RebalanceInProgress);
        }
    }

    /// Answers a JoinGroup request with the current generation; the leader gets the members.
    pub(crate) fn answer_join(
        &mut self,
        token: RequestToken,
        member_id: &ByteString,
        skip_assignment: bool,
    ) {
        let is_leader = self.group.is_leader(member_id);
        let response = JoinGroupResponse {
            generation_id: self.group.generation_id,
            protocol_type: self.group.protocol_type.clone(),
            protocol_name: self.group.protocol_name.clone(),
            leader: self.group.leader_id.clone().unwrap_or_default(),
            skip_assignment,
            member_id: member_id.clone(),
            members: if is_leader { self.join_members() } else { Vec::new() },
            ..Default::default()
        };
        self.draft.reply(token, Response::JoinGroup(response));
    }

    fn join_members(&self) -> Vec<JoinGroupResponseMember> {
        let protocol = self.group.protocol_name.as_deref().unwrap_or_default();
        let members = self.group.members().map(|member| JoinGroupResponseMember {
            member_id: member.member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            metadata: member.metadata(protocol).cloned().unwrap_or_default(),
        });
        members.collect()
    }
}
