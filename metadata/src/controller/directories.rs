//! Log directories (KIP-858): heartbeats report failed and cordoned ones, AssignReplicasToDirs (API 73) reports the
//! directories of replicas.

use std::collections::BTreeSet;

use klamm_protocol::ids::{BrokerId, PartitionIndex};
use klamm_protocol::messages::assign_replicas_to_dirs_request::{
    AssignReplicasToDirsRequest, DirectoryData,
};
use klamm_protocol::messages::assign_replicas_to_dirs_response::{
    self, AssignReplicasToDirsResponse,
};
use klamm_protocol::messages::broker_heartbeat_request::BrokerHeartbeatRequest;
use klamm_protocol::metadata_record::MetadataRecord;
use klamm_protocol::{ErrorCode, Uuid};

use super::Controller;
use super::heartbeat::registration_change;
use super::leader_and_isr::BrokerEvent;
use super::outcome::Outcome;
use crate::image::partition::Partition;
use crate::image::topics::Topic;

impl Controller {
    /// Adds the records for the directories in a heartbeat.
    pub(super) fn record_directories(
        &self,
        request: &BrokerHeartbeatRequest,
        records: &mut Vec<MetadataRecord>,
    ) {
        let broker = self.image().brokers.get(request.broker_id).expect("its epoch was checked");
        let version = self.image().metadata_version();
        let (failed, online): (Vec<Uuid>, Vec<Uuid>) =
            broker.directories.iter().partition(|dir| request.offline_log_dirs.contains(dir));
        if version.is_directory_assignment_supported() && !failed.is_empty() {
            self.move_away_from(request.broker_id, &failed, records);
            records.push(registration_change(request, |change| change.log_dirs = online));
        }
        // A broker sends its cordoned directories only after it has caught up.
        let Some(cordoned) = &request.cordoned_log_dirs else { return };
        if version.is_cordoned_log_dirs_supported() && broker.cordoned_dirs_changed(cordoned) {
            let cordoned = Some(cordoned.clone());
            records.push(registration_change(request, |change| {
                change.cordoned_log_dirs = cordoned;
            }));
        }
    }

    pub(super) fn move_away_from(
        &self,
        broker: BrokerId,
        failed: &[Uuid],
        records: &mut Vec<MetadataRecord>,
    ) {
        let topics = &self.image().topics;
        for (topic, index, partition) in topics.replicated_on(broker) {
            if partition.directory(broker).is_some_and(|dir| failed.contains(&dir)) {
                let event = BrokerEvent::Leaves(broker);
                records.extend(self.updated_partition(event, topic, index, partition));
            }
        }
    }

    /// Records the log directories of a broker's replicas.
    pub fn on_assign_replicas_to_dirs(
        &self,
        request: &AssignReplicasToDirsRequest,
    ) -> Outcome<AssignReplicasToDirsResponse> {
        let refused = |code: ErrorCode| {
            let error_code = code.code();
            Outcome::answer(AssignReplicasToDirsResponse { error_code, ..Default::default() })
        };
        if !self.image().metadata_version().is_directory_assignment_supported() {
            return refused(ErrorCode::UnsupportedVersion);
        }
        if let Err(error) = self.check_broker_epoch(request.broker_id, request.broker_epoch) {
            return refused(error.code());
        }
        let mut changes =
            AssignmentChanges { broker: request.broker_id, records: Vec::new(), lost: Vec::new() };
        let directories = request
            .directories
            .iter()
            .map(|dir| self.assign_directory(dir, &mut changes))
            .collect();
        let AssignmentChanges { mut records, lost, .. } = changes;
        for (topic, index) in lost.into_iter().collect::<BTreeSet<_>>() {
            let topic = self.image().topics.by_id(topic).expect("the replica was found before");
            let partition = topic.partition(index).expect("the replica was found before");
            let event = BrokerEvent::Leaves(request.broker_id);
            records.extend(self.updated_partition(event, topic, index, partition));
        }
        let response = AssignReplicasToDirsResponse { directories, ..Default::default() };
        Outcome::spread(records, response)
    }

    fn assign_directory(
        &self,
        requested: &DirectoryData,
        changes: &mut AssignmentChanges,
    ) -> assign_replicas_to_dirs_response::DirectoryData {
        let topics = requested.topics.iter().map(|requested_topic| {
            let topic = self.image().topics.by_id(requested_topic.topic_id);
            let partitions = requested_topic.partitions.iter().map(|partition| {
                let index = partition.partition_index;
                let code = match replica_of(topic, index, changes.broker) {
                    Ok((topic, partition)) => {
                        self.assign_replica(topic, index, partition, requested.id, changes);
                        ErrorCode::None
                    }
                    Err(code) => code,
                };
                assign_replicas_to_dirs_response::PartitionData {
                    partition_index: index,
                    error_code: code.code(),
                }
            });
            assign_replicas_to_dirs_response::TopicData {
                topic_id: requested_topic.topic_id,
                partitions: partitions.collect(),
            }
        });
        assign_replicas_to_dirs_response::DirectoryData {
            id: requested.id,
            topics: topics.collect(),
        }
    }

    fn assign_replica(
        &self,
        topic: &Topic,
        index: PartitionIndex,
        partition: &Partition,
        directory: Uuid,
        changes: &mut AssignmentChanges,
    ) {
        let broker = changes.broker;
        changes.records.extend(self.changed_by_request(topic, index, partition, |change| {
            change.set_directory(broker, directory);
        }));
        if !self.image().brokers.has_online_dir(broker, directory) {
            changes.lost.push((topic.id, index));
        }
    }
}

/// The collected changes of a request.
struct AssignmentChanges {
    broker: BrokerId,
    records: Vec<MetadataRecord>,
    /// Replicas in a failed directory.
    lost: Vec<(Uuid, PartitionIndex)>,
}

fn replica_of(
    topic: Option<&Topic>,
    index: PartitionIndex,
    broker: BrokerId,
) -> Result<(&Topic, &Partition), ErrorCode> {
    let topic = topic.ok_or(ErrorCode::UnknownTopicId)?;
    let partition = topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if !partition.replicas.contains(&broker) {
        return Err(ErrorCode::NotLeaderOrFollower);
    }
    Ok((topic, partition))
}

#[cfg(test)]
mod tests;
