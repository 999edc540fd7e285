//! ListOffsets (key 2): the ends of partitions, and offsets by time.
//!
//! A search by time may read from the disk, so it runs on the blocking pool.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytestring::ByteString;
use klamm_log::log::OffsetTarget;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, none_if_minus_one, or_minus_one};
use klamm_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest};
use klamm_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use tracing::debug;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::api::services::Services;
use crate::metadata_cache::PublishedImage;
use crate::replica::partition::ListIsolation;

/// The replica id of a consumer (`CONSUMER_REPLICA_ID`).
const CONSUMER: i32 = -1;
/// The replica id that reads from any replica (`DEBUGGING_REPLICA_ID`).
const DEBUGGING: i32 = -2;
/// The timestamps whose offset does not depend on the log end: earliest, and earliest local.
const BEGINNINGS: [i64; 2] = [-2, -4];
/// The maximum wait for flushes in progress.
const MAX_SYNC_WAIT: Duration = Duration::from_secs(5);
/// The first version with leader epochs in the answer, and the first with OFFSET_NOT_AVAILABLE instead of
/// LEADER_NOT_AVAILABLE (KIP-207).
const FIRST_WITH_EPOCHS: i16 = 4;
const FIRST_WITH_NOT_AVAILABLE: i16 = 5;
/// Special timestamps below -2 and the first version that has them.
const GATED: [(i64, i16); 4] = [(-3, 7), (-4, 8), (-5, 9), (-6, 11)];

message_replies!(ListOffsetsResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let version = context.version();
    let services = context.services;
    // The wait has a limit, because a failing disk may never flush.
    if tokio::time::timeout(MAX_SYNC_WAIT, synced(&services, &body)).await.is_err() {
        debug!("offsets are listed before the logs are flushed");
    }
    let listed = tokio::task::spawn_blocking(move || list(&services, &body, version));
    let topics = match listed.await {
        Ok(topics) => topics,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    ListOffsetsResponse { topics, ..Default::default() }
}

/// Waits until records that were acknowledged before this request are visible to consumers.
async fn synced(services: &Services, body: &ListOffsetsRequest) {
    if body.replica_id != CONSUMER {
        return;
    }
    let image = services.metadata_cache.image();
    for topic in &body.topics {
        let by_end =
            topic.partitions.iter().filter(|wanted| !BEGINNINGS.contains(&wanted.timestamp));
        for wanted in by_end {
            if let Ok(partition) =
                services.replicas.leader(&image, &topic.name, wanted.partition_index)
            {
                partition.synced().await;
            }
        }
    }
}

fn list(
    services: &Services,
    body: &ListOffsetsRequest,
    version: i16,
) -> Vec<ListOffsetsTopicResponse> {
    let image = services.metadata_cache.image();
    let repeated = repeated_partitions(body);
    let reader = reader(body.replica_id, body.isolation_level);
    let mut answers: BTreeMap<&ByteString, BTreeMap<PartitionIndex, _>> = BTreeMap::new();
    for topic in &body.topics {
        for wanted in &topic.partitions {
            let index = wanted.partition_index;
            let found = if repeated.contains(&(&*topic.name, index)) {
                Err(ErrorCode::InvalidRequest)
            } else if !is_supported(wanted.timestamp, version) {
                Err(ErrorCode::UnsupportedVersion)
            } else {
                reader.and_then(|reader| find(services, &image, &topic.name, wanted, reader))
            };
            // A repeated partition is answered once.
            answers.entry(&topic.name).or_default().insert(index, answer(index, found, version));
        }
    }
    let topics = answers.into_iter().map(|(name, partitions)| ListOffsetsTopicResponse {
        name: name.clone(),
        partitions: partitions.into_values().collect(),
    });
    topics.collect()
}

/// The end of the records that the reader may see, and whether a follower may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ListReader {
    isolation: ListIsolation,
    leader_only: bool,
}

/// Kafka has no code for a level that does not exist.
fn reader(replica_id: i32, level: i8) -> Result<ListReader, ErrorCode> {
    let isolation = match (replica_id, level) {
        (CONSUMER, 0) => ListIsolation::ReadUncommitted,
        (CONSUMER, 1) => ListIsolation::ReadCommitted,
        (_, 0 | 1) => ListIsolation::None,
        _ => return Err(ErrorCode::UnknownServerError),
    };
    Ok(ListReader { isolation, leader_only: replica_id != DEBUGGING })
}

