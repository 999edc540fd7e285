//! SyncGroup (key 14): the leader brings everybody's assignment, the others fetch theirs.

use klamm_protocol::messages::sync_group_request::SyncGroupRequest;
use klamm_protocol::messages::sync_group_response::SyncGroupResponse;

use crate::net::connection::Context;
use crate::net::request::{ConnectionError, Request};
use crate::net::response::Response;

/// The first version that must name protocol type and name (KIP-559).
const FIRST_WITH_PROTOCOL: i16 = 5;

pub(crate) async fn handle(
    context: Context,
    request: Request,
) -> Result<Response, ConnectionError> {
    let body: SyncGroupRequest = request.decode()?;
    let image = context.node.cluster.image();
    let asked =
        context.node.groups.send_member_request(&image, &body.group_id, |shard, token, effects| {
            shard.on_sync_group(token, &body, request.version >= FIRST_WITH_PROTOCOL, effects);
        });
    let response: SyncGroupResponse = asked.answer().await.unwrap_or_else(|error| {
        SyncGroupResponse { error_code: error.code(), ..Default::default() }
    });
    request.respond(&response)
}
