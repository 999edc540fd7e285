//! SyncGroup (key 14): the leader brings everybody's assignment, the others fetch theirs.

use klamm_protocol::messages::sync_group_request::SyncGroupRequest;
use klamm_protocol::messages::sync_group_response::SyncGroupResponse;

use crate::api::context::Context;
use crate::api::request::{Request, RequestError};
use crate::net::response::Response;

pub(crate) async fn handle(context: Context, request: Request) -> Result<Response, RequestError> {
    let body: SyncGroupRequest = request.decode()?;
    let image = context.services.metadata_cache.image();
    let asked =
        context.services.groups.ask_of_members(&image, &body.group_id, |shard, token, now| {
            shard.on_sync_group(token, request.version, &body, now)
        });
    let response: SyncGroupResponse = asked.answer().await.unwrap_or_else(|error| {
        SyncGroupResponse { error_code: error.code(), ..Default::default() }
    });
    request.respond(&response)
}
