//! What only a controller's listener serves: the other replicas of the metadata log, and brokers that
//! register, stay in contact and propose changes.

use bytes::Bytes;
use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::begin_quorum_epoch_response::BeginQuorumEpochResponse;
use klamm_protocol::messages::end_quorum_epoch_response::EndQuorumEpochResponse;
use klamm_protocol::messages::fetch_response::FetchResponse;
use klamm_protocol::messages::fetch_snapshot_response::FetchSnapshotResponse;
use klamm_protocol::messages::update_raft_voter_response::UpdateRaftVoterResponse;
use klamm_protocol::messages::vote_response::VoteResponse;
use klamm_replication::quorum::message::{Inbound, Reply};
use klamm_replication::quorum::wire;

use super::channel::ControllerRequest;
use super::handle::{ControllerError, QuorumAnswer};
use crate::net::connection::Context;
use crate::net::request::{ConnectionError, Request};
use crate::net::response::Response;

/// A request that the active controller decides.
pub(crate) async fn decided<Q: ControllerRequest>(
    context: Context,
    request: Request,
) -> Result<Response, ConnectionError> {
    let body: Q = request.decode()?;
    let (asked, version) = (body.clone(), request.version);
    let decided = context.node.controller.decide_and(Q::SETTLED, move |controller, context| {
        asked.decide(version, controller, context)
    });
    let answer = decided.await.unwrap_or_else(|error| body.refused(error.code()));
    request.respond(&answer)
}

/// Asks the quorum; what cannot be asked is refused as a whole.
pub(crate) async fn ask(context: &Context, inbound: Result<Inbound, ErrorCode>) -> QuorumAnswer {
    let answer = match inbound {
        Ok(inbound) => context.node.controller.quorum(inbound).await.map_err(ControllerError::code),
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| QuorumAnswer::Plain(Reply::Refused(error)))
}

fn listener(context: &Context) -> ByteString {
    (&*context.listener).into()
}

/// The error of an answer that refuses the request as a whole. The quorum answers a request in its kind or refuses it.
pub(crate) fn refusal(answer: QuorumAnswer) -> i16 {
    match answer {
        QuorumAnswer::Plain(Reply::Refused(error)) => error.code(),
        _ => ErrorCode::UnknownServerError.code(),
    }
}

/// Vote (key 52).
pub(crate) async fn vote(context: Context, request: Request) -> Result<Response, ConnectionError> {
    let answer = ask(&context, wire::vote_request(request.decode()?)).await;
    request.respond(&match answer {
        QuorumAnswer::Plain(Reply::Vote(reply)) => {
            wire::vote_response(&reply, request.version, &listener(&context))
        }
        other => VoteResponse { error_code: refusal(other), ..Default::default() },
    })
}

/// BeginQuorumEpoch (key 53).
pub(crate) async fn begin_quorum_epoch(
    context: Context,
    request: Request,
) -> Result<Response, ConnectionError> {
    let answer = ask(&context, wire::begin_quorum_epoch_request(request.decode()?)).await;
    request.respond(&match answer {
        QuorumAnswer::Plain(Reply::BeginQuorumEpoch(reply)) => {
            wire::begin_quorum_epoch_response(&reply, request.version, &listener(&context))
        }
        other => BeginQuorumEpochResponse { error_code: refusal(other), ..Default::default() },
    })
}

/// EndQuorumEpoch (key 54).
pub(crate) async fn end_quorum_epoch(
    context: Context,
    request: Request,
) -> Result<Response, ConnectionError> {
    let answer = ask(&context, wire::end_quorum_epoch_request(request.decode()?)).await;
    request.respond(&match answer {
        QuorumAnswer::Plain(Reply::EndQuorumEpoch(reply)) => {
            wire::end_quorum_epoch_response(&reply, request.version, &listener(&context))
        }
        other => EndQuorumEpochResponse { error_code: refusal(other), ..Default::default() },
    })
}

/// Fetch (key 1) of the metadata log: the only one that a controller holds.
pub(crate) async fn fetch(context: Context, request: Request) -> Result<Response, ConnectionError> {
    let answer = ask(&context, wire::fetch_request(request.decode()?)).await;
    request.respond(&match answer {
        QuorumAnswer::Fetch(reply, records) => {
            wire::fetch_response(&reply, records, request.version, &listener(&context))
        }
        QuorumAnswer::Plain(Reply::Fetch(reply)) => {
            wire::fetch_response(&reply, Bytes::new(), request.version, &listener(&context))
        }
        other => FetchResponse { error_code: refusal(other), ..Default::default() },
    })
}

/// FetchSnapshot (key 59).
pub(crate) async fn fetch_snapshot(
    context: Context,
    request: Request,
) -> Result<Response, ConnectionError> {
    let answer = ask(&context, wire::fetch_snapshot_request(request.decode()?)).await;
    request.respond(&match answer {
        QuorumAnswer::FetchSnapshot(reply, piece) => {
            let listener = listener(&context);
            wire::fetch_snapshot_response(&reply, piece, request.version, &listener)
        }
        other => FetchSnapshotResponse { error_code: refusal(other), ..Default::default() },
    })
}

/// UpdateRaftVoter (key 82).
pub(crate) async fn update_raft_voter(
    context: Context,
    request: Request,
) -> Result<Response, ConnectionError> {
    let answer = ask(&context, Ok(wire::update_raft_voter_request(request.decode()?))).await;
    request.respond(&match answer {
        QuorumAnswer::Plain(Reply::UpdateVoter(reply)) => {
            wire::update_raft_voter_response(&reply, &listener(&context))
        }
        other => UpdateRaftVoterResponse { error_code: refusal(other), ..Default::default() },
    })
}
