//! UpdateFeatures (key 57): upgrades and, if the request allows it, downgrades feature levels of the cluster (KIP-584).
//! Kafka ignores the request's timeout.

use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::update_features_request::UpdateFeaturesRequest;
use klamm_protocol::messages::update_features_response::{
    UpdatableFeatureResult, UpdateFeaturesResponse,
};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::cluster::features::KRAFT_VERSION;
use crate::controller::handle::HeldUntil;
use crate::controller::request::{ControllerRequest, DecisionContext, error_of_code};

/// `FeatureUpdate.UpgradeType.UPGRADE`
const UPGRADE: i8 = 1;

message_replies!(UpdateFeaturesResponse);

pub(crate) async fn handle(
    context: RequestContext,
    mut body: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let raised =
        take_kraft_upgrade(&mut body, context.services.metadata_cache.image().kraft_version);
    if let Some((_, to)) = raised
        && let Some(refusal) = upgrade(&context, to, true).await
    {
        return refusal;
    }
    let validate_only = body.validate_only;
    let mut response = context.decide(body).await;
    if let Some((position, to)) = raised
        && response.error_code == ErrorCode::None.code()
    {
        if let Some(refusal) = upgrade(&context, to, validate_only).await {
            return refusal;
        }
        let result = UpdatableFeatureResult {
            feature: KRAFT_VERSION.into(),
            error_code: ErrorCode::None.code(),
            error_message: Some("NONE".into()),
        };
        response.results.insert(position, result);
    }
    response
}

/// Removes an upgrade of kraft.version from the request; returns its position and the level. The quorum decides it, the
/// controller all others.
fn take_kraft_upgrade(body: &mut UpdateFeaturesRequest, current: i16) -> Option<(usize, i16)> {
    let position = body.feature_updates.iter().position(|update| {
        update.feature == KRAFT_VERSION
            && update.upgrade_type == UPGRADE
            && update.max_version_level > current
    })?;
    Some((position, body.feature_updates.remove(position).max_version_level))
}

/// Sends the upgrade of kraft.version to the quorum, or only validates it; returns the response if it is refused.
async fn upgrade(
    context: &RequestContext,
    to: i16,
    validate_only: bool,
) -> Option<UpdateFeaturesResponse> {
    let upgraded = context.services.controller.upgrade_kraft_version(to, validate_only).await;
    let (code, reason) = match upgraded {
        Ok(Ok(())) => return None,
        Ok(Err(refusal)) => (refusal.code(), refusal.to_string()),
        Err(error) => return Some(refused(error.code())),
    };
    let text = format!(
        "The update failed for all features since the following feature had an error: {reason}"
    );
    let error_code = code.code();
    let error_message = Some(text.into());
    Some(UpdateFeaturesResponse { error_code, error_message, ..Default::default() })
}

/// The response if no decision was made.
fn refused(code: ErrorCode) -> UpdateFeaturesResponse {
    let error_message = Some(code.message().into());
    UpdateFeaturesResponse { error_code: code.code(), error_message, ..Default::default() }
}

impl ControllerRequest for UpdateFeaturesRequest {
    type Response = UpdateFeaturesResponse;

    const HELD_UNTIL: HeldUntil = HeldUntil::Published;

    fn decide(
        &self,
        controller: &mut Controller,
        _: &DecisionContext,
    ) -> Outcome<UpdateFeaturesResponse> {
        controller.on_update_features(self)
    }

    fn refused(&self, code: ErrorCode) -> UpdateFeaturesResponse {
        refused(code)
    }

    fn error_of(response: &UpdateFeaturesResponse) -> ErrorCode {
        error_of_code(response.error_code)
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;

    use super::*;

    #[test]
    fn every_version_carries_the_answer() {
        let mut answer = refused(ErrorCode::NotController);
        let result = UpdatableFeatureResult { feature: "f".into(), ..Default::default() };
        answer.results.push(result);
        for version in UpdateFeaturesResponse::VERSIONS {
            answer.encoded(version).unwrap();
        }
    }
}
