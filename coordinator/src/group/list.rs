//! ListGroups. (Kafka: `GroupMetadataManager.listGroups`)

use std::collections::BTreeSet;

use bytestring::ByteString;
use klamm_protocol::messages::list_groups_response::ListedGroup;

use super::kind::{Group, GroupType};
use super::shard::GroupShard;

/// The state of a group of a type that Klamm does not run.
const UNKNOWN_STATE: &str = "Unknown";

/// The filter of ListGroups by state and by type. Case does not matter, an empty list means all, and a name that does
/// not exist matches nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFilter {
    states: BTreeSet<String>,
    types: BTreeSet<String>,
}

impl ListFilter {
    /// The filters of a ListGroups request.
    #[must_use]
    pub fn new(states: &[ByteString], types: &[ByteString]) -> Self {
        let states = states.iter().map(|state| state.to_lowercase().trim().to_owned());
        let types = types.iter().map(|group_type| group_type.to_lowercase());
        Self { states: states.collect(), types: types.collect() }
    }

    fn matches(&self, state: &str, group_type: GroupType) -> bool {
        let is_in = |filter: &BTreeSet<String>, name: &str| {
            filter.is_empty() || filter.contains(&name.to_lowercase())
        };
        is_in(&self.states, state) && is_in(&self.types, group_type.name())
    }
}

impl GroupShard {
    /// The groups of this partition as they are now, those of other types included.
    #[must_use]
    pub fn on_list_groups(&self, filter: &ListFilter) -> Vec<ListedGroup> {
        let classic = self.classic_groups().map(|group| ListedGroup {
            group_id: group.group_id.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            group_state: group.state().name().into(),
            group_type: GroupType::Classic.name().into(),
        });
        let classic =
            classic.filter(|listed| filter.matches(&listed.group_state, GroupType::Classic));
        let others = self.groups.iter().filter_map(|(group_id, group)| match group {
            Group::NotRun(group_type) => Some((group_id, *group_type)),
            Group::Classic(_) => None,
        });
        let others = others
            .filter(|(_, group_type)| filter.matches(UNKNOWN_STATE, *group_type))
            .map(|(group_id, group_type)| ListedGroup {
                group_id: group_id.clone(),
                protocol_type: group_type.name().into(),
                group_state: UNKNOWN_STATE.into(),
                group_type: group_type.name().into(),
            });
        classic.chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::harness::{Harness, committing};

    fn listed(states: &[&'static str], types: &[&'static str]) -> Vec<String> {
        let mut harness = Harness::new();
        harness.stable(1);
        let mut simple = committing(1);
        simple.group_id = "simple".into();
        harness.commit_offset(&simple);
        harness.shard_mut().groups.insert("share".into(), Group::NotRun(GroupType::Share));
        let names = |names: &[&'static str]| -> Vec<ByteString> {
            names.iter().map(|name| ByteString::from_static(name)).collect()
        };
        let filter = ListFilter::new(&names(states), &names(types));
        let listed = harness.shard().on_list_groups(&filter);
        listed
            .iter()
            .map(|group| {
                format!(
                    "{} {} {} {}",
                    group.group_id, group.protocol_type, group.group_state, group.group_type
                )
            })
            .collect()
    }

    #[test]
    fn without_filters_all_groups_are_listed_even_those_that_are_not_run_here() {
        let all =
            ["g consumer Stable classic", "simple  Empty classic", "share share Unknown share"];
        assert_eq!(listed(&[], &[]), all);
    }

    #[test]
    fn filters_ignore_case_and_unknown_names_match_nothing() {
        assert_eq!(listed(&[" empty "], &[]), ["simple  Empty classic"]);
        assert_eq!(listed(&["STABLE"], &["Classic"]), ["g consumer Stable classic"]);
        assert_eq!(listed(&[], &["share", "consumer"]), ["share share Unknown share"]);
        assert!(listed(&["Nonsense"], &[]).is_empty());
        assert!(listed(&[], &["Nonsense"]).is_empty());
    }
}
