//! AlterPartitionReassignments (API 45) and ListPartitionReassignments (46) (KIP-455).

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::PartitionIndex;
use klamm_protocol::messages::alter_partition_reassignments_request::{
    AlterPartitionReassignmentsRequest, ReassignablePartition,
};
use klamm_protocol::messages::alter_partition_reassignments_response::{
    AlterPartitionReassignmentsResponse, ReassignablePartitionResponse, ReassignableTopicResponse,
};
use klamm_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsRequest;
use klamm_protocol::messages::list_partition_reassignments_response::{
    ListPartitionReassignmentsResponse, OngoingPartitionReassignment, OngoingTopicReassignment,
};
use klamm_protocol::metadata_record::MetadataRecord;

use super::Controller;
use super::assignment::AssignmentError;
use super::outcome::Outcome;
use super::partition_change::Election;
use super::reassignment::{Reassignment, Revert};
use crate::image::ClusterImage;
use crate::image::partition::Partition;
use crate::image::topics::Topic;

/// Why a partition is not reassigned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReassignmentError {
    /// No topic has this name.
    #[error("Unable to find a topic named {topic}.")]
    UnknownTopic {
        /// The requested name.
        topic: ByteString,
    },
    /// The topic has no such partition.
    #[error("Unable to find partition {topic}:{partition}.")]
    UnknownPartition {
        /// The topic's name.
        topic: ByteString,
        /// The requested index.
        partition: PartitionIndex,
    },
    /// There is no reassignment to cancel.
    #[error("no reassignment is in progress")]
    NotInProgress,
    /// The revert needs an unclean election, which the topic does not allow.
    #[error(
        "Unable to revert partition assignment for {topic}:{partition} because it would require an unclean leader election."
    )]
    UncleanRevert {
        /// The topic's name.
        topic: ByteString,
        /// The partition's index.
        partition: PartitionIndex,
    },
    /// There are no original replicas.
    #[error("Invalid replica assignment: addingReplicas contains all replicas.")]
    NothingToRevertTo,
    /// The target cannot be assigned.
    #[error(transparent)]
    Assignment(#[from] AssignmentError),
    /// The request does not allow a change of the replication factor.
    #[error("The replication factor is changed from {from} to {to}")]
    ReplicationFactorChange {
        /// The current replication factor.
        from: usize,
        /// The requested replication factor.
        to: usize,
    },
}

impl ReassignmentError {
    /// The error code for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownTopic { .. } | Self::UnknownPartition { .. } => {
                ErrorCode::UnknownTopicOrPartition
            }
            Self::NotInProgress => ErrorCode::NoReassignmentInProgress,
            Self::UncleanRevert { .. } | Self::NothingToRevertTo => {
                ErrorCode::InvalidReplicaAssignment
            }
            Self::Assignment(error) => error.code(),
            Self::ReplicationFactorChange { .. } => ErrorCode::InvalidReplicationFactor,
        }
    }
}

