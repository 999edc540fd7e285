//! DescribeTopicPartitions (key 75): topics and their partitions in pages, by name (KIP-966).

use std::collections::BTreeSet;

use bytestring::ByteString;
use klamm_metadata::image::partition_query::{PartitionView, TopicPage};
use klamm_metadata::topic_name;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{PartitionIndex, or_minus_one};
use klamm_protocol::messages::describe_topic_partitions_request::DescribeTopicPartitionsRequest;
use klamm_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};

use crate::api::authorized_operations::ALL_OF_TOPIC;
use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::cluster::internal_topics::is_internal;
use crate::metadata_cache::PublishedImage;

message_replies!(DescribeTopicPartitionsResponse);

pub(crate) fn handle(
    context: &RequestContext,
    body: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let limit = context.services.config.current().network.max_request_partition_size_limit;
    let limit = usize::try_from(body.response_partition_limit.min(limit)).unwrap_or_default();
    let image = context.services.metadata_cache.image();
    match Wanted::read(&body, &image) {
        Ok(wanted) => describe(&image, wanted, limit.max(1), context.listener()),
        Err(code) => refused(&body, code),
    }
}

/// The topics of a request from the cursor on, and the first partition of the first of them.
struct Wanted {
    topics: BTreeSet<ByteString>,
    first_partition: PartitionIndex,
}

impl Wanted {
    fn read(
        body: &DescribeTopicPartitionsRequest,
        image: &PublishedImage,
    ) -> Result<Self, ErrorCode> {
        // Kafka throws at a topic without a name, and the whole request fails.
        if body.topics.iter().any(|topic| topic.name.is_empty()) {
            return Err(ErrorCode::UnknownServerError);
        }
        let first_topic = body.cursor.as_ref().map_or("", |cursor| &*cursor.topic_name);
        let mut topics: BTreeSet<ByteString> = if body.topics.is_empty() {
            image.topics.from_name(first_topic).map(|topic| topic.name.clone()).collect()
        } else {
            body.topics.iter().map(|topic| topic.name.clone()).collect()
        };
        topics.retain(|name| **name >= *first_topic);
        let Some(cursor) = &body.cursor else { return Ok(Self { topics, first_partition: 0 }) };
        let is_listed = topics.contains(&cursor.topic_name);
        if cursor.partition_index < 0 || !(is_listed || body.topics.is_empty()) {
            return Err(ErrorCode::InvalidRequest);
        }
        // If the cursor's topic no longer exists, its partition is ignored.
        let first_partition = if is_listed { cursor.partition_index } else { 0 };
        Ok(Self { topics, first_partition })
    }
}

fn describe(
    image: &PublishedImage,
    wanted: Wanted,
    limit: usize,
    listener: &str,
) -> DescribeTopicPartitionsResponse {
    let page = image.page(wanted.topics, wanted.first_partition, limit, listener);
    DescribeTopicPartitionsResponse {
        topics: page.topics.into_iter().map(|(name, found)| topic(name, found)).collect(),
        next_cursor: page
            .next
            .map(|cursor| Cursor { topic_name: cursor.topic, partition_index: cursor.partition }),
        ..Default::default()
    }
}

fn topic(name: ByteString, found: Option<TopicPage<'_>>) -> DescribeTopicPartitionsResponseTopic {
    let code = match &found {
        Some(_) => ErrorCode::None,
        None if topic_name::validate(&name).is_err() => ErrorCode::InvalidTopicException,
        None => ErrorCode::UnknownTopicOrPartition,
    };
    DescribeTopicPartitionsResponseTopic {
        error_code: code.code(),
        is_internal: is_internal(&name),
        name: Some(name),
        topic_id: found.as_ref().map(|page| page.topic.id).unwrap_or_default(),
        partitions: found.into_iter().flat_map(|page| page.partitions).map(partition).collect(),
        topic_authorized_operations: ALL_OF_TOPIC,
    }
}

/// A partition without a leader has no error here, but the leader -1.
fn partition(view: PartitionView<'_>) -> DescribeTopicPartitionsResponsePartition {
    DescribeTopicPartitionsResponsePartition {
        error_code: ErrorCode::None.code(),
        partition_index: view.index,
        leader_id: or_minus_one(view.leader),
        leader_epoch: view.partition.leader_epoch,
        replica_nodes: view.partition.replicas.clone(),
        isr_nodes: view.partition.isr.clone(),
        eligible_leader_replicas: Some(view.partition.elr.clone()),
        last_known_elr: Some(view.partition.last_known_elr.clone()),
        offline_replicas: view.offline_replicas,
    }
}

