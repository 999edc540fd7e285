//! OffsetFetch (key 9): returns the committed offsets of groups.

use bytestring::ByteString;
use klamm_metadata::image::ClusterImage;
use klamm_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use klamm_protocol::{ErrorCode, Uuid};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::coordinator::PendingAnswer;

/// The first version with an error for the whole group.
const FIRST_WITH_GROUP_ERROR: i16 = 2;
/// The first version with several groups (KIP-709).
const FIRST_WITH_GROUPS: i16 = 8;
/// The first version that names topics by id (KIP-848).
const FIRST_WITH_TOPIC_IDS: i16 = 10;

message_replies!(OffsetFetchResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let require_stable = body.require_stable;
    let image = context.services.metadata_cache.image();
    // The requests of all groups are sent before the first answer is awaited.
    let begun: Vec<_> = groups(body, context.version())
        .into_iter()
        .map(|group| GroupFetch::begin(&context, &image, context.version(), group, require_stable))
        .collect();
    let mut fetched = Vec::with_capacity(begun.len());
    for group in begun {
        fetched.push(group.finish(&image, context.version()).await);
    }
    lower(fetched, context.version())
}

/// Before version 8 the request has one group, at the top level.
fn groups(body: OffsetFetchRequest, version: i16) -> Vec<OffsetFetchRequestGroup> {
    if version >= FIRST_WITH_GROUPS {
        return body.groups;
    }
    let topics = body.topics.map(|topics| {
        topics
            .into_iter()
            .map(|topic| OffsetFetchRequestTopics {
                name: topic.name,
                partition_indexes: topic.partition_indexes,
                ..Default::default()
            })
            .collect()
    });
    vec![OffsetFetchRequestGroup { group_id: body.group_id, topics, ..Default::default() }]
}

/// One group of a request.
struct GroupFetch {
    group: OffsetFetchRequestGroup,
    /// The answers for topics that do not exist.
    unknown: Vec<OffsetFetchResponseTopics>,
    pending: PendingAnswer,
}

impl GroupFetch {
    fn begin(
        context: &RequestContext,
        image: &ClusterImage,
        version: i16,
        mut group: OffsetFetchRequestGroup,
        require_stable: bool,
    ) -> Self {
        let mut unknown = Vec::new();
        if version >= FIRST_WITH_TOPIC_IDS
            && let Some(topics) = &mut group.topics
        {
            unknown = take_unknown(image, topics);
        }
        let pending = context.services.groups.send_request(
            image,
            &group.group_id,
            |shard, token, effects| {
                shard.on_offset_fetch(token, &group, require_stable, effects);
            },
        );
        Self { group, unknown, pending }
    }

    async fn finish(self, image: &ClusterImage, version: i16) -> OffsetFetchResponseGroup {
        let Self { group, unknown, pending } = self;
        let answered: Result<OffsetFetchResponseGroup, _> = pending.answer().await;
        let mut fetched = match answered {
            Ok(fetched) if fetched.error_code == 0 => fetched,
            Ok(failed) => return group_error(&group, failed.error_code, version),
            Err(error) => return group_error(&group, error.code(), version),
        };
        if version >= FIRST_WITH_TOPIC_IDS && group.topics.is_none() {
            put_ids(image, &mut fetched.topics);
        }
        fetched.topics.extend(unknown);
        fetched
    }
}

/// Sets the names of topics given by id, and removes unknown ids; returns their answers.
fn take_unknown(
    image: &ClusterImage,
    topics: &mut Vec<OffsetFetchRequestTopics>,
) -> Vec<OffsetFetchResponseTopics> {
    let mut unknown = Vec::new();
    topics.retain_mut(|topic| {
        if let Some(found) = image.topics.by_id(topic.topic_id) {
            topic.name = found.name.clone();
            return true;
        }
        unknown.push(failed_topic(topic, ErrorCode::UnknownTopicId.code()));
        false
    });
    unknown
}

