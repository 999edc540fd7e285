//! ListPartitionReassignments (key 46): the reassignments in progress (KIP-455).

use klamm_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsRequest;
use klamm_protocol::messages::list_partition_reassignments_response::ListPartitionReassignmentsResponse;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;

message_replies!(ListPartitionReassignmentsResponse);

pub(crate) fn handle(
    context: &RequestContext,
    body: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    context.services.metadata_cache.image().list_partition_reassignments(&body)
}
