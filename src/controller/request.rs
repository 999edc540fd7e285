//! Requests that the active controller decides: the trait for each of them, and the context of a decision.

use std::sync::Arc;

use bytestring::ByteString;
use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_protocol::ids::Offset;
use klamm_protocol::{ApiMessage, ErrorCode, Message};

use super::handle::{ControllerError, ControllerHandle, DecisionTurn, HeldUntil};
use crate::clock;
use crate::security::principal::Requester;

/// A request that the active controller decides, from a client, another broker or this node.
pub(crate) trait ControllerRequest: ApiMessage + Clone + Send + Sync + 'static {
    type Response: Message + Send + 'static;

    /// When the response is sent. Other nodes must not wait until this node has applied the decision; a client of this
    /// node must find its change here.
    const HELD_UNTIL: HeldUntil = HeldUntil::Committed;

    /// The request's own timeout in ms, if it has one. A timeout of 0 or below has always passed, as in Kafka.
    fn timeout_ms(&self) -> Option<i32> {
        None
    }

    /// Makes the decision.
    fn decide(
        &self,
        controller: &mut Controller,
        context: &DecisionContext,
    ) -> Outcome<Self::Response>;

    /// The response without a decision.
    fn refused(&self, error: ErrorCode) -> Self::Response;

    /// The top-level error of a response.
    fn error_of(response: &Self::Response) -> ErrorCode;
}

/// Where a request to the controller comes from.
#[derive(Debug, Clone)]
pub(crate) struct RequestOrigin {
    pub(crate) requester: Requester,
    /// The version in which the request came.
    pub(crate) version: i16,
    /// Another broker has checked the request and forwards it for its client (KIP-590).
    pub(crate) is_forwarded: bool,
}

impl RequestOrigin {
    /// The origin of a request of this node itself.
    pub(crate) fn this_node<Q: Message>() -> Self {
        let requester = Requester::this_node();
        Self { requester, version: *Q::VERSIONS.end(), is_forwarded: false }
    }
}

/// What a decision may use apart from the controller's state and the request.
#[derive(Debug)]
pub(crate) struct DecisionContext {
    /// The offset of the decision's first record.
    pub(crate) next_offset: Offset,
    /// By the steady clock, for sessions and timeouts.
    pub(crate) now_ms: i64,
    pub(crate) origin: RequestOrigin,
}

impl DecisionContext {
    pub(super) fn new(turn: &DecisionTurn, origin: RequestOrigin) -> Self {
        let DecisionTurn { next_offset, now_ms } = *turn;
        Self { next_offset, now_ms, origin }
    }
}

impl ControllerHandle {
    /// Has the controller decide the request, and waits as long as [`ControllerRequest::HELD_UNTIL`] says.
    ///
    /// # Errors
    /// Why there is no decision. REQUEST_TIMED_OUT once the request's own timeout has passed.
    pub(crate) async fn decide_request<Q: ControllerRequest>(
        &self,
        request: Arc<Q>,
        origin: RequestOrigin,
    ) -> Result<Q::Response, DecisionError> {
        let timeout_ms = request.timeout_ms().map(i64::from);
        let deadline_ms = timeout_ms.map(|timeout_ms| clock::now_ms().saturating_add(timeout_ms));
        let decided = self.decide(Q::HELD_UNTIL, origin, move |controller, context| {
            if deadline_ms.is_some_and(|deadline_ms| context.now_ms >= deadline_ms) {
                return Outcome::answer(None);
            }
            request.decide(controller, context).map(Some)
        });
        decided.await?.ok_or(DecisionError::TimedOut)
    }
}

/// Why there is no decision on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecisionError {
    #[error(transparent)]
    Controller(#[from] ControllerError),
    #[error("the timeout of the request has passed")]
    TimedOut,
}

impl DecisionError {
    pub(crate) fn code(self) -> ErrorCode {
        match self {
            Self::Controller(error) => error.code(),
            Self::TimedOut => ErrorCode::RequestTimedOut,
        }
    }
}

/// The error message beside the error code of a request without a decision: NOT_CONTROLLER has one, a timeout has none,
/// as in Kafka.
pub(crate) fn refusal_text(code: ErrorCode) -> Option<ByteString> {
    (code == ErrorCode::NotController).then(|| code.message().into())
}

/// The error of a response, from its code.
pub(crate) fn error_of_code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}
