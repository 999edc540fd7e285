//! The configuration of this node with its dynamic layers (Kafka's `DynamicBrokerConfig`): the values in force, and the
//! checks of a change by the broker that will apply it, before the controller writes it to the log.

use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use bytestring::ByteString;
use klamm_metadata::config_def::alter::{AlterError, validate_broker_change};
use klamm_metadata::config_def::{BrokerConfigs, Configs};
use klamm_protocol::ErrorCode;
use tokio::sync::Notify;

use super::BrokerConfig;
use super::check::{self, ALL_LOG_DIRS, CORDONED_LOG_DIRS, CrossCheckError};
use super::protection::{self, Demand};
use super::providers::{has_placeholder, is_of_providers};

/// Keys that can change while a Kafka broker runs, but not in Klamm: sockets are bound at the start.
const FIXED_WHILE_RUNNING: [&str; 2] = ["listeners", "listener.security.protocol.map"];

/// The initial configuration (by `Deref`) and the current one.
#[derive(Debug)]
pub(crate) struct DynamicBrokerConfig {
    initial: BrokerConfig,
    /// The configuration with the dynamic layers of the cluster image.
    current: RwLock<Arc<BrokerConfig>>,
    /// Wakes the task that applies changes of `current`.
    pub(crate) changed: Notify,
}

impl DynamicBrokerConfig {
    /// Starts without dynamic values.
    pub(crate) fn new(initial: BrokerConfig) -> Self {
        let current = RwLock::new(Arc::new(initial.clone()));
        Self { initial, current, changed: Notify::new() }
    }

    /// The configuration in force.
    pub(crate) fn current(&self) -> Arc<BrokerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the configuration in force.
    pub(crate) fn replace(&self, configs: BrokerConfigs) {
        let current = Arc::new(self.initial.with_configs(configs));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        self.changed.notify_one();
    }
}

impl Deref for DynamicBrokerConfig {
    type Target = BrokerConfig;

    fn deref(&self) -> &BrokerConfig {
        &self.initial
    }
}

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
    /// Config providers are only used while the configuration is loaded.
    #[error(
        "{0} cannot be resolved while the broker runs: write the value itself, or put it into the configuration file and restart"
    )]
    Placeholder(ByteString),
    /// The key demands a security feature that Klamm does not have.
    #[error("{key} {demand}")]
    Unprotected { key: ByteString, demand: Demand },
}

impl ChangeRefusal {
    /// The error code for the client.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Value(error) => error.code(),
            // KAFKA-13609: the code should be another one, but Kafka keeps it.
            Self::Together(_)
            | Self::Fixed(_)
            | Self::Placeholder(_)
            | Self::Unprotected { .. } => ErrorCode::InvalidRequest,
        }
    }
}

/// Checks the proposed dynamic values of this broker (`per_broker`), or of all brokers, which would replace the current
/// ones.
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
    check_meaning(broker, proposed, per_broker)?;
    Ok(check::check(&changed)?)
}

/// Checks only new values: existing ones that another program has set must not block other changes.
fn check_meaning(
    broker: &BrokerConfigs,
    proposed: &Configs,
    per_broker: bool,
) -> Result<(), ChangeRefusal> {
    let present = if per_broker { broker.dynamic_broker() } else { broker.dynamic_default() };
    let new = proposed.iter().filter(|(key, text)| present.get(*key) != Some(text));
    new.filter_map(|(key, text)| meaningless(key, text)).next().map_or(Ok(()), Err)
}

/// Why a dynamic value would have no effect on this broker.
fn meaningless(key: &ByteString, text: &str) -> Option<ChangeRefusal> {
    if let Some(demand) = protection::demand(key, text) {
        return Some(ChangeRefusal::Unprotected { key: key.clone(), demand });
    }
    (has_placeholder(text) || is_of_providers(key) && !text.is_empty())
        .then(|| ChangeRefusal::Placeholder(key.clone()))
}

/// Dynamic values that another program has set and that this broker cannot apply: the feature is missing, or the key
/// cannot change while it runs.
pub(crate) fn without_effect(broker: &BrokerConfigs) -> Vec<ChangeRefusal> {
    let dynamic = || broker.dynamic_default().iter().chain(broker.dynamic_broker());
    let mut refusals: Vec<_> = dynamic().filter_map(|(key, text)| meaningless(key, text)).collect();
    let differs = |key: &&str| {
        broker.dynamic_broker().get(*key).is_some_and(|new| broker.statics().get(*key) != Some(new))
    };
    refusals.extend(FIXED_WHILE_RUNNING.into_iter().filter(differs).map(ChangeRefusal::Fixed));
    refusals
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
    fn protection_that_is_not_there_cannot_be_asked_for() {
        for (key, value) in [
            ("listener.name.external.ssl.keystore.location", "/keystore"),
            ("listener.name.external.ssl.client.auth", "required"),
            ("listener.name.external.plain.sasl.jaas.config", "x"),
            ("ssl.client.auth", "requested"),
            ("sasl.enabled.mechanisms", "PLAIN"),
            ("sasl.jaas.config", "x"),
            ("principal.builder.class", "a.B"),
            ("super.users", "User:a"),
            ("listener.name.external.max.connections", "5"),
        ] {
            let refusal = refusal(key, value).unwrap_or_else(|| panic!("{key} is taken"));
            assert!(matches!(refusal, ChangeRefusal::Unprotected { .. }), "{key}: {refusal}");
            assert_eq!(refusal.code(), ErrorCode::InvalidRequest);
            assert!(refusal.to_string().starts_with(&format!("{key} ")), "{refusal}");
        }
        assert_eq!(refusal("ssl.client.auth", "none"), None);
        assert_eq!(refusal("listener.name.a.ssl.keystore.type", "PEM"), None);
        assert_eq!(refusal("max.connections", "5"), None);
    }

    #[test]
    fn placeholders_are_no_dynamic_values() {
        for (key, value) in [
            ("my.plugin.key", "${env:A}"),
            ("config.providers", "env"),
            ("config.providers.env.class", "x"),
        ] {
            assert_eq!(refusal(key, value), Some(ChangeRefusal::Placeholder(key.into())), "{key}");
        }
        assert_eq!(refusal("my.plugin.key", "${HOME}"), None);
    }

    #[test]
    fn what_another_program_has_left_is_told_and_stands_in_nobodys_way() {
        let left =
            [("listener.name.a.ssl.keystore.location", "/keystore"), ("listeners", "A://:1")];
        let mut broker = BrokerConfigs::new(configs(&[("log.dirs", "/a,/b")])).unwrap();
        broker.set_dynamic_broker(configs(&left));
        let told: Vec<String> = without_effect(&broker).iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("listener.name.a.ssl.keystore.location asks for TLS"));
        assert!(told[1].starts_with("listeners cannot change while"));
        let mut proposed = configs(&left);
        proposed.insert("log.cleaner.threads".into(), "2".into());
        assert_eq!(check_change(&broker, &proposed, true), Ok(()));
        proposed.insert("listener.name.a.ssl.key.password".into(), "x".into());
        assert!(check_change(&broker, &proposed, true).is_err());
        assert_eq!(without_effect(&BrokerConfigs::new(configs(&[])).unwrap()), []);
    }

    #[test]
    fn thread_counts_do_not_jump() {
        let refusal = refusal("num.network.threads", "3000");
        assert!(matches!(refusal, Some(ChangeRefusal::Value(AlterError::ThreadCount { .. }))));
    }
}
