//! DescribeProducers (key 61): the idempotent and transactional producers of a partition (KIP-664).

use bytestring::ByteString;
use klamm_metadata::topic_name;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::or_minus_one;
use klamm_protocol::messages::describe_producers_request::DescribeProducersRequest;
use klamm_protocol::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::api::services::Services;
use crate::metadata_cache::PublishedImage;

message_replies!(DescribeProducersResponse);

pub(crate) fn handle(
    context: &RequestContext,
    body: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let image = context.services.metadata_cache.image();
    let topics = body.topics.into_iter().map(|topic| {
        let refused = check_topic(&image, &topic.name).err();
        let partitions = topic.partition_indexes.iter().map(|index| match &refused {
            Some((error, message)) => {
                PartitionResponse { error_message: Some(message.clone()), ..failed(*index, *error) }
            }
            None => match describe(&context.services, &image, &topic.name, *index) {
                Ok(active_producers) => {
                    PartitionResponse { active_producers, ..failed(*index, ErrorCode::None) }
                }
                // Kafka gives a message for topics only.
                Err(error) => failed(*index, error),
            },
        });
        let partitions = partitions.collect();
        TopicResponse { name: topic.name, partitions }
    });
    let topics = topics.collect();
    DescribeProducersResponse { topics, ..Default::default() }
}

fn check_topic(image: &PublishedImage, name: &str) -> Result<(), (ErrorCode, ByteString)> {
    topic_name::validate(name)
        .map_err(|error| (ErrorCode::InvalidTopicException, error.to_string().into()))?;
    let unknown = ErrorCode::UnknownTopicOrPartition;
    image.topics.by_name(name).map(|_| ()).ok_or_else(|| (unknown, unknown.message().into()))
}

fn failed(partition_index: i32, error: ErrorCode) -> PartitionResponse {
    PartitionResponse { partition_index, error_code: error.code(), ..Default::default() }
}

fn describe(
    services: &Services,
    image: &PublishedImage,
    topic: &str,
    index: i32,
) -> Result<Vec<ProducerState>, ErrorCode> {
    // Any replica answers with its own state, as in Kafka: tools query followers to find hanging transactions.
    let partition = services.replicas.replica(image, topic, index)?;
    partition.with_log(|log| {
        let producers = log.producers().producers().map(|producer| ProducerState {
            producer_id: producer.producer_id,
            producer_epoch: i32::from(producer.epoch),
            last_sequence: producer.last_sequence(),
            last_timestamp: producer.last_timestamp,
            coordinator_epoch: producer.coordinator_epoch,
            current_txn_start_offset: or_minus_one(producer.txn_first_offset),
        });
        producers.collect()
    })
}
