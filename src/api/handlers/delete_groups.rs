//! DeleteGroups (key 42): removes groups without members, with their offsets.

use indexmap::IndexSet;
use klamm_protocol::messages::delete_groups_request::DeleteGroupsRequest;
use klamm_protocol::messages::delete_groups_response::{
    DeletableGroupResult, DeleteGroupsResponse,
};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;

message_replies!(DeleteGroupsResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let image = context.services.metadata_cache.image();
    let groups: IndexSet<_> = body.groups_names.into_iter().collect();
    // All requests are sent to the coordinators before the first answer is awaited, so that they are committed
    // together.
    let pending: Vec<_> = groups
        .into_iter()
        .map(|group_id| {
            let pending =
                context.services.groups.send_request(&image, &group_id, |shard, token, effects| {
                    shard.on_delete_groups(token, std::slice::from_ref(&group_id), effects);
                });
            (group_id, pending)
        })
        .collect();
    let mut results = Vec::with_capacity(pending.len());
    for (group_id, pending) in pending {
        match pending.answer::<Vec<DeletableGroupResult>>().await {
            Ok(answered) => results.extend(answered),
            Err(error) => {
                results.push(DeletableGroupResult { group_id, error_code: error.code() });
            }
        }
    }
    DeleteGroupsResponse { results, ..Default::default() }
}
