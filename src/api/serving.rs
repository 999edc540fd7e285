//! What only a controller's listener serves: the other replicas of the metadata log, and brokers that
//! register, stay in contact and propose changes.

use bytes::Bytes;
use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::begin_quorum_epoch_request::BeginQuorumEpochRequest;
use klamm_protocol::messages::begin_quorum_epoch_response::BeginQuorumEpochResponse;
use klamm_protocol::messages::end_quorum_epoch_request::EndQuorumEpochRequest;
use klamm_protocol::messages::end_quorum_epoch_response::EndQuorumEpochResponse;
use klamm_protocol::messages::fetch_request::FetchRequest;
use klamm_protocol::messages::fetch_response::FetchResponse;
use klamm_protocol::messages::fetch_snapshot_request::FetchSnapshotRequest;
use klamm_protocol::messages::fetch_snapshot_response::FetchSnapshotResponse;
use klamm_protocol::messages::update_raft_voter_response::UpdateRaftVoterResponse;
use klamm_protocol::messages::vote_request::VoteRequest;
use klamm_protocol::messages::vote_response::VoteResponse;
use klamm_replication::quorum::message::{Inbound, Reply};
use klamm_replication::quorum::wire;

use crate::api::context::Context;
use crate::api::request::{Request, RequestError};
use crate::controller::channel::ControllerRequest;
use crate::controller::handle::QuorumAnswer;
use crate::net::response::Response;

/// A request that the active controller decides.
pub(crate) async fn decided<Q: ControllerRequest>(
    context: Context,
    request: Request,
) -> Result<Response, RequestError> {
    let body: Q = request.decode()?;
    request.respond(&decide(&context, body, request.version).await)
}

/// What the active controller decides, or that this node is not it.
pub(crate) async fn decide<Q: ControllerRequest>(
    context: &Context,
    body: Q,
    version: i16,
) -> Q::Response {
    let asked = body.clone();
    let decided =
        context.services.controller.decide_held(Q::HELD_UNTIL, move |controller, context| {
            asked.decide(version, controller, context)
        });
    decided.await.unwrap_or_else(|error| body.refused(error.code()))
}

/// Asks the quorum.
pub(crate) async fn ask(context: &Context, inbound: Inbound) -> QuorumAnswer {
    let answer = context.services.controller.quorum(inbound).await;
    answer.unwrap_or_else(|error| QuorumAnswer::Plain(Reply::Refused(error.code())))
}

/// Asks the quorum what is about its log. What is not is refused as a whole, unless it is meant for another cluster:
/// that is looked at first, as in `KafkaRaftClient`.
async fn ask_of_log(
    context: &Context,
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
pub(crate) async fn vote(context: Context, request: Request) -> Result<Response, RequestError> {
    let body: VoteRequest = request.decode()?;
    let answer = ask_of_log(&context, body.cluster_id.clone(), wire::vote_request(body)).await;
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
) -> Result<Response, RequestError> {
    let body: BeginQuorumEpochRequest = request.decode()?;
    let answer =
        ask_of_log(&context, body.cluster_id.clone(), wire::begin_quorum_epoch_request(body)).await;
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
) -> Result<Response, RequestError> {
    let body: EndQuorumEpochRequest = request.decode()?;
    let answer =
        ask_of_log(&context, body.cluster_id.clone(), wire::end_quorum_epoch_request(body)).await;
    request.respond(&match answer {
        QuorumAnswer::Plain(Reply::EndQuorumEpoch(reply)) => {
            wire::end_quorum_epoch_response(&reply, request.version, &listener(&context))
        }
        other => EndQuorumEpochResponse { error_code: refusal(other), ..Default::default() },
    })
}

/// Fetch (key 1) of the metadata log: the only one that a controller holds.
pub(crate) async fn fetch(context: Context, request: Request) -> Result<Response, RequestError> {
    let body: FetchRequest = request.decode()?;
    let answer = ask_of_log(&context, body.cluster_id.clone(), wire::fetch_request(body)).await;
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
) -> Result<Response, RequestError> {
    let body: FetchSnapshotRequest = request.decode()?;
    let answer =
        ask_of_log(&context, body.cluster_id.clone(), wire::fetch_snapshot_request(body)).await;
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
) -> Result<Response, RequestError> {
    let answer = ask(&context, wire::update_raft_voter_request(request.decode()?)).await;
    request.respond(&match answer {
        QuorumAnswer::Plain(Reply::UpdateVoter(reply)) => {
            wire::update_raft_voter_response(&reply, &listener(&context))
        }
        other => UpdateRaftVoterResponse { error_code: refusal(other), ..Default::default() },
    })
}
