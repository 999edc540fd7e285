//! The assignment protocols that a group's members share, and the selection of one.

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;
use klamm_protocol::messages::join_group_request::JoinGroupRequestProtocol;

use super::ClassicGroup;
use super::member::detach_protocols;
use super::state::State;

/// How many members support each protocol.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ProtocolCounts(BTreeMap<ByteString, usize>);

impl ProtocolCounts {
    pub(crate) fn add(&mut self, protocols: &[JoinGroupRequestProtocol]) {
        for name in distinct_names(protocols) {
            *self.0.entry(name.clone()).or_default() += 1;
        }
    }

    pub(crate) fn remove(&mut self, protocols: &[JoinGroupRequestProtocol]) {
        for name in distinct_names(protocols) {
            let count = self.0.get_mut(name).expect("a member's protocols are counted");
            *count -= 1;
            if *count == 0 {
                self.0.remove(name);
            }
        }
    }

    fn supported_by(&self, members: usize) -> BTreeSet<&ByteString> {
        let by_all = self.0.iter().filter(|(_, count)| **count == members);
        by_all.map(|(name, _)| name).collect()
    }

    fn is_supported_by(&self, protocol: &str, members: usize) -> bool {
        self.0.get(protocol).copied().unwrap_or(0) == members
    }
}

fn distinct_names(protocols: &[JoinGroupRequestProtocol]) -> BTreeSet<&ByteString> {
    protocols.iter().map(|protocol| &protocol.name).collect()
}

/// Whether a member with these protocols can be the first of a group.
pub(crate) fn can_found_a_group(
    protocol_type: &str,
    protocols: &[JoinGroupRequestProtocol],
) -> bool {
    !protocol_type.is_empty() && !protocols.is_empty()
}

impl ClassicGroup {
    /// Whether a member with these protocols shares one with all current members.
    pub(crate) fn supports_protocols(
        &self,
        protocol_type: &str,
        protocols: &[JoinGroupRequestProtocol],
    ) -> bool {
        if self.state == State::Empty {
            return can_found_a_group(protocol_type, protocols);
        }
        let members = self.members.len();
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols
                .iter()
                .any(|protocol| self.supported_protocols.is_supported_by(&protocol.name, members))
    }

    /// The protocol with the most votes among those that every member supports. Each member votes for the first one on
    /// its list; of equal ones the first by name wins (Kafka does not define that).
    pub(crate) fn select_protocol(&self) -> ByteString {
        let candidates = self.supported_protocols.supported_by(self.members.len());
        let mut votes: BTreeMap<&ByteString, usize> = BTreeMap::new();
        for vote in self.members.values().filter_map(|member| member.vote(&candidates)) {
            *votes.entry(vote).or_default() += 1;
        }
        let most = votes.values().max().copied();
        let winner = votes.into_iter().find(|(_, count)| Some(*count) == most);
        let (name, _) = winner.expect("members join only with a protocol that all support");
        name.clone()
    }

    /// Replaces a member's protocols by those of its new JoinGroup request.
    pub(crate) fn set_protocols(&mut self, member_id: &str, to: &[JoinGroupRequestProtocol]) {
        let member = self.members.get_mut(member_id).expect("only members are updated");
        self.supported_protocols.remove(&member.protocols);
        member.protocols = detach_protocols(to);
        self.supported_protocols.add(&member.protocols);
    }
}
