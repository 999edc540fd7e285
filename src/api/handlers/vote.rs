//! Vote (key 52): a candidate of the metadata quorum requests a vote (KIP-595).

use klamm_protocol::messages::vote_request::VoteRequest;
use klamm_protocol::messages::vote_response::VoteResponse;
use klamm_replication::quorum::message::Reply;
use klamm_replication::quorum::wire;

use crate::api::context::RequestContext;
use crate::api::quorum::{listener, refusal, send_about_log};
use crate::api::reply::message_replies;
use crate::controller::handle::QuorumAnswer;

message_replies!(VoteResponse);

pub(crate) async fn handle(context: RequestContext, body: VoteRequest) -> VoteResponse {
    let answer = send_about_log(&context, body.cluster_id.clone(), wire::vote_request(body)).await;
    match answer {
        QuorumAnswer::Plain(Reply::Vote(reply)) => {
            wire::vote_response(&reply, context.version(), &listener(&context))
        }
        other => VoteResponse { error_code: refusal(other), ..Default::default() },
    }
}
