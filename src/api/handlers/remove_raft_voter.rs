//! RemoveRaftVoter (key 81): a voter leaves the metadata quorum (KIP-853).

use klamm_protocol::messages::remove_raft_voter_request::RemoveRaftVoterRequest;
use klamm_protocol::messages::remove_raft_voter_response::RemoveRaftVoterResponse;
use klamm_replication::quorum::message::Reply;
use klamm_replication::quorum::wire;

use crate::api::context::RequestContext;
use crate::api::quorum::{refusal, send_to_quorum};
use crate::api::reply::message_replies;
use crate::controller::handle::QuorumAnswer;

message_replies!(RemoveRaftVoterResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: RemoveRaftVoterRequest,
) -> RemoveRaftVoterResponse {
    let answer = send_to_quorum(&context, wire::remove_raft_voter_request(body)).await;
    match answer {
        QuorumAnswer::Plain(Reply::RemoveVoter(reply)) => wire::remove_raft_voter_response(&reply),
        other => RemoveRaftVoterResponse { error_code: refusal(other), ..Default::default() },
    }
}
