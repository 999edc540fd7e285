//! A member of a classic group. (Kafka: `ClassicGroupMember`)

use std::collections::BTreeSet;
use std::fmt::Write;

use bytes::Bytes;
use bytestring::ByteString;
use klamm_protocol::Uuid;
use klamm_protocol::messages::join_group_request::JoinGroupRequestProtocol;

use crate::group::detach::{detach, detach_bytes};
use crate::runtime::RequestToken;

/// A member, static if it has a group instance id.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    pub(crate) member_id: ByteString,
    pub(crate) group_instance_id: Option<ByteString>,
    pub(crate) client_id: ByteString,
    pub(crate) client_host: ByteString,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    /// In the member's order of preference.
    pub(crate) protocols: Vec<JoinGroupRequestProtocol>,
    /// Empty until the generation's assignment is stored.
    pub(crate) assignment: Bytes,
    /// The group counts these; change it through the group only.
    pub(crate) awaiting_join: Option<RequestToken>,
    pub(crate) awaiting_sync: Option<RequestToken>,
    /// Its first JoinGroup is not answered yet.
    pub(crate) is_new: bool,
}

impl Member {
    /// Whether a request of the member waits for an answer, so that it need not send heartbeats. A new member expires
    /// all the same: its client may be gone unnoticed.
    pub(crate) fn has_satisfied_heartbeat(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    /// The member's metadata for a protocol, if it supports it.
    pub(crate) fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        let found = self.protocols.iter().find(|supported| &*supported.name == protocol)?;
        Some(&found.metadata)
    }

    /// The first of the member's protocols that is a candidate.
    pub(crate) fn vote(&self, candidates: &BTreeSet<&ByteString>) -> Option<&ByteString> {
        self.protocols.iter().map(|protocol| &protocol.name).find(|name| candidates.contains(name))
    }
}

/// Copies of a request's protocols that do not keep the request's frame alive.
pub(crate) fn detach_protocols(
    protocols: &[JoinGroupRequestProtocol],
) -> Vec<JoinGroupRequestProtocol> {
    let detach_protocol = |protocol: &JoinGroupRequestProtocol| JoinGroupRequestProtocol {
        name: detach(&protocol.name),
        metadata: detach_bytes(&protocol.metadata),
    };
    protocols.iter().map(detach_protocol).collect()
}

/// `<instance id or client id>-<uuid>`, the uuid as Java writes it.
pub(crate) fn new_member_id(
    client_id: &str,
    instance_id: Option<&ByteString>,
    uuid: Uuid,
) -> ByteString {
    let mut member_id = instance_id.map_or(client_id, |instance_id| instance_id).to_owned();
    for (position, byte) in uuid.as_bytes().iter().enumerate() {
        let dash = if matches!(position, 0 | 4 | 6 | 8 | 10) { "-" } else { "" };
        write!(member_id, "{dash}{byte:02x}").expect("a String takes every write");
    }
    member_id.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_id_is_the_client_or_instance_id_and_a_uuid_in_javas_form() {
        let uuid = Uuid::from_bytes([
            0x12, 0x3e, 0x45, 0x67, 0xe8, 0x9b, 0x12, 0xd3, 0xa4, 0x56, 0x42, 0x66, 0x14, 0x17,
            0x40, 0x00,
        ]);
        let dynamic = new_member_id("client", None, uuid);
        assert_eq!(&*dynamic, "client-123e4567-e89b-12d3-a456-426614174000");
        let instance: ByteString = "i1".into();
        let fixed = new_member_id("client", Some(&instance), uuid);
        assert_eq!(&*fixed, "i1-123e4567-e89b-12d3-a456-426614174000");
    }
}
