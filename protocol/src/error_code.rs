//! The error codes of the protocol, with Kafka's numbers and names (`Errors`).

use std::fmt;

macro_rules! error_codes {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        /// The error code of a response.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode {
            $($name,)*
        }

        impl ErrorCode {
            /// Every code, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The number on the wire.
            pub const fn code(self) -> i16 {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// The code with this number, if there is one.
            pub const fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The meaning of the code, as an error message if there is no more specific one.
            pub const fn message(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

error_codes! {
    UnknownServerError = -1, "unknown server error";
    None = 0, "none";
    OffsetOutOfRange = 1, "offset out of range";
    CorruptMessage = 2, "corrupt message";
    UnknownTopicOrPartition = 3, "unknown topic or partition";
    InvalidFetchSize = 4, "invalid fetch size";
    LeaderNotAvailable = 5, "leader not available";
    NotLeaderOrFollower = 6, "not leader or follower";
    RequestTimedOut = 7, "request timed out";
    BrokerNotAvailable = 8, "broker not available";
    ReplicaNotAvailable = 9, "replica not available";
    MessageTooLarge = 10, "message too large";
    StaleControllerEpoch = 11, "stale controller epoch";
    OffsetMetadataTooLarge = 12, "offset metadata too large";
    NetworkException = 13, "network exception";
    CoordinatorLoadInProgress = 14, "coordinator load in progress";
    CoordinatorNotAvailable = 15, "coordinator not available";
    NotCoordinator = 16, "not coordinator";
    InvalidTopicException = 17, "invalid topic exception";
    RecordListTooLarge = 18, "record list too large";
    NotEnoughReplicas = 19, "not enough replicas";
    NotEnoughReplicasAfterAppend = 20, "not enough replicas after append";
    InvalidRequiredAcks = 21, "invalid required acks";
    IllegalGeneration = 22, "illegal generation";
    InconsistentGroupProtocol = 23, "inconsistent group protocol";
    InvalidGroupId = 24, "invalid group id";
    UnknownMemberId = 25, "unknown member id";
    InvalidSessionTimeout = 26, "invalid session timeout";
    RebalanceInProgress = 27, "rebalance in progress";
    InvalidCommitOffsetSize = 28, "invalid commit offset size";
    TopicAuthorizationFailed = 29, "topic authorization failed";
    GroupAuthorizationFailed = 30, "group authorization failed";
    ClusterAuthorizationFailed = 31, "cluster authorization failed";
    InvalidTimestamp = 32, "invalid timestamp";
    UnsupportedSaslMechanism = 33, "unsupported sasl mechanism";
    IllegalSaslState = 34, "illegal sasl state";
    UnsupportedVersion = 35, "unsupported version";
    TopicAlreadyExists = 36, "topic already exists";
    InvalidPartitions = 37, "invalid partitions";
    InvalidReplicationFactor = 38, "invalid replication factor";
    InvalidReplicaAssignment = 39, "invalid replica assignment";
    InvalidConfig = 40, "invalid config";
    NotController = 41, "not controller";
    InvalidRequest = 42, "invalid request";
    UnsupportedForMessageFormat = 43, "unsupported for message format";
    PolicyViolation = 44, "policy violation";
    OutOfOrderSequenceNumber = 45, "out of order sequence number";
    DuplicateSequenceNumber = 46, "duplicate sequence number";
    InvalidProducerEpoch = 47, "invalid producer epoch";
    InvalidTxnState = 48, "invalid txn state";
    InvalidProducerIdMapping = 49, "invalid producer id mapping";
    InvalidTransactionTimeout = 50, "invalid transaction timeout";
    ConcurrentTransactions = 51, "concurrent transactions";
    TransactionCoordinatorFenced = 52, "transaction coordinator fenced";
    TransactionalIdAuthorizationFailed = 53, "transactional id authorization failed";
    SecurityDisabled = 54, "security disabled";
    OperationNotAttempted = 55, "operation not attempted";
    KafkaStorageError = 56, "kafka storage error";
    LogDirNotFound = 57, "log dir not found";
    SaslAuthenticationFailed = 58, "sasl authentication failed";
    UnknownProducerId = 59, "unknown producer id";
    ReassignmentInProgress = 60, "reassignment in progress";
    DelegationTokenAuthDisabled = 61, "delegation token auth disabled";
    DelegationTokenNotFound = 62, "delegation token not found";
    DelegationTokenOwnerMismatch = 63, "delegation token owner mismatch";
    DelegationTokenRequestNotAllowed = 64, "delegation token request not allowed";
    DelegationTokenAuthorizationFailed = 65, "delegation token authorization failed";
    DelegationTokenExpired = 66, "delegation token expired";
    InvalidPrincipalType = 67, "invalid principal type";
    NonEmptyGroup = 68, "non empty group";
    GroupIdNotFound = 69, "group id not found";
    FetchSessionIdNotFound = 70, "fetch session id not found";
    InvalidFetchSessionEpoch = 71, "invalid fetch session epoch";
    ListenerNotFound = 72, "listener not found";
    TopicDeletionDisabled = 73, "topic deletion disabled";
    FencedLeaderEpoch = 74, "fenced leader epoch";
    UnknownLeaderEpoch = 75, "unknown leader epoch";
    UnsupportedCompressionType = 76, "unsupported compression type";
    StaleBrokerEpoch = 77, "stale broker epoch";
    OffsetNotAvailable = 78, "offset not available";
    MemberIdRequired = 79, "member id required";
    PreferredLeaderNotAvailable = 80, "preferred leader not available";
    GroupMaxSizeReached = 81, "group max size reached";
    FencedInstanceId = 82, "fenced instance id";
    EligibleLeadersNotAvailable = 83, "eligible leaders not available";
    ElectionNotNeeded = 84, "election not needed";
    NoReassignmentInProgress = 85, "no reassignment in progress";
    GroupSubscribedToTopic = 86, "group subscribed to topic";
    InvalidRecord = 87, "invalid record";
    UnstableOffsetCommit = 88, "unstable offset commit";
    ThrottlingQuotaExceeded = 89, "throttling quota exceeded";
    ProducerFenced = 90, "producer fenced";
    ResourceNotFound = 91, "resource not found";
    DuplicateResource = 92, "duplicate resource";
    UnacceptableCredential = 93, "unacceptable credential";
    InconsistentVoterSet = 94, "inconsistent voter set";
    InvalidUpdateVersion = 95, "invalid update version";
    FeatureUpdateFailed = 96, "feature update failed";
    PrincipalDeserializationFailure = 97, "principal deserialization failure";
    SnapshotNotFound = 98, "snapshot not found";
    PositionOutOfRange = 99, "position out of range";
    UnknownTopicId = 100, "unknown topic id";
    DuplicateBrokerRegistration = 101, "duplicate broker registration";
    BrokerIdNotRegistered = 102, "broker id not registered";
    InconsistentTopicId = 103, "inconsistent topic id";
    InconsistentClusterId = 104, "inconsistent cluster id";
    TransactionalIdNotFound = 105, "transactional id not found";
    FetchSessionTopicIdError = 106, "fetch session topic id error";
    IneligibleReplica = 107, "ineligible replica";
    NewLeaderElected = 108, "new leader elected";
    OffsetMovedToTieredStorage = 109, "offset moved to tiered storage";
    FencedMemberEpoch = 110, "fenced member epoch";
    UnreleasedInstanceId = 111, "unreleased instance id";
    UnsupportedAssignor = 112, "unsupported assignor";
    StaleMemberEpoch = 113, "stale member epoch";
    MismatchedEndpointType = 114, "mismatched endpoint type";
    UnsupportedEndpointType = 115, "unsupported endpoint type";
    UnknownControllerId = 116, "unknown controller id";
    UnknownSubscriptionId = 117, "unknown subscription id";
    TelemetryTooLarge = 118, "telemetry too large";
    InvalidRegistration = 119, "invalid registration";
    TransactionAbortable = 120, "transaction abortable";
    InvalidRecordState = 121, "invalid record state";
    ShareSessionNotFound = 122, "share session not found";
    InvalidShareSessionEpoch = 123, "invalid share session epoch";
    FencedStateEpoch = 124, "fenced state epoch";
    InvalidVoterKey = 125, "invalid voter key";
    DuplicateVoter = 126, "duplicate voter";
    VoterNotFound = 127, "voter not found";
    InvalidRegularExpression = 128, "invalid regular expression";
    RebootstrapRequired = 129, "rebootstrap required";
    StreamsInvalidTopology = 130, "streams invalid topology";
    StreamsInvalidTopologyEpoch = 131, "streams invalid topology epoch";
    StreamsTopologyFenced = 132, "streams topology fenced";
    ShareSessionLimitReached = 133, "share session limit reached";
}

impl ErrorCode {
    pub const fn is_none(self) -> bool {
        matches!(self, Self::None)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message(), self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_number() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_code(code.code()), Some(*code));
        }
        assert_eq!(ErrorCode::from_code(12_345), None);
    }
}