fn repeated_partitions(body: &ListOffsetsRequest) -> BTreeSet<(&str, i32)> {
    let mut seen = BTreeSet::new();
    let mut repeated = BTreeSet::new();
    for topic in &body.topics {
        for partition in &topic.partitions {
            let key = (&*topic.name, partition.partition_index);
            if !seen.insert(key) {
                repeated.insert(key);
            }
        }
    }
    repeated
}

fn is_supported(timestamp: i64, version: i16) -> bool {
    timestamp >= -2 || GATED.iter().any(|(gated, first)| *gated == timestamp && version >= *first)
}

/// Timestamp, offset and leader epoch; `None` where no record qualifies.
type Found = Option<(Option<i64>, Offset, Option<LeaderEpoch>)>;

fn find(
    services: &Services,
    image: &PublishedImage,
    topic: &str,
    wanted: &ListOffsetsPartition,
    reader: ListReader,
) -> Result<Found, ErrorCode> {
    let partition = services.replicas.replica(image, topic, wanted.partition_index)?;
    let requested = none_if_minus_one(wanted.current_leader_epoch);
    let epoch = partition.check_epoch(requested, reader.leader_only)?;
    let latest = || match reader.leader_only {
        true => partition.latest_offset(reader.isolation),
        false => {
            let view = partition.view().ok_or(ErrorCode::NotLeaderOrFollower)?;
            Ok((view.log_end(), epoch))
        }
    };
    let target = OffsetTarget::from_wire(wanted.timestamp);
    if target == OffsetTarget::Latest {
        let (offset, epoch) = latest()?;
        return Ok(Some((None, offset, Some(epoch))));
    }
    let view = partition.view().ok_or(ErrorCode::NotLeaderOrFollower)?;
    let found = view.offset_for(target).map_err(|error| error.code())?;
    let found = found.map(|found| (found.timestamp, found.offset, found.leader_epoch));
    match target {
        OffsetTarget::MaxTimestamp | OffsetTarget::Timestamp(_) => {
            // A record at or above the end that the reader may see counts as not found.
            let (end, _) = match found {
                Some((_, offset, _)) if offset < view.last_stable_offset() => return Ok(found),
                _ => latest()?,
            };
            Ok(found.filter(|(_, offset, _)| *offset < end))
        }
        _ => Ok(found),
    }
}

fn answer(
    index: i32,
    found: Result<Found, ErrorCode>,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let mut response =
        ListOffsetsPartitionResponse { partition_index: index, ..Default::default() };
    match found {
        Ok(None) => {}
        Ok(Some((timestamp, offset, epoch))) => {
            response.timestamp = or_minus_one(timestamp);
            response.offset = offset;
            if version >= FIRST_WITH_EPOCHS {
                response.leader_epoch = or_minus_one(epoch);
            }
        }
        Err(ErrorCode::OffsetNotAvailable) if version < FIRST_WITH_NOT_AVAILABLE => {
            response.error_code = ErrorCode::LeaderNotAvailable.code();
        }
        Err(code) => response.error_code = code.code(),
    }
    response
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;

    use super::*;

    #[test]
    fn special_timestamps_exist_from_their_versions_on() {
        assert!(is_supported(-2, 1) && is_supported(0, 1));
        assert!(!is_supported(-3, 6) && is_supported(-3, 7));
        assert!(!is_supported(-6, 10) && is_supported(-6, 11));
        assert!(!is_supported(-7, 11));
    }

    #[test]
    fn only_consumers_have_an_isolation_and_it_has_two_levels() {
        let seen = |replica_id, level| reader(replica_id, level).map(|reader| reader.isolation);
        assert_eq!(seen(-1, 0), Ok(ListIsolation::ReadUncommitted));
        assert_eq!(seen(-1, 1), Ok(ListIsolation::ReadCommitted));
        assert_eq!(seen(7, 1), Ok(ListIsolation::None));
        assert_eq!(seen(-1, 2), Err(ErrorCode::UnknownServerError));
        let asks_leader = |replica_id| reader(replica_id, 0).map(|reader| reader.leader_only);
        assert_eq!([-1, 7, -2].map(asks_leader), [Ok(true), Ok(true), Ok(false)]);
    }

    #[test]
    fn an_answer_can_be_written_in_every_version() {
        for version in ListOffsetsResponse::VERSIONS {
            for found in
                [Ok(None), Ok(Some((Some(5), 6, Some(7)))), Err(ErrorCode::OffsetNotAvailable)]
            {
                let partitions = vec![answer(0, found, version)];
                let topic = ListOffsetsTopicResponse { name: "t".into(), partitions };
                let response = ListOffsetsResponse { topics: vec![topic], ..Default::default() };
                response.encoded(version).unwrap();
            }
        }
    }
}
