//! Sends requests to the metadata quorum of this node, and makes the errors of handlers that use it.

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_replication::quorum::message::{Inbound, Reply};

use super::context::RequestContext;
use crate::controller::handle::QuorumAnswer;

/// Sends a request to the quorum.
pub(crate) async fn send_to_quorum(context: &RequestContext, inbound: Inbound) -> QuorumAnswer {
    let answer = context.services.controller.quorum(inbound).await;
    answer.unwrap_or_else(|error| QuorumAnswer::Plain(Reply::Refused(error.code())))
}

/// Sends a request about the metadata log to the quorum. `inbound` is an error if the request names another partition.
/// The cluster id is checked before that error, as in `KafkaRaftClient`.
pub(crate) async fn send_about_log(
    context: &RequestContext,
    cluster_id: Option<ByteString>,
    inbound: Result<Inbound, ErrorCode>,
) -> QuorumAnswer {
    let refused = match inbound {
        Ok(inbound) => return send_to_quorum(context, inbound).await,
        Err(_) if cluster_id.is_some_and(|id| id != context.services.cluster_id) => {
            ErrorCode::InconsistentClusterId
        }
        Err(error) => error,
    };
    QuorumAnswer::Plain(Reply::Refused(refused))
}

/// The listener of the request: the answer has the other nodes' addresses on it.
pub(crate) fn listener(context: &RequestContext) -> ByteString {
    context.listener().into()
}

/// The error code of an answer that refuses the whole request. Every other answer is of the request's type.
pub(crate) fn refusal(answer: QuorumAnswer) -> i16 {
    match answer {
        QuorumAnswer::Plain(Reply::Refused(error)) => error.code(),
        _ => ErrorCode::UnknownServerError.code(),
    }
}
