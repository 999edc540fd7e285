//! Requests that say how long the controller may keep them waiting.

use bytestring::ByteString;
use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_protocol::ErrorCode;

use super::handle::{ControllerError, ControllerHandle, DecisionContext};
use crate::clock;

/// What is said with the code of a refusal before any decision: who is not the controller says so, and to an expired
/// deadline there is nothing to add.
pub(crate) fn text_of(code: ErrorCode) -> Option<ByteString> {
    (code == ErrorCode::NotController).then(|| code.message().into())
}

impl ControllerHandle {
    /// Like [`ControllerHandle::decide`], but decides nothing once `timeout_ms` have passed. A timeout
    /// of 0 or below has always passed, as in Kafka.
    ///
    /// # Errors
    /// REQUEST_TIMED_OUT, or why there is no controller.
    pub(crate) async fn decide_within<R: Send + 'static>(
        &self,
        timeout_ms: i32,
        decision: impl FnOnce(&mut Controller, &DecisionContext) -> Outcome<R> + Send + 'static,
    ) -> Result<R, ErrorCode> {
        let deadline_ms = clock::now_ms().saturating_add(i64::from(timeout_ms));
        let decided = self.decide(move |controller, context| {
            if context.now_ms >= deadline_ms {
                return Outcome::answer(None);
            }
            let Outcome { records, atomic, response } = decision(controller, context);
            Outcome { records, atomic, response: Some(response) }
        });
        decided.await.map_err(ControllerError::code)?.ok_or(ErrorCode::RequestTimedOut)
    }
}
