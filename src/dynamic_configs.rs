//! Whether this broker could live with a change of its dynamic configuration: the checks of a broker
//! that applies it, before the controller writes it down (`DynamicBrokerConfig.validate`).

use std::path::Path;

use klamm_metadata::config_def::alter::{AlterError, validate_broker_change};
use klamm_metadata::config_def::{BrokerConfigs, Configs};
use klamm_protocol::ErrorCode;

use crate::config::check::{self, ALL_LOG_DIRS, CORDONED_LOG_DIRS, CrossCheckError};

/// Keys that Kafka lets change while a broker runs, and Klamm does not: sockets are bound at the
/// start.
const FIXED_WHILE_RUNNING: [&str; 2] = ["listeners", "listener.security.protocol.map"];

/// Why a change is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangeRefusal {
    #[error(transparent)]
    Value(#[from] AlterError),
    #[error(transparent)]
    Together(#[from] CrossCheckError),
    #[error(
        "{0} cannot change while the broker runs: change it in the configuration file and restart"
    )]
    Fixed(&'static str),
}

impl ChangeRefusal {
    /// What the client is told.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Value(error) => error.code(),
            // KAFKA-13609: Kafka knows that this should be another code, and keeps it.
            Self::Together(_) | Self::Fixed(_) => ErrorCode::InvalidRequest,
        }
    }
}

/// Checks all dynamic values of this broker (`per_broker`), or of all brokers, that would take the
/// place of the present ones.
pub(crate) fn check_change(
    broker: &BrokerConfigs,
    proposed: &Configs,
    per_broker: bool,
) -> Result<(), ChangeRefusal> {
    let changed = validate_broker_change(broker, proposed, per_broker)?;
    let fixed = FIXED_WHILE_RUNNING.into_iter().find(|key| broker.value(key) != changed.value(key));
    if let Some(key) = fixed {
        return Err(ChangeRefusal::Fixed(key));
    }
    Ok(check::check(&changed)?)
}

/// Whether `cordoned.log.dirs` names the directory, so that it takes no new replicas (KIP-1066).
pub(crate) fn is_cordoned(configs: &BrokerConfigs, directory: &Path) -> bool {
    // Only a process without a working directory has no absolute paths.
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let cordoned = configs.list(CORDONED_LOG_DIRS).unwrap_or_default();
    cordoned
        .iter()
        .any(|entry| entry == ALL_LOG_DIRS || absolute(Path::new(entry)) == absolute(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(pairs: &[(&str, &str)]) -> Configs {
        pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
    }

    fn refusal(name: &str, text: &str) -> Option<ChangeRefusal> {
        let broker = BrokerConfigs::new(configs(&[("log.dirs", "/a,/b")])).unwrap();
        check_change(&broker, &configs(&[(name, text)]), true).err()
    }

    #[test]
    fn values_that_do_not_go_together_are_refused() {
        assert_eq!(
            refusal("log.cleaner.threads", "2"),
            None,
            "the buffer has room for two cleaner threads"
        );
        let refusal = refusal("log.cleaner.dedupe.buffer.size", "1024").unwrap();
        assert_eq!(refusal, ChangeRefusal::Together(CrossCheckError::DedupeBuffer));
        assert_eq!(refusal.code(), ErrorCode::InvalidRequest);
    }

    #[test]
    fn only_own_directories_are_cordoned() {
        assert_eq!(refusal(CORDONED_LOG_DIRS, "/b"), None);
        assert_eq!(refusal(CORDONED_LOG_DIRS, "*"), None);
        let unknown = CrossCheckError::CordonedUnknown(vec!["/c".to_owned()]);
        let refusal = refusal(CORDONED_LOG_DIRS, "/b,/c").unwrap();
        assert_eq!(refusal, ChangeRefusal::Together(unknown));
        assert_eq!(refusal.code(), ErrorCode::InvalidRequest);
    }

    #[test]
    fn a_directory_is_cordoned_however_it_is_written() {
        let cordoned = |entries: &str, directory: &str| {
            let broker = BrokerConfigs::new(configs(&[(CORDONED_LOG_DIRS, entries)])).unwrap();
            is_cordoned(&broker, Path::new(directory))
        };
        assert!(!cordoned("", "/a"));
        assert!(cordoned("*", "/a"));
        assert!(cordoned("/b,/a", "/a"));
        assert!(!cordoned("/a", "/a/b"));
        assert!(cordoned("/a/", "/a"));
        let here = std::env::current_dir().unwrap();
        assert!(cordoned("./data", &here.join("data").display().to_string()));
    }

    #[test]
    fn listeners_stay_as_they_are() {
        assert_eq!(refusal("listeners", "PLAINTEXT://:9092"), None);
        let fixed = ChangeRefusal::Fixed("listeners");
        assert_eq!(refusal("listeners", "PLAINTEXT://:9093"), Some(fixed));
    }

    #[test]
    fn thread_counts_do_not_jump() {
        let refusal = refusal("num.network.threads", "3000");
        assert!(matches!(refusal, Some(ChangeRefusal::Value(AlterError::ThreadCount { .. }))));
    }
}
