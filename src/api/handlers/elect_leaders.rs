//! ElectLeaders (key 43): preferred and unclean elections on demand (KIP-460).

use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::elect_leaders_request::ElectLeadersRequest;
use klamm_protocol::messages::elect_leaders_response::{
    ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};

use crate::api::context::Context;
use crate::api::request::{Request, RequestError};
use crate::controller::deadline;
use crate::net::response::Response;

/// The first version with an error for the whole request.
const FIRST_WITH_ERROR: i16 = 1;

pub(crate) async fn handle(context: Context, request: Request) -> Result<Response, RequestError> {
    let body: Arc<ElectLeadersRequest> = Arc::new(request.decode()?);
    // Nothing to elect is done at once, whatever the type and the deadline.
    if body.topic_partitions.as_ref().is_some_and(Vec::is_empty) {
        return request.respond(&ElectLeadersResponse::default());
    }
    let asked = Arc::clone(&body);
    let elected = context
        .services
        .controller
        .decide_within(body.timeout_ms, move |controller, _| controller.on_elect_leaders(&asked));
    let mut answer = elected.await.unwrap_or_else(|code| refused(&body, code));
    lower(&mut answer, request.version);
    request.respond(&answer)
}

/// Version 0 has the error in the partitions only, where it is as well.
fn lower(answer: &mut ElectLeadersResponse, version: i16) {
    if version < FIRST_WITH_ERROR {
        answer.error_code = ErrorCode::None.code();
    }
}

/// The controller has not decided.
fn refused(body: &ElectLeadersRequest, code: ErrorCode) -> ElectLeadersResponse {
    let result = |partition_id: &i32| PartitionResult {
        partition_id: *partition_id,
        error_code: code.code(),
        error_message: deadline::text_of(code),
    };
    let topics = body.topic_partitions.iter().flatten().map(|topic| ReplicaElectionResult {
        topic: topic.topic.clone(),
        partition_result: topic.partitions.iter().map(result).collect(),
    });
    ElectLeadersResponse {
        error_code: code.code(),
        replica_election_results: topics.collect(),
        ..Default::default()
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
            let mut late = refused(&body, ErrorCode::RequestTimedOut);
            lower(&mut late, version);
            assert_eq!(late.replica_election_results[0].partition_result.len(), 2);
            late.encoded(version).unwrap();
        }
    }
}
