//! Fetch (key 1): of the metadata log, the only log of a controller.

use bytes::Bytes;
use klamm_protocol::messages::fetch_request::FetchRequest;
use klamm_protocol::messages::fetch_response::FetchResponse;
use klamm_replication::quorum::message::Reply;
use klamm_replication::quorum::wire;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;

use crate::api::quorum::{listener, refusal, send_about_log};
use crate::controller::handle::QuorumAnswer;

message_replies!(FetchResponse);

pub(crate) async fn handle(context: RequestContext, body: FetchRequest) -> FetchResponse {
    let answer = send_about_log(&context, body.cluster_id.clone(), wire::fetch_request(body)).await;
    match answer {
        QuorumAnswer::Fetch(reply, records) => {
            wire::fetch_response(&reply, records, context.version(), &listener(&context))
        }
        QuorumAnswer::Plain(Reply::Fetch(reply)) => {
            wire::fetch_response(&reply, Bytes::new(), context.version(), &listener(&context))
        }
        other => FetchResponse { error_code: refusal(other), ..Default::default() },
    }
}
