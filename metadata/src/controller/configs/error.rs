//! The errors of configuration changes.

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;

use crate::config_def::alter::AlterError;
use crate::config_def::client_metrics::ClientMetricsError;
use crate::config_def::group_config::GroupConfigError;
use crate::config_def::topic_config::TopicConfigError;
use crate::topic_name::InvalidTopicName;

/// Why a resource's configuration is not changed. The texts are Kafka's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigChangeError {
    /// The operation is invalid for the key.
    #[error(transparent)]
    Operation(#[from] AlterError),
    /// The topic would have an invalid configuration.
    #[error(transparent)]
    Topic(#[from] TopicConfigError),
    /// The group would have an invalid configuration.
    #[error(transparent)]
    Group(#[from] GroupConfigError),
    /// The client metrics subscription would have an invalid configuration.
    #[error(transparent)]
    ClientMetrics(#[from] ClientMetricsError),
    /// The resource's name is not a valid topic name.
    #[error(transparent)]
    TopicName(#[from] InvalidTopicName),
    /// Topics have no default resource.
    #[error("Default topic resources are not allowed.")]
    DefaultTopic,
    /// The topic does not exist.
    #[error("The topic '{name}' does not exist.")]
    UnknownTopic {
        /// The requested name.
        name: ByteString,
    },
    /// The name of a broker resource must be its id.
    #[error("Unable to parse broker name as a base 10 number.")]
    BrokerName,
    /// Broker ids are not negative.
    #[error("Invalid negative broker ID.")]
    NegativeBroker,
    /// No node has this id.
    #[error("No node with id {node} found.")]
    UnknownNode {
        /// The requested id.
        node: BrokerId,
    },
    /// A record cannot hold a longer value.
    #[error(
        "The configuration value cannot be added because it exceeds the maximum value size of 32767 bytes."
    )]
    ValueTooLong,
    /// With eligible leader replicas all brokers must have the same value.
    #[error("Broker-level min.insync.replicas cannot be altered while ELR is enabled.")]
    BrokerMinInsyncReplicas,
    /// With eligible leader replicas the cluster's value must stay in the log.
    #[error("Cluster-level min.insync.replicas cannot be removed while ELR is enabled.")]
    ClusterMinInsyncReplicasRemoved,
    /// Cordoned log directories need metadata.version 30.
    #[error(
        "The cordoned.log.dirs configuration value cannot be set because it requires metadata.version >= 4.3-IV0"
    )]
    CordonedLogDirsDisabled,
    /// A controller cannot check which directories a broker has.
    #[error(
        "When updating cordoned.log.dirs via controllers,  the new value must be a subset of the current configuration value."
    )]
    CordonedLogDirsGrow,
    /// Log levels are not in the metadata log.
    #[error("Unknown resource type BROKER_LOGGER")]
    BrokerLogger,
    /// A resource type that Kafka does not define.
    #[error("Unknown resource type {0}.")]
    UnknownResourceType(i8),
    /// An operation that Kafka does not define: the whole request fails.
    #[error("Unknown operations type {0}")]
    UnknownOperation(i8),
    /// The request names the resource twice.
    #[error("Duplicate resource.")]
    DuplicateResource,
}

impl ConfigChangeError {
    /// The error code for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Operation(error) => error.code(),
            Self::Topic(error) => error.code(),
            Self::Group(error) => error.code(),
            Self::ClientMetrics(error) => error.code(),
            Self::TopicName(_) => ErrorCode::InvalidTopicException,
            Self::UnknownTopic { .. } => ErrorCode::UnknownTopicOrPartition,
            Self::UnknownNode { .. } => ErrorCode::BrokerIdNotRegistered,
            Self::UnknownResourceType(_) => ErrorCode::UnsupportedVersion,
            Self::UnknownOperation(_) => ErrorCode::UnknownServerError,
            Self::DefaultTopic
            | Self::BrokerName
            | Self::NegativeBroker
            | Self::BrokerLogger
            | Self::DuplicateResource => ErrorCode::InvalidRequest,
            Self::ValueTooLong
            | Self::BrokerMinInsyncReplicas
            | Self::ClusterMinInsyncReplicasRemoved
            | Self::CordonedLogDirsDisabled
            | Self::CordonedLogDirsGrow => ErrorCode::InvalidConfig,
        }
    }
}

/// The code and text of a resource's answer.
pub(super) fn answer(result: &Result<(), ConfigChangeError>) -> (i16, Option<ByteString>) {
    match result {
        Ok(()) => (ErrorCode::None.code(), None),
        // Kafka throws, and answers without a message.
        Err(error @ ConfigChangeError::UnknownOperation(_)) => (error.code().code(), None),
        Err(error) => (error.code().code(), Some(error.to_string().into())),
    }
}
