//! DeleteTopics (key 20): by name, and since version 6 by id (KIP-516).

use std::sync::Arc;

use klamm_metadata::controller::delete_topics::DeleteTopicsAccess;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use klamm_protocol::messages::delete_topics_response::{
    DeletableTopicResult, DeleteTopicsResponse,
};

use crate::api::context::Context;
use crate::api::request::{Request, RequestError};
use crate::controller::deadline;
use crate::net::response::Response;

/// The first version that can say that deletion is switched off.
const FIRST_WITH_DELETION_DISABLED: i16 = 3;

pub(crate) async fn handle(context: Context, request: Request) -> Result<Response, RequestError> {
    let body: Arc<DeleteTopicsRequest> = Arc::new(request.decode()?);
    let asked = Arc::clone(&body);
    let deleted =
        context.services.controller.decide_within(body.timeout_ms, move |controller, _| {
            controller.on_delete_topics(&asked, DeleteTopicsAccess::ALL)
        });
    let mut answer = deleted.await.unwrap_or_else(|code| refused(&body, code));
    lower(&mut answer, request.version);
    request.respond(&answer)
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

/// The controller has not decided.
fn refused(body: &DeleteTopicsRequest, code: ErrorCode) -> DeleteTopicsResponse {
    let by_name = |name: &bytestring::ByteString| DeleteTopicState {
        name: Some(name.clone()),
        ..Default::default()
    };
    let topics = body.topic_names.iter().map(by_name).chain(body.topics.iter().cloned());
    let responses = topics.map(|topic| DeletableTopicResult {
        name: topic.name,
        topic_id: topic.topic_id,
        error_code: code.code(),
        error_message: deadline::text_of(code),
    });
    DeleteTopicsResponse { responses: responses.collect(), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;

    use super::*;

    fn answer(code: ErrorCode, version: i16) -> DeleteTopicsResponse {
        let body = DeleteTopicsRequest { topic_names: vec!["t".into()], ..Default::default() };
        let mut answer = refused(&body, code);
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
        let answer = refused(&body, ErrorCode::RequestTimedOut);
        assert_eq!(answer.responses[0].topic_id, topic_id);
        answer.encoded(6).unwrap();
    }
}
