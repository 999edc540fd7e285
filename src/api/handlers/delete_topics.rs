//! DeleteTopics (key 20): by name, and since version 6 by id (KIP-516).

use klamm_metadata::controller::Controller;
use klamm_metadata::controller::delete_topics::DeleteTopicsAccess;
use klamm_metadata::controller::outcome::Outcome;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use klamm_protocol::messages::delete_topics_response::{
    DeletableTopicResult, DeleteTopicsResponse,
};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::controller::handle::HeldUntil;
use crate::controller::request::{ControllerRequest, DecisionContext, error_of_code, refusal_text};

/// The first version with TOPIC_DELETION_DISABLED.
const FIRST_WITH_DELETION_DISABLED: i16 = 3;

message_replies!(DeleteTopicsResponse, with lower);

pub(crate) async fn handle(
    context: RequestContext,
    body: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    context.decide(body).await
}

impl ControllerRequest for DeleteTopicsRequest {
    type Response = DeleteTopicsResponse;

    const HELD_UNTIL: HeldUntil = HeldUntil::Published;

    fn timeout_ms(&self) -> Option<i32> {
        Some(self.timeout_ms)
    }

    fn decide(
        &self,
        controller: &mut Controller,
        _: &DecisionContext,
    ) -> Outcome<DeleteTopicsResponse> {
        controller.on_delete_topics(self, DeleteTopicsAccess::ALL)
    }

    fn refused(&self, code: ErrorCode) -> DeleteTopicsResponse {
        let by_name = |name: &bytestring::ByteString| DeleteTopicState {
            name: Some(name.clone()),
            ..Default::default()
        };
        let topics = self.topic_names.iter().map(by_name).chain(self.topics.iter().cloned());
        let responses = topics.map(|topic| DeletableTopicResult {
            name: topic.name,
            topic_id: topic.topic_id,
            error_code: code.code(),
            error_message: refusal_text(code),
        });
        DeleteTopicsResponse { responses: responses.collect(), ..Default::default() }
    }

    fn error_of(response: &DeleteTopicsResponse) -> ErrorCode {
        response.responses.first().map_or(ErrorCode::None, |topic| error_of_code(topic.error_code))
    }
}

fn lower(answer: &mut DeleteTopicsResponse, version: i16) {
    let disabled = ErrorCode::TopicDeletionDisabled.code();
    for topic in answer.responses.iter_mut().filter(|topic| topic.error_code == disabled) {
        topic.error_message = None;
        if version < FIRST_WITH_DELETION_DISABLED {
            topic.error_code = ErrorCode::InvalidRequest.code();
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;

    use super::*;

    fn answer(code: ErrorCode, version: i16) -> DeleteTopicsResponse {
        let body = DeleteTopicsRequest { topic_names: vec!["t".into()], ..Default::default() };
        let mut answer = body.refused(code);
        answer.responses[0].error_message = Some("text".into());
        lower(&mut answer, version);
        answer
    }

    #[test]
    fn deletion_that_is_switched_off_has_a_code_since_version_3() {
        let code = |version| {
            let topic = answer(ErrorCode::TopicDeletionDisabled, version).responses.remove(0);
            assert_eq!(topic.error_message, None);
            ErrorCode::from_code(topic.error_code).unwrap()
        };
        assert_eq!(code(2), ErrorCode::InvalidRequest);
        assert_eq!(code(3), ErrorCode::TopicDeletionDisabled);
    }

    #[test]
    fn every_version_carries_the_answer() {
        for version in DeleteTopicsResponse::VERSIONS {
            answer(ErrorCode::UnknownTopicOrPartition, version).encoded(version).unwrap();
        }
        let topic_id = klamm_protocol::Uuid::from_bytes([1; 16]);
        let by_id = DeleteTopicState { name: None, topic_id };
        let body = DeleteTopicsRequest { topics: vec![by_id], ..Default::default() };
        let answer = body.refused(ErrorCode::RequestTimedOut);
        assert_eq!(answer.responses[0].topic_id, topic_id);
        answer.encoded(6).unwrap();
    }
}