/// Sets the ids of topics. A deleted topic has none, so its offsets are left out.
fn put_ids(image: &ClusterImage, topics: &mut Vec<OffsetFetchResponseTopics>) {
    topics.retain_mut(|topic| {
        if topic.topic_id.is_zero() {
            let found = image.topics.by_name(&topic.name);
            topic.topic_id = found.map_or(Uuid::ZERO, |found| found.id);
        }
        !topic.topic_id.is_zero()
    });
}

/// Version 1 has no field for the error of a group: every partition gets it.
fn group_error(
    group: &OffsetFetchRequestGroup,
    error_code: i16,
    version: i16,
) -> OffsetFetchResponseGroup {
    let group_id = group.group_id.clone();
    if version >= FIRST_WITH_GROUP_ERROR {
        return OffsetFetchResponseGroup { group_id, error_code, ..Default::default() };
    }
    let topics = group.topics.iter().flatten().map(|topic| failed_topic(topic, error_code));
    OffsetFetchResponseGroup { group_id, topics: topics.collect(), ..Default::default() }
}

fn failed_topic(topic: &OffsetFetchRequestTopics, error_code: i16) -> OffsetFetchResponseTopics {
    let failed = topic.partition_indexes.iter().map(|index| OffsetFetchResponsePartitions {
        partition_index: *index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(ByteString::new()),
        error_code,
    });
    OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: failed.collect(),
    }
}

fn lower(mut groups: Vec<OffsetFetchResponseGroup>, version: i16) -> OffsetFetchResponse {
    if version >= FIRST_WITH_GROUPS {
        return OffsetFetchResponse { groups, ..Default::default() };
    }
    let group = groups.pop().expect("old requests have one group");
    OffsetFetchResponse {
        error_code: group.error_code,
        topics: group.topics.into_iter().map(lower_topic).collect(),
        ..Default::default()
    }
}

fn lower_topic(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|partition| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
    });
    OffsetFetchResponseTopic { name: topic.name, partitions: partitions.collect() }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;

    use super::*;

    fn pending() -> OffsetFetchRequestGroup {
        OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: "t".into(),
                topic_id: Uuid::METADATA_TOPIC,
                partition_indexes: vec![0, 5],
            }]),
            ..Default::default()
        }
    }

    #[test]
    fn every_answer_fits_every_version() {
        for version in OffsetFetchResponse::VERSIONS {
            let failed = group_error(&pending(), ErrorCode::NotCoordinator.code(), version);
            assert_eq!(failed.topics.is_empty(), version >= FIRST_WITH_GROUP_ERROR);
            assert!(lower(vec![failed], version).encoded(version).is_ok(), "{version}");
            let topics = vec![failed_topic(&pending().topics.unwrap()[0], 0)];
            let fetched =
                OffsetFetchResponseGroup { group_id: "g".into(), topics, ..Default::default() };
            assert!(lower(vec![fetched], version).encoded(version).is_ok(), "{version}");
        }
    }

    #[test]
    fn ids_that_no_topic_has_are_answered_here() {
        let mut topics = pending().topics.unwrap();
        let unknown = take_unknown(&ClusterImage::default(), &mut topics);
        assert!(topics.is_empty());
        let codes: Vec<_> = unknown[0].partitions.iter().map(|p| p.error_code).collect();
        assert_eq!(codes, [ErrorCode::UnknownTopicId.code(); 2]);
    }

    #[test]
    fn offsets_of_deleted_topics_have_no_place_in_answers_with_ids() {
        let topic = |name: &'static str, topic_id| OffsetFetchResponseTopics {
            name: name.into(),
            topic_id,
            ..Default::default()
        };
        let mut topics = vec![topic("gone", Uuid::ZERO), topic("known", Uuid::METADATA_TOPIC)];
        put_ids(&ClusterImage::default(), &mut topics);
        assert_eq!(topics, [topic("known", Uuid::METADATA_TOPIC)]);
    }
}
