//! ControllerRegistration (API 70): a controller registers its endpoints and supported features (KIP-919).

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::controller_registration_request::ControllerRegistrationRequest;
use klamm_protocol::messages::controller_registration_response::ControllerRegistrationResponse;
use klamm_protocol::messages::register_controller_record::{
    ControllerEndpoint, ControllerFeature, RegisterControllerRecord,
};
use klamm_protocol::metadata_record::MetadataRecord;

use super::Controller;
use super::outcome::Outcome;
use crate::image::brokers::SecurityProtocol;

impl Controller {
    /// Registers a controller.
    pub fn on_controller_registration(
        &self,
        request: &ControllerRegistrationRequest,
    ) -> Outcome<ControllerRegistrationResponse> {
        let refused = |code: ErrorCode, message: &'static str| {
            Outcome::answer(ControllerRegistrationResponse {
                error_code: code.code(),
                error_message: Some(message.into()),
                ..Default::default()
            })
        };
        if !self.image().metadata_version().is_controller_registration_supported() {
            return refused(
                ErrorCode::UnsupportedVersion,
                "The current MetadataVersion is too old to support controller registrations.",
            );
        }
        let known = |id| SecurityProtocol::from_id(id).is_some();
        if !request.listeners.iter().all(|listener| known(listener.security_protocol)) {
            return refused(
                ErrorCode::UnknownServerError,
                "A listener has a security protocol that is not known.",
            );
        }
        let record = MetadataRecord::RegisterController(record(request));
        Outcome::atomic(vec![record], ControllerRegistrationResponse::default())
    }
}

fn record(request: &ControllerRegistrationRequest) -> RegisterControllerRecord {
    let endpoints = request.listeners.iter().map(|listener| ControllerEndpoint {
        name: listener.name.clone(),
        host: listener.host.clone(),
        port: listener.port,
        security_protocol: listener.security_protocol,
    });
    let features = request.features.iter().map(|feature| ControllerFeature {
        name: feature.name.clone(),
        min_supported_version: feature.min_supported_version,
        max_supported_version: feature.max_supported_version,
    });
    RegisterControllerRecord {
        controller_id: request.controller_id,
        incarnation_id: request.incarnation_id,
        zk_migration_ready: false,
        end_points: endpoints.collect(),
        features: features.collect(),
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::controller_registration_request::Listener;

    use super::*;
    use crate::controller::testing::Testbed;

    fn request(security_protocol: i16) -> ControllerRegistrationRequest {
        let listener =
            Listener { name: "CONTROLLER".into(), host: "h".into(), port: 9093, security_protocol };
        let listeners = vec![listener];
        ControllerRegistrationRequest { controller_id: 3, listeners, ..Default::default() }
    }

    #[test]
    fn a_controller_is_known_once_it_registered() {
        let mut testbed = Testbed::new(&[]);
        let outcome = testbed.controller.on_controller_registration(&request(0));
        // On success Kafka's message is empty, not null.
        assert_eq!(testbed.apply(outcome).error_message.as_deref(), Some(""));
        let controller = testbed.controller.image().controllers.get(3).unwrap();
        assert_eq!(controller.listeners["CONTROLLER"].port, 9093);
    }

    #[test]
    fn unknown_protocols_and_old_clusters_are_refused() {
        let mut testbed = Testbed::new(&[]);
        let code = |testbed: &Testbed, protocol| {
            let outcome = testbed.controller.on_controller_registration(&request(protocol));
            assert_eq!(outcome.records, []);
            outcome.response.error_code
        };
        assert_eq!(code(&testbed, 7), ErrorCode::UnknownServerError.code());
        testbed.finalize("metadata.version", 14);
        assert_eq!(code(&testbed, 0), ErrorCode::UnsupportedVersion.code());
    }
}
