//! Whether this broker could live with a change of its dynamic configuration: the checks of a broker
//! that applies it, before the controller writes it down (`DynamicBrokerConfig.validate`).

use klamm_metadata::config_def::alter::{AlterError, validate_broker_change};
use klamm_metadata::config_def::{BrokerConfigs, Configs};
use klamm_protocol::ErrorCode;

use crate::config::check::{self, CrossCheckError};

pub(crate) const CORDONED_LOG_DIRS: &str = "cordoned.log.dirs";
/// `ServerLogConfigs.CORDONED_LOG_DIRS_ALL`
pub(crate) const ALL_LOG_DIRS: &str = "*";

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
    #[error("{CORDONED_LOG_DIRS} is {ALL_LOG_DIRS}, or a list of directories, and not both")]
    CordonedAllAndSome,
    #[error("entries of {CORDONED_LOG_DIRS} are not in log.dirs: {}", missing.join(", "))]
    CordonedUnknown { missing: Vec<String> },
}

impl ChangeRefusal {
    /// What the client is told.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Value(error) => error.code(),
            // KAFKA-13609: Kafka knows that this should be another code, and keeps it.
            Self::Together(_)
            | Self::Fixed(_)
            | Self::CordonedAllAndSome
            | Self::CordonedUnknown { .. } => ErrorCode::InvalidRequest,
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
    check::check(&changed)?;
    check_cordoned(&changed)
}

fn check_cordoned(changed: &BrokerConfigs) -> Result<(), ChangeRefusal> {
    let cordoned = changed.list(CORDONED_LOG_DIRS).unwrap_or_default();
    if cordoned.iter().any(|entry| entry == ALL_LOG_DIRS) {
        return if cordoned.len() == 1 { Ok(()) } else { Err(ChangeRefusal::CordonedAllAndSome) };
    }
    let log_dirs = changed.list("log.dirs").or_else(|| changed.list("log.dir")).unwrap_or_default();
    let missing: Vec<String> =
        cordoned.into_iter().filter(|entry| !log_dirs.contains(entry)).collect();
    if missing.is_empty() { Ok(()) } else { Err(ChangeRefusal::CordonedUnknown { missing }) }
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
        assert_eq!(refusal(CORDONED_LOG_DIRS, "*,/b"), Some(ChangeRefusal::CordonedAllAndSome));
        let missing = vec!["/c".to_owned()];
        let unknown = ChangeRefusal::CordonedUnknown { missing };
        assert_eq!(refusal(CORDONED_LOG_DIRS, "/b,/c"), Some(unknown));
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