fn refused(
    body: &DescribeTopicPartitionsRequest,
    code: ErrorCode,
) -> DescribeTopicPartitionsResponse {
    let topics = body.topics.iter().map(|topic| DescribeTopicPartitionsResponseTopic {
        error_code: code.code(),
        name: Some(topic.name.clone()),
        ..Default::default()
    });
    DescribeTopicPartitionsResponse { topics: topics.collect(), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::describe_topic_partitions_request::{
        Cursor as Start, TopicRequest,
    };

    use super::*;
    use crate::metadata_cache::testing::{LISTENER, published, topic as topic_records};

    fn image() -> PublishedImage {
        published([topic_records("a", 1, 3), topic_records("b", 2, 2)].concat())
    }

    /// The pages' topics with their partitions, and the next cursor.
    type Page = (Vec<(String, i16, Vec<i32>)>, Option<(String, i32)>);

    fn page(topics: &[&str], cursor: Option<(&str, i32)>, limit: usize) -> Result<Page, ErrorCode> {
        let named = |name: &&str| TopicRequest { name: (*name).into() };
        let body = DescribeTopicPartitionsRequest {
            topics: topics.iter().map(named).collect(),
            cursor: cursor.map(|(topic, partition_index)| Start {
                topic_name: topic.into(),
                partition_index,
            }),
            ..Default::default()
        };
        let image = image();
        let response = describe(&image, Wanted::read(&body, &image)?, limit, LISTENER);
        let topics = response.topics.iter().map(|topic| {
            let name = topic.name.as_deref().unwrap().to_owned();
            let indexes = topic.partitions.iter().map(|p| p.partition_index).collect();
            (name, topic.error_code, indexes)
        });
        let next = response.next_cursor.as_ref();
        let next = next.map(|next| (next.topic_name.to_string(), next.partition_index));
        Ok((topics.collect(), next))
    }

    fn known(name: &str, partitions: &[i32]) -> (String, i16, Vec<i32>) {
        (name.to_owned(), 0, partitions.to_vec())
    }

    #[test]
    fn pages_follow_one_another_in_the_order_of_names() {
        let first = page(&["b", "a"], None, 2).unwrap();
        assert_eq!(first, (vec![known("a", &[0, 1])], Some(("a".into(), 2))));
        let second = page(&["b", "a"], Some(("a", 2)), 2).unwrap();
        assert_eq!(second, (vec![known("a", &[2]), known("b", &[0])], Some(("b".into(), 1))));
        assert_eq!(page(&["b", "a"], Some(("b", 1)), 2).unwrap(), (vec![known("b", &[1])], None));
    }

    #[test]
    fn who_names_nothing_gets_everything_even_if_the_cursors_topic_is_gone() {
        let all = vec![known("a", &[0, 1, 2]), known("b", &[0, 1])];
        assert_eq!(page(&[], None, 9).unwrap(), (all, None));
        assert_eq!(page(&[], Some(("aa", 7)), 9).unwrap(), (vec![known("b", &[0, 1])], None));
    }

    #[test]
    fn a_cursor_names_a_topic_of_the_request_and_a_partition_that_could_be() {
        assert_eq!(page(&["a"], Some(("c", 0)), 9), Err(ErrorCode::InvalidRequest));
        assert_eq!(page(&["a"], Some(("A", 0)), 9), Err(ErrorCode::InvalidRequest));
        assert_eq!(page(&["a"], Some(("a", -1)), 9), Err(ErrorCode::InvalidRequest));
        assert_eq!(page(&["a"], Some(("a", 9)), 9).unwrap(), (vec![known("a", &[])], None));
    }

    #[test]
    fn topics_that_are_not_there_say_why() {
        let (topics, _) = page(&["a b", "x"], None, 9).unwrap();
        let codes: Vec<_> = topics.iter().map(|(_, code, _)| *code).collect();
        let (invalid, unknown) =
            (ErrorCode::InvalidTopicException, ErrorCode::UnknownTopicOrPartition);
        assert_eq!(codes, [invalid.code(), unknown.code()]);
    }

    #[test]
    fn a_topic_without_a_name_fails_the_request() {
        assert_eq!(page(&["a", ""], None, 10), Err(ErrorCode::UnknownServerError));
    }
}
