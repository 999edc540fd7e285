//! RemoveRaftVoter (key 81): a voter leaves the metadata quorum (KIP-853).

use klamm_protocol::messages::remove_raft_voter_response::RemoveRaftVoterResponse;
use klamm_replication::quorum::message::Reply;
use klamm_replication::quorum::wire;

use crate::api::context::Context;
use crate::api::request::{Request, RequestError};
use crate::api::serving::{ask, refusal};
use crate::controller::handle::QuorumAnswer;
use crate::net::response::Response;

pub(crate) async fn handle(context: Context, request: Request) -> Result<Response, RequestError> {
    let answer = ask(&context, wire::remove_raft_voter_request(request.decode()?)).await;
    request.respond(&match answer {
        QuorumAnswer::Plain(Reply::RemoveVoter(reply)) => wire::remove_raft_voter_response(&reply),
        other => RemoveRaftVoterResponse { error_code: refusal(other), ..Default::default() },
    })
}
