//! Reports of this broker's log directories to the controller (KIP-858): the directory of each replica
//! (AssignReplicasToDirs). Failed directories are reported by heartbeats.
//!
//! One AssignReplicasToDirs is under way at a time. A replica is reported until the controller has taken note or
//! the replica is no longer here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_metadata::directory_id;
use klamm_metadata::image::ClusterImage;
use klamm_metadata::image::partition::Partition as Registered;
use klamm_protocol::ids::{BrokerId, or_minus_one};
use klamm_protocol::messages::assign_replicas_to_dirs_request::{
    AssignReplicasToDirsRequest, DirectoryData, PartitionData, TopicData,
};
use klamm_protocol::messages::assign_replicas_to_dirs_response::AssignReplicasToDirsResponse;
use klamm_protocol::{ErrorCode, Uuid};
use tokio::sync::Notify;
use tracing::{debug, error, info};

use super::replica_manager::ReplicaManager;
use crate::controller::channel::ControllerChannel;
use klamm_protocol::ids::TopicIdPartition;

/// The pause before a request without progress is sent again.
const RETRY_BACKOFF: Duration = Duration::from_millis(100);
/// The maximum number of replicas in one request (`AssignReplicasToDirsRequest.MAX_ASSIGNMENTS_PER_REQUEST`).
const MAX_ASSIGNMENTS: usize = 2250;
/// How often the directories are checked for failures.
const FAILURE_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Replicas whose directory has to be reported to the controller.
#[derive(Debug, Default)]
pub(crate) struct DirectoryAssignments {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    assignments: BTreeMap<TopicIdPartition, WaitingAssignment>,
    next_number: u64,
}

/// A report that waits. The same report may have to be sent again while the first is under way: the controller elects by the
/// second (see [`waits_for_election`]), so the answer to the first settles only the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WaitingAssignment {
    directory: Uuid,
    number: u64,
}

