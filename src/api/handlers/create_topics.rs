//! CreateTopics (key 19): decided by the controller; the answer leaves when this broker has the topics.

use std::sync::Arc;

use klamm_metadata::controller::create_topics::CreateTopicsAccess;
use klamm_metadata::random::Random;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_topics_request::CreateTopicsRequest;
use klamm_protocol::messages::create_topics_response::{
    CreatableTopicResult, CreateTopicsResponse,
};

use crate::api::context::Context;
use crate::api::request::{Request, RequestError};
use crate::controller::deadline;
use crate::net::response::Response;
use crate::random;

pub(crate) async fn handle(context: Context, request: Request) -> Result<Response, RequestError> {
    let body: Arc<CreateTopicsRequest> = Arc::new(request.decode()?);
    let asked = Arc::clone(&body);
    let mut random = Random::from_seed(random::bytes());
    let created =
        context.services.controller.decide_within(body.timeout_ms, move |controller, _| {
            controller.on_create_topics(&asked, CreateTopicsAccess::ALL, &mut random)
        });
    let answer = created.await.unwrap_or_else(|code| refused(&body, code));
    request.respond(&answer)
}

/// The controller has not decided.
fn refused(body: &CreateTopicsRequest, code: ErrorCode) -> CreateTopicsResponse {
    let topics = body.topics.iter().map(|topic| CreatableTopicResult {
        name: topic.name.clone(),
        error_code: code.code(),
        error_message: deadline::text_of(code),
        configs: Some(Vec::new()),
        ..Default::default()
    });
    CreateTopicsResponse { topics: topics.collect(), ..Default::default() }
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
        let late = refused(&body, ErrorCode::RequestTimedOut);
        assert_eq!(late.topics[0].name, "t");
        for version in CreateTopicsResponse::VERSIONS {
            created.encoded(version).unwrap();
            late.encoded(version).unwrap();
        }
    }
}
