//! What a coordinator asks of its driver: records to append and replies to send.
//!
//! Invariant: a reply in an [`Outcome`] may be sent at once. What has to wait for a commit stays inside
//! the coordinator until the driver reports that commit, so a driver never holds a reply back.

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::delete_groups_response::DeletableGroupResult;
use klamm_protocol::messages::join_group_response::JoinGroupResponse;
use klamm_protocol::messages::leave_group_response::LeaveGroupResponse;
use klamm_protocol::messages::offset_commit_response::OffsetCommitResponse;
use klamm_protocol::messages::offset_delete_response::OffsetDeleteResponse;
use klamm_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use klamm_protocol::messages::sync_group_response::SyncGroupResponse;

/// Names a request whose answer may come from a later event. The driver picks it and never reuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestToken(pub u64);

/// A record for the coordinator's log, with Kafka's type and version prefixes in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub key: Bytes,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub token: RequestToken,
    pub response: Response,
}

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

/// What an event asks for. Records are one batch: all of them are appended, in order, or none.
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use = "records must be appended and replies sent"]
pub struct Outcome {
    pub records: Vec<Record>,
    pub replies: Vec<Reply>,
}

/// What went wrong with a write that replies were waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriteFailure(ErrorCode);

impl WriteFailure {
    /// The records were refused by the log with this code.
    pub(crate) fn append(error: ErrorCode) -> Self {
        Self(error)
    }

    /// The records were not committed within offsets.commit.timeout.ms.
    pub(crate) fn commit_timeout() -> Self {
        Self(ErrorCode::RequestTimedOut)
    }

    /// This broker stopped being the coordinator.
    pub(crate) fn unloaded() -> Self {
        Self(ErrorCode::NotCoordinator)
    }

    /// The code a group's client is told, as in Kafka's `CoordinatorOperationExceptionHelper`.
    pub(crate) fn code(self) -> ErrorCode {
        match self.0 {
            ErrorCode::UnknownTopicOrPartition
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
            ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => {
                ErrorCode::NotCoordinator
            }
            ErrorCode::MessageTooLarge
            | ErrorCode::RecordListTooLarge
            | ErrorCode::InvalidFetchSize => ErrorCode::UnknownServerError,
            other => other,
        }
    }

    /// The code for OffsetFetch: consumers before 3.9 neither know nor retry
    /// COORDINATOR_NOT_AVAILABLE there, so they are sent to look for the coordinator again.
    fn offset_fetch_code(self) -> ErrorCode {
        match self.code() {
            ErrorCode::CoordinatorNotAvailable => ErrorCode::NotCoordinator,
            other => other,
        }
    }
}

impl Response {
    /// The same answer turned into a refusal, because the write that it stands on failed.
    pub(crate) fn failed(self, failure: WriteFailure) -> Self {
        let error_code = failure.code().code();
        match self {
            Self::JoinGroup(_) => Self::JoinGroup(JoinGroupResponse {
                error_code,
                protocol_name: None,
                ..Default::default()
            }),
            Self::SyncGroup(_) => {
                Self::SyncGroup(SyncGroupResponse { error_code, ..Default::default() })
            }
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
                error_code: failure.offset_fetch_code().code(),
                ..Default::default()
            }),
            Self::DeleteGroups(mut results) => {
                results.iter_mut().for_each(|result| result.error_code = error_code);
                Self::DeleteGroups(results)
            }
        }
    }
}
