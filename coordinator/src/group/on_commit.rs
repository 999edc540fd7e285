//! What waits for a record of a group to be committed.

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;

use super::classic::static_member::Replacement;

/// What a group does once its record is committed, or takes back if it is not.
#[derive(Debug, Clone, PartialEq)]
pub enum OnCommit {
    /// A join made the group; without the record there is none.
    GroupCreated { group_id: ByteString },
    /// The leader's assignment, which becomes the members' when it is stored.
    AssignmentStored {
        group_id: ByteString,
        generation_id: i32,
        assignments: BTreeMap<ByteString, Bytes>,
    },
    /// A static member came back under a new member id without a rebalance.
    StaticMemberReplaced(Replacement),
    /// A slice of expired or orphaned offsets.
    CleanedUp,
}
