//! ElectLeaders (key 43): preferred and unclean elections on demand (KIP-460).

use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::elect_leaders_request::ElectLeadersRequest;
use klamm_protocol::messages::elect_leaders_response::{
    ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::controller::handle::HeldUntil;
use crate::controller::request::{ControllerRequest, DecisionContext, error_of_code, refusal_text};

/// The first version with an error for the whole request.
const FIRST_WITH_ERROR: i16 = 1;

message_replies!(ElectLeadersResponse, with lower);

pub(crate) async fn handle(
    context: RequestContext,
    body: ElectLeadersRequest,
) -> ElectLeadersResponse {
    // An empty request succeeds at once, whatever the type and the deadline.
    if body.topic_partitions.as_ref().is_some_and(Vec::is_empty) {
        return ElectLeadersResponse::default();
    }
    context.decide(body).await
}

impl ControllerRequest for ElectLeadersRequest {
    type Response = ElectLeadersResponse;

    const HELD_UNTIL: HeldUntil = HeldUntil::Published;

    fn timeout_ms(&self) -> Option<i32> {
        Some(self.timeout_ms)
    }

    fn decide(
        &self,
        controller: &mut Controller,
        _: &DecisionContext,
    ) -> Outcome<ElectLeadersResponse> {
        controller.on_elect_leaders(self)
    }

    fn refused(&self, code: ErrorCode) -> ElectLeadersResponse {
        let result = |partition_id: &i32| PartitionResult {
            partition_id: *partition_id,
            error_code: code.code(),
            error_message: refusal_text(code),
        };
        let topics = self.topic_partitions.iter().flatten().map(|topic| ReplicaElectionResult {
            topic: topic.topic.clone(),
            partition_result: topic.partitions.iter().map(result).collect(),
        });
        ElectLeadersResponse {
            error_code: code.code(),
            replica_election_results: topics.collect(),
            ..Default::default()
        }
    }

    fn error_of(response: &ElectLeadersResponse) -> ErrorCode {
        error_of_code(response.error_code)
    }
}

/// Version 0 has the error in the partitions only; the answer has it there too.
fn lower(answer: &mut ElectLeadersResponse, version: i16) {
    if version < FIRST_WITH_ERROR {
        answer.error_code = ErrorCode::None.code();
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;
    use klamm_protocol::messages::elect_leaders_request::TopicPartitions;

    use super::*;

    #[test]
    fn every_version_carries_the_answer() {
        let topic = TopicPartitions { topic: "t".into(), partitions: vec![0, 1] };
        let body =
            ElectLeadersRequest { topic_partitions: Some(vec![topic]), ..Default::default() };
        for version in ElectLeadersResponse::VERSIONS {
            let mut late = body.refused(ErrorCode::RequestTimedOut);
            lower(&mut late, version);
            assert_eq!(late.replica_election_results[0].partition_result.len(), 2);
            late.encoded(version).unwrap();
        }
    }
}
