//! Why a voter was not added or removed: Kafka's error codes, and Kafka's texts, which tools show.

use super::message::VoterChangeResponse;
use super::voters::{Endpoints, KRaftVersionRange, ReplicaKey};
use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::Offset;

/// The requested change, as error messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Add,
    Remove,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum VoterChangeError {
    #[error("The given id \"{given}\" doesn't match the cluster id \"{cluster_id}\"")]
    InconsistentClusterId { given: ByteString, cluster_id: ByteString },
    #[error("not the leader")]
    NotLeader,
    #[error(
        "For requests intended only for the leader, this error indicates that the broker is not the current leader. For requests intended for any replica, this error indicates that the broker is not a replica of the topic partition."
    )]
    LeadershipLost,
    #[error("{} voter request didn't include a valid voter", .0.capitalized())]
    InvalidVoter(Change),
    #[error(
        "Add voter request didn't include the endpoint ({endpoints}) for the default listener ListenerName({listener})"
    )]
    NoEndpoint { endpoints: Endpoints, listener: ByteString },
    #[error("Request timed out waiting for leader to handle previous voter change request")]
    ChangePending,
    #[error(
        "Request timed out waiting for leader to establish HWM and fence previous voter changes"
    )]
    HighWatermarkUnknown,
    #[error(
        "Cluster doesn't support {} voter because the kraft.version feature is {kraft_version}",
        .change.gerund()
    )]
    StaticVoters { change: Change, kraft_version: i16 },
    #[error(
        "Request timed out waiting for voters to commit the latest voter change at {} with HWM {high_watermark}",
        display_offset(.voters_offset)
    )]
    Uncommitted { voters_offset: Option<Offset>, high_watermark: Offset },
    #[error("The voter id for {voter} is already part of the set of voters {voters}.")]
    Duplicate { voter: ReplicaKey, voters: String },
    #[error("New voter {voter} is not ready to receive requests")]
    NotReady { voter: ReplicaKey },
    // "for since" is in Kafka's text.
    #[error(
        "Aborted add voter operation for since API_VERSIONS returned an error {}",
        constant_name(*.error)
    )]
    ApiVersionsFailed { error: ErrorCode },
    #[error(
        "Aborted add voter operation for {voter} since the kraft.version range {} doesn't support the finalized version {kraft_version}",
        display_range(.range)
    )]
    KRaftVersion { voter: ReplicaKey, range: Option<KRaftVersionRange>, kraft_version: i16 },
    #[error("Aborted add voter operation for {voter} since it is lagging behind")]
    LaggingBehind { voter: ReplicaKey },
    #[error("Cannot remove voter {voter} from the set of voters {voters}")]
    NotFound { voter: ReplicaKey, voters: String },
    #[error("The request timed out.")]
    TimedOut,
}

impl VoterChangeError {
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::InconsistentClusterId { .. } => ErrorCode::InconsistentClusterId,
            Self::NotLeader | Self::LeadershipLost => ErrorCode::NotLeaderOrFollower,
            Self::InvalidVoter(_) | Self::NoEndpoint { .. } | Self::KRaftVersion { .. } => {
                ErrorCode::InvalidRequest
            }
            Self::StaticVoters { .. } => ErrorCode::UnsupportedVersion,
            Self::Duplicate { .. } => ErrorCode::DuplicateVoter,
            Self::NotFound { .. } => ErrorCode::VoterNotFound,
            Self::ChangePending
            | Self::HighWatermarkUnknown
            | Self::Uncommitted { .. }
            | Self::NotReady { .. }
            | Self::ApiVersionsFailed { .. }
            | Self::LaggingBehind { .. }
            | Self::TimedOut => ErrorCode::RequestTimedOut,
        }
    }

    /// The response. As in Kafka, NOT_LEADER has no message.
    pub(super) fn response(&self) -> VoterChangeResponse {
        let message = (*self != Self::NotLeader).then(|| self.to_string());
        VoterChangeResponse { error: self.code(), message }
    }
}

impl Change {
    const fn capitalized(self) -> &'static str {
        match self {
            Self::Add => "Add",
            Self::Remove => "Remove",
        }
    }

    const fn gerund(self) -> &'static str {
        match self {
            Self::Add => "adding",
            Self::Remove => "removing",
        }
    }
}

fn display_offset(offset: &Option<Offset>) -> String {
    offset.map_or_else(|| "Optional.empty".to_owned(), |offset| format!("Optional[{offset}]"))
}

/// The name of an error constant: BROKER_NOT_AVAILABLE for "broker not available".
fn constant_name(error: ErrorCode) -> String {
    error.message().to_uppercase().replace(' ', "_")
}

/// The missing bracket of a known range is as in Kafka's text.
fn display_range(range: &Option<KRaftVersionRange>) -> String {
    match range {
        Some(KRaftVersionRange { min, max }) => format!("(min: {min}, max: {max}"),
        None => "(min: 0, max: 0)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_kafkas_words() {
        let voter = ReplicaKey { id: 4, directory_id: None };
        let cases = [
            (
                VoterChangeError::InvalidVoter(Change::Remove),
                "Remove voter request didn't include a valid voter",
            ),
            (
                VoterChangeError::StaticVoters { change: Change::Add, kraft_version: 0 },
                "Cluster doesn't support adding voter because the kraft.version feature is 0",
            ),
            (
                VoterChangeError::Uncommitted { voters_offset: Some(7), high_watermark: 7 },
                "Request timed out waiting for voters to commit the latest voter change at Optional[7] with HWM 7",
            ),
            (
                VoterChangeError::ApiVersionsFailed { error: ErrorCode::BrokerNotAvailable },
                "Aborted add voter operation for since API_VERSIONS returned an error BROKER_NOT_AVAILABLE",
            ),
            (
                VoterChangeError::KRaftVersion { voter, range: None, kraft_version: 1 },
                "Aborted add voter operation for ReplicaKey(id=4, directoryId=<undefined>) since the kraft.version range (min: 0, max: 0) doesn't support the finalized version 1",
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(error.response().message.as_deref(), Some(expected));
        }
        assert_eq!(VoterChangeError::NotLeader.response().message, None);
    }
}
