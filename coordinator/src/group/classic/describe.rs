//! DescribeGroups. (Kafka: `GroupMetadataManager.describeGroups`)

use bytes::Bytes;
use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};

use super::ClassicGroup;
use super::member::Member;
use super::state::{DEAD, State};
use crate::group::shard::GroupShard;

impl GroupShard {
    /// Describes the current state of groups. A group that does not exist is "Dead", and if `reports_missing` has the
    /// error GROUP_ID_NOT_FOUND. The handler adds authorized operations.
    #[must_use]
    pub fn on_describe_groups(
        &self,
        group_ids: &[ByteString],
        reports_missing: bool,
    ) -> Vec<DescribedGroup> {
        let describe = |group_id: &ByteString| match self.classic_group(group_id) {
            Some(group) => describe_group(group),
            None => self.describe_missing(group_id, reports_missing),
        };
        group_ids.iter().map(describe).collect()
    }

    fn describe_missing(&self, group_id: &ByteString, is_reported: bool) -> DescribedGroup {
        let mut described = DescribedGroup {
            group_id: group_id.clone(),
            group_state: DEAD.into(),
            ..Default::default()
        };
        if is_reported {
            let message = if self.is_not_run(group_id) {
                format!("Group {group_id} is not a classic group.")
            } else {
                format!("Group {group_id} not found.")
            };
            described.error_code = ErrorCode::GroupIdNotFound.code();
            described.error_message = Some(message.into());
        }
        described
    }
}

fn describe_group(group: &ClassicGroup) -> DescribedGroup {
    let is_stable = group.state() == State::Stable;
    let protocol = group.protocol_name.clone().filter(|_| is_stable);
    let members = group.members().map(|member| describe_member(member, protocol.as_deref()));
    DescribedGroup {
        group_id: group.group_id.clone(),
        group_state: group.state().name().into(),
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        members: members.collect(),
        protocol_data: protocol.unwrap_or_default(),
        ..Default::default()
    }
}

fn describe_member(member: &Member, protocol: Option<&str>) -> DescribedGroupMember {
    let metadata = protocol.and_then(|protocol| member.metadata(protocol)).cloned();
    DescribedGroupMember {
        member_id: member.member_id.clone(),
        group_instance_id: member.group_instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        member_metadata: metadata.unwrap_or_else(Bytes::new),
        member_assignment: member.assignment.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::harness::{GROUP, Harness, committing};

    #[test]
    fn a_stable_group_shows_protocol_subscriptions_and_assignments() {
        let mut harness = Harness::new();
        let members = harness.stable(2);
        let described = harness.describe(false);
        assert_eq!((&*described.group_state, &*described.protocol_type), ("Stable", "consumer"));
        assert_eq!(&*described.protocol_data, "range");
        let leader = described.members.iter().find(|member| member.member_id == members[0]);
        let leader = leader.unwrap();
        assert_eq!((&*leader.client_id, &*leader.client_host), ("client", "/127.0.0.1"));
        assert_eq!(
            (&leader.member_metadata[..], &leader.member_assignment[..]),
            (&b"m"[..], &b"a"[..])
        );
    }

    #[test]
    fn other_states_show_the_members_without_their_metadata() {
        let mut harness = Harness::new();
        harness.joined(1);
        let described = harness.describe(false);
        assert_eq!(
            (&*described.group_state, &*described.protocol_data),
            ("CompletingRebalance", "")
        );
        assert_eq!(described.members.len(), 1);
        assert!(described.members[0].member_metadata.is_empty());
    }

    #[test]
    fn a_group_that_does_not_exist_is_dead_and_reported_if_that_is_asked_for() {
        let mut harness = Harness::new();
        harness.commit_offset(&committing(5));
        let groups = ["nobody".into(), GROUP.into()];
        let old = harness.shard().on_describe_groups(&groups, false);
        assert_eq!((&*old[0].group_state, old[0].error_code), ("Dead", 0));
        assert_eq!((&*old[1].group_state, &*old[1].protocol_type), ("Empty", ""));
        let new = &harness.shard().on_describe_groups(&groups, true)[0];
        assert_eq!(
            (&*new.group_state, new.error_code),
            ("Dead", ErrorCode::GroupIdNotFound.code())
        );
        assert_eq!(new.error_message.as_deref(), Some("Group nobody not found."));
    }
}
