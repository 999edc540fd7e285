//! BeginQuorumEpoch (key 53): the new leader of the metadata quorum announces its epoch (KIP-595).

use klamm_protocol::messages::begin_quorum_epoch_request::BeginQuorumEpochRequest;
use klamm_protocol::messages::begin_quorum_epoch_response::BeginQuorumEpochResponse;
use klamm_replication::quorum::message::Reply;
use klamm_replication::quorum::wire;

use crate::api::context::RequestContext;
use crate::api::quorum::{listener, refusal, send_about_log};
use crate::api::reply::message_replies;
use crate::controller::handle::QuorumAnswer;

message_replies!(BeginQuorumEpochResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: BeginQuorumEpochRequest,
) -> BeginQuorumEpochResponse {
    let answer =
        send_about_log(&context, body.cluster_id.clone(), wire::begin_quorum_epoch_request(body))
            .await;
    match answer {
        QuorumAnswer::Plain(Reply::BeginQuorumEpoch(reply)) => {
            wire::begin_quorum_epoch_response(&reply, context.version(), &listener(&context))
        }
        other => BeginQuorumEpochResponse { error_code: refusal(other), ..Default::default() },
    }
}
