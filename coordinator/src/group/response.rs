//! The answers of a group coordinator, and the form of each with an error.

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::delete_groups_response::DeletableGroupResult;
use klamm_protocol::messages::join_group_response::JoinGroupResponse;
use klamm_protocol::messages::leave_group_response::LeaveGroupResponse;
use klamm_protocol::messages::offset_commit_response::OffsetCommitResponse;
use klamm_protocol::messages::offset_delete_response::OffsetDeleteResponse;
use klamm_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use klamm_protocol::messages::sync_group_response::SyncGroupResponse;

use crate::runtime::WriteFailure;

/// An answer whose shape does not depend on the request's version; the handler lowers it.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    JoinGroup(JoinGroupResponse),
    SyncGroup(SyncGroupResponse),
    LeaveGroup(LeaveGroupResponse),
    OffsetCommit(OffsetCommitResponse),
    OffsetFetch(OffsetFetchResponseGroup),
    OffsetDelete(OffsetDeleteResponse),
    DeleteGroups(Vec<DeletableGroupResult>),
}

impl Response {
    pub(crate) fn join_refusal(member_id: ByteString, error: ErrorCode) -> Self {
        Self::JoinGroup(JoinGroupResponse {
            member_id,
            error_code: error.code(),
            protocol_name: None,
            ..Default::default()
        })
    }

    pub(crate) fn sync_refusal(error: ErrorCode) -> Self {
        Self::SyncGroup(SyncGroupResponse { error_code: error.code(), ..Default::default() })
    }

    /// The same answer with an error, because the write that it depends on failed.
    pub(crate) fn refused(self, failure: WriteFailure) -> Self {
        let error_code = failure.code().code();
        match self {
            Self::JoinGroup(_) => Self::join_refusal(ByteString::new(), failure.code()),
            Self::SyncGroup(_) => Self::sync_refusal(failure.code()),
            Self::LeaveGroup(_) => {
                Self::LeaveGroup(LeaveGroupResponse { error_code, ..Default::default() })
            }
            Self::OffsetDelete(_) => {
                Self::OffsetDelete(OffsetDeleteResponse { error_code, ..Default::default() })
            }
            Self::OffsetCommit(mut response) => {
                let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
                partitions.for_each(|partition| partition.error_code = error_code);
                Self::OffsetCommit(response)
            }
            Self::OffsetFetch(response) => Self::OffsetFetch(OffsetFetchResponseGroup {
                group_id: response.group_id,
                error_code: offset_fetch_code(failure).code(),
                ..Default::default()
            }),
            Self::DeleteGroups(mut results) => {
                results.iter_mut().for_each(|result| result.error_code = error_code);
                Self::DeleteGroups(results)
            }
        }
    }
}

/// The code for OffsetFetch: consumers before 3.9 do not retry after COORDINATOR_NOT_AVAILABLE there, so they get a
/// code after which they look up the coordinator again.
fn offset_fetch_code(failure: WriteFailure) -> ErrorCode {
    match failure.code() {
        ErrorCode::CoordinatorNotAvailable => ErrorCode::NotCoordinator,
        other => other,
    }
}
