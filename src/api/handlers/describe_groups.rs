//! DescribeGroups (key 15): state, protocol and members of classic groups.

use bytestring::ByteString;
use klamm_protocol::messages::describe_groups_request::DescribeGroupsRequest;
use klamm_protocol::messages::describe_groups_response::{DescribeGroupsResponse, DescribedGroup};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;

/// The first version that may ask for authorized operations (KIP-430).
const FIRST_WITH_AUTHORIZED_OPERATIONS: i16 = 3;
/// The first version with GROUP_ID_NOT_FOUND; before it such a group has the state "Dead".
const FIRST_WITH_GROUP_ID_NOT_FOUND: i16 = 6;
/// All operations on a group, as bits: without an authorizer every client may perform all. (READ, DELETE, DESCRIBE,
/// DESCRIBE_CONFIGS and ALTER_CONFIGS of `AclOperation`)
const ALL_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

message_replies!(DescribeGroupsResponse);

pub(crate) fn handle(
    context: &RequestContext,
    body: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let with_operations =
        body.include_authorized_operations && context.version() >= FIRST_WITH_AUTHORIZED_OPERATIONS;
    let groups = body.groups.iter().map(|group_id| {
        let mut described = describe(context, context.version(), group_id);
        if with_operations && described.error_code == 0 {
            described.authorized_operations = ALL_OPERATIONS;
        }
        described
    });
    let groups = groups.collect();
    DescribeGroupsResponse { groups, ..Default::default() }
}

fn describe(context: &RequestContext, version: i16, group_id: &ByteString) -> DescribedGroup {
    let image = context.services.metadata_cache.image();
    let reports_missing = version >= FIRST_WITH_GROUP_ID_NOT_FOUND;
    let described = context.services.groups.call(&image, group_id, |shard, _| {
        shard.on_describe_groups(std::slice::from_ref(group_id), reports_missing).pop()
    });
    match described {
        Ok(described) => described.expect("every group that is asked for is described"),
        Err(error) => DescribedGroup {
            group_id: group_id.clone(),
            error_code: error.code(),
            ..Default::default()
        },
    }
}
