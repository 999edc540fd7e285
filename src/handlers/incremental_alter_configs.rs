//! IncrementalAlterConfigs (key 44): sets, deletes, appends to and subtracts from values (KIP-339).

use klamm_metadata::alter_configs::{
    Checked, check_incremental, forwarded_incremental, join_incremental,
};
use klamm_protocol::messages::incremental_alter_configs_request::IncrementalAlterConfigsRequest;
use klamm_protocol::messages::incremental_alter_configs_response::{
    AlterConfigsResourceResponse, IncrementalAlterConfigsResponse,
};

use crate::controller::handle::ControllerError;
use crate::logging::loggers::{self, LoggerRefusal};
use crate::net::connection::Context;
use crate::net::request::{ConnectionError, Request};
use crate::net::response::Response;
use crate::node::Node;

pub(crate) async fn handle(
    context: Context,
    request: Request,
) -> Result<Response, ConnectionError> {
    let body: IncrementalAlterConfigsRequest = request.decode()?;
    let node = &context.node;
    let node_id = node.config.node_id;
    let checked = check_incremental(&body, node_id, &node.cluster.image().configs);
    let refused_loggers = alter_loggers(&body, &checked, node_id);
    let decided = decide(node, forwarded_incremental(&body, &checked)).await;
    let mut response = join_incremental(&body, &checked, &decided);
    for (index, refusal) in refused_loggers {
        response.responses[index].error_code = refusal.code().code();
        response.responses[index].error_message = Some(refusal.to_string().into());
    }
    request.respond(&response)
}

/// Carries out what concerns this broker's loggers; returns what was refused, by place.
fn alter_loggers(
    body: &IncrementalAlterConfigsRequest,
    checked: &[Checked],
    node_id: i32,
) -> Vec<(usize, LoggerRefusal)> {
    let of_loggers = body.resources.iter().zip(checked).enumerate();
    let of_loggers = of_loggers.filter(|(_, (_, checked))| **checked == Checked::Logger);
    let refused = of_loggers.filter_map(|(index, (resource, _))| {
        let altered = loggers::alter(resource, node_id, body.validate_only);
        altered.err().map(|refusal| (index, refusal))
    });
    refused.collect()
}

async fn decide(
    node: &Node,
    forwarded: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    if forwarded.resources.is_empty() {
        return IncrementalAlterConfigsResponse::default();
    }
    let asked = forwarded.clone();
    let decided = node
        .controller
        .decide(move |controller, _| controller.on_incremental_alter_configs(&asked, true))
        .await;
    decided.unwrap_or_else(|error| refused(&forwarded, error))
}

/// The controller could not be asked: nothing has changed, and every resource is told why.
fn refused(
    forwarded: &IncrementalAlterConfigsRequest,
    error: ControllerError,
) -> IncrementalAlterConfigsResponse {
    let responses = forwarded.resources.iter().map(|resource| AlterConfigsResourceResponse {
        error_code: error.code().code(),
        error_message: Some(error.to_string().into()),
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
    });
    IncrementalAlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;
    use klamm_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;

    use super::*;

    #[test]
    fn every_resource_learns_that_the_controller_is_not_there() {
        let resource = |name: &str| AlterConfigsResource {
            resource_type: 2,
            resource_name: name.into(),
            ..Default::default()
        };
        let resources = vec![resource("a"), resource("b")];
        let body = IncrementalAlterConfigsRequest { resources, validate_only: false };
        let response = refused(&body, ControllerError::NotController);
        let names: Vec<_> = response.responses.iter().map(|r| &*r.resource_name).collect();
        assert_eq!(names, ["a", "b"]);
        let code = ControllerError::NotController.code().code();
        assert!(response.responses.iter().all(|r| r.error_code == code));
        for version in IncrementalAlterConfigsResponse::VERSIONS {
            response.encoded(version).unwrap();
        }
    }
}