impl Controller {
    /// Starts, replaces and cancels reassignments.
    pub fn on_alter_partition_reassignments(
        &self,
        request: &AlterPartitionReassignmentsRequest,
    ) -> Outcome<AlterPartitionReassignmentsResponse> {
        if request.topics.is_empty() {
            return Outcome::answer(AlterPartitionReassignmentsResponse::default());
        }
        let mut records = Vec::new();
        let responses = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|target| {
                let allow = request.allow_replication_factor_change;
                let result = self.alter_reassignment(&topic.name, target, allow);
                answer(target.partition_index, result.map(|record| records.extend(record)))
            });
            let partitions = partitions.collect();
            ReassignableTopicResponse { name: topic.name.clone(), partitions }
        });
        let response = AlterPartitionReassignmentsResponse {
            allow_replication_factor_change: request.allow_replication_factor_change,
            error_message: None,
            responses: responses.collect(),
            ..Default::default()
        };
        Outcome::atomic(records, response)
    }

    fn alter_reassignment(
        &self,
        name: &ByteString,
        target: &ReassignablePartition,
        allow_factor_change: bool,
    ) -> Result<Option<MetadataRecord>, ReassignmentError> {
        let topics = &self.image().topics;
        let topic = topics
            .by_name(name)
            .ok_or_else(|| ReassignmentError::UnknownTopic { topic: name.clone() })?;
        let partition = topic.partition(target.partition_index).ok_or_else(|| {
            let partition = target.partition_index;
            ReassignmentError::UnknownPartition { topic: name.clone(), partition }
        })?;
        match &target.replicas {
            None => self.cancel(topic, target.partition_index, partition),
            Some(replicas) => {
                self.check_assignment(replicas, None)?;
                if !allow_factor_change {
                    check_factor(partition, replicas.len())?;
                }
                let plan = Reassignment::plan(&partition.replicas, replicas);
                let index = target.partition_index;
                Ok(self.changed_by_request(topic, index, partition, |change| {
                    if plan.replicas != partition.replicas {
                        change.replicas = plan.replicas;
                    }
                    // Replicas that an unfinished reassignment has added stay in `adding`, so that a revert does not
                    // keep them. Kafka drops them if this request adds others, and removes a replica that the
                    // unfinished reassignment removes although this request has it again.
                    change.adding.extend(plan.adding);
                    change.adding.sort_unstable();
                    change.removing = plan.removing;
                }))
            }
        }
    }

    fn cancel(
        &self,
        topic: &Topic,
        index: PartitionIndex,
        partition: &Partition,
    ) -> Result<Option<MetadataRecord>, ReassignmentError> {
        if !partition.is_reassigning() {
            return Err(ReassignmentError::NotInProgress);
        }
        let revert = Revert::of(partition).ok_or(ReassignmentError::NothingToRevertTo)?;
        let unclean_allowed = self.is_unclean_election_enabled(&topic.name);
        if revert.unclean && !unclean_allowed {
            let topic = topic.name.clone();
            return Err(ReassignmentError::UncleanRevert { topic, partition: index });
        }
        Ok(self.changed_by_request(topic, index, partition, |change| {
            if unclean_allowed {
                change.election = Election::Unclean;
            }
            change.isr = revert.isr;
            change.replicas = revert.replicas;
            change.removing.clear();
            change.adding.clear();
        }))
    }
}

impl ClusterImage {
    /// The running reassignments: of the named topics and partitions, or all.
    pub fn list_partition_reassignments(
        &self,
        request: &ListPartitionReassignmentsRequest,
    ) -> ListPartitionReassignmentsResponse {
        let ongoing: Vec<_> = match &request.topics {
            None => {
                self.topics.iter().map(|t| ongoing(t, t.partitions().map(|(i, _)| i))).collect()
            }
            Some(topics) => topics
                .iter()
                .filter_map(|asked| {
                    let topic = self.topics.by_name(&asked.name)?;
                    Some(ongoing(topic, asked.partition_indexes.iter().copied()))
                })
                .collect(),
        };
        ListPartitionReassignmentsResponse {
            error_message: None,
            topics: ongoing.into_iter().filter(|topic| !topic.partitions.is_empty()).collect(),
            ..Default::default()
        }
    }
}

fn ongoing(
    topic: &Topic,
    partitions: impl Iterator<Item = PartitionIndex>,
) -> OngoingTopicReassignment {
    let moving = partitions.filter_map(|partition_index| {
        let partition = topic.partition(partition_index).filter(|p| p.is_reassigning())?;
        Some(OngoingPartitionReassignment {
            partition_index,
            replicas: partition.replicas.clone(),
            adding_replicas: partition.adding_replicas.clone(),
            removing_replicas: partition.removing_replicas.clone(),
        })
    });
    OngoingTopicReassignment { name: topic.name.clone(), partitions: moving.collect() }
}

/// Compares with the replication factor after the running reassignment, not with the current one.
fn check_factor(partition: &Partition, to: usize) -> Result<(), ReassignmentError> {
    let removing = &partition.removing_replicas;
    let from = partition.replicas.iter().filter(|id| !removing.contains(id)).count();
    if from == to { Ok(()) } else { Err(ReassignmentError::ReplicationFactorChange { from, to }) }
}

fn answer(
    partition_index: PartitionIndex,
    result: Result<(), ReassignmentError>,
) -> ReassignablePartitionResponse {
    let (code, error_message) = match result {
        Ok(()) => (ErrorCode::None, None),
        // Kafka sends no message here.
        Err(error @ ReassignmentError::NotInProgress) => (error.code(), None),
        Err(error) => (error.code(), Some(error.to_string().into())),
    };
    ReassignablePartitionResponse { partition_index, error_code: code.code(), error_message }
}

#[cfg(test)]
mod tests;
