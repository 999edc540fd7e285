//! CreatePartitions (key 37): topics get more partitions.

use std::sync::Arc;

use klamm_metadata::random::Random;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_partitions_request::CreatePartitionsRequest;
use klamm_protocol::messages::create_partitions_response::{
    CreatePartitionsResponse, CreatePartitionsTopicResult,
};

use crate::api::context::Context;
use crate::api::request::{Request, RequestError};
use crate::controller::deadline;
use crate::net::response::Response;
use crate::random;

pub(crate) async fn handle(context: Context, request: Request) -> Result<Response, RequestError> {
    let body: Arc<CreatePartitionsRequest> = Arc::new(request.decode()?);
    let asked = Arc::clone(&body);
    let mut random = Random::from_seed(random::bytes());
    let created =
        context.services.controller.decide_within(body.timeout_ms, move |controller, _| {
            controller.on_create_partitions(&asked, &|_| true, &mut random)
        });
    let answer = created.await.unwrap_or_else(|code| refused(&body, code));
    request.respond(&answer)
}

/// The controller has not decided.
fn refused(body: &CreatePartitionsRequest, code: ErrorCode) -> CreatePartitionsResponse {
    let results = body.topics.iter().map(|topic| CreatePartitionsTopicResult {
        name: topic.name.clone(),
        error_code: code.code(),
        error_message: deadline::text_of(code),
    });
    CreatePartitionsResponse { results: results.collect(), ..Default::default() }
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
        let late = refused(&body, ErrorCode::RequestTimedOut);
        assert_eq!(late.results[0].name, "t");
        for version in CreatePartitionsResponse::VERSIONS {
            late.encoded(version).unwrap();
        }
    }
}
