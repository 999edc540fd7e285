//! JoinGroup (key 11): a member joins its group, or joins again; answered with the next generation.

use std::net::IpAddr;

use bytestring::ByteString;
use klamm_coordinator::group::JoinGroup;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::join_group_request::JoinGroupRequest;
use klamm_protocol::messages::join_group_response::JoinGroupResponse;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::random;

/// The first version with a rebalance timeout; before it, the session timeout is used.
const FIRST_WITH_REBALANCE_TIMEOUT: i16 = 1;
/// The first version whose members get their id by one request and join by the next (KIP-394).
const FIRST_WITH_KNOWN_MEMBER_ID: i16 = 4;
/// The first version with `SkipAssignment`, by which the leader keeps the current assignment (KIP-814).
const FIRST_WITH_SKIP_ASSIGNMENT: i16 = 9;
/// The first version whose answer may have no protocol name.
const FIRST_WITH_NULL_PROTOCOL: i16 = 7;

message_replies!(JoinGroupResponse);

pub(crate) async fn handle(context: RequestContext, body: JoinGroupRequest) -> JoinGroupResponse {
    let body = raise(body, context.version());
    let image = context.services.metadata_cache.image();
    let (group_id, member_id) = (body.group_id.clone(), body.member_id.clone());
    let pending =
        context.services.groups.send_member_request(&image, &group_id, |shard, token, effects| {
            let join = JoinGroup {
                token,
                requires_known_member_id: context.version() >= FIRST_WITH_KNOWN_MEMBER_ID,
                supports_skipping_assignment: context.version() >= FIRST_WITH_SKIP_ASSIGNMENT,
                client_id: context.client_id.clone().unwrap_or_default(),
                client_host: client_host(context.requester.host),
                member_uuid: random::uuid(),
                request: body,
            };
            shard.on_join_group(&join, effects);
        });
    let response = pending.answer().await.unwrap_or_else(|error| refused(error, member_id));
    lower(response, context.version())
}

fn raise(mut body: JoinGroupRequest, version: i16) -> JoinGroupRequest {
    if version < FIRST_WITH_REBALANCE_TIMEOUT {
        body.rebalance_timeout_ms = body.session_timeout_ms;
    }
    body
}

/// The answer if the coordinator did not process the request.
fn refused(error: ErrorCode, member_id: ByteString) -> JoinGroupResponse {
    let is_invalid = error == ErrorCode::InvalidGroupId;
    JoinGroupResponse {
        error_code: error.code(),
        member_id: if is_invalid { member_id } else { ByteString::new() },
        protocol_name: None,
        ..Default::default()
    }
}

fn lower(mut response: JoinGroupResponse, version: i16) -> JoinGroupResponse {
    if version < FIRST_WITH_NULL_PROTOCOL {
        response.protocol_name.get_or_insert_default();
    }
    response
}

/// An address as Java prints it: without host name, and IPv6 without abbreviation.
fn client_host(address: IpAddr) -> ByteString {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("/{address}").into(),
        IpAddr::V6(address) => {
            let groups = address.segments().map(|group| format!("{group:x}"));
            format!("/{}", groups.join(":")).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;

    use super::*;

    #[test]
    fn every_answer_fits_every_version() {
        let answers = [
            refused(ErrorCode::NotCoordinator, "m".into()),
            JoinGroupResponse { protocol_name: None, ..Default::default() },
            JoinGroupResponse {
                protocol_type: Some("consumer".into()),
                protocol_name: Some("range".into()),
                skip_assignment: false,
                ..Default::default()
            },
        ];
        for version in JoinGroupResponse::VERSIONS {
            for answer in &answers {
                assert!(lower(answer.clone(), version).encoded(version).is_ok(), "{version}");
            }
        }
    }

    #[test]
    fn version_0_takes_the_session_timeout_for_the_rebalance_timeout() {
        let body = JoinGroupRequest {
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: -1,
            ..Default::default()
        };
        assert_eq!(raise(body.clone(), 0).rebalance_timeout_ms, 10_000);
        assert_eq!(raise(body, 1).rebalance_timeout_ms, -1);
    }

    #[test]
    fn a_refused_member_is_told_no_protocol() {
        let refused = refused(ErrorCode::InvalidGroupId, "m".into());
        assert_eq!(lower(refused.clone(), 9).protocol_name, None);
        assert_eq!(lower(refused, 6).protocol_name.as_deref(), Some(""));
    }

    #[test]
    fn a_refused_member_is_named_only_when_the_group_id_is_the_reason() {
        assert_eq!(refused(ErrorCode::InvalidGroupId, "m".into()).member_id, "m");
        assert_eq!(refused(ErrorCode::NotCoordinator, "m".into()).member_id, "");
    }

    #[test]
    fn addresses_look_as_java_prints_them() {
        let hosts = ["127.0.0.1", "::ffff:10.0.0.7", "fe80::1:2"]
            .map(|address| client_host(address.parse().unwrap()));
        assert_eq!(hosts, ["/127.0.0.1", "/10.0.0.7", "/fe80:0:0:0:0:0:1:2"]);
    }
}
