//! UpdateRaftVoter (key 82): a voter of the metadata quorum reports its endpoints (KIP-853).

use klamm_protocol::messages::update_raft_voter_request::UpdateRaftVoterRequest;
use klamm_protocol::messages::update_raft_voter_response::UpdateRaftVoterResponse;
use klamm_replication::quorum::message::Reply;
use klamm_replication::quorum::wire;

use crate::api::context::RequestContext;
use crate::api::quorum::{listener, refusal, send_to_quorum};
use crate::api::reply::message_replies;
use crate::controller::handle::QuorumAnswer;

message_replies!(UpdateRaftVoterResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: UpdateRaftVoterRequest,
) -> UpdateRaftVoterResponse {
    let answer = send_to_quorum(&context, wire::update_raft_voter_request(body)).await;
    match answer {
        QuorumAnswer::Plain(Reply::UpdateVoter(reply)) => {
            wire::update_raft_voter_response(&reply, &listener(&context))
        }
        other => UpdateRaftVoterResponse { error_code: refusal(other), ..Default::default() },
    }
}
