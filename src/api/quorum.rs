//! Requests to the metadata quorum of this node: how handlers ask it, and how they refuse.

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_replication::quorum::message::{Inbound, Reply};

use super::context::RequestContext;
use crate::controller::handle::QuorumAnswer;

/// Asks the quorum.
pub(crate) async fn ask(context: &RequestContext, inbound: Inbound) -> QuorumAnswer {
    let answer = context.services.controller.quorum(inbound).await;
    answer.unwrap_or_else(|error| QuorumAnswer::Plain(Reply::Refused(error.code())))
}

/// Asks the quorum what is about its log. What is not is refused as a whole, unless it is meant for another cluster:
/// that is looked at first, as in `KafkaRaftClient`.
pub(crate) async fn ask_of_log(
    context: &RequestContext,
    cluster_id: Option<ByteString>,
    inbound: Result<Inbound, ErrorCode>,
) -> QuorumAnswer {
    let refused = match inbound {
        Ok(inbound) => return ask(context, inbound).await,
        Err(_) if cluster_id.is_some_and(|id| id != context.services.cluster_id) => {
            ErrorCode::InconsistentClusterId
        }
        Err(error) => error,
    };
    QuorumAnswer::Plain(Reply::Refused(refused))
}

/// The listener that a request came by: answers name the addresses of others by it.
pub(crate) fn listener(context: &RequestContext) -> ByteString {
    context.listener().into()
}

/// The error of an answer that refuses the request as a whole. The quorum answers a request in its kind or refuses it.
pub(crate) fn refusal(answer: QuorumAnswer) -> i16 {
    match answer {
        QuorumAnswer::Plain(Reply::Refused(error)) => error.code(),
        _ => ErrorCode::UnknownServerError.code(),
    }
}
