//! ElectLeaders (API 43): preferred and unclean elections on demand (KIP-460).

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::PartitionIndex;
use klamm_protocol::messages::elect_leaders_request::ElectLeadersRequest;
use klamm_protocol::messages::elect_leaders_response::{
    ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};
use klamm_protocol::metadata_record::MetadataRecord;

use super::Controller;
use super::outcome::Outcome;
use super::partition_change::Election;

/// Why no leader was elected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElectionError {
    /// Neither 0 (preferred) nor 1 (unclean).
    #[error("Unknown election type {0}")]
    UnknownType(i8),
    /// No topic has this name.
    #[error("No such topic as {topic}")]
    UnknownTopic {
        /// The requested name.
        topic: ByteString,
    },
    /// The topic has no such partition.
    #[error("No such partition as {topic}-{partition}")]
    UnknownPartition {
        /// The topic's name.
        topic: ByteString,
        /// The requested index.
        partition: PartitionIndex,
    },
    /// The preferred replica leads already, or (unclean) the partition has a leader.
    #[error("Leader election not needed for topic partition.")]
    NotNeeded,
    /// The preferred leader is not alive or not in sync.
    #[error("The preferred leader was not available.")]
    PreferredNotAvailable,
    /// No replica is alive.
    #[error("Eligible topic partition leaders are not available.")]
    NobodyEligible,
}

impl ElectionError {
    /// The error code for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownType(_) => ErrorCode::InvalidRequest,
            Self::UnknownTopic { .. } | Self::UnknownPartition { .. } => {
                ErrorCode::UnknownTopicOrPartition
            }
            Self::NotNeeded => ErrorCode::ElectionNotNeeded,
            Self::PreferredNotAvailable => ErrorCode::PreferredLeaderNotAvailable,
            Self::NobodyEligible => ErrorCode::EligibleLeadersNotAvailable,
        }
    }
}

impl Controller {
    /// Elects leaders. Without named partitions all are tried, and the answer omits those that need no election.
    pub fn on_elect_leaders(&self, request: &ElectLeadersRequest) -> Outcome<ElectLeadersResponse> {
        let election = match request.election_type {
            0 => Election::Preferred,
            1 => Election::Unclean,
            other => return unknown_type(request, other),
        };
        let mut records = Vec::new();
        let mut results = Vec::new();
        let mut elect = |topic: &ByteString, partition| {
            let elected = self.elect_leader(topic, partition, election);
            elected.map(|record| records.push(record))
        };
        if let Some(topics) = &request.topic_partitions {
            for topic in topics {
                let partitions = topic.partitions.iter().copied();
                let partition_result =
                    partitions.map(|p| result(p, elect(&topic.topic, p))).collect();
                let topic = topic.topic.clone();
                results.push(ReplicaElectionResult { topic, partition_result });
            }
        } else {
            for topic in self.image().topics.iter() {
                let partition_result = topic
                    .partitions()
                    .map(|(partition, _)| (partition, elect(&topic.name, partition)))
                    .filter(|(_, elected)| *elected != Err(ElectionError::NotNeeded))
                    .map(|(partition, elected)| result(partition, elected))
                    .collect();
                let topic = topic.name.clone();
                results.push(ReplicaElectionResult { topic, partition_result });
            }
        }
        let response =
            ElectLeadersResponse { replica_election_results: results, ..Default::default() };
        Outcome::spread(records, response)
    }

    fn elect_leader(
        &self,
        name: &ByteString,
        index: PartitionIndex,
        election: Election,
    ) -> Result<MetadataRecord, ElectionError> {
        let topic = self
            .image()
            .topics
            .by_name(name)
            .ok_or_else(|| ElectionError::UnknownTopic { topic: name.clone() })?;
        let partition = topic.partition(index).ok_or_else(|| ElectionError::UnknownPartition {
            topic: name.clone(),
            partition: index,
        })?;
        let unclean = election == Election::Unclean;
        if (unclean && partition.has_leader()) || (!unclean && partition.has_preferred_leader()) {
            return Err(ElectionError::NotNeeded);
        }
        let wish = |change: &mut super::partition_change::PartitionChange<'_>| {
            change.election = election;
        };
        self.changed_by_request(topic, index, partition, wish).ok_or(if unclean {
            ElectionError::NobodyEligible
        } else {
            ElectionError::PreferredNotAvailable
        })
    }
}

/// The answer has the error at the top level and in every partition.
fn unknown_type(request: &ElectLeadersRequest, type_: i8) -> Outcome<ElectLeadersResponse> {
    let error = ElectionError::UnknownType(type_);
    let topics = request.topic_partitions.iter().flatten().map(|topic| ReplicaElectionResult {
        topic: topic.topic.clone(),
        partition_result: topic.partitions.iter().map(|p| result(*p, Err(error.clone()))).collect(),
    });
    Outcome::answer(ElectLeadersResponse {
        error_code: error.code().code(),
        replica_election_results: topics.collect(),
        ..Default::default()
    })
}

fn result(partition_id: PartitionIndex, elected: Result<(), ElectionError>) -> PartitionResult {
    let (code, error_message) = match elected {
        Ok(()) => (ErrorCode::None, None),
        Err(error) => (error.code(), Some(error.to_string().into())),
    };
    PartitionResult { partition_id, error_code: code.code(), error_message }
}

#[cfg(test)]
mod tests;
