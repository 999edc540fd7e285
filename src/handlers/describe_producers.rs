//! DescribeProducers (key 61): who writes to a partition idempotently or in a transaction (KIP-664).

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::describe_producers_request::DescribeProducersRequest;
use klamm_protocol::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};

use crate::cluster::Published;
use crate::net::connection::Context;
use crate::net::request::{ConnectionError, Request};
use crate::net::response::Response;
use crate::node::Node;

pub(crate) fn handle(context: &Context, request: &Request) -> Result<Response, ConnectionError> {
    let body: DescribeProducersRequest = request.decode()?;
    let image = context.node.cluster.image();
    let topics = body.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            let described = describe(&context.node, &image, &topic.name, *index);
            let error = described.as_ref().err().copied().unwrap_or(ErrorCode::None);
            PartitionResponse {
                partition_index: *index,
                error_code: error.code(),
                error_message: (!error.is_none()).then(|| error.message().into()),
                active_producers: described.unwrap_or_else(|_| Vec::new()),
            }
        });
        let partitions = partitions.collect();
        TopicResponse { name: topic.name, partitions }
    });
    let topics = topics.collect();
    request.respond(&DescribeProducersResponse { topics, ..Default::default() })
}

fn describe(
    node: &Node,
    image: &Published,
    topic: &str,
    index: i32,
) -> Result<Vec<ProducerState>, ErrorCode> {
    let partition = node.leader(image, topic, index)?;
    partition.with_log(|log| {
        let producers = log.producers().producers().map(|producer| ProducerState {
            producer_id: producer.producer_id,
            producer_epoch: i32::from(producer.epoch),
            last_sequence: producer.last_sequence(),
            last_timestamp: producer.last_timestamp,
            coordinator_epoch: producer.coordinator_epoch,
            current_txn_start_offset: producer.txn_first_offset.unwrap_or(-1),
        });
        producers.collect()
    })
}
