//! Converts classic groups from and to their records.

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;
use klamm_protocol::ids::{none_if_minus_one, or_minus_one};
use klamm_protocol::messages::group_metadata_value::{GroupMetadataValue, MemberMetadata};
use klamm_protocol::messages::join_group_request::JoinGroupRequestProtocol;

use super::ClassicGroup;
use super::member::Member;
use super::state::State;
use crate::group::detach::{detach, detach_bytes};
use crate::group::record::GroupRecord;

impl ClassicGroup {
    /// The group of a record: Stable, or Empty if it has no members.
    pub(crate) fn from_stored(group_id: &ByteString, stored: &GroupMetadataValue) -> Self {
        let mut group = Self::new(group_id, stored.current_state_timestamp);
        group.generation_id = stored.generation;
        let is_member = |leader: &ByteString| stored.members.iter().any(|m| m.member_id == *leader);
        group.leader_id = stored.leader.as_ref().filter(|leader| is_member(leader)).map(detach);
        for member in &stored.members {
            // A record that names a member twice is damaged; the first one counts.
            if !group.has_member(&member.member_id) {
                let member =
                    load_member(member, stored.protocol.as_ref().map(detach).unwrap_or_default());
                group.add(member, &stored.protocol_type);
            }
        }
        group.state = if group.members.is_empty() { State::Empty } else { State::Stable };
        // Records older than version 2 have none.
        group.state_timestamp_ms = none_if_minus_one(stored.current_state_timestamp);
        group.protocol_type =
            (!stored.protocol_type.is_empty()).then(|| detach(&stored.protocol_type));
        group.protocol_name = stored.protocol.as_ref().map(detach);
        group.subscribed_topics = group.compute_subscribed_topics();
        group
    }

    /// The record of this generation with the given assignments; members without one get an empty
    /// one.
    pub(crate) fn metadata_record(&self, assignments: &BTreeMap<ByteString, Bytes>) -> GroupRecord {
        let protocol = self.protocol_name.as_deref().unwrap_or_default();
        let members = self.members.values().map(|member| MemberMetadata {
            member_id: member.member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout: member.rebalance_timeout_ms,
            session_timeout: member.session_timeout_ms,
            subscription: member.metadata(protocol).cloned().unwrap_or_default(),
            assignment: assignments.get(&member.member_id).cloned().unwrap_or_default(),
        });
        let value = GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation_id,
            protocol: self.protocol_name.clone(),
            leader: self.leader_id.clone(),
            current_state_timestamp: or_minus_one(self.state_timestamp_ms),
            members: members.collect(),
        };
        GroupRecord::GroupMetadata { group_id: self.group_id.clone(), value: Some(value) }
    }
}

fn load_member(stored: &MemberMetadata, protocol: ByteString) -> Member {
    // Records older than version 1 have no rebalance timeout.
    let rebalance_timeout_ms = none_if_minus_one(stored.rebalance_timeout);
    let metadata = detach_bytes(&stored.subscription);
    Member {
        member_id: detach(&stored.member_id),
        group_instance_id: stored.group_instance_id.as_ref().map(detach),
        client_id: detach(&stored.client_id),
        client_host: detach(&stored.client_host),
        rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(stored.session_timeout),
        session_timeout_ms: stored.session_timeout,
        protocols: vec![JoinGroupRequestProtocol { name: protocol, metadata }],
        assignment: detach_bytes(&stored.assignment),
        awaiting_join: None,
        awaiting_sync: None,
        is_new: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(members: Vec<MemberMetadata>) -> GroupMetadataValue {
        GroupMetadataValue {
            protocol_type: "consumer".into(),
            generation: 4,
            protocol: Some("range".into()),
            leader: Some("m1".into()),
            members,
            ..Default::default()
        }
    }

    fn stored_member(member_id: &'static str) -> MemberMetadata {
        MemberMetadata {
            member_id: member_id.into(),
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout: 60,
            session_timeout: 30,
            subscription: Bytes::from_static(b"sub"),
            assignment: Bytes::from_static(b"assigned"),
            ..Default::default()
        }
    }

    fn load(stored: &GroupMetadataValue) -> ClassicGroup {
        let group = ClassicGroup::from_stored(&"g".into(), stored);
        group.assert_consistent();
        group
    }

    #[test]
    fn a_stored_group_with_members_is_stable_and_writes_the_same_record_again() {
        let stored = stored(vec![stored_member("m1"), stored_member("m2")]);
        let group = load(&stored);
        assert_eq!(group.state(), State::Stable);
        let assignment = Bytes::from_static(b"assigned");
        let assignments = ["m1", "m2"].map(|id| (ByteString::from_static(id), assignment.clone()));
        let record = group.metadata_record(&BTreeMap::from(assignments));
        let expected = GroupRecord::GroupMetadata { group_id: "g".into(), value: Some(stored) };
        assert_eq!(record, expected);
    }

    #[test]
    fn a_stored_group_without_members_is_empty_and_without_a_type_simple() {
        let empty = load(&stored(Vec::new()));
        assert_eq!((empty.state(), empty.generation_id), (State::Empty, 4));
        assert_eq!(empty.protocol_type.as_deref(), Some("consumer"));
        let simple = load(&GroupMetadataValue::default());
        assert_eq!((simple.protocol_type, simple.state_timestamp_ms), (None, None));
    }

    #[test]
    fn records_from_before_the_rebalance_timeout_use_the_session_timeout() {
        let old = MemberMetadata { rebalance_timeout: -1, ..stored_member("m1") };
        assert_eq!(load(&stored(vec![old])).rebalance_timeout_ms(), 30);
    }

    #[test]
    fn odd_records_do_not_break_the_group() {
        load(&stored(vec![stored_member("m1"), stored_member("m1")]));
        let no_protocol =
            GroupMetadataValue { protocol: None, ..stored(vec![stored_member("m1")]) };
        load(&no_protocol);
        let no_such_leader =
            GroupMetadataValue { leader: Some("gone".into()), ..stored(vec![stored_member("m1")]) };
        assert_eq!(load(&no_such_leader).leader_id.as_deref(), Some("m1"));
    }
}
