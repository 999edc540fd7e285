//! CreatePartitions (API 37): adds partitions to topics.

use std::collections::BTreeSet;

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;
use klamm_protocol::messages::create_partitions_request::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use klamm_protocol::messages::create_partitions_response::{
    CreatePartitionsResponse, CreatePartitionsTopicResult,
};
use klamm_protocol::metadata_record::MetadataRecord;

use super::assignment::AssignmentError;
use super::outcome::Outcome;
use super::placement::{PlacementError, place};
use super::{Controller, MAX_RECORDS_PER_USER_OP};
use crate::image::topics::Topic;
use crate::random::Random;

/// Why no partitions are added to a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreatePartitionsError {
    /// The request names the topic twice.
    #[error("Duplicate topic name.")]
    DuplicateInRequest,
    /// The client is not authorized. Kafka sends no message.
    #[error("topic authorization failed")]
    NotAuthorized,
    /// No topic has this name. Kafka sends no message.
    #[error("unknown topic")]
    UnknownTopic,
    /// The topic has this number of partitions already.
    #[error("Topic already has {count} partition(s).")]
    NoIncrease {
        /// Its number of partitions.
        count: usize,
    },
    /// The topic has more partitions already.
    #[error(
        "The topic {name} currently has {count} partition(s); {wanted} would not be an increase."
    )]
    Decrease {
        /// The topic's name.
        name: ByteString,
        /// Its number of partitions.
        count: usize,
        /// The requested number.
        wanted: i32,
    },
    /// A manual assignment, but not of all new partitions.
    #[error(
        "Attempted to add {additional} additional partition(s), but only {assigned} assignment(s) were specified."
    )]
    AssignmentCount {
        /// The number of partitions to add.
        additional: usize,
        /// The number of manual assignments.
        assigned: usize,
    },
    /// An invalid manual assignment.
    #[error(transparent)]
    Assignment(#[from] AssignmentError),
    /// The replicas cannot be placed.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// No replica could lead.
    #[error(
        "Unable to replicate the partition {replication_factor} time(s): All brokers are currently fenced or in controlled shutdown."
    )]
    NoActiveReplica {
        /// The number of replicas to place.
        replication_factor: usize,
    },
    /// More than [`MAX_RECORDS_PER_USER_OP`] in one request.
    #[error("Excessively large number of partitions per request.")]
    TooManyPartitions,
}

impl CreatePartitionsError {
    /// The error code for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::DuplicateInRequest => ErrorCode::InvalidRequest,
            Self::NotAuthorized => ErrorCode::TopicAuthorizationFailed,
            Self::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
            Self::NoIncrease { .. } | Self::Decrease { .. } => ErrorCode::InvalidPartitions,
            Self::AssignmentCount { .. } => ErrorCode::InvalidReplicaAssignment,
            Self::Assignment(error) => error.code(),
            Self::Placement(error) => error.code(),
            Self::NoActiveReplica { .. } => ErrorCode::InvalidReplicationFactor,
            Self::TooManyPartitions => ErrorCode::PolicyViolation,
        }
    }

    /// The message of the answer, if Kafka sends one.
    fn text(&self) -> Option<ByteString> {
        match self {
            Self::NotAuthorized | Self::UnknownTopic => None,
            _ => Some(self.to_string().into()),
        }
    }
}

impl Controller {
    /// Adds partitions to topics. `may_alter` returns whether the client has ALTER on a topic.
    pub fn on_create_partitions(
        &self,
        request: &CreatePartitionsRequest,
        may_alter: &dyn Fn(&str) -> bool,
        random: &mut Random,
    ) -> Outcome<CreatePartitionsResponse> {
        let mut seen = BTreeSet::new();
        let names = request.topics.iter().map(|topic| &topic.name);
        let repeated: BTreeSet<_> = names.filter(|name| !seen.insert(*name)).collect();
        let (mut records, mut results) = (Vec::new(), Vec::new());
        for name in &repeated {
            results.push(result(name, Err(CreatePartitionsError::DuplicateInRequest)));
        }
        for topic in request.topics.iter().filter(|topic| !repeated.contains(&topic.name)) {
            let outcome = if may_alter(&topic.name) {
                self.create_partitions(topic, records.len(), random)
            } else {
                Err(CreatePartitionsError::NotAuthorized)
            };
            results.push(result(&topic.name, outcome.map(|mut new| records.append(&mut new))));
        }
        let response = CreatePartitionsResponse { results, ..Default::default() };
        let outcome = Outcome::atomic(records, response);
        if request.validate_only { outcome.without_records() } else { outcome }
    }

