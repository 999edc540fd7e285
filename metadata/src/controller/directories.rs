//! Log directories (KIP-858): heartbeats report failed and cordoned ones, AssignReplicasToDirs
//! (API 73) says where replicas are.

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
    /// What a heartbeat says of the broker's directories.
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
        // A broker names its cordoned directories only once it has caught up.
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

    /// Notes in which directories a broker keeps its replicas.
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
        let mut moves = Moves { broker: request.broker_id, records: Vec::new(), lost: Vec::new() };
        let directories =
            request.directories.iter().map(|dir| self.assign_directory(dir, &mut moves)).collect();
        let Moves { mut records, lost, .. } = moves;
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
        asked: &DirectoryData,
        moves: &mut Moves,
    ) -> assign_replicas_to_dirs_response::DirectoryData {
        let topics = asked.topics.iter().map(|asked_topic| {
            let topic = self.image().topics.by_id(asked_topic.topic_id);
            let partitions = asked_topic.partitions.iter().map(|partition| {
                let index = partition.partition_index;
                let code = match replica_of(topic, index, moves.broker) {
                    Ok((topic, partition)) => {
                        self.assign_replica(topic, index, partition, asked.id, moves);
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
                topic_id: asked_topic.topic_id,
                partitions: partitions.collect(),
            }
        });
        assign_replicas_to_dirs_response::DirectoryData { id: asked.id, topics: topics.collect() }
    }

    fn assign_replica(
        &self,
        topic: &Topic,
        index: PartitionIndex,
        partition: &Partition,
        directory: Uuid,
        moves: &mut Moves,
    ) {
        let broker = moves.broker;
        moves.records.extend(self.changed_by_request(topic, index, partition, |change| {
            change.set_directory(broker, directory);
        }));
        if !self.image().brokers.has_online_dir(broker, directory) {
            moves.lost.push((topic.id, index));
        }
    }
}

/// What a request comes to while it is read.
struct Moves {
    broker: BrokerId,
    records: Vec<MetadataRecord>,
    /// Replicas that turn out to be in a failed directory.
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
