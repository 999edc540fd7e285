//! OffsetCommit (key 8): stores the committed offsets of a group.

use bytestring::ByteString;
use indexmap::IndexMap;
use klamm_metadata::image::ClusterImage;
use klamm_metadata::image::topics::Topic;
use klamm_protocol::ids::PartitionIndex;
use klamm_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestTopic,
};
use klamm_protocol::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use klamm_protocol::{ErrorCode, Uuid};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;

/// The first version with GROUP_ID_NOT_FOUND; before it the answer is ILLEGAL_GENERATION.
const FIRST_WITH_GROUP_ID_NOT_FOUND: i16 = 9;
/// The first version that names topics by id (KIP-848).
const FIRST_WITH_TOPIC_IDS: i16 = 10;

message_replies!(OffsetCommitResponse);

pub(crate) async fn handle(
    context: RequestContext,
    mut body: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let image = context.services.metadata_cache.image();
    let mut answers = Answers::default();
    let topics = std::mem::take(&mut body.topics);
    body.topics = known_topics(&image, context.version(), topics, &mut answers);
    let reports_missing = context.version() >= FIRST_WITH_GROUP_ID_NOT_FOUND;
    if !body.topics.is_empty() {
        let pending = context.services.groups.send_request(
            &image,
            &body.group_id,
            |shard, token, effects| {
                shard.on_offset_commit(token, &body, reports_missing, effects);
            },
        );
        match pending.answer::<OffsetCommitResponse>().await {
            Ok(committed) => answers.extend(committed),
            Err(error) => {
                for topic in &body.topics {
                    answers.refuse(&topic.name, topic.topic_id, partitions_of(topic), error);
                }
            }
        }
    }
    answers.into_response()
}

/// The answers of this broker and of the coordinator: one entry for each topic.
#[derive(Default)]
struct Answers {
    topics: IndexMap<(ByteString, Uuid), Vec<OffsetCommitResponsePartition>>,
}

impl Answers {
    fn topic(
        &mut self,
        name: &ByteString,
        topic_id: Uuid,
    ) -> &mut Vec<OffsetCommitResponsePartition> {
        self.topics.entry((name.clone(), topic_id)).or_default()
    }

    fn refuse(
        &mut self,
        name: &ByteString,
        topic_id: Uuid,
        partitions: impl Iterator<Item = PartitionIndex>,
        error: ErrorCode,
    ) {
        let refused = partitions.map(|partition_index| OffsetCommitResponsePartition {
            partition_index,
            error_code: error.code(),
        });
        self.topic(name, topic_id).extend(refused);
    }

    fn extend(&mut self, committed: OffsetCommitResponse) {
        for topic in committed.topics {
            self.topic(&topic.name, topic.topic_id).extend(topic.partitions);
        }
    }

    fn into_response(self) -> OffsetCommitResponse {
        let topics = self.topics.into_iter().map(|((name, topic_id), partitions)| {
            OffsetCommitResponseTopic { name, topic_id, partitions }
        });
        OffsetCommitResponse { topics: topics.collect(), ..Default::default() }
    }
}

fn partitions_of(
    topic: &OffsetCommitRequestTopic,
) -> impl Iterator<Item = PartitionIndex> + use<'_> {
    topic.partitions.iter().map(|partition| partition.partition_index)
}

/// The topics and partitions that exist, with name and id. The others get their error here.
fn known_topics(
    image: &ClusterImage,
    version: i16,
    topics: Vec<OffsetCommitRequestTopic>,
    answers: &mut Answers,
) -> Vec<OffsetCommitRequestTopic> {
    let mut known = Vec::with_capacity(topics.len());
    for topic in topics {
        let (found, unknown) = if version >= FIRST_WITH_TOPIC_IDS {
            (image.topics.by_id(topic.topic_id), ErrorCode::UnknownTopicId)
        } else {
            (image.topics.by_name(&topic.name), ErrorCode::UnknownTopicOrPartition)
        };
        match found {
            Some(found) => known.extend(known_partitions(found, topic, answers)),
            None => answers.refuse(&topic.name, topic.topic_id, partitions_of(&topic), unknown),
        }
    }
    known
}

fn known_partitions(
    found: &Topic,
    mut topic: OffsetCommitRequestTopic,
    answers: &mut Answers,
) -> Option<OffsetCommitRequestTopic> {
    topic.name = found.name.clone();
    topic.topic_id = found.id;
    let unknown: Vec<_> =
        partitions_of(&topic).filter(|index| found.partition(*index).is_none()).collect();
    if !unknown.is_empty() {
        let error = ErrorCode::UnknownTopicOrPartition;
        answers.refuse(&topic.name, topic.topic_id, unknown.into_iter(), error);
        topic.partitions.retain(|p| found.partition(p.partition_index).is_some());
    }
    Some(topic).filter(|topic| !topic.partitions.is_empty())
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;
    use klamm_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;

    use super::*;

    fn topic(name: &'static str, index: PartitionIndex) -> OffsetCommitRequestTopic {
        OffsetCommitRequestTopic {
            name: name.into(),
            topic_id: Uuid::METADATA_TOPIC,
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: index,
                ..Default::default()
            }],
        }
    }

    #[test]
    fn topics_that_do_not_exist_are_answered_here() {
        let cases = [(9, ErrorCode::UnknownTopicOrPartition), (10, ErrorCode::UnknownTopicId)];
        for (version, error) in cases {
            let mut answers = Answers::default();
            let topics = vec![topic("t", 3), topic("u", 4), topic("t", 5)];
            let known = known_topics(&ClusterImage::default(), version, topics, &mut answers);
            assert!(known.is_empty());
            let response = answers.into_response();
            assert_eq!(response.topics.len(), 2, "one entry for each topic");
            let partitions = response.topics[0].partitions.iter();
            let said: Vec<_> = partitions.map(|p| (p.partition_index, p.error_code)).collect();
            assert_eq!(said, [(3, error.code()), (5, error.code())]);
        }
    }

    #[test]
    fn every_answer_fits_every_version() {
        let mut answers = Answers::default();
        answers.refuse(&"t".into(), Uuid::METADATA_TOPIC, 0..3, ErrorCode::NotCoordinator);
        let response = answers.into_response();
        for version in OffsetCommitResponse::VERSIONS {
            assert!(response.encoded(version).is_ok(), "{version}");
        }
    }
}
