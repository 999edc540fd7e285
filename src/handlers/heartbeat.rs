//! Heartbeat (key 12): a member of a group lives, and learns whether it has to join again.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::heartbeat_request::HeartbeatRequest;
use klamm_protocol::messages::heartbeat_response::HeartbeatResponse;

use crate::net::connection::Context;
use crate::net::request::{ConnectionError, Request};
use crate::net::response::Response;

pub(crate) fn handle(context: &Context, request: &Request) -> Result<Response, ConnectionError> {
    let body: HeartbeatRequest = request.decode()?;
    let error = heartbeat(context, &body);
    request.respond(&HeartbeatResponse { error_code: error.code(), ..Default::default() })
}

fn heartbeat(context: &Context, body: &HeartbeatRequest) -> ErrorCode {
    if body.group_id.is_empty() {
        return ErrorCode::InvalidGroupId;
    }
    let image = context.node.cluster.image();
    let groups = &context.node.groups;
    match groups.call(&image, &body.group_id, |shard, effects| shard.on_heartbeat(body, effects)) {
        Ok(error) => error,
        // Sessions begin anew once the groups are loaded: nothing is lost by saying that all is well.
        Err(ErrorCode::CoordinatorLoadInProgress) => ErrorCode::None,
        Err(error) => error,
    }
}
