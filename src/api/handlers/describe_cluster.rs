//! DescribeCluster (key 60): the brokers, as reached on the client's listener (KIP-700, KIP-1073).

use klamm_metadata::metadata_version::MetadataVersion;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::or_minus_one;
use klamm_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use klamm_protocol::messages::describe_cluster_response::{
    DescribeClusterBroker, DescribeClusterResponse,
};

use crate::api::authorized_operations::{ALL_OF_CLUSTER, NOT_REQUESTED};
use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::metadata_cache::PublishedImage;
use crate::net::service::ListenerKind;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;
/// The first version that asks for brokers or controllers.
const FIRST_WITH_ENDPOINT_TYPES: i16 = 1;

message_replies!(DescribeClusterResponse);

pub(crate) fn handle(
    context: &RequestContext,
    body: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let image = context.services.metadata_cache.image();
    let services = &context.services;
    // A controller that has just started has no metadata.version yet.
    let metadata_version = image.features.metadata_version();
    let refused = refusal(context.kind(), metadata_version, body.endpoint_type, context.version());
    if let Some(refused) = refused {
        return refused;
    }
    let mut answer = match context.kind() {
        ListenerKind::Broker => {
            describe(&image, &body, context.listener(), services.config.node_id)
        }
        ListenerKind::Controller => {
            let leader_id = services.controller.leader().borrow().id;
            describe_controllers(&image, &body, context.listener(), leader_id)
        }
    };
    answer.cluster_id = services.cluster_id.clone();
    answer
}

/// The controllers that have registered (KIP-919). The active one is named only if it has registered: otherwise a
/// client could not reach it.
fn describe_controllers(
    image: &PublishedImage,
    body: &DescribeClusterRequest,
    listener: &str,
    leader_id: Option<i32>,
) -> DescribeClusterResponse {
    let alive = image.controllers.iter().filter_map(|controller| {
        let endpoint = controller.listeners.get(listener)?;
        Some(DescribeClusterBroker {
            broker_id: controller.id,
            host: endpoint.host.clone(),
            port: i32::from(endpoint.port),
            ..Default::default()
        })
    });
    let brokers: Vec<_> = alive.collect();
    let is_listed = |id: &i32| brokers.iter().any(|controller| controller.broker_id == *id);
    DescribeClusterResponse {
        controller_id: or_minus_one(leader_id.filter(is_listed)),
        brokers,
        cluster_authorized_operations: authorized_operations(body),
        endpoint_type: CONTROLLERS,
        ..Default::default()
    }
}

fn describe(
    image: &PublishedImage,
    body: &DescribeClusterRequest,
    listener: &str,
    node_id: i32,
) -> DescribeClusterResponse {
    let alive = image
        .brokers
        .on(listener)
        .filter(|(broker, _)| body.include_fenced_brokers || !broker.fenced);
    let brokers: Vec<_> = alive
        .map(|(broker, endpoint)| DescribeClusterBroker {
            broker_id: broker.id,
            host: endpoint.host.clone(),
            port: i32::from(endpoint.port),
            rack: broker.rack.clone(),
            is_fenced: broker.fenced,
        })
        .collect();
    DescribeClusterResponse {
        // Clients may send requests for the controller to any broker, so the answer names this one (KIP-590).
        controller_id: or_minus_one(
            Some(node_id).filter(|id| image.brokers.is_reachable(*id, listener)),
        ),
        brokers,
        cluster_authorized_operations: authorized_operations(body),
        endpoint_type: BROKERS,
        ..Default::default()
    }
}

fn authorized_operations(body: &DescribeClusterRequest) -> i32 {
    if body.include_cluster_authorized_operations { ALL_OF_CLUSTER } else { NOT_REQUESTED }
}

/// Why the request is refused, if it is. The texts are Kafka's.
fn refusal(
    kind: ListenerKind,
    metadata_version: Option<MetadataVersion>,
    endpoint_type: i8,
    version: i16,
) -> Option<DescribeClusterResponse> {
    let is_too_old = metadata_version.is_some_and(|at| !at.is_controller_registration_supported());
    // At a metadata.version without controller registration, an admin client would look for the active controller for
    // ever.
    if kind == ListenerKind::Controller && is_too_old {
        let text =
            "Direct-to-controller communication is not supported with the current MetadataVersion.";
        return Some(refused(ErrorCode::UnsupportedVersion, text.to_owned()));
    }
    let (here, wanted, served) = match kind {
        ListenerKind::Broker => ("BROKER", "CONTROLLER", BROKERS),
        ListenerKind::Controller => ("CONTROLLER", "BROKER", CONTROLLERS),
    };
    let (code, text) = match endpoint_type {
        asked if asked == served => return None,
        BROKERS | CONTROLLERS => {
            let text = format!(
                "The request was sent to an endpoint of type {here}, but we wanted an endpoint of type {wanted}"
            );
            (ErrorCode::MismatchedEndpointType, text)
        }
        unknown => {
            let text = format!("Unsupported endpoint type {unknown}");
            (ErrorCode::UnsupportedEndpointType, text)
        }
    };
    // Version 0 asks for brokers, and has neither of these codes.
    let code = if version < FIRST_WITH_ENDPOINT_TYPES { ErrorCode::InvalidRequest } else { code };
    Some(refused(code, text))
}

