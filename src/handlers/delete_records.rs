//! DeleteRecords (key 21): moves the beginning of partitions (KIP-107).

use std::collections::BTreeMap;

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{Offset, PartitionIndex};
use klamm_protocol::messages::delete_records_request::DeleteRecordsRequest;
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
    let topics = wanted_offsets(&body).into_iter().map(|(name, offsets)| {
        let partitions = offsets.into_iter().map(|(partition_index, offset)| {
            let deleted = delete(&context.node, &image, (&name, partition_index), offset);
            DeleteRecordsPartitionResult {
                partition_index,
                low_watermark: deleted.unwrap_or(-1),
                error_code: deleted.err().unwrap_or(ErrorCode::None).code(),
            }
        });
        DeleteRecordsTopicResult { name: name.clone(), partitions: partitions.collect() }
    });
    let topics = topics.collect();
    context.node.log_starts_moved.notify_one();
    request.respond(&DeleteRecordsResponse { topics, ..Default::default() })
}

/// Each partition with the offset that is named last for it.
fn wanted_offsets(
    body: &DeleteRecordsRequest,
) -> BTreeMap<ByteString, BTreeMap<PartitionIndex, Offset>> {
    let mut wanted: BTreeMap<ByteString, BTreeMap<_, _>> = BTreeMap::new();
    for topic in &body.topics {
        for partition in &topic.partitions {
            let offsets = wanted.entry(topic.name.clone()).or_default();
            offsets.insert(partition.partition_index, partition.offset);
        }
    }
    wanted
}

/// Deletes below an offset; returns where the log begins now.
fn delete(
    node: &Node,
    image: &Published,
    (topic, index): (&str, PartitionIndex),
    offset: Offset,
) -> Result<Offset, ErrorCode> {
    let known = image.topics.by_name(topic).and_then(|topic| topic.partition(index));
    if internal_topics::is_internal(topic) && known.is_some() {
        return Err(ErrorCode::InvalidTopicException);
    }
    let partition = node.leader(image, topic, index)?;
    let policy = partition.config().log.cleanup_policy;
    if policy.compact && !policy.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    partition.with_log(|log| {
        let offset = match offset {
            HIGH_WATERMARK => log.high_watermark(),
            offset => offset,
        };
        if offset < 0 {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        log.delete_records(offset).map_err(|error| error.code())
    })?
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;
    use klamm_protocol::messages::delete_records_request::{
        DeleteRecordsPartition, DeleteRecordsTopic,
    };

    use super::*;

    #[test]
    fn the_offset_that_is_named_last_counts() {
        let topic = |partitions: &[(i32, i64)]| DeleteRecordsTopic {
            name: "t".into(),
            partitions: partitions
                .iter()
                .map(|&(partition_index, offset)| DeleteRecordsPartition {
                    partition_index,
                    offset,
                })
                .collect(),
        };
        let topics = vec![topic(&[(0, 1), (1, 5), (0, 2)]), topic(&[(1, 6)]), topic(&[])];
        let wanted = wanted_offsets(&DeleteRecordsRequest { topics, timeout_ms: 0 });
        assert_eq!(wanted, BTreeMap::from([("t".into(), BTreeMap::from([(0, 2), (1, 6)]))]));
    }

    #[test]
    fn an_answer_can_be_written_in_every_version() {
        let partition = DeleteRecordsPartitionResult {
            partition_index: 0,
            low_watermark: -1,
            error_code: ErrorCode::OffsetOutOfRange.code(),
        };
        let topic = DeleteRecordsTopicResult { name: "t".into(), partitions: vec![partition] };
        let response = DeleteRecordsResponse { topics: vec![topic], ..Default::default() };
        for version in DeleteRecordsResponse::VERSIONS {
            response.encoded(version).unwrap();
        }
    }
}
