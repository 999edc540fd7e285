//! Requests that the active controller decides: what each of them has to say for that, and what a decision knows of its
//! request.

use std::sync::Arc;

use bytestring::ByteString;
use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_protocol::ids::Offset;
use klamm_protocol::{ApiMessage, ErrorCode, Message};

use super::handle::{ControllerError, ControllerHandle, DecisionTurn, HeldUntil};
use crate::clock;
use crate::security::principal::Requester;

/// A request that the active controller decides. Each is decided here, whether it comes from a client, another broker or this node.
pub(crate) trait ControllerRequest: ApiMessage + Clone + Send + Sync + 'static {
    type Response: Message + Send + 'static;

    /// When it is answered. Other nodes must not wait for what this one does with a decision; a client that asked this
    /// node finds here what it asked for.
    const HELD_UNTIL: HeldUntil = HeldUntil::Committed;

    /// How long the decision may be waited for, if the request says so, in ms. A timeout of 0 or below has always passed, as in
    /// Kafka.
    fn timeout_ms(&self) -> Option<i32> {
        None
    }

    /// Decides it.
    fn decide(
        &self,
        controller: &mut Controller,
        context: &DecisionContext,
    ) -> Outcome<Self::Response>;

    /// The answer where nothing was decided.
    fn refused(&self, error: ErrorCode) -> Self::Response;

    /// The error of the answer as a whole.
    fn error_of(response: &Self::Response) -> ErrorCode;
}

/// Where a request to the controller comes from.
#[derive(Debug, Clone)]
pub(crate) struct RequestOrigin {
    pub(crate) requester: Requester,
    /// The version in which the request came.
    pub(crate) version: i16,
    /// A broker has checked the request and passes it on for its client.
    pub(crate) is_forwarded: bool,
}

impl RequestOrigin {
    /// Of a request that this node makes itself.
    pub(crate) fn this_node<Q: Message>() -> Self {
        let requester = Requester::this_node();
        Self { requester, version: *Q::VERSIONS.end(), is_forwarded: false }
    }
}

/// What a decision may use besides the controller's state and the request.
#[derive(Debug)]
pub(crate) struct DecisionContext {
    /// Where the decision's first record will stand.
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
    /// Has the controller decide on a request, and waits as long as its kind says.
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

/// Why a request has no decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecisionError {
    #[error(transparent)]
    Controller(#[from] ControllerError),
    #[error("the time that the request allows has passed")]
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

/// The error text beside the code of a refusal without a decision: NOT_CONTROLLER has one, a timeout has none, as in Kafka.
pub(crate) fn refusal_text(code: ErrorCode) -> Option<ByteString> {
    (code == ErrorCode::NotController).then(|| code.message().into())
}

/// The error of a response by its code.
pub(crate) fn error_of_code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}
