//! DescribeLogDirs (key 35): this broker's log directories, their space, and the partitions in them
//! (KIP-113).
//!
//! It reads from the file system, so it runs on the blocking pool.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{Offset, PartitionIndex};
use klamm_protocol::messages::describe_log_dirs_request::{
    DescribableLogDirTopic, DescribeLogDirsRequest,
};
use klamm_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::api::services::Services;
use crate::replica::log_manager::DirectoryStatus;

message_replies!(DescribeLogDirsResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let services = context.services;
    let described =
        tokio::task::spawn_blocking(move || describe(&services, body.topics.as_deref()));
    let results = match described.await {
        Ok(results) => results,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    DescribeLogDirsResponse { results, ..Default::default() }
}

/// A log in a directory.
#[derive(Debug, Clone, Copy)]
struct Found {
    size: u64,
    /// `None` for the log in use; for a future replica, its lag in offsets.
    copy_lag: Option<Offset>,
}

/// The partitions in a directory, by topic.
type Logs = BTreeMap<ByteString, BTreeMap<PartitionIndex, Found>>;

fn describe(
    services: &Services,
    topics: Option<&[DescribableLogDirTopic]>,
) -> Vec<DescribeLogDirsResult> {
    let asked: Option<BTreeSet<(&str, PartitionIndex)>> = topics.map(|topics| {
        let pairs = topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|index| (&*topic.topic, *index)));
        pairs.collect()
    });
    let mut by_directory: BTreeMap<&Path, Logs> = BTreeMap::new();
    for partition in services.replicas.partitions.all() {
        let (topic, index) = (partition.topic(), partition.index());
        if asked.as_ref().is_some_and(|asked| !asked.contains(&(&**topic, index))) {
            continue;
        }
        let mut add = |directory, found| {
            let logs: &mut Logs = by_directory.entry(directory).or_default();
            logs.entry(topic.clone()).or_default().insert(index, found);
        };
        // A partition that is being deleted has no directory, or no log.
        let Some(directory) = services.replicas.log_manager.directory_of(topic, index) else {
            continue;
        };
        let Some(size) = partition.size() else { continue };
        add(directory, Found { size, copy_lag: None });
        let copy = partition.with_future(|future| (future.place, future.log.size()));
        if let (Some((place, size)), Some(lag)) = (copy, partition.future_lag()) {
            add(services.replicas.log_manager.path_at(place), Found { size, copy_lag: Some(lag) });
        }
    }
    let directories = services.replicas.log_manager.directories().into_iter();
    let described = directories.map(|directory| {
        let logs = by_directory.remove(&*directory.path).unwrap_or_default();
        let is_cordoned = services.replicas.is_cordoned(&directory);
        result(&directory, logs, is_cordoned)
    });
    described.collect()
}

fn result(directory: &DirectoryStatus, logs: Logs, is_cordoned: bool) -> DescribeLogDirsResult {
    let log_dir = directory.absolute_path().into();
    let Some(space) = &directory.space else {
        let error_code = ErrorCode::KafkaStorageError.code();
        return DescribeLogDirsResult { error_code, log_dir, ..Default::default() };
    };
    let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let topics = logs.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(partition_index, found)| {
            DescribeLogDirsPartition {
                partition_index,
                partition_size: bytes(found.size),
                // The log in use has no lag.
                offset_lag: found.copy_lag.unwrap_or(0),
                is_future_key: found.copy_lag.is_some(),
            }
        });
        DescribeLogDirsTopic { name, partitions: partitions.collect() }
    });
    DescribeLogDirsResult {
        error_code: ErrorCode::None.code(),
        log_dir,
        topics: topics.collect(),
        total_bytes: bytes(space.total_bytes),
        usable_bytes: bytes(space.usable_bytes),
        is_cordoned,
    }
}

#[cfg(test)]
mod tests {
    use klamm_log::disk::DiskSpace;
    use klamm_protocol::Message;

    use super::*;

    fn directory(space: Option<DiskSpace>) -> DirectoryStatus {
        DirectoryStatus { path: "/data".into(), space }
    }

    fn logs() -> Logs {
        let in_use = Found { size: 5, copy_lag: None };
        let copy = Found { size: 6, copy_lag: Some(2) };
        BTreeMap::from([("t".into(), BTreeMap::from([(0, in_use), (3, copy)]))])
    }

    #[test]
    fn a_directory_without_space_to_tell_is_offline_and_lists_nothing() {
        let described = result(&directory(None), logs(), false);
        assert_eq!(described.error_code, ErrorCode::KafkaStorageError.code());
        assert_eq!((described.topics.len(), described.total_bytes), (0, -1));
    }

    #[test]
    fn an_answer_can_be_written_in_every_version() {
        let space = DiskSpace { total_bytes: u64::MAX, usable_bytes: 7 };
        let online = result(&directory(Some(space)), logs(), true);
        assert_eq!((online.total_bytes, online.usable_bytes), (i64::MAX, 7));
        let offline = result(&directory(None), logs(), false);
        let response =
            DescribeLogDirsResponse { results: vec![online, offline], ..Default::default() };
        for version in DescribeLogDirsResponse::VERSIONS {
            response.encoded(version).unwrap();
        }
    }
}
