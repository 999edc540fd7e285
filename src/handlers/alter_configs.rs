//! AlterConfigs (key 33): replaces all values of a resource; what is not named is deleted.

use klamm_metadata::alter_configs::{check_legacy, forwarded_legacy, join_legacy};
use klamm_protocol::messages::alter_configs_request::AlterConfigsRequest;
use klamm_protocol::messages::alter_configs_response::{
    AlterConfigsResourceResponse, AlterConfigsResponse,
};

use crate::controller::handle::ControllerError;
use crate::net::connection::Context;
use crate::net::request::{ConnectionError, Request};
use crate::net::response::Response;
use crate::node::Node;

pub(crate) async fn handle(
    context: Context,
    request: Request,
) -> Result<Response, ConnectionError> {
    let body: AlterConfigsRequest = request.decode()?;
    let checked = check_legacy(&body, context.node.config.node_id);
    let decided = decide(&context.node, forwarded_legacy(&body, &checked)).await;
    request.respond(&join_legacy(&body, &checked, &decided))
}

async fn decide(node: &Node, forwarded: AlterConfigsRequest) -> AlterConfigsResponse {
    if forwarded.resources.is_empty() {
        return AlterConfigsResponse::default();
    }
    let asked = forwarded.clone();
    let decided = node
        .controller
        .decide(move |controller, _| controller.on_alter_configs(&asked, true))
        .await;
    decided.unwrap_or_else(|error| refused(&forwarded, error))
}

/// The controller could not be asked: nothing has changed, and every resource is told why.
fn refused(forwarded: &AlterConfigsRequest, error: ControllerError) -> AlterConfigsResponse {
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
        let response = refused(&body, ControllerError::Busy);
        assert_eq!(response.responses[0].error_code, ControllerError::Busy.code().code());
        for version in AlterConfigsResponse::VERSIONS {
            response.encoded(version).unwrap();
        }
    }
}
