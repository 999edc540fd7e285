//! ListGroups (key 16): the groups that this broker coordinates.

use klamm_coordinator::group::ListFilter;
use klamm_protocol::messages::list_groups_request::ListGroupsRequest;
use klamm_protocol::messages::list_groups_response::ListGroupsResponse;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;

message_replies!(ListGroupsResponse);

pub(crate) fn handle(context: &RequestContext, body: ListGroupsRequest) -> ListGroupsResponse {
    let filter = ListFilter::new(&body.states_filter, &body.types_filter);
    match context.services.groups.list(&filter) {
        Ok(groups) => ListGroupsResponse { groups, ..Default::default() },
        Err(error) => ListGroupsResponse { error_code: error.code(), ..Default::default() },
    }
}
