//! Why a metadata record could not be applied. All of these stop the process: an image that
//! differs from the log would be wrong on this node only.

use bytestring::ByteString;
use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, PartitionIndex, ProducerId};

/// A record that contradicts the image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A level of metadata.version that this version of Klamm cannot read.
    #[error(
        "metadata.version level {level} is not supported; this version reads levels 7 to 30, so the cluster must stay within them"
    )]
    UnsupportedMetadataVersion {
        /// The level in the record.
        level: i16,
    },
    /// A record about a broker that is not registered.
    #[error("broker {broker} is not registered")]
    UnknownBroker {
        /// The broker's id.
        broker: BrokerId,
    },
    /// A record about another registration of the broker than the current one.
    #[error("the record is for epoch {replayed} of broker {broker}, whose epoch is {current}")]
    BrokerEpochMismatch {
        /// The broker's id.
        broker: BrokerId,
        /// The registered epoch.
        current: i64,
        /// The epoch in the record.
        replayed: i64,
    },
    /// A tri-state of BrokerRegistrationChangeRecord outside -1, 0 and 1.
    #[error("{field} of the registration change of broker {broker} cannot be {value}")]
    InvalidRegistrationChange {
        /// The broker's id.
        broker: BrokerId,
        /// The field's name in the schema.
        field: &'static str,
        /// Its value.
        value: i8,
    },
    /// A security protocol id that Kafka does not define.
    #[error("listener {listener} has the unknown security protocol {id}")]
    UnknownSecurityProtocol {
        /// The listener's name.
        listener: ByteString,
        /// The protocol's id.
        id: i16,
    },
    /// A second TopicRecord for a name that exists.
    #[error("topic {name} exists already with id {existing}; the record has id {replayed}")]
    DuplicateTopic {
        /// The topic's name.
        name: ByteString,
        /// The id of the existing topic.
        existing: Uuid,
        /// The id in the record.
        replayed: Uuid,
    },
    /// A second TopicRecord for an id that exists.
    #[error("topic id {id} is already in use by topic {name}")]
    DuplicateTopicId {
        /// The id.
        id: Uuid,
        /// The topic that has it.
        name: ByteString,
    },
    /// A record about a topic id that does not exist.
    #[error("there is no topic with id {id}")]
    UnknownTopicId {
        /// The id.
        id: Uuid,
    },
    /// A record about a topic name that does not exist.
    #[error("there is no topic named {name}")]
    UnknownTopic {
        /// The name.
        name: ByteString,
    },
    /// A change of a partition that does not exist.
    #[error("topic {topic} has no partition {partition}")]
    UnknownPartition {
        /// The topic's name.
        topic: ByteString,
        /// The partition's index.
        partition: PartitionIndex,
    },
    /// Every replica of a partition must have a directory.
    #[error(
        "partition {partition} of topic {topic} has {replicas} replicas but {directories} directories"
    )]
    DirectoriesMismatch {
        /// The topic's name.
        topic: ByteString,
        /// The partition's index.
        partition: PartitionIndex,
        /// The number of replicas.
        replicas: usize,
        /// The number of directories in the record.
        directories: usize,
    },
    /// A leader recovery state other than RECOVERED and RECOVERING.
    #[error("partition {partition} of topic {topic} cannot have leader recovery state {state}")]
    UnknownLeaderRecoveryState {
        /// The topic's name.
        topic: ByteString,
        /// The partition's index.
        partition: PartitionIndex,
        /// The state in the record.
        state: i8,
    },
    /// A config resource type that Kafka does not define.
    #[error("config {key} of resource {name} has the unknown resource type {type_}")]
    UnknownConfigResourceType {
        /// The type's id.
        type_: i8,
        /// The resource's name.
        name: ByteString,
        /// The config's name.
        key: ByteString,
    },
    /// Blocks of producer ids only move forward.
    #[error("the next producer id {replayed} is not above the current one {current}")]
    ProducerIdsGoBack {
        /// The first id of the next block so far.
        current: ProducerId,
        /// The one in the record.
        replayed: ProducerId,
    },
    /// A SCRAM mechanism other than SCRAM-SHA-256 and SCRAM-SHA-512.
    #[error("the credential of user {user} has the unknown SCRAM mechanism {mechanism}")]
    UnknownScramMechanism {
        /// The user's name.
        user: ByteString,
        /// The mechanism's id.
        mechanism: i8,
    },
    /// Removal of a credential that does not exist.
    #[error("user {user} has no credential of SCRAM mechanism {mechanism}")]
    UnknownScramCredential {
        /// The user's name.
        user: ByteString,
        /// The mechanism's id.
        mechanism: i8,
    },
    /// A second access control entry with the same id.
    #[error("access control entry {id} exists already")]
    DuplicateAcl {
        /// The entry's id.
        id: Uuid,
    },
    /// Removal of an access control entry that does not exist.
    #[error("there is no access control entry {id}")]
    UnknownAcl {
        /// The entry's id.
        id: Uuid,
    },
    /// A metadata transaction began inside another.
    #[error("a metadata transaction began at offset {offset} inside the one of offset {open}")]
    NestedTransaction {
        /// Where the open transaction began.
        open: i64,
        /// Where the second one begins.
        offset: i64,
    },
    /// A metadata transaction ended or was aborted, but none had begun.
    #[error("a metadata transaction ended at offset {offset}, but none had begun")]
    NoTransaction {
        /// Where the marker is.
        offset: i64,
    },
}
