//! SyncGroup (key 14): the leader brings everybody's assignment, the others fetch theirs.

use klamm_protocol::messages::sync_group_request::SyncGroupRequest;
use klamm_protocol::messages::sync_group_response::SyncGroupResponse;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;

message_replies!(SyncGroupResponse);

pub(crate) async fn handle(context: RequestContext, body: SyncGroupRequest) -> SyncGroupResponse {
    let image = context.services.metadata_cache.image();
    let asked =
        context.services.groups.ask_of_members(&image, &body.group_id, |shard, token, now| {
            shard.on_sync_group(token, context.version(), &body, now)
        });
    let response: SyncGroupResponse = asked.answer().await.unwrap_or_else(|error| {
        SyncGroupResponse { error_code: error.code(), ..Default::default() }
    });
    response
}
