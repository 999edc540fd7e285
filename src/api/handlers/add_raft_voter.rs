//! AddRaftVoter (key 80): a controller becomes a voter of the metadata quorum (KIP-853).

use klamm_protocol::messages::add_raft_voter_request::AddRaftVoterRequest;
use klamm_protocol::messages::add_raft_voter_response::AddRaftVoterResponse;
use klamm_replication::quorum::message::Reply;
use klamm_replication::quorum::wire;

use crate::api::context::RequestContext;
use crate::api::quorum::{refusal, send_to_quorum};
use crate::api::reply::message_replies;
use crate::controller::handle::QuorumAnswer;

message_replies!(AddRaftVoterResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: AddRaftVoterRequest,
) -> AddRaftVoterResponse {
    let answer = send_to_quorum(&context, wire::add_raft_voter_request(body)).await;
    match answer {
        QuorumAnswer::Plain(Reply::AddVoter(reply)) => wire::add_raft_voter_response(&reply),
        other => AddRaftVoterResponse { error_code: refusal(other), ..Default::default() },
    }
}