fn refused(code: ErrorCode, text: String) -> DescribeClusterResponse {
    DescribeClusterResponse {
        error_code: code.code(),
        error_message: Some(text.into()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;

    use super::*;
    use crate::metadata_cache::testing::{LISTENER, broker, fenced_broker, published};

    fn ids(include_fenced_brokers: bool) -> Vec<(i32, bool)> {
        let image = published(vec![broker(1), fenced_broker(2)]);
        let body = DescribeClusterRequest { include_fenced_brokers, ..Default::default() };
        let response = describe(&image, &body, LISTENER, 1);
        assert_eq!((response.controller_id, response.error_code), (1, 0));
        response.brokers.iter().map(|broker| (broker.broker_id, broker.is_fenced)).collect()
    }

    #[test]
    fn fenced_brokers_are_told_to_who_asks_for_them() {
        assert_eq!(ids(false), [(1, false)]);
        assert_eq!(ids(true), [(1, false), (2, true)]);
    }

    #[test]
    fn only_what_a_client_can_reach_is_its_controller() {
        let image = published(vec![broker(1), fenced_broker(2)]);
        let body = DescribeClusterRequest::default();
        assert_eq!(describe(&image, &body, LISTENER, 2).controller_id, -1);
        assert_eq!(describe(&image, &body, "OTHER", 1).controller_id, -1);
    }

    fn refused_with(
        kind: ListenerKind,
        level: i16,
        endpoint_type: i8,
        version: i16,
    ) -> Option<(ErrorCode, String)> {
        let metadata_version = MetadataVersion::from_level(level);
        let refused = refusal(kind, metadata_version, endpoint_type, version)?;
        let code = ErrorCode::from_code(refused.error_code).unwrap();
        Some((code, refused.error_message.unwrap().to_string()))
    }

    #[test]
    fn the_other_kind_of_nodes_is_described_elsewhere() {
        let newest = MetadataVersion::LATEST.level();
        let answer = |kind, endpoint_type, version| {
            refused_with(kind, newest, endpoint_type, version).unwrap()
        };
        let mismatched = ErrorCode::MismatchedEndpointType;
        let at_broker = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER";
        assert_eq!(answer(ListenerKind::Broker, 2, 1), (mismatched, at_broker.to_owned()));
        let at_controller = "The request was sent to an endpoint of type CONTROLLER, but we wanted an endpoint of type BROKER";
        assert_eq!(answer(ListenerKind::Controller, 1, 1), (mismatched, at_controller.to_owned()));
        for (kind, own) in [(ListenerKind::Broker, 1), (ListenerKind::Controller, 2)] {
            let unknown =
                (ErrorCode::UnsupportedEndpointType, "Unsupported endpoint type -7".to_owned());
            assert_eq!(answer(kind, -7, 2), unknown);
            assert_eq!(refused_with(kind, newest, own, 1), None);
        }
        let oldest = (ErrorCode::InvalidRequest, at_controller.to_owned());
        assert_eq!(answer(ListenerKind::Controller, 1, 0), oldest);
    }

    #[test]
    fn controllers_are_described_from_metadata_version_3_7_on() {
        // 3.6-IV2 and 3.7-IV0.
        let (before, first) = (14, 15);
        let text =
            "Direct-to-controller communication is not supported with the current MetadataVersion.";
        let unsupported = Some((ErrorCode::UnsupportedVersion, text.to_owned()));
        for (endpoint_type, version) in [(2, 1), (2, 2), (1, 0), (1, 1), (-7, 2)] {
            let refused = refused_with(ListenerKind::Controller, before, endpoint_type, version);
            assert_eq!(refused, unsupported);
        }
        assert_eq!(refused_with(ListenerKind::Controller, first, 2, 1), None);
        assert_eq!(refused_with(ListenerKind::Broker, before, 1, 1), None);
        assert!(refusal(ListenerKind::Controller, None, 2, 1).is_none(), "it has just started");
    }

    #[test]
    fn a_controller_that_has_not_registered_is_not_named_as_the_active_one() {
        let image = published(vec![]);
        let body = DescribeClusterRequest::default();
        assert_eq!(describe_controllers(&image, &body, LISTENER, Some(3)).controller_id, -1);
    }

    #[test]
    fn every_version_carries_the_answer() {
        let image = published(vec![broker(1)]);
        let body = DescribeClusterRequest {
            include_cluster_authorized_operations: true,
            ..Default::default()
        };
        for version in DescribeClusterResponse::VERSIONS {
            describe(&image, &body, LISTENER, 1).encoded(version).unwrap();
            refused(ErrorCode::InvalidRequest, "x".to_owned()).encoded(version).unwrap();
        }
    }
}
