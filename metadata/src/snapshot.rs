//! An image as records, in the order of Kafka's MetadataImage.write, so that replaying them on an
//! empty image gives the same image.
//!
//! metadata.version comes first because decoding the rest depends on it.

pub mod schedule;

use klamm_protocol::messages::client_quota_record::{ClientQuotaRecord, EntityData};
use klamm_protocol::messages::config_record::ConfigRecord;
use klamm_protocol::messages::feature_level_record::FeatureLevelRecord;
use klamm_protocol::messages::producer_ids_record::ProducerIdsRecord;
use klamm_protocol::messages::register_broker_record::{
    BrokerEndpoint, BrokerFeature, RegisterBrokerRecord,
};
use klamm_protocol::messages::register_controller_record::{
    ControllerEndpoint, ControllerFeature, RegisterControllerRecord,
};
use klamm_protocol::messages::topic_record::TopicRecord;
use klamm_protocol::metadata_record::MetadataRecord;

use crate::image::ClusterImage;
use crate::image::brokers::Broker;
use crate::image::controllers::ControllerRegistration;
use crate::metadata_version::MetadataVersion;

/// The records of a snapshot of this image. Write each one at [`MetadataVersion::record_version`] of the image's
/// metadata.version.
pub fn records(image: &ClusterImage) -> Vec<MetadataRecord> {
    let version = image.metadata_version();
    let mut records = Vec::new();
    features(image, &mut records);
    records.extend(image.brokers.iter().map(|broker| broker_record(broker, version)));
    if version.is_controller_registration_supported() {
        records.extend(image.controllers.iter().map(controller_record));
    }
    topics(image, version, &mut records);
    configs(image, &mut records);
    client_quotas(image, &mut records);
    if let Some(next_producer_id) = image.next_producer_id {
        let (broker_id, broker_epoch) = (-1, -1);
        let record = ProducerIdsRecord { broker_id, broker_epoch, next_producer_id };
        records.push(MetadataRecord::ProducerIds(record));
    }
    records.extend(image.acls.iter().cloned().map(MetadataRecord::AccessControlEntry));
    if version.is_scram_supported() {
        records.extend(image.scram.iter().cloned().map(MetadataRecord::UserScramCredential));
    }
    let tokens = image.delegation_tokens.iter().cloned();
    records.extend(tokens.map(MetadataRecord::DelegationToken));
    records
}

fn features(image: &ClusterImage, records: &mut Vec<MetadataRecord>) {
    for (name, feature_level) in image.features.finalized() {
        let record = FeatureLevelRecord { name: name.into(), feature_level };
        records.push(MetadataRecord::FeatureLevel(record));
    }
}

/// The current registration of a broker, fenced or not.
fn broker_record(broker: &Broker, version: MetadataVersion) -> MetadataRecord {
    let endpoints = broker.listeners.iter().map(|(name, endpoint)| BrokerEndpoint {
        name: name.clone(),
        host: endpoint.host.clone(),
        port: endpoint.port,
        security_protocol: endpoint.security_protocol.id(),
    });
    let features = broker.supported_features.iter().map(|(name, range)| BrokerFeature {
        name: name.clone(),
        min_supported_version: range.min,
        max_supported_version: range.max,
    });
    let log_dirs = version.is_directory_assignment_supported().then(|| broker.directories.clone());
    let cordoned = broker.cordoned_directories.clone();
    MetadataRecord::RegisterBroker(RegisterBrokerRecord {
        broker_id: broker.id,
        is_migrating_zk_broker: broker.is_migrating_zk_broker,
        incarnation_id: broker.incarnation_id,
        broker_epoch: broker.epoch,
        end_points: endpoints.collect(),
        features: features.collect(),
        rack: broker.rack.clone(),
        fenced: broker.fenced,
        in_controlled_shutdown: broker.in_controlled_shutdown,
        log_dirs: log_dirs.unwrap_or_default(),
        cordoned_log_dirs: cordoned.filter(|_| version.is_cordoned_log_dirs_supported()),
    })
}

fn controller_record(controller: &ControllerRegistration) -> MetadataRecord {
    let endpoints = controller.listeners.iter().map(|(name, endpoint)| ControllerEndpoint {
        name: name.clone(),
        host: endpoint.host.clone(),
        port: endpoint.port,
        security_protocol: endpoint.security_protocol.id(),
    });
    let features = controller.supported_features.iter().map(|(name, range)| ControllerFeature {
        name: name.clone(),
        min_supported_version: range.min,
        max_supported_version: range.max,
    });
    MetadataRecord::RegisterController(RegisterControllerRecord {
        controller_id: controller.id,
        incarnation_id: controller.incarnation_id,
        zk_migration_ready: controller.zk_migration_ready,
        end_points: endpoints.collect(),
        features: features.collect(),
    })
}

fn topics(image: &ClusterImage, version: MetadataVersion, records: &mut Vec<MetadataRecord>) {
    let elr_enabled = image.features.is_elr_enabled();
    for topic in image.topics.iter() {
        let record = TopicRecord { name: topic.name.clone(), topic_id: topic.id };
        records.push(MetadataRecord::Topic(record));
        for (index, partition) in topic.partitions() {
            let record = partition.to_record(topic.id, index, version, elr_enabled);
            records.push(MetadataRecord::Partition(record));
        }
    }
}

fn configs(image: &ClusterImage, records: &mut Vec<MetadataRecord>) {
    for (resource, values) in image.configs.iter() {
        records.extend(values.iter().map(|(name, value)| {
            MetadataRecord::Config(ConfigRecord {
                resource_type: resource.type_.id(),
                resource_name: resource.name.clone(),
                name: name.clone(),
                value: Some(value.clone()),
            })
        }));
    }
}

fn client_quotas(image: &ClusterImage, records: &mut Vec<MetadataRecord>) {
    for (entity, quotas) in image.client_quotas.iter() {
        let parts = entity.iter().map(|(entity_type, entity_name)| EntityData {
            entity_type: entity_type.clone(),
            entity_name: entity_name.clone(),
        });
        let parts: Vec<EntityData> = parts.collect();
        records.extend(quotas.iter().map(|(key, value)| {
            MetadataRecord::ClientQuota(ClientQuotaRecord {
                entity: parts.clone(),
                key: key.clone(),
                value: *value,
                remove: false,
            })
        }));
    }
}

#[cfg(test)]
mod tests;
