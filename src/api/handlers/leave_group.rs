//! LeaveGroup (key 13): members leave their group, or an administrator removes them.

use klamm_protocol::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use klamm_protocol::messages::leave_group_response::LeaveGroupResponse;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;

/// The first version with several members (KIP-345).
const FIRST_WITH_MEMBERS: i16 = 3;

message_replies!(LeaveGroupResponse);

pub(crate) async fn handle(context: RequestContext, body: LeaveGroupRequest) -> LeaveGroupResponse {
    let body = raise(body, context.version());
    let image = context.services.metadata_cache.image();
    let pending = context.services.groups.send_member_request(
        &image,
        &body.group_id,
        |shard, token, effects| {
            shard.on_leave_group(token, &body, effects);
        },
    );
    let response = pending.answer().await.unwrap_or_else(|error| LeaveGroupResponse {
        error_code: error.code(),
        ..Default::default()
    });
    lower(response, context.version())
}

/// Before version 3 the request has one member, in a field of its own.
fn raise(mut body: LeaveGroupRequest, version: i16) -> LeaveGroupRequest {
    if version < FIRST_WITH_MEMBERS {
        let member_id = std::mem::take(&mut body.member_id);
        body.members = vec![MemberIdentity { member_id, ..Default::default() }];
    }
    body
}

/// Before version 3 the error of the one member is the error of the response.
fn lower(mut response: LeaveGroupResponse, version: i16) -> LeaveGroupResponse {
    if version < FIRST_WITH_MEMBERS {
        let members = std::mem::take(&mut response.members);
        if response.error_code == 0 {
            response.error_code = members.first().map_or(0, |member| member.error_code);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::leave_group_response::MemberResponse;
    use klamm_protocol::{ErrorCode, Message};

    use super::*;

    #[test]
    fn old_requests_name_their_member_in_a_field_of_its_own() {
        let body = LeaveGroupRequest { member_id: "m".into(), ..Default::default() };
        let raised = raise(body, 2);
        assert_eq!((&*raised.member_id, raised.members.len()), ("", 1));
        assert_eq!(raised.members[0].member_id, "m");
    }

    #[test]
    fn old_answers_have_the_error_of_their_member() {
        let unknown = ErrorCode::UnknownMemberId.code();
        let member = MemberResponse { error_code: unknown, ..Default::default() };
        let response = LeaveGroupResponse { members: vec![member], ..Default::default() };
        for version in LeaveGroupResponse::VERSIONS {
            let lowered = lower(response.clone(), version);
            assert_eq!(lowered.error_code, if version < 3 { unknown } else { 0 });
            assert!(lowered.encoded(version).is_ok(), "{version}");
        }
    }
}
