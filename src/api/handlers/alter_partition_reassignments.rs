//! AlterPartitionReassignments (key 45): starts, replaces and cancels moves of partitions (KIP-455).

use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::alter_partition_reassignments_request::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use klamm_protocol::messages::alter_partition_reassignments_response::{
    AlterPartitionReassignmentsResponse, ReassignablePartitionResponse, ReassignableTopicResponse,
};

use crate::api::context::Context;
use crate::api::request::{Request, RequestError};
use crate::controller::deadline;
use crate::net::response::Response;

pub(crate) async fn handle(context: Context, request: Request) -> Result<Response, RequestError> {
    let body: Arc<AlterPartitionReassignmentsRequest> = Arc::new(request.decode()?);
    // Nothing to move is done at once, whatever the deadline.
    if body.topics.is_empty() {
        return request.respond(&AlterPartitionReassignmentsResponse::default());
    }
    let asked = Arc::clone(&body);
    let altered =
        context.services.controller.decide_within(body.timeout_ms, move |controller, _| {
            controller.on_alter_partition_reassignments(&asked)
        });
    let answer = altered.await.unwrap_or_else(|code| refused(&body, code));
    request.respond(&answer)
}

/// The controller has not decided.
fn refused(
    body: &AlterPartitionReassignmentsRequest,
    code: ErrorCode,
) -> AlterPartitionReassignmentsResponse {
    let partition = |partition: &ReassignablePartition| ReassignablePartitionResponse {
        partition_index: partition.partition_index,
        error_code: code.code(),
        error_message: deadline::text_of(code),
    };
    let topic = |topic: &ReassignableTopic| ReassignableTopicResponse {
        name: topic.name.clone(),
        partitions: topic.partitions.iter().map(partition).collect(),
    };
    AlterPartitionReassignmentsResponse {
        error_code: code.code(),
        error_message: deadline::text_of(code),
        responses: body.topics.iter().map(topic).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;

    use super::*;

    #[test]
    fn every_version_carries_the_answer() {
        let partitions = vec![ReassignablePartition { partition_index: 3, replicas: None }];
        let topic = ReassignableTopic { name: "t".into(), partitions };
        let body = AlterPartitionReassignmentsRequest { topics: vec![topic], ..Default::default() };
        let mut late = refused(&body, ErrorCode::RequestTimedOut);
        assert_eq!(late.responses[0].partitions[0].partition_index, 3);
        late.allow_replication_factor_change = false;
        for version in AlterPartitionReassignmentsResponse::VERSIONS {
            late.encoded(version).unwrap();
        }
    }
}
