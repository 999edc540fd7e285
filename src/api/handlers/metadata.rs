//! Metadata (key 3): brokers, topics and partition leaders, with the endpoints of the client's listener.
//!
//! A named topic that does not exist is created, if allowed, and this answer still has UNKNOWN_TOPIC_OR_PARTITION:
//! clients retry, as they have to with Kafka.

use std::collections::BTreeSet;

use bytestring::ByteString;
use klamm_metadata::image::partition_query::PartitionView;
use klamm_metadata::image::topics::Topic;
use klamm_metadata::topic_name;
use klamm_protocol::ids::or_minus_one;
use klamm_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use klamm_protocol::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_protocol::{ErrorCode, Uuid};

use crate::api::authorized_operations::{ALL_OF_CLUSTER, ALL_OF_TOPIC};
use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::api::services::Services;
use crate::cluster::internal_topics::is_internal;
use crate::metadata_cache::PublishedImage;
use crate::replica::log_manager::full_places;
use crate::replica::room::is_left_to_others;

/// The first version in which an empty list means no topics; before, it means all.
const FIRST_WITH_NONE: i16 = 1;
/// The first version in which a replica that cannot be reached is no error of its partition.
const FIRST_WITH_OFFLINE_REPLICAS: i16 = 1;
/// The first version with LISTENER_NOT_FOUND for a leader without the client's listener.
const FIRST_WITH_LISTENER_NOT_FOUND: i16 = 6;
/// The first version with topics by id. Versions 10 and 11 have the field, but no server reads it.
const FIRST_BY_ID: i16 = 12;

message_replies!(MetadataResponse);

pub(crate) async fn handle(context: RequestContext, body: MetadataRequest) -> MetadataResponse {
    let image = context.services.metadata_cache.image();
    let wanted = match Wanted::read(&body, context.version()) {
        Ok(wanted) => wanted,
        Err(code) => return refused(&body, code),
    };
    if body.allow_auto_topic_creation && context.services.config.topics.auto_create_enable {
        let missing = wanted.creatable(&image);
        if !missing.is_empty() {
            context.services.auto_topics.create_named(&missing).await;
        }
    }
    let mut answer = Answer { image: &image, listener: context.listener() }.respond(
        &wanted,
        context.services.config.node_id,
        context.services.cluster_id.clone(),
    );
    if body.include_cluster_authorized_operations {
        answer.cluster_authorized_operations = ALL_OF_CLUSTER;
    }
    if body.include_topic_authorized_operations {
        let named = answer.topics.iter_mut().filter(|topic| topic.name.is_some());
        named.for_each(|topic| topic.topic_authorized_operations = ALL_OF_TOPIC);
    }
    hide_stalled(&mut answer, &image, &context.services);
    lower(&mut answer, context.version(), &image, context.listener());
    answer
}

/// The topics that a request names, each once.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Named(BTreeSet<ByteString>),
    ById(BTreeSet<Uuid>),
}

impl Wanted {
    fn read(body: &MetadataRequest, version: i16) -> Result<Self, ErrorCode> {
        let Some(topics) = &body.topics else { return Ok(Self::All) };
        if topics.is_empty() && version < FIRST_WITH_NONE {
            return Ok(Self::All);
        }
        let by_id = topics.iter().any(|topic| topic.topic_id != Uuid::ZERO);
        if by_id && version < FIRST_BY_ID {
            return Err(ErrorCode::InvalidRequest);
        }
        if by_id {
            // As in Kafka, a request with one id ignores all names.
            let ids = topics.iter().map(|topic| topic.topic_id);
            return Ok(Self::ById(ids.filter(|id| *id != Uuid::ZERO).collect()));
        }
        let names: Option<_> = topics.iter().map(|topic| topic.name.clone()).collect();
        names.map(Self::Named).ok_or(match version {
            ..FIRST_BY_ID => ErrorCode::InvalidRequest,
            // Neither a name nor an id: Kafka looks up the null name and throws.
            _ => ErrorCode::UnknownServerError,
        })
    }

    /// The named topics that do not exist and may be created.
    fn creatable(&self, image: &PublishedImage) -> Vec<ByteString> {
        let Self::Named(names) = self else { return Vec::new() };
        let missing = names.iter().filter(|name| image.topics.by_name(name).is_none());
        missing.filter(|name| topic_name::validate(name).is_ok()).cloned().collect()
    }
}

/// Builds the answer, independent of the version.
struct Answer<'a> {
    image: &'a PublishedImage,
    listener: &'a str,
}

