//! AlterConfigs (key 33): replaces all values of a resource; what is not named is deleted.

use klamm_metadata::alter_configs::{Checked, check_legacy, forwarded_legacy, join_legacy};
use klamm_metadata::image::configs::ConfigResourceType;
use klamm_protocol::messages::alter_configs_request::AlterConfigsRequest;
use klamm_protocol::messages::alter_configs_response::{
    AlterConfigsResourceResponse, AlterConfigsResponse,
};

use crate::api::context::Context;
use crate::api::forwarding;
use crate::api::request::{Request, RequestError};
use crate::api::services::Services;
use crate::config::dynamic::{ChangeRefusal, check_change};
use crate::controller::channel::{ChannelError, ControllerRequest};
use crate::net::response::Response;

pub(crate) async fn handle(context: Context, request: Request) -> Result<Response, RequestError> {
    let body: AlterConfigsRequest = request.decode()?;
    let services = &context.services;
    let mut checked = check_legacy(&body, services.config.node_id);
    let refused = check_brokers(services, &body, &mut checked);
    let decided = decide(&context, &request, forwarded_legacy(&body, &checked)).await;
    let mut response = join_legacy(&body, &checked, &decided);
    for (index, refusal) in refused {
        response.responses[index].error_code = refusal.code().code();
        response.responses[index].error_message = Some(refusal.to_string().into());
    }
    request.respond(&response)
}

/// Looks whether this broker could live with a change of its configuration; returns what it refuses
/// by the place in the request.
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
            check_change(&services.config.current(), &values.collect(), per_broker)
        {
            *checked = Checked::Here;
            refused.push((index, refusal));
        }
    }
    refused
}

/// As a controller answers it on its own listener: everything is decided there.
pub(crate) async fn handle_on_controller(
    context: Context,
    request: Request,
) -> Result<Response, RequestError> {
    let body: AlterConfigsRequest = request.decode()?;
    let (asked, is_forwarded) = (body.clone(), context.is_forwarded);
    let decided = context
        .services
        .controller
        .decide_held(AlterConfigsRequest::HELD_UNTIL, move |controller, _| {
            controller.on_alter_configs(&asked, is_forwarded)
        });
    request.respond(&decided.await.unwrap_or_else(|error| body.refused(error.code())))
}

async fn decide(
    context: &Context,
    request: &Request,
    forwarded: AlterConfigsRequest,
) -> AlterConfigsResponse {
    if forwarded.resources.is_empty() {
        return AlterConfigsResponse::default();
    }
    let decided = forwarding::forward_rest(context, request, forwarded.clone()).await;
    decided.unwrap_or_else(|error| refused(&forwarded, &error))
}

/// The controller could not be asked: nothing has changed, and every resource is told why.
fn refused(forwarded: &AlterConfigsRequest, error: &ChannelError) -> AlterConfigsResponse {
    let responses = forwarded.resources.iter().map(|resource| AlterConfigsResourceResponse {
        error_code: error.code().code(),
        error_message: Some(error.to_string().into()),
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

    #[test]
    fn a_resource_learns_in_every_version_that_the_controller_is_busy() {
        let resource = AlterConfigsResource { resource_name: "t".into(), ..Default::default() };
        let body = AlterConfigsRequest { resources: vec![resource], validate_only: false };
        let response = refused(&body, &ChannelError::NoController);
        assert_eq!(response.responses[0].error_code, ChannelError::NoController.code().code());
        for version in AlterConfigsResponse::VERSIONS {
            response.encoded(version).unwrap();
        }
    }
}
