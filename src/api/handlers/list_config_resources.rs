//! ListConfigResources (key 74): the resources that have a configuration (KIP-1142); in version 0 only client metrics
//! subscriptions.

use bytestring::ByteString;
use klamm_metadata::image::configs::ConfigResourceType;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::list_config_resources_request::ListConfigResourcesRequest;
use klamm_protocol::messages::list_config_resources_response::{
    ConfigResource, ListConfigResourcesResponse,
};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::metadata_cache::PublishedImage;

/// The types of version 0 and of all later ones, in the order of Kafka's answer.
const FIRST_TYPES: &[ConfigResourceType] = &[ConfigResourceType::ClientMetrics];
const TYPES: &[ConfigResourceType] = &[
    ConfigResourceType::Group,
    ConfigResourceType::ClientMetrics,
    ConfigResourceType::BrokerLogger,
    ConfigResourceType::Broker,
    ConfigResourceType::Topic,
];

message_replies!(ListConfigResourcesResponse);

pub(crate) fn handle(
    context: &RequestContext,
    body: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let image = context.services.metadata_cache.image();
    match wanted_types(&body.resource_types, context.version()) {
        Some(types) => {
            let resources = types.iter().flat_map(|type_| list(&image, context.listener(), *type_));
            let config_resources = resources.collect();
            ListConfigResourcesResponse { config_resources, ..Default::default() }
        }
        None => {
            let error_code = ErrorCode::UnsupportedVersion.code();
            ListConfigResourcesResponse { error_code, ..Default::default() }
        }
    }
}

/// The types to list, each once; an empty list means all. `None` if this version lacks one of them.
fn wanted_types(ids: &[i8], version: i16) -> Option<Vec<ConfigResourceType>> {
    let known = if version == 0 { FIRST_TYPES } else { TYPES };
    if ids.iter().any(|id| known.iter().all(|type_| type_.id() != *id)) {
        return None;
    }
    let is_wanted = |type_: &&ConfigResourceType| ids.is_empty() || ids.contains(&type_.id());
    Some(known.iter().filter(is_wanted).copied().collect())
}

fn list(image: &PublishedImage, listener: &str, type_: ConfigResourceType) -> Vec<ConfigResource> {
    let named =
        |resource_name: ByteString| ConfigResource { resource_name, resource_type: type_.id() };
    match type_ {
        ConfigResourceType::Topic => {
            image.topics.iter().map(|topic| named(topic.name.clone())).collect()
        }
        ConfigResourceType::Broker | ConfigResourceType::BrokerLogger => {
            let brokers = image.brokers.alive_on(listener);
            brokers.map(|(broker, _)| named(broker.id.to_string().into())).collect()
        }
        ConfigResourceType::ClientMetrics | ConfigResourceType::Group => {
            let configured = image.configs.iter().filter(|(resource, _)| resource.type_ == type_);
            configured.map(|(resource, _)| named(resource.name.clone())).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;

    use super::*;

    #[test]
    fn no_types_means_all_that_the_version_knows() {
        assert_eq!(wanted_types(&[], 0).unwrap(), FIRST_TYPES);
        assert_eq!(wanted_types(&[], 1).unwrap(), TYPES);
        assert_eq!(wanted_types(&[2, 2], 1).unwrap(), [ConfigResourceType::Topic]);
    }

    #[test]
    fn one_unknown_type_refuses_all() {
        assert_eq!(wanted_types(&[2, 77], 1), None);
        assert_eq!(wanted_types(&[1], 1), None);
    }

    #[test]
    fn an_answer_can_be_written_in_every_version() {
        let resource = ConfigResource { resource_name: "t".into(), resource_type: 16 };
        let response =
            ListConfigResourcesResponse { config_resources: vec![resource], ..Default::default() };
        for version in ListConfigResourcesResponse::VERSIONS {
            response.encoded(version).unwrap();
        }
    }
}
