//! UpdateFeatures (key 57): feature levels of the cluster go up and, with permission, down (KIP-584).
//! Kafka has never looked at the request's timeout.

use klamm_protocol::messages::update_features_request::UpdateFeaturesRequest;
use klamm_protocol::messages::update_features_response::UpdateFeaturesResponse;

use crate::controller::handle::ControllerError;
use crate::net::connection::Context;
use crate::net::request::{ConnectionError, Request};
use crate::net::response::Response;

pub(crate) async fn handle(
    context: Context,
    request: Request,
) -> Result<Response, ConnectionError> {
    let body: UpdateFeaturesRequest = request.decode()?;
    let updated =
        context.node.controller.decide(move |controller, _| controller.on_update_features(&body));
    request.respond(&updated.await.unwrap_or_else(refused))
}

fn refused(error: ControllerError) -> UpdateFeaturesResponse {
    UpdateFeaturesResponse {
        error_code: error.code().code(),
        error_message: Some(error.to_string().into()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;
    use klamm_protocol::messages::update_features_response::UpdatableFeatureResult;

    use super::*;

    #[test]
    fn every_version_carries_the_answer() {
        let mut answer = refused(ControllerError::NotController);
        let result = UpdatableFeatureResult { feature: "f".into(), ..Default::default() };
        answer.results.push(result);
        for version in UpdateFeaturesResponse::VERSIONS {
            answer.encoded(version).unwrap();
        }
    }
}
