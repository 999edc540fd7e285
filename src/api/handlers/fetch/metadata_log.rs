//! Fetch (key 1): of the metadata log, the only one that a controller holds.

use bytes::Bytes;
use klamm_protocol::messages::fetch_request::FetchRequest;
use klamm_protocol::messages::fetch_response::FetchResponse;
use klamm_replication::quorum::message::Reply;
use klamm_replication::quorum::wire;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;

use crate::api::quorum::{ask_of_log, listener, refusal};
use crate::controller::handle::QuorumAnswer;

message_replies!(FetchResponse);

pub(crate) async fn handle(context: RequestContext, body: FetchRequest) -> FetchResponse {
    let answer = ask_of_log(&context, body.cluster_id.clone(), wire::fetch_request(body)).await;
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