    fn create_partitions(
        &self,
        request: &CreatePartitionsTopic,
        records_so_far: usize,
        random: &mut Random,
    ) -> Result<Vec<MetadataRecord>, CreatePartitionsError> {
        let topic = self
            .image()
            .topics
            .by_name(&request.name)
            .ok_or(CreatePartitionsError::UnknownTopic)?;
        let additional = additional_partitions(request, topic)?;
        if records_so_far.saturating_add(additional) > MAX_RECORDS_PER_USER_OP {
            return Err(CreatePartitionsError::TooManyPartitions);
        }
        let first = topic.partition_count();
        let replication_factor =
            topic.partitions().next().map_or(0, |(_, partition)| partition.replicas.len());
        let replicas = match &request.assignments {
            Some(_) => self.assigned_replicas(request, first, replication_factor)?,
            None => {
                let factor = i16::try_from(replication_factor).unwrap_or(i16::MAX);
                place(self.usable_brokers(), additional, factor, random)?
            }
        };
        let (version, elr) =
            (self.image().metadata_version(), self.image().features.is_elr_enabled());
        let first = i32::try_from(first).expect("partitions are counted by an i32");
        (first..)
            .zip(replicas)
            .map(|(index, replicas)| {
                let partition = self
                    .new_partition(&replicas)
                    .ok_or(CreatePartitionsError::NoActiveReplica { replication_factor })?;
                Ok(MetadataRecord::Partition(partition.to_record(topic.id, index, version, elr)))
            })
            .collect()
    }

    fn assigned_replicas(
        &self,
        request: &CreatePartitionsTopic,
        first: usize,
        replication_factor: usize,
    ) -> Result<Vec<Vec<BrokerId>>, CreatePartitionsError> {
        let mut all = Vec::new();
        let assignments = request.assignments.iter().flatten();
        for (index, assignment) in (first..).zip(assignments) {
            self.check_assignment(&assignment.broker_ids, Some(replication_factor))?;
            let brokers = &self.image().brokers;
            if !assignment.broker_ids.iter().any(|id| brokers.is_active(*id)) {
                let partition = i32::try_from(index).unwrap_or(i32::MAX);
                return Err(AssignmentError::NoActiveReplica { partition }.into());
            }
            all.push(assignment.broker_ids.clone());
        }
        Ok(all)
    }
}

fn additional_partitions(
    request: &CreatePartitionsTopic,
    topic: &Topic,
) -> Result<usize, CreatePartitionsError> {
    let count = topic.partition_count();
    let decrease = || CreatePartitionsError::Decrease {
        name: request.name.clone(),
        count,
        wanted: request.count,
    };
    let wanted = usize::try_from(request.count).map_err(|_| decrease())?;
    if wanted == count {
        return Err(CreatePartitionsError::NoIncrease { count });
    }
    let additional = wanted.checked_sub(count).ok_or_else(decrease)?;
    match &request.assignments {
        Some(assignments) if assignments.len() != additional => {
            let assigned = assignments.len();
            Err(CreatePartitionsError::AssignmentCount { additional, assigned })
        }
        _ => Ok(additional),
    }
}

fn result(
    name: &ByteString,
    outcome: Result<(), CreatePartitionsError>,
) -> CreatePartitionsTopicResult {
    let (error_code, error_message) = match outcome {
        Ok(()) => (ErrorCode::None, None),
        Err(error) => (error.code(), error.text()),
    };
    CreatePartitionsTopicResult { name: name.clone(), error_code: error_code.code(), error_message }
}

#[cfg(test)]
mod tests;
