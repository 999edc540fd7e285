//! One classic group: its members, generation and protocol. Knows no timers, replies or records.
//!
//! Invariants: every static member's instance id maps to a member of the group; `awaiting_join`
//! counts the members with a JoinGroup request waiting; a pending member is never a member; the
//! leader, if any, is a member once the group has joined. (Kafka: `ClassicGroup`)

pub(crate) mod context;
mod describe;
mod heartbeat;
pub(crate) mod join;
mod leave;
mod load;
pub(crate) mod member;
mod protocols;
mod rebalance;
mod session;
pub(crate) mod state;
pub(crate) mod static_member;
mod subscription;
mod sync;

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;
use klamm_protocol::ErrorCode;

use self::member::Member;
use self::protocols::ProtocolCounts;
use self::state::State;
use super::detach::detach;
use crate::runtime::RequestToken;

/// The wait for more members before the first rebalance of an empty group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InitialRebalance {
    /// Length of the current round.
    pub(crate) delay_ms: i32,
    /// The time that is left for further rounds.
    pub(crate) remaining_ms: i32,
    /// A member joined during this round, so another round follows.
    pub(crate) new_member_added: bool,
}

/// A group of consumers (or Connect workers, or schema registries) that uses the classic protocol.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClassicGroup {
    pub(crate) group_id: ByteString,
    state: State,
    /// `None` in groups stored by Kafka versions without the field.
    state_timestamp_ms: Option<i64>,
    /// `None` for a group that only commits offsets and never had a member ("simple").
    pub(crate) protocol_type: Option<ByteString>,
    pub(crate) protocol_name: Option<ByteString>,
    pub(crate) generation_id: i32,
    pub(crate) leader_id: Option<ByteString>,
    members: BTreeMap<ByteString, Member>,
    static_members: BTreeMap<ByteString, ByteString>,
    /// Member ids that were assigned with MEMBER_ID_REQUIRED and whose clients have not joined yet.
    pending_join: BTreeSet<ByteString>,
    /// Members of this generation that have not sent SyncGroup yet.
    pending_sync: BTreeSet<ByteString>,
    awaiting_join: usize,
    supported_protocols: ProtocolCounts,
    /// The topics that the members of a `consumer` group subscribe to; `None` if unknown.
    pub(crate) subscribed_topics: Option<BTreeSet<ByteString>>,
    pub(crate) initial_rebalance: Option<InitialRebalance>,
    /// The leader's assignment is appended and not committed yet.
    pub(crate) storing_assignment: bool,
}

