//! Manual replica assignments: their validation, and the initial state of a new partition.

use std::collections::BTreeSet;

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;

use super::Controller;
use super::placement::UsableBroker;
use crate::image::partition::{LeaderRecoveryState, Partition};

/// Why a list of replicas cannot be assigned. All are INVALID_REPLICA_ASSIGNMENT.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentError {
    /// No replica at all.
    #[error("The manual partition assignment includes an empty replica list.")]
    Empty,
    /// A broker that does not exist.
    #[error(
        "The manual partition assignment includes broker {broker}, but no such broker is registered."
    )]
    UnknownBroker {
        /// The broker's id.
        broker: BrokerId,
    },
    /// A broker that is named twice.
    #[error("The manual partition assignment includes the broker {broker} more than once.")]
    RepeatedBroker {
        /// The broker's id.
        broker: BrokerId,
    },
    /// All partitions of a topic must have the same number of replicas.
    #[error(
        "The manual partition assignment includes a partition with {given} replica(s), but this is not consistent with previous partitions, which have {expected} replica(s)."
    )]
    OtherReplicationFactor {
        /// The number of replicas in the assignment.
        given: usize,
        /// The number of replicas of the other partitions.
        expected: usize,
    },
    /// No replica could lead.
    #[error(
        "All brokers specified in the manual partition assignment for partition {partition} are fenced or in controlled shutdown."
    )]
    NoActiveReplica {
        /// The partition's index.
        partition: i32,
    },
}

impl AssignmentError {
    /// The error code for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Empty
            | Self::UnknownBroker { .. }
            | Self::RepeatedBroker { .. }
            | Self::OtherReplicationFactor { .. }
            | Self::NoActiveReplica { .. } => ErrorCode::InvalidReplicaAssignment,
        }
    }
}

impl Controller {
    /// Checks a manual replica assignment. Reports the lowest invalid id.
    pub(super) fn check_assignment(
        &self,
        replicas: &[BrokerId],
        replication_factor: Option<usize>,
    ) -> Result<(), AssignmentError> {
        if replicas.is_empty() {
            return Err(AssignmentError::Empty);
        }
        let mut sorted = replicas.to_vec();
        sorted.sort_unstable();
        let mut seen = BTreeSet::new();
        for broker in sorted {
            if self.image().brokers.get(broker).is_none() {
                return Err(AssignmentError::UnknownBroker { broker });
            }
            if !seen.insert(broker) {
                return Err(AssignmentError::RepeatedBroker { broker });
            }
        }
        match replication_factor {
            Some(expected) if expected != replicas.len() => {
                Err(AssignmentError::OtherReplicationFactor { given: replicas.len(), expected })
            }
            _ => Ok(()),
        }
    }

    /// A new partition with these replicas; none if no replica could lead it.
    pub(super) fn new_partition(&self, replicas: &[BrokerId]) -> Option<Partition> {
        let brokers = &self.image().brokers;
        let isr: Vec<_> = replicas.iter().copied().filter(|id| brokers.is_active(*id)).collect();
        let leader = *isr.first()?;
        Some(Partition {
            replicas: replicas.to_vec(),
            directories: replicas.iter().map(|id| brokers.default_dir(*id)).collect(),
            isr,
            leader: Some(leader),
            leader_recovery_state: LeaderRecoveryState::Recovered,
            ..Default::default()
        })
    }

    /// The brokers that new replicas may be placed on.
    ///
    /// A broker in controlled shutdown counts as fenced: it gets replicas only if no other broker is left, and leads
    /// none. (Kafka excludes it until it is fenced, so creating a topic with three replicas fails while one of three
    /// nodes shuts down.)
    pub(super) fn usable_brokers(&self) -> impl Iterator<Item = UsableBroker> {
        let brokers = self.image().brokers.iter();
        brokers.filter(|broker| broker.has_uncordoned_dirs()).map(|broker| UsableBroker {
            id: broker.id,
            rack: broker.rack.clone(),
            fenced: !broker.is_active(),
        })
    }
}

#[cfg(test)]
mod tests;
