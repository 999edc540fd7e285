//! EndQuorumEpoch (key 54): the leader of the metadata quorum resigns (KIP-595).

use klamm_protocol::messages::end_quorum_epoch_request::EndQuorumEpochRequest;
use klamm_protocol::messages::end_quorum_epoch_response::EndQuorumEpochResponse;
use klamm_replication::quorum::message::Reply;
use klamm_replication::quorum::wire;

use crate::api::context::RequestContext;
use crate::api::quorum::{listener, refusal, send_about_log};
use crate::api::reply::message_replies;
use crate::controller::handle::QuorumAnswer;

message_replies!(EndQuorumEpochResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: EndQuorumEpochRequest,
) -> EndQuorumEpochResponse {
    let answer =
        send_about_log(&context, body.cluster_id.clone(), wire::end_quorum_epoch_request(body))
            .await;
    match answer {
        QuorumAnswer::Plain(Reply::EndQuorumEpoch(reply)) => {
            wire::end_quorum_epoch_response(&reply, context.version(), &listener(&context))
        }
        other => EndQuorumEpochResponse { error_code: refusal(other), ..Default::default() },
    }
}
