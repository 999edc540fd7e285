//! The answers of handlers. Each is counted by its error codes, lowered to the version of the request, and encoded.

use super::context::RequestContext;
use super::request::{RequestError, RequestHead};
use crate::net::response::Response;

/// The answer to a request, in terms of the newest version.
pub(crate) trait Reply: Send + 'static {
    /// Converts the answer to the codes and fields of an older version.
    fn lower(&mut self, version: i16);

    /// Calls `count` with every error code of the answer, including 0.
    fn count_errors(&self, count: &mut dyn FnMut(i16));

    /// The response frame.
    ///
    /// # Errors
    /// A bug in Klamm: the version cannot carry the answer.
    fn encode(self, head: &RequestHead) -> Result<Response, RequestError>;
}

/// Answers that are a message of the protocol. `with` names the function that lowers it; without one the answer is the same in
/// every version, and the codec leaves out the fields that a version does not have.
macro_rules! message_replies {
    ($message:ty) => {
        message_replies!($message, with | _, _ | ());
    };
    ($message:ty, with $lower:expr) => {
        impl $crate::api::reply::Reply for $message {
            fn lower(&mut self, version: i16) {
                let lower: fn(&mut Self, i16) = $lower;
                lower(self, version);
            }

            fn count_errors(&self, count: &mut dyn FnMut(i16)) {
                ::klamm_protocol::ResponseMessage::for_each_error_code(self, count);
            }

            fn encode(
                self,
                head: &$crate::api::request::RequestHead,
            ) -> Result<$crate::net::response::Response, $crate::api::request::RequestError> {
                head.respond(&self)
            }
        }
    };
}
pub(crate) use message_replies;

/// Makes the response from a handler's answer.
pub(crate) fn respond<R: Reply>(
    context: &RequestContext,
    mut reply: R,
) -> Result<Response, RequestError> {
    let head = &context.head;
    context.services.request_metrics.count(head.api_key, |count| reply.count_errors(count));
    reply.lower(head.version);
    reply.encode(head)
}
