//! Heartbeat (key 12): a member renews its session in the group, and learns whether it has to rejoin.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::heartbeat_request::HeartbeatRequest;
use klamm_protocol::messages::heartbeat_response::HeartbeatResponse;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;

message_replies!(HeartbeatResponse);

pub(crate) fn handle(context: &RequestContext, body: HeartbeatRequest) -> HeartbeatResponse {
    let error = heartbeat(context, &body);
    HeartbeatResponse { error_code: error.code(), ..Default::default() }
}

fn heartbeat(context: &RequestContext, body: &HeartbeatRequest) -> ErrorCode {
    if body.group_id.is_empty() {
        return ErrorCode::InvalidGroupId;
    }
    let image = context.services.metadata_cache.image();
    let groups = &context.services.groups;
    match groups.call(&image, &body.group_id, |shard, effects| shard.on_heartbeat(body, effects)) {
        Ok(error) => error,
        // Sessions start again when the groups are loaded, so the answer NONE is safe.
        Err(ErrorCode::CoordinatorLoadInProgress) => ErrorCode::None,
        Err(error) => error,
    }
}
