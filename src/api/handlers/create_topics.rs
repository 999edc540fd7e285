//! CreateTopics (key 19): decided by the controller; the answer is sent when this broker has applied the topics.

use klamm_metadata::controller::Controller;
use klamm_metadata::controller::create_topics::CreateTopicsAccess;
use klamm_metadata::controller::outcome::Outcome;
use klamm_metadata::random::Random;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_topics_request::CreateTopicsRequest;
use klamm_protocol::messages::create_topics_response::{
    CreatableTopicResult, CreateTopicsResponse,
};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::controller::handle::HeldUntil;
use crate::controller::request::{ControllerRequest, DecisionContext, error_of_code, refusal_text};
use crate::random;

message_replies!(CreateTopicsResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: CreateTopicsRequest,
) -> CreateTopicsResponse {
    context.decide(body).await
}

impl ControllerRequest for CreateTopicsRequest {
    type Response = CreateTopicsResponse;

    const HELD_UNTIL: HeldUntil = HeldUntil::Published;

    fn timeout_ms(&self) -> Option<i32> {
        Some(self.timeout_ms)
    }

    fn decide(
        &self,
        controller: &mut Controller,
        _: &DecisionContext,
    ) -> Outcome<CreateTopicsResponse> {
        let mut random = Random::from_seed(random::bytes());
        controller.on_create_topics(self, CreateTopicsAccess::ALL, &mut random)
    }

    fn refused(&self, code: ErrorCode) -> CreateTopicsResponse {
        let topics = self.topics.iter().map(|topic| CreatableTopicResult {
            name: topic.name.clone(),
            error_code: code.code(),
            error_message: refusal_text(code),
            configs: Some(Vec::new()),
            ..Default::default()
        });
        CreateTopicsResponse { topics: topics.collect(), ..Default::default() }
    }

    fn error_of(response: &CreateTopicsResponse) -> ErrorCode {
        response.topics.first().map_or(ErrorCode::None, |topic| error_of_code(topic.error_code))
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;
    use klamm_protocol::messages::create_topics_request::CreatableTopic;
    use klamm_protocol::messages::create_topics_response::CreatableTopicConfigs;

    use super::*;

    #[test]
    fn every_version_carries_the_answer() {
        let created = CreatableTopicResult {
            num_partitions: 3,
            replication_factor: 1,
            error_message: None,
            configs: Some(vec![CreatableTopicConfigs {
                value: Some("1".into()),
                config_source: 5,
                ..Default::default()
            }]),
            ..Default::default()
        };
        let created = CreateTopicsResponse { topics: vec![created], ..Default::default() };
        let topic = CreatableTopic { name: "t".into(), ..Default::default() };
        let body = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        let late = body.refused(ErrorCode::RequestTimedOut);
        assert_eq!(late.topics[0].name, "t");
        for version in CreateTopicsResponse::VERSIONS {
            created.encoded(version).unwrap();
            late.encoded(version).unwrap();
        }
    }
}
