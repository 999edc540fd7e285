//! AlterPartition (API 56): a leader proposes another ISR (KIP-497, KIP-841, KIP-903).

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, PartitionIndex, none_if_minus_one, or_minus_one};
use klamm_protocol::messages::alter_partition_request::{
    AlterPartitionRequest, BrokerState, PartitionData,
};
use klamm_protocol::messages::alter_partition_response::{self, AlterPartitionResponse, TopicData};
use klamm_protocol::metadata_record::MetadataRecord;

use super::Controller;
use super::outcome::Outcome;
use super::partition_change::Election;
use crate::image::partition::{LeaderRecoveryState, NO_LEADER_CHANGE, Partition};
use crate::image::topics::Topic;

impl Controller {
    /// Changes ISRs as their leaders request. A request of version 2 carries `new_isr`; lower it to
    /// `new_isr_with_epochs` with epoch -1.
    pub fn on_alter_partition(
        &self,
        request: &AlterPartitionRequest,
    ) -> Outcome<AlterPartitionResponse> {
        if request.topics.is_empty() {
            return Outcome::answer(AlterPartitionResponse::default());
        }
        if let Err(error) = self.check_broker_epoch(request.broker_id, request.broker_epoch) {
            let error_code = error.code().code();
            return Outcome::answer(AlterPartitionResponse { error_code, ..Default::default() });
        }
        let mut records = Vec::new();
        let topics = request.topics.iter().map(|asked| {
            let topic = self.image().topics.by_id(asked.topic_id);
            let partitions = asked.partitions.iter().map(|data| match topic {
                None => refused(data.partition_index, ErrorCode::UnknownTopicId),
                Some(topic) => self.alter_partition(request.broker_id, topic, data, &mut records),
            });
            TopicData { topic_id: asked.topic_id, partitions: partitions.collect() }
        });
        let topics = topics.collect();
        Outcome::spread(records, AlterPartitionResponse { topics, ..Default::default() })
    }

    fn alter_partition(
        &self,
        broker: BrokerId,
        topic: &Topic,
        data: &PartitionData,
        records: &mut Vec<MetadataRecord>,
    ) -> alter_partition_response::PartitionData {
        let index = data.partition_index;
        let (partition, recovery_state) = match self.check(broker, topic, data) {
            Ok(checked) => checked,
            Err(code) => return refused(index, code),
        };
        let change = self.changed_by_request(topic, index, partition, |change| {
            if self.is_unclean_election_enabled(&topic.name) {
                change.election = Election::Unclean;
            }
            change.isr = data.new_isr_with_epochs.iter().map(|state| state.broker_id).collect();
            change.leader_recovery_state = recovery_state;
        });
        let Some(MetadataRecord::PartitionChange(change)) = change else {
            return accepted(index, partition);
        };
        let changed = partition
            .merge(&topic.name, &change)
            .expect("the controller's own changes fit the image");
        let other_leader = change.leader != broker && change.leader != NO_LEADER_CHANGE;
        records.push(MetadataRecord::PartitionChange(change));
        if other_leader {
            // The change completes a reassignment and moves the leadership: it is made, and the sender gets
            // NEW_LEADER_ELECTED.
            return refused(index, ErrorCode::NewLeaderElected);
        }
        accepted(index, &changed)
    }

    /// The checks are in Kafka's order: a higher epoch than the current one means that this controller is no longer
    /// active.
    fn check<'t>(
        &self,
        broker: BrokerId,
        topic: &'t Topic,
        data: &PartitionData,
    ) -> Result<(&'t Partition, LeaderRecoveryState), ErrorCode> {
        let partition =
            topic.partition(data.partition_index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        if data.leader_epoch > partition.leader_epoch
            || data.partition_epoch > partition.partition_epoch
        {
            return Err(ErrorCode::NotController);
        }
        if data.leader_epoch < partition.leader_epoch {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if partition.leader != Some(broker) {
            return Err(ErrorCode::InvalidRequest);
        }
        if data.partition_epoch < partition.partition_epoch {
            return Err(ErrorCode::InvalidUpdateVersion);
        }
        let isr = &data.new_isr_with_epochs;
        if !is_valid_isr(&partition.replicas, isr)
            || !isr.iter().any(|state| state.broker_id == broker)
        {
            return Err(ErrorCode::InvalidRequest);
        }
        let state = LeaderRecoveryState::from_value(data.leader_recovery_state)
            .ok_or(ErrorCode::InvalidRequest)?;
        let recovering = state == LeaderRecoveryState::Recovering;
        let recovered = partition.leader_recovery_state == LeaderRecoveryState::Recovered;
        if recovering && (isr.len() > 1 || recovered) {
            return Err(ErrorCode::InvalidRequest);
        }
        if !isr.iter().all(|state| self.is_eligible_for_isr(partition, state)) {
            return Err(ErrorCode::IneligibleReplica);
        }
        Ok((partition, state))
    }

    /// Epoch -1 means that the leader does not know the replica's epoch.
    ///
    /// A replica whose directory is offline does not join, even if it has fetched: its broker has reported that it
    /// lacks records. (Kafka only checks brokers.)
    fn is_eligible_for_isr(&self, partition: &Partition, state: &BrokerState) -> bool {
        let (brokers, id) = (&self.image().brokers, state.broker_id);
        let is_member = || partition.isr.contains(&id);
        let has_log = || partition.directory(id).is_some_and(|dir| brokers.has_online_dir(id, dir));
        brokers.get(id).is_some_and(|broker| {
            broker.is_active()
                && none_if_minus_one(state.broker_epoch).is_none_or(|epoch| epoch == broker.epoch)
                && (is_member() || has_log())
        })
    }
}

/// Whether an ISR has only replicas, each once, and is not empty.
fn is_valid_isr(replicas: &[BrokerId], isr: &[BrokerState]) -> bool {
    let repeated = |at: usize| isr[..at].iter().any(|seen| seen.broker_id == isr[at].broker_id);
    !isr.is_empty()
        && isr.iter().all(|state| replicas.contains(&state.broker_id))
        && !(0..isr.len()).any(repeated)
}

fn accepted(
    partition_index: PartitionIndex,
    partition: &Partition,
) -> alter_partition_response::PartitionData {
    alter_partition_response::PartitionData {
        partition_index,
        error_code: ErrorCode::None.code(),
        leader_id: or_minus_one(partition.leader),
        leader_epoch: partition.leader_epoch,
        isr: partition.isr.clone(),
        leader_recovery_state: partition.leader_recovery_state.value(),
        partition_epoch: partition.partition_epoch,
    }
}

fn refused(
    partition_index: PartitionIndex,
    code: ErrorCode,
) -> alter_partition_response::PartitionData {
    alter_partition_response::PartitionData {
        partition_index,
        error_code: code.code(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
