//! One group during an event: the group, the settings and the effects that its decisions use.

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::join_group_response::{JoinGroupResponse, JoinGroupResponseMember};

use super::ClassicGroup;
use crate::group::config::GroupConfig;
use crate::group::response::Response;
use crate::group::shard::{GroupShard, Timer};
use crate::runtime::{Effects, RequestToken, WriteFailure};

/// A group, the settings, and the effects of the event.
#[derive(Debug)]
pub(crate) struct GroupContext<'a> {
    pub(crate) group: &'a mut ClassicGroup,
    pub(crate) config: &'a GroupConfig,
    pub(crate) effects: &'a mut Effects<GroupShard>,
}

impl GroupContext<'_> {
    /// The coordinator has just loaded the group: starts all sessions.
    pub(crate) fn on_loaded(&mut self) {
        for member_id in self.group.member_ids() {
            self.restart_session(&member_id);
        }
        // group.max.size may have been lowered: the rebalance refuses the last members that rejoin.
        if self.group.member_count() > self.config.max_size {
            self.prepare_rebalance();
        }
    }

    /// Another broker coordinates the group from now on: refuses all parked requests.
    pub(crate) fn on_unloaded(&mut self) {
        let error = WriteFailure::Unloaded.code();
        for member_id in self.group.member_ids() {
            if let Some(token) = self.group.take_awaiting_join(&member_id) {
                self.effects.refuse_join(token, member_id.clone(), error);
            }
            let member = self.group.member_mut(&member_id).expect("ids are the members'");
            if let Some(token) = member.awaiting_sync.take() {
                self.effects.refuse_sync(token, error);
            }
        }
    }

    pub(crate) fn schedule_join(&mut self, delay_ms: i32) {
        self.effects.schedule(self.join_timer(), i64::from(delay_ms));
    }

    pub(crate) fn cancel_join(&mut self) {
        self.effects.cancel(&self.join_timer());
    }

    pub(crate) fn schedule_sync(&mut self) {
        let delay_ms = i64::from(self.group.rebalance_timeout_ms());
        self.effects.schedule(self.sync_timer(), delay_ms);
    }

    pub(crate) fn cancel_sync(&mut self) {
        self.effects.cancel(&self.sync_timer());
    }

    /// Restarts a member's session timer.
    pub(crate) fn restart_session(&mut self, member_id: &ByteString) {
        if let Some(member) = self.group.member(member_id) {
            let timeout_ms = member.session_timeout_ms;
            self.schedule_session(member_id, timeout_ms);
        }
    }

    pub(crate) fn schedule_session(&mut self, member_id: &ByteString, timeout_ms: i32) {
        self.effects.schedule(self.session_timer(member_id), i64::from(timeout_ms));
    }

    pub(crate) fn cancel_session(&mut self, member_id: &ByteString) {
        self.effects.cancel(&self.session_timer(member_id));
    }

    fn join_timer(&self) -> Timer {
        Timer::Join { group_id: self.group.group_id.clone() }
    }

    fn sync_timer(&self) -> Timer {
        Timer::Sync { group_id: self.group.group_id.clone() }
    }

    fn session_timer(&self, member_id: &ByteString) -> Timer {
        Timer::Session { group_id: self.group.group_id.clone(), member_id: member_id.clone() }
    }

    /// Removes a member and answers its parked requests with UNKNOWN_MEMBER_ID, so that a client that is alive joins as
    /// a new member.
    pub(crate) fn remove_member(&mut self, member_id: &ByteString) {
        self.cancel_session(member_id);
        let Some(member) = self.group.remove(member_id) else { return };
        if let Some(token) = member.awaiting_join {
            self.effects.refuse_join(token, ByteString::new(), ErrorCode::UnknownMemberId);
        }
        if let Some(token) = member.awaiting_sync {
            self.effects.refuse_sync(token, ErrorCode::UnknownMemberId);
        }
    }

    /// Parks a JoinGroup request until the join phase ends.
    ///
    /// An earlier parked request of the same member is answered, so that none stays without an answer: its client has
    /// timed out, or has sent the next request without waiting.
    pub(crate) fn park_join(&mut self, member_id: &ByteString, token: RequestToken) {
        if let Some(earlier) = self.group.await_join(member_id, token) {
            self.effects.refuse_join(earlier, member_id.clone(), ErrorCode::RebalanceInProgress);
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
        self.effects.reply(token, Response::JoinGroup(response));
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

impl Effects<GroupShard> {
    pub(crate) fn refuse_join(
        &mut self,
        token: RequestToken,
        member_id: ByteString,
        error: ErrorCode,
    ) {
        self.reply(token, Response::join_refusal(member_id, error));
    }

    pub(crate) fn refuse_sync(&mut self, token: RequestToken, error: ErrorCode) {
        self.reply(token, Response::sync_refusal(error));
    }
}
