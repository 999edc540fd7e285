//! FetchSnapshot (key 59): a replica of the metadata log reads a chunk of a snapshot (KIP-630).

use klamm_protocol::messages::fetch_snapshot_request::FetchSnapshotRequest;
use klamm_protocol::messages::fetch_snapshot_response::FetchSnapshotResponse;
use klamm_replication::quorum::wire;

use crate::api::context::RequestContext;
use crate::api::quorum::{listener, refusal, send_about_log};
use crate::api::reply::message_replies;
use crate::controller::handle::QuorumAnswer;

message_replies!(FetchSnapshotResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: FetchSnapshotRequest,
) -> FetchSnapshotResponse {
    let answer =
        send_about_log(&context, body.cluster_id.clone(), wire::fetch_snapshot_request(body)).await;
    match answer {
        QuorumAnswer::FetchSnapshot(reply, piece) => {
            let listener = listener(&context);
            wire::fetch_snapshot_response(&reply, piece, context.version(), &listener)
        }
        other => FetchSnapshotResponse { error_code: refusal(other), ..Default::default() },
    }
}
