//! DeleteRecords (key 21): moves the log start offset of partitions (KIP-107), and waits until all replicas have moved
//! theirs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{Offset, PartitionIndex};
use klamm_protocol::messages::delete_records_request::DeleteRecordsRequest;
use klamm_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use tokio::time::{Instant, timeout_at};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::api::services::Services;
use crate::cluster::internal_topics;
use crate::metadata_cache::PublishedImage;
use crate::replica::partition::Partition;

/// The requested offset that means the high watermark (`DeleteRecordsRequest.HIGH_WATERMARK`).
const HIGH_WATERMARK: Offset = -1;
/// `DeleteRecordsResponse.INVALID_LOW_WATERMARK`
const INVALID_LOW_WATERMARK: Offset = -1;

message_replies!(DeleteRecordsResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let limit = Duration::from_millis(u64::try_from(body.timeout_ms).unwrap_or_default());
    let deadline = Instant::now() + limit;
    let services = &context.services;
    let image = services.metadata_cache.image();
    let mut topics = Vec::new();
    for (name, offsets) in wanted_offsets(&body) {
        let mut partitions = Vec::with_capacity(offsets.len());
        for (index, offset) in offsets {
            let deleted = delete(services, &image, (&name, index), offset, deadline).await;
            partitions.push((index, deleted));
        }
        topics.push((name, partitions));
    }
    services.replicas.log_starts_moved.notify_one();
    let mut results = Vec::with_capacity(topics.len());
    for (name, deleted) in topics {
        let mut partitions = Vec::with_capacity(deleted.len());
        for (partition_index, deleted) in deleted {
            let (low_watermark, error) = everywhere(deleted, deadline).await;
            let error_code = error.code();
            partitions.push(DeleteRecordsPartitionResult {
                partition_index,
                low_watermark,
                error_code,
            });
        }
        results.push(DeleteRecordsTopicResult { name, partitions });
    }
    DeleteRecordsResponse { topics: results, ..Default::default() }
}

/// A partition whose log start has moved on this broker, and not yet on its other replicas.
struct Deleted {
    partition: Arc<Partition>,
    /// The requested log start offset.
    offset: Offset,
    log_start: Offset,
}

/// Waits for the other replicas (Kafka's DelayedDeleteRecords); returns the low watermark and the error code.
async fn everywhere(deleted: Result<Deleted, ErrorCode>, deadline: Instant) -> (Offset, ErrorCode) {
    let Deleted { partition, offset, log_start } = match deleted {
        Ok(deleted) => deleted,
        Err(error) => return (INVALID_LOW_WATERMARK, error),
    };
    match timeout_at(deadline, partition.deleted_everywhere(offset)).await {
        Ok(Ok(low_watermark)) => (low_watermark, ErrorCode::None),
        Ok(Err(error)) => (INVALID_LOW_WATERMARK, error),
        Err(_) => (log_start, ErrorCode::RequestTimedOut),
    }
}

/// Each partition with the last offset that the request names for it.
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

/// Deletes records below an offset in this broker's log.
async fn delete(
    services: &Services,
    image: &PublishedImage,
    (topic, index): (&str, PartitionIndex),
    offset: Offset,
    deadline: Instant,
) -> Result<Deleted, ErrorCode> {
    let known = image.topics.by_name(topic).and_then(|topic| topic.partition(index));
    if internal_topics::is_internal(topic) && known.is_some() {
        return Err(ErrorCode::InvalidTopicException);
    }
    let partition = services.replicas.leader(image, topic, index)?;
    let policy = partition.config().log.cleanup_policy;
    if policy.compact && !policy.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    // Without followers, acknowledged records may still be unflushed: waits until they are committed. If they are not
    // in time, the offset is above the high watermark, and the log refuses it.
    drop(timeout_at(deadline, partition.synced()).await);
    let (offset, log_start) = partition.with_log(|log| {
        let offset = match offset {
            HIGH_WATERMARK => log.high_watermark(),
            offset => offset,
        };
        if offset < 0 {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let log_start = log.delete_records(offset).map_err(|error| error.code())?;
        Ok((offset, log_start))
    })??;
    Ok(Deleted { partition, offset, log_start })
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
