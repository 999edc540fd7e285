//! AlterConfigs (key 33): replaces all values of a resource; keys that the request does not name are deleted.

use bytestring::ByteString;
use klamm_metadata::alter_configs::{Checked, check_legacy, forwarded_legacy, join_legacy};
use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_metadata::image::configs::ConfigResourceType;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::alter_configs_request::AlterConfigsRequest;
use klamm_protocol::messages::alter_configs_response::{
    AlterConfigsResourceResponse, AlterConfigsResponse,
};

use crate::api::context::RequestContext;
use crate::api::forwarding;
use crate::api::reply::message_replies;
use crate::api::services::Services;
use crate::config::dynamic::{ChangeRefusal, check_change};
use crate::controller::handle::HeldUntil;
use crate::controller::request::{ControllerRequest, DecisionContext, error_of_code, refusal_text};

message_replies!(AlterConfigsResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let services = &context.services;
    let mut checked = check_legacy(&body, services.config.node_id);
    let refused = check_brokers(services, &body, &mut checked);
    let decided = decide(&context, forwarded_legacy(&body, &checked)).await;
    let mut response = join_legacy(&body, &checked, &decided);
    for (index, refusal) in refused {
        response.responses[index].error_code = refusal.code().code();
        response.responses[index].error_message = Some(refusal.to_string().into());
    }
    response
}

/// Validates changes of this broker's own configuration; returns the refused resources by their position in the
/// request.
fn check_brokers(
    services: &Services,
    body: &AlterConfigsRequest,
    checked: &mut [Checked],
) -> Vec<(usize, ChangeRefusal)> {
    let mut refused = Vec::new();
    for (index, (resource, checked)) in body.resources.iter().zip(checked).enumerate() {
        let is_broker = resource.resource_type == ConfigResourceType::Broker.id();
        if *checked != Checked::Forward || !is_broker {
            continue;
        }
        let values = resource.configs.iter();
        let values = values.filter_map(|config| Some((config.name.clone(), config.value.clone()?)));
        let per_broker = !resource.resource_name.is_empty();
        if let Err(refusal) =
            check_change(&services.config.current().configs, &values.collect(), per_broker)
        {
            *checked = Checked::Here;
            refused.push((index, refusal));
        }
    }
    refused
}

/// The handler on the controller's listener: the controller decides all resources.
pub(crate) async fn handle_on_controller(
    context: RequestContext,
    body: AlterConfigsRequest,
) -> AlterConfigsResponse {
    context.decide(body).await
}

impl ControllerRequest for AlterConfigsRequest {
    type Response = AlterConfigsResponse;

    const HELD_UNTIL: HeldUntil = HeldUntil::Published;

    fn decide(
        &self,
        controller: &mut Controller,
        context: &DecisionContext,
    ) -> Outcome<Self::Response> {
        let is_checked = context.origin.is_forwarded;
        controller.on_alter_configs(self, is_checked)
    }

    fn refused(&self, error: ErrorCode) -> Self::Response {
        refused(self, error, refusal_text(error))
    }

    fn error_of(response: &Self::Response) -> ErrorCode {
        response
            .responses
            .first()
            .map_or(ErrorCode::None, |resource| error_of_code(resource.error_code))
    }
}

async fn decide(context: &RequestContext, forwarded: AlterConfigsRequest) -> AlterConfigsResponse {
    if forwarded.resources.is_empty() {
        return AlterConfigsResponse::default();
    }
    let decided = forwarding::forward_rest(context, forwarded.clone()).await;
    decided
        .unwrap_or_else(|error| refused(&forwarded, error.code(), Some(error.to_string().into())))
}

/// The controller made no decision: no resource has changed, and each gets the error.
fn refused(
    body: &AlterConfigsRequest,
    error: ErrorCode,
    error_message: Option<ByteString>,
) -> AlterConfigsResponse {
    let responses = body.resources.iter().map(|resource| AlterConfigsResourceResponse {
        error_code: error.code(),
        error_message: error_message.clone(),
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
    });
    AlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;
    use klamm_protocol::messages::alter_configs_request::AlterConfigsResource;

    use super::*;
    use crate::controller::channel::ChannelError;

    #[test]
    fn a_resource_learns_in_every_version_that_the_controller_is_busy() {
        let resource = AlterConfigsResource { resource_name: "t".into(), ..Default::default() };
        let body = AlterConfigsRequest { resources: vec![resource], validate_only: false };
        let error = ChannelError::NoController;
        let response = refused(&body, error.code(), Some(error.to_string().into()));
        assert_eq!(response.responses[0].error_code, ChannelError::NoController.code().code());
        for version in AlterConfigsResponse::VERSIONS {
            response.encoded(version).unwrap();
        }
    }
}
