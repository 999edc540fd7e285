//! The actions of a group that wait until a record is committed.

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;

use super::classic::static_member::Replacement;

/// The action after a group's record is committed, or to undo if it is not.
#[derive(Debug, Clone, PartialEq)]
pub enum OnCommit {
    /// A JoinGroup has created the group; if the log refuses the record, the group is removed.
    GroupCreated { group_id: ByteString },
    /// The leader's assignment, which members get when the record is committed.
    AssignmentStored {
        group_id: ByteString,
        generation_id: i32,
        assignments: BTreeMap<ByteString, Bytes>,
    },
    /// A static member has rejoined with a new member id, without a rebalance.
    StaticMemberReplaced(Replacement),
    /// A slice of expired or orphaned offsets.
    CleanedUp,
}
