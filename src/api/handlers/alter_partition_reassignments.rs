//! AlterPartitionReassignments (key 45): starts, replaces and cancels moves of partitions (KIP-455).

use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::alter_partition_reassignments_request::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use klamm_protocol::messages::alter_partition_reassignments_response::{
    AlterPartitionReassignmentsResponse, ReassignablePartitionResponse, ReassignableTopicResponse,
};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::controller::handle::HeldUntil;
use crate::controller::request::{ControllerRequest, DecisionContext, error_of_code, refusal_text};

message_replies!(AlterPartitionReassignmentsResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    // An empty request succeeds at once, whatever the deadline.
    if body.topics.is_empty() {
        return AlterPartitionReassignmentsResponse::default();
    }
    context.decide(body).await
}

impl ControllerRequest for AlterPartitionReassignmentsRequest {
    type Response = AlterPartitionReassignmentsResponse;

    const HELD_UNTIL: HeldUntil = HeldUntil::Published;

    fn timeout_ms(&self) -> Option<i32> {
        Some(self.timeout_ms)
    }

    fn decide(
        &self,
        controller: &mut Controller,
        _: &DecisionContext,
    ) -> Outcome<AlterPartitionReassignmentsResponse> {
        controller.on_alter_partition_reassignments(self)
    }

    fn refused(&self, code: ErrorCode) -> AlterPartitionReassignmentsResponse {
        let partition = |partition: &ReassignablePartition| ReassignablePartitionResponse {
            partition_index: partition.partition_index,
            error_code: code.code(),
            error_message: refusal_text(code),
        };
        let topic = |topic: &ReassignableTopic| ReassignableTopicResponse {
            name: topic.name.clone(),
            partitions: topic.partitions.iter().map(partition).collect(),
        };
        AlterPartitionReassignmentsResponse {
            error_code: code.code(),
            error_message: refusal_text(code),
            responses: self.topics.iter().map(topic).collect(),
            ..Default::default()
        }
    }

    fn error_of(response: &AlterPartitionReassignmentsResponse) -> ErrorCode {
        error_of_code(response.error_code)
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
        let mut late = body.refused(ErrorCode::RequestTimedOut);
        assert_eq!(late.responses[0].partitions[0].partition_index, 3);
        late.allow_replication_factor_change = false;
        for version in AlterPartitionReassignmentsResponse::VERSIONS {
            late.encoded(version).unwrap();
        }
    }
}
