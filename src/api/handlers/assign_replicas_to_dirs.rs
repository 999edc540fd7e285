//! AssignReplicasToDirs (key 73): a broker reports the log directories of its replicas (KIP-858).

use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::assign_replicas_to_dirs_request::AssignReplicasToDirsRequest;
use klamm_protocol::messages::assign_replicas_to_dirs_response::AssignReplicasToDirsResponse;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::controller::request::{ControllerRequest, DecisionContext, error_of_code};

message_replies!(AssignReplicasToDirsResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: AssignReplicasToDirsRequest,
) -> AssignReplicasToDirsResponse {
    context.decide(body).await
}

impl ControllerRequest for AssignReplicasToDirsRequest {
    type Response = AssignReplicasToDirsResponse;

    fn decide(&self, controller: &mut Controller, _: &DecisionContext) -> Outcome<Self::Response> {
        controller.on_assign_replicas_to_dirs(self)
    }

    fn refused(&self, error: ErrorCode) -> Self::Response {
        AssignReplicasToDirsResponse { error_code: error.code(), ..Default::default() }
    }

    fn error_of(response: &Self::Response) -> ErrorCode {
        error_of_code(response.error_code)
    }
}
