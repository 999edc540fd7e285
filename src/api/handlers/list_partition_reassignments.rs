//! ListPartitionReassignments (key 46): the moves of partitions that are under way (KIP-455).

use klamm_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsRequest;

use crate::api::context::Context;
use crate::api::request::{Request, RequestError};
use crate::net::response::Response;

pub(crate) fn handle(context: &Context, request: &Request) -> Result<Response, RequestError> {
    let body: ListPartitionReassignmentsRequest = request.decode()?;
    request.respond(&context.services.metadata_cache.image().list_partition_reassignments(&body))
}
