//! DeleteRecords (key 21): moves the beginning of partitions (KIP-107).

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::Offset;
use klamm_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsRequest,
};
use klamm_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};

use crate::cluster::Published;
use crate::internal_topics;
use crate::net::connection::Context;
use crate::net::request::{ConnectionError, Request};
use crate::net::response::Response;
use crate::node::Node;

/// Stands for the high watermark (`DeleteRecordsRequest.HIGH_WATERMARK`).
const HIGH_WATERMARK: Offset = -1;

pub(crate) fn handle(context: &Context, request: &Request) -> Result<Response, ConnectionError> {
    let body: DeleteRecordsRequest = request.decode()?;
    let image = context.node.cluster.image();
    let topics = body.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let deleted = delete(&context.node, &image, &topic.name, wanted);
            DeleteRecordsPartitionResult {
                partition_index: wanted.partition_index,
                low_watermark: deleted.unwrap_or(-1),
                error_code: deleted.err().unwrap_or(ErrorCode::None).code(),
            }
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult { name: topic.name, partitions }
    });
    let topics = topics.collect();
    request.respond(&DeleteRecordsResponse { topics, ..Default::default() })
}

/// Deletes below an offset; returns where the log begins now.
fn delete(
    node: &Node,
    image: &Published,
    topic: &str,
    wanted: &DeleteRecordsPartition,
) -> Result<Offset, ErrorCode> {
    if internal_topics::is_internal(topic) && image.topics.by_name(topic).is_some() {
        return Err(ErrorCode::InvalidTopicException);
    }
    let partition = node.leader(image, topic, wanted.partition_index)?;
    let policy = partition.config().log.cleanup_policy;
    if policy.compact && !policy.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    partition.with_log(|log| {
        let offset = match wanted.offset {
            HIGH_WATERMARK => log.high_watermark(),
            offset => offset,
        };
        if offset < 0 {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        log.delete_records(offset).map_err(|error| error.code())
    })?
}
