//! CreatePartitions (key 37): adds partitions to topics.

use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_metadata::random::Random;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_partitions_request::CreatePartitionsRequest;
use klamm_protocol::messages::create_partitions_response::{
    CreatePartitionsResponse, CreatePartitionsTopicResult,
};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::controller::handle::HeldUntil;
use crate::controller::request::{ControllerRequest, DecisionContext, error_of_code, refusal_text};
use crate::random;

message_replies!(CreatePartitionsResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    context.decide(body).await
}

impl ControllerRequest for CreatePartitionsRequest {
    type Response = CreatePartitionsResponse;

    const HELD_UNTIL: HeldUntil = HeldUntil::Published;

    fn timeout_ms(&self) -> Option<i32> {
        Some(self.timeout_ms)
    }

    fn decide(
        &self,
        controller: &mut Controller,
        _: &DecisionContext,
    ) -> Outcome<CreatePartitionsResponse> {
        let mut random = Random::from_seed(random::bytes());
        controller.on_create_partitions(self, &|_| true, &mut random)
    }

    fn refused(&self, code: ErrorCode) -> CreatePartitionsResponse {
        let results = self.topics.iter().map(|topic| CreatePartitionsTopicResult {
            name: topic.name.clone(),
            error_code: code.code(),
            error_message: refusal_text(code),
        });
        CreatePartitionsResponse { results: results.collect(), ..Default::default() }
    }

    fn error_of(response: &CreatePartitionsResponse) -> ErrorCode {
        response.results.first().map_or(ErrorCode::None, |topic| error_of_code(topic.error_code))
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;
    use klamm_protocol::messages::create_partitions_request::CreatePartitionsTopic;

    use super::*;

    #[test]
    fn every_version_carries_the_answer() {
        let topic = CreatePartitionsTopic { name: "t".into(), count: 2, ..Default::default() };
        let body = CreatePartitionsRequest { topics: vec![topic], ..Default::default() };
        let late = body.refused(ErrorCode::RequestTimedOut);
        assert_eq!(late.results[0].name, "t");
        for version in CreatePartitionsResponse::VERSIONS {
            late.encoded(version).unwrap();
        }
    }
}
