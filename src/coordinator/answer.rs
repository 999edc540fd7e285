//! The answer to a coordinator request, which may come later.

use klamm_coordinator::group::Response;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::delete_groups_response::DeletableGroupResult;
use klamm_protocol::messages::join_group_response::JoinGroupResponse;
use klamm_protocol::messages::leave_group_response::LeaveGroupResponse;
use klamm_protocol::messages::offset_commit_response::OffsetCommitResponse;
use klamm_protocol::messages::offset_delete_response::OffsetDeleteResponse;
use klamm_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use klamm_protocol::messages::sync_group_response::SyncGroupResponse;
use tokio::sync::oneshot;

/// The answer to one kind of request.
pub(crate) trait Answer: Sized {
    fn of(response: Response) -> Option<Self>;
}

macro_rules! answers {
    ($($kind:ident => $answer:ty,)*) => {
        $(impl Answer for $answer {
            fn of(response: Response) -> Option<Self> {
                match response {
                    Response::$kind(answer) => Some(answer),
                    _ => None,
                }
            }
        })*
    };
}

answers! {
    JoinGroup => JoinGroupResponse,
    SyncGroup => SyncGroupResponse,
    LeaveGroup => LeaveGroupResponse,
    OffsetCommit => OffsetCommitResponse,
    OffsetFetch => OffsetFetchResponseGroup,
    OffsetDelete => OffsetDeleteResponse,
    DeleteGroups => Vec<DeletableGroupResult>,
}

/// A request that waits for its answer, or the error that no coordinator here accepted it.
#[derive(Debug)]
#[must_use = "the answer is to be awaited"]
pub(crate) struct PendingAnswer(pub(super) Result<oneshot::Receiver<Response>, ErrorCode>);

impl PendingAnswer {
    /// Waits for the answer.
    ///
    /// # Errors
    /// COORDINATOR_LOAD_IN_PROGRESS or NOT_COORDINATOR: no coordinator has processed the request.
    pub(crate) async fn answer<A: Answer>(self) -> Result<A, ErrorCode> {
        let response = self.0?.await.map_err(|_| ErrorCode::NotCoordinator)?;
        Ok(A::of(response).expect("a request is answered with an answer of its kind"))
    }
}
