//! Why the records of a decision were not committed, and the error code for the client.

use klamm_protocol::ErrorCode;

/// The failure of a write that replies waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFailure {
    /// The log refused the records: none of them was appended.
    NotAppended(ErrorCode),
    /// The records were not committed in time. They stay in the log and may still be committed.
    CommitTimeout,
    /// This broker stopped being the coordinator.
    Unloaded,
}

impl WriteFailure {
    /// The error code for the client. (Kafka: `CoordinatorOperationExceptionHelper`)
    #[must_use]
    pub fn code(self) -> ErrorCode {
        let error = match self {
            Self::NotAppended(error) => error,
            Self::CommitTimeout => ErrorCode::RequestTimedOut,
            Self::Unloaded => ErrorCode::NotCoordinator,
        };
        match error {
            ErrorCode::UnknownTopicOrPartition
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
            ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => {
                ErrorCode::NotCoordinator
            }
            ErrorCode::MessageTooLarge
            | ErrorCode::RecordListTooLarge
            | ErrorCode::InvalidFetchSize => ErrorCode::UnknownServerError,
            other => other,
        }
    }
}