impl DirectoryAssignments {
    /// Reports to the controller that a replica lies in a directory.
    pub(super) fn assign(&self, key: TopicIdPartition, directory: Uuid) {
        let mut waiting = self.lock();
        let number = waiting.next_number;
        waiting.next_number += 1;
        waiting.assignments.insert(key, WaitingAssignment { directory, number });
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The waiting reports for the next request, at most `MAX_ASSIGNMENTS`. Drops those that the metadata already has.
    fn next(&self, replicas: &ReplicaManager) -> BTreeMap<TopicIdPartition, WaitingAssignment> {
        let (image, broker_id) = (replicas.metadata_cache.image(), replicas.config.node_id);
        let mut waiting = self.lock();
        // A replica that the image does not have stays: its metadata may be about to be published.
        waiting.assignments.retain(|key, WaitingAssignment { directory, .. }| {
            recorded(&image, *key, broker_id) != Some(*directory)
                || replica(&image, *key).is_some_and(|known| {
                    waits_for_election(known, broker_id)
                        || is_still_counted_on(known, *directory, broker_id)
                })
        });
        let first = waiting.assignments.iter().take(MAX_ASSIGNMENTS);
        first.map(|(key, assignment)| (*key, *assignment)).collect()
    }

    /// The controller has answered the report of a replica. A newer report of the same replica stays.
    fn settle(&self, key: TopicIdPartition, sent: WaitingAssignment) {
        let mut waiting = self.lock();
        if waiting.assignments.get(&key) == Some(&sent) {
            waiting.assignments.remove(&key);
        }
    }

    /// Sends the reports to the controller, for as long as it is polled.
    pub(super) async fn run(&self, replicas: &ReplicaManager, channel: &ControllerChannel) {
        loop {
            let assignments = self.next(replicas);
            if assignments.is_empty() {
                self.news.notified().await;
                continue;
            }
            let request = request(replicas, &assignments);
            let settled = match channel.ask(&request).await {
                Ok(response) => settled(&response),
                Err(failure) => {
                    debug!("AssignReplicasToDirs failed and is retried: {failure}");
                    Vec::new()
                }
            };
            let progress = !settled.is_empty();
            for (key, directory) in settled {
                if let Some(sent) = assignments.get(&key).filter(|sent| sent.directory == directory)
                {
                    self.settle(key, *sent);
                }
            }
            if !progress {
                tokio::time::sleep(RETRY_BACKOFF).await;
            }
        }
    }
}

/// The directory that the metadata has for this broker's replica; `None` if this broker has no replica.
pub(super) fn recorded(
    image: &ClusterImage,
    key: TopicIdPartition,
    broker_id: BrokerId,
) -> Option<Uuid> {
    replica(image, key)?.directory(broker_id)
}

fn replica(
    image: &ClusterImage,
    TopicIdPartition { topic_id, partition }: TopicIdPartition,
) -> Option<&Registered> {
    image.topics.by_id(topic_id)?.partition(partition)
}

/// The partition has no leader and this broker could lead it. A controller that gets a new directory elects by the old one;
/// when it gets the same directory again, it elects by that (`PartitionChangeBuilder`).
pub(super) fn waits_for_election(known: &Registered, broker_id: BrokerId) -> bool {
    let could_lead = [&known.isr, &known.elr, &known.last_known_elr];
    !known.has_leader() && could_lead.iter().any(|ids| ids.contains(&broker_id))
}

/// A leader has taken a replica into the ISR again that has just reported its log as lost: the last fetch of the replica was
/// still under way.
fn is_still_counted_on(known: &Registered, directory: Uuid, broker_id: BrokerId) -> bool {
    directory_id::is_given_up(directory) && known.isr.contains(&broker_id)
}

fn request(
    replicas: &ReplicaManager,
    assignments: &BTreeMap<TopicIdPartition, WaitingAssignment>,
) -> AssignReplicasToDirsRequest {
    let mut directories: BTreeMap<Uuid, BTreeMap<Uuid, Vec<PartitionData>>> = BTreeMap::new();
    for (
        TopicIdPartition { topic_id, partition: partition_index },
        WaitingAssignment { directory, .. },
    ) in assignments
    {
        let topics = directories.entry(*directory).or_default();
        let partition = PartitionData { partition_index: *partition_index };
        topics.entry(*topic_id).or_default().push(partition);
    }
    let directories = directories.into_iter().map(|(id, topics)| DirectoryData {
        id,
        topics: topics
            .into_iter()
            .map(|(topic_id, partitions)| TopicData { topic_id, partitions })
            .collect(),
    });
    AssignReplicasToDirsRequest {
        broker_id: replicas.config.node_id,
        broker_epoch: or_minus_one(replicas.session.broker_epoch()),
        directories: directories.collect(),
    }
}

/// The reports in a response that need no retry.
fn settled(response: &AssignReplicasToDirsResponse) -> Vec<(TopicIdPartition, Uuid)> {
    if response.error_code != ErrorCode::None.code() {
        debug!("AssignReplicasToDirs is refused with error {}", response.error_code);
        return Vec::new();
    }
    let mut settled = Vec::new();
    for directory in &response.directories {
        for topic in &directory.topics {
            for partition in &topic.partitions {
                // The controller has recorded the directory, or the replica no longer exists.
                let done = matches!(
                    ErrorCode::from_code(partition.error_code),
                    Some(
                        ErrorCode::None
                            | ErrorCode::UnknownTopicId
                            | ErrorCode::UnknownTopicOrPartition
                            | ErrorCode::NotLeaderOrFollower
                    )
                );
                if done {
                    let key = TopicIdPartition::new(topic.topic_id, partition.partition_index);
                    settled.push((key, directory.id));
                }
            }
        }
    }
    settled
}

/// Takes the replicas of a failed directory offline. Their leaderships move when a heartbeat has reported the
/// directory.
pub(super) async fn watch_failures(replicas: Arc<ReplicaManager>) {
    let mut known: Vec<PathBuf> = Vec::new();
    let mut ticks = tokio::time::interval(FAILURE_CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let failed = replicas.log_manager.failed_directories();
        if failed == known {
            continue;
        }
        known = failed.iter().map(PathBuf::from).collect();
        for partition in replicas.partitions.all() {
            let directory = replicas.log_manager.directory_of(partition.topic(), partition.index());
            if directory.is_some_and(|directory| failed.contains(&directory)) {
                partition.fail();
            }
        }
        match failed.is_empty() {
            true => info!("all log directories are in use again"),
            false => error!(
                "log directories out of use: {}",
                replicas.log_manager.why_failed().join("; ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::assign_replicas_to_dirs_response as answer;

    use super::*;

    const DIRECTORY: Uuid = Uuid::from_bytes([1; 16]);
    const TOPIC: Uuid = Uuid::from_bytes([2; 16]);

    fn key(partition: i32) -> TopicIdPartition {
        TopicIdPartition::new(TOPIC, partition)
    }

    fn response(codes: &[ErrorCode]) -> AssignReplicasToDirsResponse {
        let partitions = codes.iter().zip(0..).map(|(code, partition_index)| {
            answer::PartitionData { partition_index, error_code: code.code() }
        });
        let topic = answer::TopicData { topic_id: TOPIC, partitions: partitions.collect() };
        let directories = vec![answer::DirectoryData { id: DIRECTORY, topics: vec![topic] }];
        AssignReplicasToDirsResponse { directories, ..Default::default() }
    }

    #[test]
    fn a_replica_is_reported_until_the_controller_knows_or_there_is_none() {
        let codes = [ErrorCode::None, ErrorCode::NotController, ErrorCode::UnknownTopicId];
        let settled = settled(&response(&codes));
        assert_eq!(settled, [(key(0), DIRECTORY), (key(2), DIRECTORY)]);
        let refused = AssignReplicasToDirsResponse {
            error_code: ErrorCode::StaleBrokerEpoch.code(),
            ..response(&codes)
        };
        assert_eq!(super::settled(&refused), []);
    }

    fn waiting(assignments: &DirectoryAssignments) -> WaitingAssignment {
        assignments.lock().assignments[&key(0)]
    }

    #[test]
    fn a_replica_that_has_moved_meanwhile_is_reported_again() {
        let assignments = DirectoryAssignments::default();
        assignments.assign(key(0), DIRECTORY);
        let first = waiting(&assignments);
        assignments.assign(key(0), TOPIC);
        assignments.settle(key(0), first);
        assert_eq!(waiting(&assignments).directory, TOPIC);
        assignments.settle(key(0), waiting(&assignments));
        assert!(assignments.lock().assignments.is_empty());
    }

    #[test]
    fn a_replica_that_waits_for_an_election_is_reported_again_while_the_first_report_is_under_way()
    {
        let assignments = DirectoryAssignments::default();
        assignments.assign(key(0), DIRECTORY);
        let first = waiting(&assignments);
        // The image with the first report is published before its response arrives.
        assignments.assign(key(0), DIRECTORY);
        assignments.settle(key(0), first);
        assert_eq!(waiting(&assignments).directory, DIRECTORY);
    }
}
