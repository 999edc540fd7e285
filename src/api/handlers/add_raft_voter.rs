//! AddRaftVoter (key 80): a controller becomes a voter of the metadata quorum (KIP-853).

use klamm_protocol::messages::add_raft_voter_response::AddRaftVoterResponse;
use klamm_replication::quorum::message::Reply;
use klamm_replication::quorum::wire;

use crate::controller::handle::QuorumAnswer;
use crate::controller::serving::{ask, refusal};
use crate::net::connection::Context;
use crate::net::request::{ConnectionError, Request};
use crate::net::response::Response;

pub(crate) async fn handle(
    context: Context,
    request: Request,
) -> Result<Response, ConnectionError> {
    let answer = ask(&context, wire::add_raft_voter_request(request.decode()?)).await;
    request.respond(&match answer {
        QuorumAnswer::Plain(Reply::AddVoter(reply)) => wire::add_raft_voter_response(&reply),
        other => AddRaftVoterResponse { error_code: refusal(other), ..Default::default() },
    })
}
