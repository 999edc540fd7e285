//! DescribeGroups (key 15): state, protocol and members of classic groups.

use bytestring::ByteString;
use klamm_protocol::messages::describe_groups_request::DescribeGroupsRequest;
use klamm_protocol::messages::describe_groups_response::{DescribeGroupsResponse, DescribedGroup};

use crate::net::connection::Context;
use crate::net::request::{ConnectionError, Request};
use crate::net::response::Response;

/// The first version that may ask what the client is allowed to do (KIP-430).
const FIRST_WITH_AUTHORIZED_OPERATIONS: i16 = 3;
/// The first version that can tell that a group does not exist; before it such a group is just "Dead".
const FIRST_WITH_GROUP_ID_NOT_FOUND: i16 = 6;
/// All operations on a group, as bits: without an authorizer everybody may do everything.
/// (READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS and ALTER_CONFIGS of `AclOperation`)
const ALL_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

pub(crate) fn handle(context: &Context, request: &Request) -> Result<Response, ConnectionError> {
    let body: DescribeGroupsRequest = request.decode()?;
    let with_operations =
        body.include_authorized_operations && request.version >= FIRST_WITH_AUTHORIZED_OPERATIONS;
    let groups = body.groups.iter().map(|group_id| {
        let mut described = describe(context, request.version, group_id);
        if with_operations && described.error_code == 0 {
            described.authorized_operations = ALL_OPERATIONS;
        }
        described
    });
    let groups = groups.collect();
    request.respond(&DescribeGroupsResponse { groups, ..Default::default() })
}

fn describe(context: &Context, version: i16, group_id: &ByteString) -> DescribedGroup {
    let image = context.node.cluster.image();
    let reports_missing = version >= FIRST_WITH_GROUP_ID_NOT_FOUND;
    let described = context.node.groups.call(&image, group_id, |shard, _| {
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