impl Answer<'_> {
    fn respond(&self, wanted: &Wanted, node_id: i32, cluster_id: ByteString) -> MetadataResponse {
        let alive = self.image.brokers.alive_on(self.listener);
        let brokers = alive.map(|(broker, endpoint)| MetadataResponseBroker {
            node_id: broker.id,
            host: endpoint.host.clone(),
            port: i32::from(endpoint.port),
            rack: broker.rack.clone(),
        });
        let topics = match wanted {
            Wanted::All => self.image.topics.iter().map(|topic| self.topic(topic)).collect(),
            Wanted::Named(names) => names.iter().map(|name| self.named(name)).collect(),
            Wanted::ById(ids) => ids.iter().map(|id| self.by_id(*id)).collect(),
        };
        MetadataResponse {
            brokers: brokers.collect(),
            cluster_id: Some(cluster_id),
            // Clients may send requests for the controller to any broker, so the answer names this one (KIP-590).
            controller_id: or_minus_one(
                Some(node_id).filter(|id| self.image.brokers.is_alive(*id)),
            ),
            topics,
            ..Default::default()
        }
    }

    fn named(&self, name: &ByteString) -> MetadataResponseTopic {
        if let Some(topic) = self.image.topics.by_name(name) {
            return self.topic(topic);
        }
        let code = match topic_name::validate(name) {
            Ok(()) => ErrorCode::UnknownTopicOrPartition,
            Err(_) => ErrorCode::InvalidTopicException,
        };
        MetadataResponseTopic {
            error_code: code.code(),
            name: Some(name.clone()),
            is_internal: is_internal(name),
            ..Default::default()
        }
    }

    fn by_id(&self, id: Uuid) -> MetadataResponseTopic {
        let unknown = || MetadataResponseTopic {
            error_code: ErrorCode::UnknownTopicId.code(),
            name: None,
            topic_id: id,
            ..Default::default()
        };
        self.image.topics.by_id(id).map_or_else(unknown, |topic| self.topic(topic))
    }

    fn topic(&self, topic: &Topic) -> MetadataResponseTopic {
        MetadataResponseTopic {
            error_code: ErrorCode::None.code(),
            name: Some(topic.name.clone()),
            topic_id: topic.id,
            is_internal: is_internal(&topic.name),
            partitions: self.image.views(topic, self.listener).map(partition).collect(),
            ..Default::default()
        }
    }
}

fn partition(view: PartitionView<'_>) -> MetadataResponsePartition {
    MetadataResponsePartition {
        error_code: view.error.code(),
        partition_index: view.index,
        leader_id: or_minus_one(view.leader),
        leader_epoch: view.partition.leader_epoch,
        replica_nodes: view.partition.replicas.clone(),
        isr_nodes: view.partition.isr.clone(),
        offline_replicas: view.offline_replicas,
    }
}

/// The controller does not answer this broker, or its disk is full, and it may have led some partitions until a moment
/// ago: its metadata may be as old as that. It names no leader of those that it cannot commit anything to, and not
/// itself among the brokers: clients prefer the broker with the fewest requests under way, and would ask this one again
/// and again.
fn hide_stalled(answer: &mut MetadataResponse, image: &PublishedImage, services: &Services) {
    let (own_id, replicas) = (services.config.node_id, &services.replicas);
    let is_confirmed = services.session.is_confirmed();
    if is_confirmed && full_places(&replicas.log_manager).is_empty() {
        return;
    }
    let mut is_stalled_here = false;
    for topic in &mut answer.topics {
        let known = image.topics.by_id(topic.topic_id);
        for partition in &mut topic.partitions {
            let index = partition.partition_index;
            let is_stalled = || {
                let here = replicas.partitions.get(topic.topic_id, index)?;
                let known = known?.partition(index)?;
                let waits = !is_confirmed && here.is_stalled();
                Some(waits || is_left_to_others(replicas, &here, known, image))
            };
            if partition.leader_id == own_id && is_stalled() == Some(true) {
                partition.leader_id = -1;
                partition.error_code = ErrorCode::LeaderNotAvailable.code();
                is_stalled_here = true;
            }
        }
    }
    if is_stalled_here {
        answer.brokers.retain(|broker| broker.node_id != own_id);
        answer.controller_id = answer.brokers.first().map_or(-1, |other| other.node_id);
    }
}

/// Converts the answer to the codes and fields of the version.
fn lower(answer: &mut MetadataResponse, version: i16, image: &PublishedImage, listener: &str) {
    let partitions = answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    for partition in partitions {
        if version < FIRST_WITH_LISTENER_NOT_FOUND
            && partition.error_code == ErrorCode::ListenerNotFound.code()
        {
            partition.error_code = ErrorCode::LeaderNotAvailable.code();
        }
        if version < FIRST_WITH_OFFLINE_REPLICAS {
            hide_unreachable(partition, image, listener);
        }
    }
}

/// Leaves out unreachable replicas and sets the error of their partition.
fn hide_unreachable(
    partition: &mut MetadataResponsePartition,
    image: &PublishedImage,
    listener: &str,
) {
    let before = partition.replica_nodes.len() + partition.isr_nodes.len();
    partition.replica_nodes.retain(|id| image.brokers.is_reachable(*id, listener));
    partition.isr_nodes.retain(|id| image.brokers.is_reachable(*id, listener));
    let hidden = partition.replica_nodes.len() + partition.isr_nodes.len() < before;
    if hidden && partition.error_code == ErrorCode::None.code() {
        partition.error_code = ErrorCode::ReplicaNotAvailable.code();
    }
}

/// The answer to an invalid request. Before version 12 a name must not be null.
fn refused(body: &MetadataRequest, code: ErrorCode) -> MetadataResponse {
    let topic = |topic: &MetadataRequestTopic| MetadataResponseTopic {
        error_code: code.code(),
        name: Some(topic.name.clone().unwrap_or_default()),
        topic_id: topic.topic_id,
        ..Default::default()
    };
    MetadataResponse {
        topics: body.topics.iter().flatten().map(topic).collect(),
        error_code: code.code(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
