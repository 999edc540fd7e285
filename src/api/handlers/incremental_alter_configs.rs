//! IncrementalAlterConfigs (key 44): sets, deletes, appends to and subtracts from values (KIP-339).

use bytestring::ByteString;
use klamm_metadata::alter_configs::{
    Checked, check_incremental, forwarded_incremental, join_incremental, proposed_values,
};
use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_metadata::image::configs::{ConfigResourceType, ConfigsImage};
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;
use klamm_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, IncrementalAlterConfigsRequest,
};
use klamm_protocol::messages::incremental_alter_configs_response::{
    AlterConfigsResourceResponse, IncrementalAlterConfigsResponse,
};

use crate::api::context::RequestContext;
use crate::api::forwarding;
use crate::api::reply::message_replies;
use crate::api::services::Services;
use crate::config::dynamic::check_change;
use crate::controller::handle::HeldUntil;
use crate::controller::request::{ControllerRequest, DecisionContext, error_of_code, refusal_text};
use crate::logging::loggers;

message_replies!(IncrementalAlterConfigsResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let services = &context.services;
    let image = services.metadata_cache.image();
    let mut checked = check_incremental(&body, services.config.node_id, &image.configs);
    let refused = answer_here(services, &image.configs, &body, &mut checked);
    let decided = decide(&context, forwarded_incremental(&body, &checked)).await;
    let mut response = join_incremental(&body, &checked, &decided);
    for (index, (error, message)) in refused {
        response.responses[index].error_code = error.code();
        response.responses[index].error_message = message;
    }
    response
}

/// The handler on the controller's listener: the controller decides all resources, except the log levels of this node.
pub(crate) async fn handle_on_controller(
    context: RequestContext,
    mut body: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let is_logger =
        |r: &AlterConfigsResource| r.resource_type == ConfigResourceType::BrokerLogger.id();
    let (loggers, decided) = body.resources.into_iter().partition(is_logger);
    body.resources = decided;
    let (node_id, validate_only) = (context.services.config.node_id, body.validate_only);
    let mut response = context.decide(body).await;
    let set = loggers.iter().map(|resource| log_levels_set(resource, node_id, validate_only));
    response.responses.extend(set);
    response
}

fn log_levels_set(
    resource: &AlterConfigsResource,
    node_id: BrokerId,
    validate_only: bool,
) -> AlterConfigsResourceResponse {
    let (error, error_message) = match loggers::alter(resource, node_id, validate_only) {
        Ok(()) => (ErrorCode::None, None),
        Err(refusal) => (refusal.code(), refusal.message()),
    };
    AlterConfigsResourceResponse {
        error_code: error.code(),
        error_message,
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
    }
}

/// A resource's position in the request, and the error.
type Refused = (usize, (ErrorCode, Option<ByteString>));

/// Sets the log levels of this broker, and validates changes of its own configuration. Returns the refused resources.
fn answer_here(
    services: &Services,
    configs: &ConfigsImage,
    body: &IncrementalAlterConfigsRequest,
    checked: &mut [Checked],
) -> Vec<Refused> {
    let mut refused = Vec::new();
    for (index, (resource, checked)) in body.resources.iter().zip(checked).enumerate() {
        let is_broker = resource.resource_type == ConfigResourceType::Broker.id();
        let refusal = match checked {
            Checked::Here => loggers::alter(resource, services.config.node_id, body.validate_only)
                .err()
                .map(|refusal| (refusal.code(), refusal.message())),
            Checked::Forward if is_broker => check_broker(services, configs, resource).err(),
            Checked::Forward | Checked::Refused(_) => None,
        };
        if let Some(refusal) = refusal {
            *checked = Checked::Here;
            refused.push((index, refusal));
        }
    }
    refused
}

fn check_broker(
    services: &Services,
    configs: &ConfigsImage,
    resource: &AlterConfigsResource,
) -> Result<(), (ErrorCode, Option<ByteString>)> {
    let proposed = proposed_values(resource, configs)
        .map_err(|refusal| (refusal.code(), Some(refusal.to_string().into())))?;
    check_change(&services.config.current().configs, &proposed, !resource.resource_name.is_empty())
        .map_err(|refusal| (refusal.code(), Some(refusal.to_string().into())))
}

impl ControllerRequest for IncrementalAlterConfigsRequest {
    type Response = IncrementalAlterConfigsResponse;

    const HELD_UNTIL: HeldUntil = HeldUntil::Published;

    fn decide(
        &self,
        controller: &mut Controller,
        context: &DecisionContext,
    ) -> Outcome<Self::Response> {
        let is_checked = context.origin.is_forwarded;
        controller.on_incremental_alter_configs(self, is_checked)
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

async fn decide(
    context: &RequestContext,
    forwarded: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    if forwarded.resources.is_empty() {
        return IncrementalAlterConfigsResponse::default();
    }
    let decided = forwarding::forward_rest(context, forwarded.clone()).await;
    decided
        .unwrap_or_else(|error| refused(&forwarded, error.code(), Some(error.to_string().into())))
}

/// The controller made no decision: no resource has changed, and each gets the error.
fn refused(
    body: &IncrementalAlterConfigsRequest,
    error: ErrorCode,
    error_message: Option<ByteString>,
) -> IncrementalAlterConfigsResponse {
    let responses = body.resources.iter().map(|resource| AlterConfigsResourceResponse {
        error_code: error.code(),
        error_message: error_message.clone(),
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
    });
    IncrementalAlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;

    use super::*;
    use crate::controller::channel::ChannelError;

    #[test]
    fn log_levels_of_another_node_are_refused_with_its_name() {
        let resource = AlterConfigsResource {
            resource_type: ConfigResourceType::BrokerLogger.id(),
            resource_name: "2".into(),
            ..Default::default()
        };
        let refused = log_levels_set(&resource, 1, false);
        assert_eq!(refused.error_code, ErrorCode::InvalidRequest.code());
        assert_eq!((refused.resource_type, &*refused.resource_name), (8, "2"));
        assert_eq!(log_levels_set(&resource, 2, false).error_code, ErrorCode::None.code());
    }

    #[test]
    fn every_resource_learns_that_the_controller_is_not_there() {
        let resource = |name: &str| AlterConfigsResource {
            resource_type: 2,
            resource_name: name.into(),
            ..Default::default()
        };
        let resources = vec![resource("a"), resource("b")];
        let body = IncrementalAlterConfigsRequest { resources, validate_only: false };
        let error = ChannelError::NoController;
        let response = refused(&body, error.code(), Some(error.to_string().into()));
        let names: Vec<_> = response.responses.iter().map(|r| &*r.resource_name).collect();
        assert_eq!(names, ["a", "b"]);
        let code = ChannelError::NoController.code().code();
        assert!(response.responses.iter().all(|r| r.error_code == code));
        for version in IncrementalAlterConfigsResponse::VERSIONS {
            response.encoded(version).unwrap();
        }
    }
}
