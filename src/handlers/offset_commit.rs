//! OffsetCommit (key 8): how far a group has read.

use bytestring::ByteString;
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

use crate::net::connection::Context;
use crate::net::request::{ConnectionError, Request};
use crate::net::response::Response;

/// The first version that names topics by id (KIP-848).
const FIRST_WITH_TOPIC_IDS: i16 = 10;

pub(crate) async fn handle(
    context: Context,
    request: Request,
) -> Result<Response, ConnectionError> {
    let mut body: OffsetCommitRequest = request.decode()?;
    let image = context.node.cluster.image();
    let mut answers = Answers::default();
    let topics = std::mem::take(&mut body.topics);
    body.topics = known_topics(&image, request.version, topics, &mut answers);
    if !body.topics.is_empty() {
        let asked = context.node.groups.ask(&image, &body.group_id, |shard, token, now_ms| {
            shard.on_offset_commit(token, request.version, &body, now_ms)
        });
        match asked.answer::<OffsetCommitResponse>().await {
            Ok(committed) => answers.extend(committed),
            Err(error) => {
                for topic in &body.topics {
                    answers.refuse(&topic.name, topic.topic_id, partitions_of(topic), error);
                }
            }
        }
    }
    request.respond(&OffsetCommitResponse { topics: answers.topics, ..Default::default() })
}

/// What the broker says itself, and what the coordinator says: one entry for each topic.
#[derive(Default)]
struct Answers {
    topics: Vec<OffsetCommitResponseTopic>,
}

impl Answers {
    fn topic(&mut self, name: &ByteString, topic_id: Uuid) -> &mut OffsetCommitResponseTopic {
        let known =
            self.topics.iter().position(|topic| topic.name == *name && topic.topic_id == topic_id);
        let position = known.unwrap_or_else(|| {
            self.topics.push(OffsetCommitResponseTopic {
                name: name.clone(),
                topic_id,
                partitions: Vec::new(),
            });
            self.topics.len() - 1
        });
        &mut self.topics[position]
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
        self.topic(name, topic_id).partitions.extend(refused);
    }

    fn extend(&mut self, committed: OffsetCommitResponse) {
        for topic in committed.topics {
            self.topic(&topic.name, topic.topic_id).partitions.extend(topic.partitions);
        }
    }
}

fn partitions_of(
    topic: &OffsetCommitRequestTopic,
) -> impl Iterator<Item = PartitionIndex> + use<'_> {
    topic.partitions.iter().map(|partition| partition.partition_index)
}

/// The topics and partitions that exist, with name and id. The others are answered at once.
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
