//! What an event has decided so far, before the shard turns it into an outcome.

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::join_group_response::JoinGroupResponse;
use klamm_protocol::messages::sync_group_response::SyncGroupResponse;

use super::record::GroupRecord;
use super::static_member::Replacement;
use crate::outcome::{Reply, RequestToken, Response};

/// Records and replies of one event.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) records: Vec<GroupRecord>,
    pub(crate) replies: Vec<Reply>,
    /// Replies that wait until the event's records are committed.
    pub(crate) held: Vec<Reply>,
    /// Replies that wait until everything written so far is committed: they show what it led to.
    pub(crate) reads: Vec<Reply>,
    /// What else waits for the records.
    pub(crate) after: Option<AfterWrite>,
}

/// What a group does once its record is committed, or takes back if it is not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AfterWrite {
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

impl Draft {
    /// Answers now.
    pub(crate) fn reply(&mut self, token: RequestToken, response: Response) {
        self.replies.push(Reply { token, response });
    }

    /// Answers when the records of this event are committed, or now if it has none.
    pub(crate) fn reply_when_committed(&mut self, token: RequestToken, response: Response) {
        self.held.push(Reply { token, response });
    }

    pub(crate) fn refuse_join(
        &mut self,
        token: RequestToken,
        member_id: ByteString,
        error: ErrorCode,
    ) {
        let refusal = JoinGroupResponse {
            member_id,
            error_code: error.code(),
            protocol_name: None,
            ..Default::default()
        };
        self.reply(token, Response::JoinGroup(refusal));
    }

    pub(crate) fn refuse_sync(&mut self, token: RequestToken, error: ErrorCode) {
        let refusal = SyncGroupResponse { error_code: error.code(), ..Default::default() };
        self.reply(token, Response::SyncGroup(refusal));
    }

    pub(crate) fn write_then(&mut self, record: GroupRecord, after: AfterWrite) {
        assert!(self.after.is_none(), "an event stores at most one group");
        self.records.push(record);
        self.after = Some(after);
    }
}
