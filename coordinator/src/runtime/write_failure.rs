//! Why the records of a decision did not come to be committed, and what a client is told then.

use klamm_protocol::ErrorCode;

/// What went wrong with a write that replies were waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFailure {
    /// The log refused the records: nothing of them is there.
    NotAppended(ErrorCode),
    /// The records were not committed in time. They stay in the log and may still be committed.
    CommitTimeout,
    /// This broker stopped being the coordinator.
    Unloaded,
}

impl WriteFailure {
    /// The code a client is told. (Kafka: `CoordinatorOperationExceptionHelper`)
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
