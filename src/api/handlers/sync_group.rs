//! SyncGroup (key 14): the leader sends the assignments of all members, and each member gets its own.

use klamm_protocol::messages::sync_group_request::SyncGroupRequest;
use klamm_protocol::messages::sync_group_response::SyncGroupResponse;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;

/// The first version that must name protocol type and name (KIP-559).
const FIRST_WITH_PROTOCOL: i16 = 5;

message_replies!(SyncGroupResponse);

pub(crate) async fn handle(context: RequestContext, body: SyncGroupRequest) -> SyncGroupResponse {
    let image = context.services.metadata_cache.image();
    let requires_protocol = context.version() >= FIRST_WITH_PROTOCOL;
    let pending = context.services.groups.send_member_request(
        &image,
        &body.group_id,
        |shard, token, effects| {
            shard.on_sync_group(token, &body, requires_protocol, effects);
        },
    );
    pending.answer().await.unwrap_or_else(|error| SyncGroupResponse {
        error_code: error.code(),
        ..Default::default()
    })
}
