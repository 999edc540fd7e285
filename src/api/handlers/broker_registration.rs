//! BrokerRegistration (key 62): a broker joins its cluster (KIP-631).

use klamm_metadata::controller::Controller;
use klamm_metadata::controller::broker_registration::RegistrationError;
use klamm_metadata::controller::outcome::Outcome;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::broker_registration_request::BrokerRegistrationRequest;
use klamm_protocol::messages::broker_registration_response::BrokerRegistrationResponse;
use tracing::{debug, info, warn};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::controller::request::{ControllerRequest, DecisionContext, error_of_code};

/// The first version with the previous broker epoch, by which the controller knows whether the last shutdown was clean
/// (KIP-966).
const FIRST_WITH_PREVIOUS_EPOCH: i16 = 3;

message_replies!(BrokerRegistrationResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: BrokerRegistrationRequest,
) -> BrokerRegistrationResponse {
    context.decide(body).await
}

impl ControllerRequest for BrokerRegistrationRequest {
    type Response = BrokerRegistrationResponse;

    fn decide(
        &self,
        controller: &mut Controller,
        context: &DecisionContext,
    ) -> Outcome<Self::Response> {
        let clean = context.origin.version >= FIRST_WITH_PREVIOUS_EPOCH;
        let (next_offset, now_ms) = (context.next_offset, context.now_ms);
        let Outcome { records, atomic, response } =
            controller.on_broker_registration(self, clean, next_offset, now_ms);
        let response = match response {
            Ok(response) => {
                let (id, epoch) = (self.broker_id, response.broker_epoch);
                info!(broker = id, "broker {id} registers with epoch {epoch}");
                response
            }
            Err(refusal) => {
                // The response has no field for a reason, so it is logged here. DUPLICATE_BROKER_REGISTRATION is
                // logged by the broker, which retries until its previous registration has expired.
                let id = self.broker_id;
                match refusal {
                    RegistrationError::DuplicateBroker => {
                        debug!(broker = id, "broker {id}: {refusal}")
                    }
                    _ => warn!("the registration of broker {id} is refused: {refusal}"),
                }
                self.refused(refusal.code())
            }
        };
        Outcome { records, atomic, response }
    }

    fn refused(&self, error: ErrorCode) -> Self::Response {
        let error_code = error.code();
        BrokerRegistrationResponse { error_code, broker_epoch: -1, ..Default::default() }
    }

    fn error_of(response: &Self::Response) -> ErrorCode {
        error_of_code(response.error_code)
    }
}