impl ClassicGroup {
    /// A new group without members.
    pub(crate) fn new(group_id: &ByteString, wall_ms: i64) -> Self {
        Self {
            group_id: detach(group_id),
            state: State::Empty,
            state_timestamp_ms: Some(wall_ms),
            protocol_type: None,
            protocol_name: None,
            generation_id: 0,
            leader_id: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_join: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            awaiting_join: 0,
            supported_protocols: ProtocolCounts::default(),
            subscribed_topics: None,
            initial_rebalance: None,
            storing_assignment: false,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn state_timestamp_ms(&self) -> Option<i64> {
        self.state_timestamp_ms
    }

    pub(crate) fn transition_to(&mut self, state: State, wall_ms: i64) {
        assert!(
            state.may_follow(self.state),
            "a group moves between states only as Kafka's classic groups do"
        );
        self.state = state;
        self.state_timestamp_ms = Some(wall_ms);
    }

    pub(crate) fn member(&self, member_id: &str) -> Option<&Member> {
        self.members.get(member_id)
    }

    pub(crate) fn member_mut(&mut self, member_id: &str) -> Option<&mut Member> {
        self.members.get_mut(member_id)
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(crate) fn members_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.values_mut()
    }

    pub(crate) fn member_ids(&self) -> Vec<ByteString> {
        self.members.keys().cloned().collect()
    }

    pub(crate) fn has_member(&self, member_id: &str) -> bool {
        self.members.contains_key(member_id)
    }

    pub(crate) fn member_count(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn is_leader(&self, member_id: &str) -> bool {
        self.leader_id.as_deref() == Some(member_id)
    }

    /// The member that holds a group instance id (KIP-345).
    pub(crate) fn static_member_id(&self, instance_id: &str) -> Option<&ByteString> {
        self.static_members.get(instance_id)
    }

    pub(crate) fn is_pending_member(&self, member_id: &str) -> bool {
        self.pending_join.contains(member_id)
    }

    pub(crate) fn has_pending_members(&self) -> bool {
        !self.pending_join.is_empty()
    }

    pub(crate) fn add_pending_member(&mut self, member_id: ByteString) {
        assert!(!self.has_member(&member_id), "a new member id is not a member yet");
        self.pending_join.insert(member_id);
    }

    pub(crate) fn awaiting_join_count(&self) -> usize {
        self.awaiting_join
    }

    /// Whether the join phase waits for no member.
    pub(crate) fn has_all_members_joined(&self) -> bool {
        self.members.len() == self.awaiting_join && self.pending_join.is_empty()
    }

    /// The longest rebalance timeout of any member, in milliseconds.
    pub(crate) fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0).max(0)
    }

    /// Adds a member; the first one decides the protocol type and is the leader.
    pub(crate) fn add(&mut self, member: Member, protocol_type: &ByteString) {
        if self.members.is_empty() {
            self.protocol_type = Some(detach(protocol_type));
        }
        if let Some(instance_id) = &member.group_instance_id {
            self.static_members.insert(instance_id.clone(), member.member_id.clone());
        }
        if self.leader_id.is_none() {
            self.leader_id = Some(member.member_id.clone());
        }
        self.pending_join.remove(&member.member_id);
        self.supported_protocols.add(&member.protocols);
        self.awaiting_join += usize::from(member.awaiting_join.is_some());
        let replaced = self.members.insert(member.member_id.clone(), member);
        assert!(replaced.is_none(), "a member is added once");
    }

    /// Removes a member, or a pending member id, from the group.
    pub(crate) fn remove(&mut self, member_id: &str) -> Option<Member> {
        let removed = self.members.remove(member_id);
        if let Some(member) = &removed {
            self.supported_protocols.remove(&member.protocols);
            self.awaiting_join -= usize::from(member.awaiting_join.is_some());
            if let Some(instance_id) = &member.group_instance_id {
                self.static_members.remove(instance_id);
            }
        }
        if self.is_leader(member_id) {
            self.leader_id = self.members.keys().next().cloned();
        }
        self.pending_join.remove(member_id);
        self.pending_sync.remove(member_id);
        removed
    }

    /// Replaces the member id of a static member, which keeps its assignment.
    pub(crate) fn replace_static_member(&mut self, old_id: &str, new_id: &ByteString) {
        let mut member = self.members.remove(old_id).expect("a static member's id is a member's");
        let instance_id = member.group_instance_id.clone().expect("static members have one");
        member.member_id = new_id.clone();
        if self.is_leader(old_id) {
            self.leader_id = Some(new_id.clone());
        }
        if self.pending_sync.remove(old_id) {
            self.pending_sync.insert(new_id.clone());
        }
        self.static_members.insert(instance_id, new_id.clone());
        self.members.insert(new_id.clone(), member);
    }

    /// Stores a member's JoinGroup request as waiting and returns an earlier one that was waiting.
    pub(crate) fn await_join(
        &mut self,
        member_id: &str,
        token: RequestToken,
    ) -> Option<RequestToken> {
        let member = self.members.get_mut(member_id)?;
        let earlier = member.awaiting_join.replace(token);
        self.awaiting_join += usize::from(earlier.is_none());
        earlier
    }

    /// Takes a member's waiting JoinGroup request, to answer it.
    pub(crate) fn take_awaiting_join(&mut self, member_id: &str) -> Option<RequestToken> {
        let token = self.members.get_mut(member_id)?.awaiting_join.take()?;
        self.awaiting_join -= 1;
        Some(token)
    }

    pub(crate) fn expect_sync_from(&mut self, member_id: &ByteString) {
        self.pending_sync.insert(member_id.clone());
    }

    pub(crate) fn note_sync_from(&mut self, member_id: &str) {
        self.pending_sync.remove(member_id);
    }

    pub(crate) fn has_pending_sync(&self) -> bool {
        !self.pending_sync.is_empty()
    }

    pub(crate) fn pending_sync(&self) -> Vec<ByteString> {
        self.pending_sync.iter().cloned().collect()
    }

    pub(crate) fn clear_pending_sync(&mut self) {
        self.pending_sync.clear();
    }

    /// Elects a new leader if the current one has not rejoined. Returns `false` if no member has rejoined.
    pub(crate) fn elect_joined_leader(&mut self) -> bool {
        let Some(leader_id) = &self.leader_id else { return false };
        let has_joined =
            self.members.get(leader_id).is_some_and(|leader| leader.awaiting_join.is_some());
        if has_joined {
            return true;
        }
        let joined = self.members.values().find(|member| member.awaiting_join.is_some());
        let Some(joined) = joined else { return false };
        self.leader_id = Some(joined.member_id.clone());
        true
    }

    /// Starts the next generation with the current members.
    pub(crate) fn init_next_generation(&mut self, wall_ms: i64) {
        // A generation below zero means "no generation" in requests.
        self.generation_id = self.generation_id.checked_add(1).unwrap_or(0);
        self.pending_sync.clear();
        self.initial_rebalance = None;
        if self.members.is_empty() {
            self.protocol_name = None;
            self.transition_to(State::Empty, wall_ms);
        } else {
            self.protocol_name = Some(self.select_protocol());
            self.transition_to(State::CompletingRebalance, wall_ms);
        }
        self.subscribed_topics = self.compute_subscribed_topics();
    }

    /// Checks the member id of a request; an instance id must belong to that member.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, or FENCED_INSTANCE_ID if another member took over the instance id.
    pub(crate) fn validate_member(
        &self,
        member_id: &str,
        instance_id: Option<&ByteString>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            let owner = self.static_member_id(instance_id).ok_or(ErrorCode::UnknownMemberId)?;
            if &**owner != member_id {
                return Err(ErrorCode::FencedInstanceId);
            }
        }
        if self.has_member(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    pub(crate) fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(subscription::CONSUMER_PROTOCOL_TYPE)
    }
}

#[cfg(test)]
impl ClassicGroup {
    /// Asserts the invariants that hold between any two events.
    pub(crate) fn assert_consistent(&self) {
        let awaiting = self.members.values().filter(|member| member.awaiting_join.is_some());
        assert_eq!(awaiting.count(), self.awaiting_join);
        for (member_id, member) in &self.members {
            assert_eq!(*member_id, member.member_id);
            assert!(!self.pending_join.contains(member_id));
            if let Some(instance_id) = &member.group_instance_id {
                assert_eq!(self.static_members.get(instance_id), Some(member_id));
            }
            let may_wait = self.state == State::CompletingRebalance;
            assert!(may_wait || member.awaiting_sync.is_none(), "a SyncGroup waits for nothing");
        }
        assert!(self.static_members.values().all(|owner| self.members.contains_key(owner)));
        assert!(self.pending_sync.iter().all(|member_id| self.members.contains_key(member_id)));
        let mut counts = ProtocolCounts::default();
        self.members.values().for_each(|member| counts.add(&member.protocols));
        assert_eq!(counts, self.supported_protocols);
        let is_led =
            self.leader_id.as_ref().is_some_and(|leader| self.members.contains_key(leader));
        assert_eq!(is_led, !self.members.is_empty());
        match self.state {
            State::Empty => assert!(self.members.is_empty()),
            State::Stable | State::CompletingRebalance => assert!(!self.members.is_empty()),
            State::PreparingRebalance => {}
        }
        assert!(!self.storing_assignment || self.state == State::CompletingRebalance);
        assert!(self.initial_rebalance.is_none() || self.state == State::PreparingRebalance);
    }
}
