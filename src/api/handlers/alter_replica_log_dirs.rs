//! AlterReplicaLogDirs (key 34): moves replicas to other log directories of this broker (KIP-113).
//!
//! A replica moves in the background: see [`crate::replica::alter_log_dirs`]. For a replica that this broker does not
//! have yet the directory is remembered, although the answer is an error.

use std::collections::BTreeMap;
use std::path::Path;

use bytestring::ByteString;
use klamm_log::partition_dir::PartitionDirName;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::PartitionIndex;
use klamm_protocol::messages::alter_replica_log_dirs_request::AlterReplicaLogDirsRequest;
use klamm_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsResponse,
};
use tracing::warn;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::api::services::Services;
use crate::metadata_cache::PublishedImage;
use crate::replica::alter_log_dirs::BeginError;
use crate::replica::log_manager::DirectoryStatus;

/// The maximum length of a file name.
const MAX_FILE_NAME_LENGTH: usize = 255;
/// `.<32 hex digits>-future`, Kafka's suffix of the directory name of a future replica.
const FUTURE_SUFFIX_LENGTH: usize = 40;

/// Why a replica is not moved.
#[derive(Debug, thiserror::Error)]
enum MoveRefusal {
    #[error("the topic's name leaves no room for a suffix")]
    NameTooLong,
    #[error("the directory is not one of log.dirs")]
    UnknownDirectory,
    #[error("the directory is offline")]
    OfflineDirectory,
    #[error("the directory is cordoned, it takes no new replicas")]
    CordonedDirectory,
    #[error("there is no such partition")]
    UnknownPartition,
    #[error("this broker has no replica of the partition")]
    NotHere,
    #[error("the replica's own directory is offline")]
    OfflineReplica,
    #[error(transparent)]
    NotBegun(#[from] BeginError),
}

impl MoveRefusal {
    fn code(&self) -> ErrorCode {
        match self {
            Self::NameTooLong => ErrorCode::InvalidTopicException,
            Self::UnknownDirectory => ErrorCode::LogDirNotFound,
            Self::OfflineDirectory | Self::OfflineReplica => ErrorCode::KafkaStorageError,
            Self::CordonedDirectory => ErrorCode::InvalidReplicaAssignment,
            Self::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
            Self::NotHere | Self::NotBegun(BeginError::Gone) => ErrorCode::ReplicaNotAvailable,
            Self::NotBegun(BeginError::OfflineDirectory) => ErrorCode::KafkaStorageError,
            Self::NotBegun(BeginError::Log(failure)) => failure.code(),
        }
    }
}

message_replies!(AlterReplicaLogDirsResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let services = context.services;
    let altered = tokio::task::spawn_blocking(move || alter(&services, &body));
    let results = match altered.await {
        Ok(results) => results,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    AlterReplicaLogDirsResponse { results, ..Default::default() }
}

fn alter(
    services: &Services,
    body: &AlterReplicaLogDirsRequest,
) -> Vec<AlterReplicaLogDirTopicResult> {
    let image = services.metadata_cache.image();
    let directories = services.replicas.log_manager.directories();
    let wanted = wanted_directories(body).into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(partition_index, path)| {
            let replica = (&name, partition_index);
            let altered = check_name(replica)
                .and_then(|()| check_directory(services, &directories, &path))
                .and_then(|path| alter_one(services, &image, replica, path));
            let error = altered.err().map(|refusal| {
                warn!("{name}-{partition_index} is not moved to {path}: {refusal}");
                refusal.code()
            });
            let error_code = error.unwrap_or(ErrorCode::None).code();
            AlterReplicaLogDirPartitionResult { partition_index, error_code }
        });
        let partitions = partitions.collect();
        AlterReplicaLogDirTopicResult { topic_name: name.clone(), partitions }
    });
    wanted.collect()
}

/// Each partition with the last directory that the request names for it.
fn wanted_directories(
    body: &AlterReplicaLogDirsRequest,
) -> BTreeMap<ByteString, BTreeMap<PartitionIndex, ByteString>> {
    let mut wanted: BTreeMap<ByteString, BTreeMap<_, _>> = BTreeMap::new();
    for directory in &body.dirs {
        for topic in &directory.topics {
            let partitions = wanted.entry(topic.name.clone()).or_default();
            partitions
                .extend(topic.partitions.iter().map(|index| (*index, directory.path.clone())));
        }
    }
    wanted
}

fn check_directory<'a>(
    services: &Services,
    directories: &'a [DirectoryStatus],
    path: &str,
) -> Result<&'a Path, MoveRefusal> {
    let directory = directories.iter().find(|directory| directory.absolute_path() == path);
    let directory = directory.ok_or(MoveRefusal::UnknownDirectory)?;
    if directory.space.is_none() {
        return Err(MoveRefusal::OfflineDirectory);
    }
    if services.replicas.is_cordoned(directory) {
        return Err(MoveRefusal::CordonedDirectory);
    }
    Ok(&directory.path)
}

fn check_name((name, index): (&ByteString, PartitionIndex)) -> Result<(), MoveRefusal> {
    let length = PartitionDirName::current(name, index).len() + FUTURE_SUFFIX_LENGTH;
    if length > MAX_FILE_NAME_LENGTH { Err(MoveRefusal::NameTooLong) } else { Ok(()) }
}

fn alter_one(
    services: &Services,
    image: &PublishedImage,
    (name, index): (&ByteString, PartitionIndex),
    directory: &Path,
) -> Result<(), MoveRefusal> {
    let topic = image.topics.by_name(name);
    let partition = topic.and_then(|topic| services.replicas.partitions.get(topic.id, index));
    if let Some(partition) = partition {
        if partition.is_offline() {
            return Err(MoveRefusal::OfflineReplica);
        }
        return Ok(services.replicas.alter_log_dirs.alter(
            &services.replicas,
            &partition,
            directory,
        )?);
    }
    if let Some(place) = services.replicas.log_manager.place_at(directory) {
        services.replicas.log_manager.prefer(name, index, place);
    }
    match topic.and_then(|topic| topic.partition(index)) {
        Some(_) => Err(MoveRefusal::NotHere),
        None => Err(MoveRefusal::UnknownPartition),
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;
    use klamm_protocol::messages::alter_replica_log_dirs_request::{
        AlterReplicaLogDir, AlterReplicaLogDirTopic,
    };

    use super::*;

    #[test]
    fn the_directory_that_is_named_last_is_meant() {
        let dir = |path: &str| AlterReplicaLogDir {
            path: path.into(),
            topics: vec![AlterReplicaLogDirTopic { name: "t".into(), partitions: vec![0, 1] }],
        };
        let mut body = AlterReplicaLogDirsRequest { dirs: vec![dir("/a"), dir("/b")] };
        body.dirs[1].topics[0].partitions = vec![1];
        let wanted = wanted_directories(&body);
        let expected = BTreeMap::from([(0, "/a".into()), (1, "/b".into())]);
        assert_eq!(wanted[&ByteString::from_static("t")], expected);
    }

    #[test]
    fn an_answer_can_be_written_in_every_version() {
        let error_code = MoveRefusal::UnknownDirectory.code().code();
        let partition = AlterReplicaLogDirPartitionResult { partition_index: 0, error_code };
        let topic =
            AlterReplicaLogDirTopicResult { topic_name: "t".into(), partitions: vec![partition] };
        let response = AlterReplicaLogDirsResponse { results: vec![topic], ..Default::default() };
        for version in AlterReplicaLogDirsResponse::VERSIONS {
            response.encoded(version).unwrap();
        }
    }
}
