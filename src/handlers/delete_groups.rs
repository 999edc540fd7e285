//! DeleteGroups (key 42): removes groups without members, with their offsets.

use indexmap::IndexSet;
use klamm_protocol::messages::delete_groups_request::DeleteGroupsRequest;
use klamm_protocol::messages::delete_groups_response::{
    DeletableGroupResult, DeleteGroupsResponse,
};

use crate::net::connection::Context;
use crate::net::request::{ConnectionError, Request};
use crate::net::response::Response;

pub(crate) async fn handle(
    context: Context,
    request: Request,
) -> Result<Response, ConnectionError> {
    let body: DeleteGroupsRequest = request.decode()?;
    let image = context.node.cluster.image();
    let groups: IndexSet<_> = body.groups_names.into_iter().collect();
    // All are asked before the first answer is awaited, so that they are committed together.
    let asked: Vec<_> = groups
        .into_iter()
        .map(|group_id| {
            let asked =
                context.node.groups.send_request(&image, &group_id, |shard, token, effects| {
                    shard.on_delete_groups(token, std::slice::from_ref(&group_id), effects);
                });
            (group_id, asked)
        })
        .collect();
    let mut results = Vec::with_capacity(asked.len());
    for (group_id, asked) in asked {
        match asked.answer::<Vec<DeletableGroupResult>>().await {
            Ok(answered) => results.extend(answered),
            Err(error) => {
                results.push(DeletableGroupResult { group_id, error_code: error.code() });
            }
        }
    }
    request.respond(&DeleteGroupsResponse { results, ..Default::default() })
}
