//! The errors of CreateTopics.

use bytestring::ByteString;
use klamm_protocol::ErrorCode;

use crate::controller::assignment::AssignmentError;
use crate::controller::configs::ConfigChangeError;
use crate::controller::placement::PlacementError;
use crate::topic_name::InvalidTopicName;

/// Why a topic is not created. The texts are Kafka's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateTopicError {
    /// The request names the topic twice.
    #[error("Duplicate topic name.")]
    DuplicateInRequest,
    /// The metadata log cannot be created as a topic.
    #[error("Creation of internal topic __cluster_metadata is prohibited.")]
    ClusterMetadata,
    /// The client is not authorized.
    #[error("Authorization failed.")]
    NotAuthorized,
    /// The name is not a valid topic name.
    #[error(transparent)]
    InvalidName(#[from] InvalidTopicName),
    /// The topic would have the same metric names as an existing one.
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    Collides {
        /// The requested name.
        name: ByteString,
        /// The topic that exists.
        existing: ByteString,
    },
    /// The topic exists.
    #[error("Topic '{name}' already exists.")]
    Exists {
        /// The requested name.
        name: ByteString,
    },
    /// Configurations without a value.
    #[error("Null value not supported for topic configs: {}", names.join(","))]
    NullConfigs {
        /// Their keys.
        names: Vec<String>,
    },
    /// An invalid configuration.
    #[error(transparent)]
    Config(#[from] ConfigChangeError),
    /// A manual assignment and a replication factor.
    #[error(
        "A manual partition assignment was specified, but replication factor was not set to -1."
    )]
    AssignmentAndReplicationFactor,
    /// A manual assignment and a number of partitions.
    #[error("A manual partition assignment was specified, but numPartitions was not set to -1.")]
    AssignmentAndPartitions,
    /// A partition assigned twice.
    #[error("Found multiple manual partition assignments for partition {partition}")]
    RepeatedPartition {
        /// The partition's index.
        partition: i32,
    },
    /// Assigned partitions must be 0, 1, 2 and so on.
    #[error("partitions should be a consecutive 0-based integer sequence")]
    GapInPartitions,
    /// An invalid manual assignment.
    #[error(transparent)]
    Assignment(#[from] AssignmentError),
    /// Zero, or below -1.
    #[error("Replication factor must be larger than 0, or -1 to use the default value.")]
    InvalidReplicationFactor,
    /// Zero, or below -1.
    #[error("Number of partitions was set to an invalid non-positive value.")]
    InvalidPartitions,
    /// The replicas cannot be placed.
    #[error("Unable to replicate the partition {replication_factor} time(s): {error}")]
    Placement {
        /// The number of replicas to place.
        replication_factor: i16,
        /// The reason.
        error: PlacementError,
    },
    /// No replica could lead.
    #[error(
        "Unable to replicate the partition {replication_factor} time(s): All brokers are currently fenced or in controlled shutdown."
    )]
    NoActiveReplica {
        /// The number of replicas to place.
        replication_factor: i16,
    },
    /// More than [`super::MAX_PARTITIONS_PER_REQUEST`].
    #[error("Excessively large number of partitions per request.")]
    TooManyPartitions,
    /// More than [`crate::controller::MAX_RECORDS_PER_USER_OP`].
    #[error("Unable to perform excessively large batch operation.")]
    TooManyRecords,
}

impl CreateTopicError {
    /// The error code for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::InvalidName(_) | Self::Collides { .. } => ErrorCode::InvalidTopicException,
            Self::NotAuthorized => ErrorCode::TopicAuthorizationFailed,
            Self::Exists { .. } => ErrorCode::TopicAlreadyExists,
            Self::NullConfigs { .. } => ErrorCode::InvalidConfig,
            Self::Config(error) => error.code(),
            Self::Assignment(error) => error.code(),
            Self::DuplicateInRequest
            | Self::ClusterMetadata
            | Self::AssignmentAndReplicationFactor
            | Self::AssignmentAndPartitions => ErrorCode::InvalidRequest,
            Self::RepeatedPartition { .. } | Self::GapInPartitions => {
                ErrorCode::InvalidReplicaAssignment
            }
            Self::InvalidReplicationFactor
            | Self::Placement { .. }
            | Self::NoActiveReplica { .. } => ErrorCode::InvalidReplicationFactor,
            Self::InvalidPartitions => ErrorCode::InvalidPartitions,
            Self::TooManyPartitions | Self::TooManyRecords => ErrorCode::PolicyViolation,
        }
    }
}
