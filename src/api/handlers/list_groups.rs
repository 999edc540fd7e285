//! ListGroups (key 16): the groups that this broker coordinates.

use klamm_coordinator::group::ListFilter;
use klamm_protocol::messages::list_groups_request::ListGroupsRequest;
use klamm_protocol::messages::list_groups_response::ListGroupsResponse;

use crate::api::context::Context;
use crate::api::request::{Request, RequestError};
use crate::net::response::Response;

pub(crate) fn handle(context: &Context, request: &Request) -> Result<Response, RequestError> {
    let body: ListGroupsRequest = request.decode()?;
    let filter = ListFilter::new(&body.states_filter, &body.types_filter);
    request.respond(&match context.services.groups.list(&filter) {
        Ok(groups) => ListGroupsResponse { groups, ..Default::default() },
        Err(error) => ListGroupsResponse { error_code: error.code(), ..Default::default() },
    })
}
