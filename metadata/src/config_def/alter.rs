//! The effect of `IncrementalAlterConfigs` and `AlterConfigs` on a value, and which broker keys they may change.
//!
//! Sources: `ConfigurationControlManager`, `ConfigAdminManager`, `DynamicBrokerConfig`.

use bytestring::ByteString;
use klamm_protocol::ErrorCode;

use super::broker_configs::BrokerConfigs;
use super::synonyms::strip_listener_prefix;
use super::value::ConfigValueError;
use super::{ConfigDef, ConfigScope, ConfigType, Configs, UpdateMode, Visibility, parse_value};

/// The operation of one entry of IncrementalAlterConfigs (KIP-339).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlterOperation {
    Set,
    Delete,
    Append,
    Subtract,
}

impl AlterOperation {
    /// Decodes the wire id; `None` for an unknown operation.
    pub fn from_id(id: i8) -> Option<Self> {
        match id {
            0 => Some(Self::Set),
            1 => Some(Self::Delete),
            2 => Some(Self::Append),
            3 => Some(Self::Subtract),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Set => "SET",
            Self::Delete => "DELETE",
            Self::Append => "APPEND",
            Self::Subtract => "SUBTRACT",
        }
    }
}

/// Why an alteration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AlterError {
    #[error("Can't {} to key {name} because its type is not LIST.", operation.name())]
    NotAList { operation: AlterOperation, name: String },
    #[error("Unknown config name: {name}")]
    UnknownBrokerKey { name: String },
    #[error("Config value {} is not allowed for config key: {name}", operation.name().to_lowercase())]
    BrokerKeyNotAList { operation: AlterOperation, name: String },
    #[error("{kind}: [{}]", names.join(", "))]
    Dynamic { kind: DynamicConfigError, names: Vec<ByteString> },
    #[error(
        "Dynamic thread count update validation failed for {name}={value}, value should {bound}"
    )]
    ThreadCount { name: &'static str, value: i32, bound: ThreadBound },
    /// A limit that would allow no connection.
    #[error("Invalid {name} {value}")]
    NoConnections { name: ByteString, value: i32 },
    /// Klamm loads no plug-ins.
    #[error("Class {class} not found for configuration {name}")]
    UnknownClass { name: &'static str, class: String },
    /// An invalid value of a broker key, which Kafka answers with INVALID_REQUEST.
    #[error(transparent)]
    BrokerValue(ConfigValueError),
}

/// The bound that a change of a thread count exceeds (`DynamicThreadPool`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ThreadBound {
    #[error("be at least 1")]
    One,
    #[error("be at least half the current value {0}")]
    Half(i32),
    #[error("not be greater than double the current value {0}")]
    Double(i32),
}

impl AlterError {
    /// The error code for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotAList { .. }
            | Self::UnknownBrokerKey { .. }
            | Self::BrokerKeyNotAList { .. } => ErrorCode::InvalidConfig,
            // KAFKA-13609: the code should be another one, but Kafka keeps it.
            Self::Dynamic { .. }
            | Self::ThreadCount { .. }
            | Self::NoConnections { .. }
            | Self::UnknownClass { .. }
            | Self::BrokerValue(_) => ErrorCode::InvalidRequest,
        }
    }
}

/// Why a broker key cannot be changed while brokers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum DynamicConfigError {
    #[error("Cannot update these configs dynamically")]
    ReadOnly,
    #[error(
        "These security configs can be dynamically updated only per-listener using the listener prefix"
    )]
    NeedsListenerPrefix,
    #[error("Cannot update these configs at default cluster level, broker id must be specified")]
    PerBroker,
}

/// Applies one operation to the current text of a key; returns the new text for the controller's records, or `None` to
/// delete the key.
///
/// APPEND and SUBTRACT start from the default if no value is set; SUBTRACT of the last entry leaves an empty text. The
/// caller validates the result together with all configs of the resource.
pub fn apply_operation(
    scope: ConfigScope,
    name: &str,
    current: Option<&str>,
    operation: AlterOperation,
    text: &str,
) -> Result<Option<String>, AlterError> {
    match operation {
        AlterOperation::Set => Ok(Some(text.to_owned())),
        AlterOperation::Delete => Ok(None),
        AlterOperation::Append | AlterOperation::Subtract => {
            let key = ConfigDef::of(scope)
                .get(name)
                .filter(|key| key.config_type == ConfigType::List)
                .ok_or_else(|| AlterError::NotAList { operation, name: name.to_owned() })?;
            let default = key.default_value().map(|value| value.to_string());
            let entries = current.or(default.as_deref()).unwrap_or("").split(',');
            let mut entries: Vec<&str> = entries.filter(|entry| !entry.is_empty()).collect();
            for entry in split_as_java(text) {
                let position = entries.iter().position(|present| *present == entry);
                match (operation, position) {
                    (AlterOperation::Append, None) => entries.push(entry),
                    (AlterOperation::Subtract, Some(position)) => drop(entries.remove(position)),
                    _ => {}
                }
            }
            Ok(Some(entries.join(",")))
        }
    }
}

/// Splits as `String.split(",")`: empty parts at the end are dropped, but an empty text is one part.
fn split_as_java(text: &str) -> impl Iterator<Item = &str> {
    let parts = if text.is_empty() { text } else { text.trim_end_matches(',') };
    let count = if parts.is_empty() && !text.is_empty() { 0 } else { usize::MAX };
    parts.split(',').take(count)
}

/// Checks an operation on a broker key, as the broker that receives the request does before it applies any: APPEND and
/// SUBTRACT need a known key of type LIST.
pub fn check_broker_operation(name: &str, operation: AlterOperation) -> Result<(), AlterError> {
    if matches!(operation, AlterOperation::Set | AlterOperation::Delete) {
        return Ok(());
    }
    match ConfigDef::broker().get(name).filter(|key| key.visibility != Visibility::DynamicOnly) {
        None => Err(AlterError::UnknownBrokerKey { name: name.to_owned() }),
        Some(key) if key.config_type != ConfigType::List => {
            Err(AlterError::BrokerKeyNotAList { operation, name: name.to_owned() })
        }
        Some(_) => Ok(()),
    }
}

/// Validates all dynamic configs of one broker (`per_broker`) or of the cluster's default, after the operations were
/// applied (`DynamicBrokerConfig.validateConfigs`). Unknown keys are accepted: they are for plug-ins.
pub fn validate_broker_configs(configs: &Configs, per_broker: bool) -> Result<(), AlterError> {
    // Kafka checks one rule for all keys before the next rule, and values before the last one.
    for kind in [DynamicConfigError::ReadOnly, DynamicConfigError::NeedsListenerPrefix] {
        refuse_all(configs, per_broker, kind)?;
    }
    for (name, text) in configs {
        if let Some(key) = ConfigDef::broker().get(strip_for_validation(name)) {
            parse_value(key, text).map_err(AlterError::BrokerValue)?;
        }
    }
    refuse_all(configs, per_broker, DynamicConfigError::PerBroker)
}

fn refuse_all(
    configs: &Configs,
    per_broker: bool,
    kind: DynamicConfigError,
) -> Result<(), AlterError> {
    let is_refused = |name: &&ByteString| dynamic_config_error(name, per_broker) == Some(kind);
    let names: Vec<ByteString> = configs.keys().filter(is_refused).cloned().collect();
    if names.is_empty() { Ok(()) } else { Err(AlterError::Dynamic { kind, names }) }
}

/// Validates the proposed dynamic configuration of this broker (`per_broker`) or of the cluster's default as a whole,
/// on the broker that would apply it.
pub fn validate_broker_change(
    broker: &BrokerConfigs,
    proposed: &Configs,
    per_broker: bool,
) -> Result<BrokerConfigs, AlterError> {
    validate_broker_configs(proposed, per_broker)?;
    let mut changed = broker.clone();
    if per_broker {
        changed.set_dynamic_broker(proposed.clone());
    } else {
        changed.set_dynamic_default(proposed.clone());
    }
    for name in THREAD_COUNTS {
        validate_thread_count(name, broker.int(name), changed.int(name))?;
    }
    proposed.iter().try_for_each(|(name, text)| validate_connection_limit(name, text))?;
    validate_metric_reporters(proposed)?;
    Ok(changed)
}

/// A listener must admit at least one connection (`ConnectionQuotas.ListenerConnectionQuota`).
fn validate_connection_limit(name: &ByteString, text: &str) -> Result<(), AlterError> {
    let base = strip_for_validation(name);
    if !matches!(base, "max.connections" | "max.connection.creation.rate") {
        return Ok(());
    }
    let value: i32 = text.trim().parse().expect("values are checked against their types first");
    if value <= 0 {
        return Err(AlterError::NoConnections { name: name.clone(), value });
    }
    Ok(())
}

const METRIC_REPORTERS: &str = "metric.reporters";
/// The only allowed metric reporter.
const JMX_REPORTER: &str = "org.apache.kafka.common.metrics.JmxReporter";

/// Kafka loads the classes of reporters when they are configured, so unknown ones are refused
/// (`DynamicMetricsReporters`).
fn validate_metric_reporters(proposed: &Configs) -> Result<(), AlterError> {
    let classes = proposed.get(METRIC_REPORTERS).map(|text| text.split(',').map(str::trim));
    let unknown = classes.into_iter().flatten().find(|class| !matches!(*class, "" | JMX_REPORTER));
    unknown.map_or(Ok(()), |class| {
        Err(AlterError::UnknownClass { name: METRIC_REPORTERS, class: class.to_owned() })
    })
}

/// Keys of `DynamicThreadPool`, `SocketServer` and `LogCleaner`.
const THREAD_COUNTS: [&str; 6] = [
    "log.cleaner.threads",
    "num.io.threads",
    "num.network.threads",
    "num.replica.fetchers",
    "num.recovery.threads.per.data.dir",
    "background.threads",
];

/// Refuses a thread count that is less than half or more than double the current one.
pub fn validate_thread_count(
    name: &'static str,
    current: i32,
    value: i32,
) -> Result<(), AlterError> {
    let bound = if value < 1 && current >= 1 {
        ThreadBound::One
    } else if value < current / 2 {
        ThreadBound::Half(current)
    } else if value > current.saturating_mul(2) {
        ThreadBound::Double(current)
    } else {
        return Ok(());
    };
    Err(AlterError::ThreadCount { name, value, bound })
}

/// The error if a key may not be in a broker's dynamic configs.
pub(super) fn dynamic_config_error(name: &str, per_broker: bool) -> Option<DynamicConfigError> {
    if let Some(base) = strip_listener_prefix(name) {
        return (!per_broker && !is_cluster_wide_listener_key(base))
            .then_some(DynamicConfigError::PerBroker);
    }
    let key = ConfigDef::broker().get(name)?;
    match key.update_mode {
        UpdateMode::ReadOnly => Some(DynamicConfigError::ReadOnly),
        _ if is_reloadable_security_key(name) => Some(DynamicConfigError::NeedsListenerPrefix),
        UpdateMode::PerBroker if !per_broker => Some(DynamicConfigError::PerBroker),
        UpdateMode::PerBroker | UpdateMode::ClusterWide | UpdateMode::Resource => None,
    }
}

fn is_cluster_wide_listener_key(base: &str) -> bool {
    matches!(base, "max.connections" | "max.connection.creation.rate" | "num.network.threads")
}

/// `SslConfigs.RECONFIGURABLE_CONFIGS`: changeable for one listener, never for all at once.
fn is_reloadable_security_key(name: &str) -> bool {
    matches!(
        name,
        "ssl.keystore.type"
            | "ssl.keystore.location"
            | "ssl.keystore.password"
            | "ssl.key.password"
            | "ssl.keystore.certificate.chain"
            | "ssl.keystore.key"
            | "ssl.truststore.type"
            | "ssl.truststore.location"
            | "ssl.truststore.password"
            | "ssl.truststore.certificates"
    )
}

/// The key whose type and range apply to a broker config.
pub(super) fn strip_for_validation(name: &str) -> &str {
    strip_listener_prefix(name).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleanup_policy(
        current: Option<&str>,
        operation: AlterOperation,
        text: &str,
    ) -> Option<String> {
        apply_operation(ConfigScope::Topic, "cleanup.policy", current, operation, text).unwrap()
    }

    fn configs(pairs: &[(&str, &str)]) -> Configs {
        pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
    }

    fn refusal(pairs: &[(&str, &str)], per_broker: bool) -> String {
        validate_broker_configs(&configs(pairs), per_broker).unwrap_err().to_string()
    }

    #[test]
    fn appending_starts_from_the_default() {
        let append = AlterOperation::Append;
        assert_eq!(cleanup_policy(None, append, "compact").as_deref(), Some("delete,compact"));
        assert_eq!(cleanup_policy(Some("compact"), append, "compact").as_deref(), Some("compact"));
        assert_eq!(cleanup_policy(Some(""), append, "compact").as_deref(), Some("compact"));
    }

    #[test]
    fn subtracting_the_last_entry_leaves_an_empty_text() {
        let subtract = AlterOperation::Subtract;
        assert_eq!(cleanup_policy(Some("compact"), subtract, "compact").as_deref(), Some(""));
        assert_eq!(cleanup_policy(None, subtract, "compact").as_deref(), Some("delete"));
    }

    #[test]
    fn setting_and_deleting_take_any_key() {
        assert_eq!(cleanup_policy(None, AlterOperation::Set, "x").as_deref(), Some("x"));
        assert_eq!(cleanup_policy(Some("x"), AlterOperation::Delete, ""), None);
    }

    #[test]
    fn only_lists_are_appended_to() {
        let error =
            apply_operation(ConfigScope::Topic, "retention.ms", None, AlterOperation::Append, "5")
                .unwrap_err();
        assert_eq!(
            error.to_string(),
            "Can't APPEND to key retention.ms because its type is not LIST."
        );
        assert_eq!(error.code(), ErrorCode::InvalidConfig);
    }

    #[test]
    fn read_only_broker_keys_are_refused_by_name() {
        assert_eq!(
            refusal(&[("node.id", "1"), ("log.dirs", "/x")], true),
            "Cannot update these configs dynamically: [log.dirs, node.id]"
        );
        assert_eq!(
            refusal(&[("ssl.keystore.location", "/x")], true),
            "These security configs can be dynamically updated only per-listener using the listener prefix: [ssl.keystore.location]"
        );
    }

    #[test]
    fn per_broker_keys_are_refused_for_the_whole_cluster() {
        let message = "Cannot update these configs at default cluster level, broker id must be specified: [listeners]";
        assert_eq!(refusal(&[("listeners", "PLAINTEXT://:1")], false), message);
        assert_eq!(
            validate_broker_configs(&configs(&[("listeners", "PLAINTEXT://:1")]), true),
            Ok(())
        );
    }

    #[test]
    fn a_bad_broker_value_is_a_bad_request() {
        let error =
            validate_broker_configs(&configs(&[("num.io.threads", "0")]), true).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidRequest);
        assert_eq!(
            error.to_string(),
            "Invalid value 0 for configuration num.io.threads: Value must be at least 1"
        );
    }

    #[test]
    fn a_change_is_checked_against_what_is_in_force() {
        let broker = BrokerConfigs::new(Configs::new()).unwrap();
        let change = |name: &str, text: &str| {
            let changed = validate_broker_change(&broker, &configs(&[(name, text)]), false)?;
            Ok::<_, AlterError>(changed.int("num.io.threads"))
        };
        assert_eq!(change("num.io.threads", "16"), Ok(16));
        assert!(matches!(change("num.io.threads", "17"), Err(AlterError::ThreadCount { .. })));
        assert!(matches!(change("node.id", "2"), Err(AlterError::Dynamic { .. })));
    }

    #[test]
    fn limits_that_admit_nobody_and_classes_that_nobody_has_are_refused() {
        let broker = BrokerConfigs::new(Configs::new()).unwrap();
        let change = |name: &str, text: &str| {
            validate_broker_change(&broker, &configs(&[(name, text)]), false).err()
        };
        for name in ["max.connections", "listener.name.plaintext.max.connection.creation.rate"] {
            assert!(matches!(change(name, "0"), Some(AlterError::NoConnections { .. })), "{name}");
            assert_eq!(change(name, "1"), None, "{name}");
        }
        assert_eq!(change("max.connections.per.ip", "0"), None);
        assert!(matches!(change(METRIC_REPORTERS, "x.Y"), Some(AlterError::UnknownClass { .. })));
        assert_eq!(change(METRIC_REPORTERS, JMX_REPORTER), None);
        let one_cleaner = configs(&[("log.cleaner.threads", "0")]);
        let refused = validate_broker_change(&broker, &one_cleaner, false).unwrap_err();
        assert!(refused.to_string().ends_with("value should be at least 1"), "{refused}");
    }

    #[test]
    fn thread_counts_change_by_a_factor_of_two_at_most() {
        assert_eq!(validate_thread_count("num.io.threads", 8, 4), Ok(()));
        assert_eq!(validate_thread_count("num.io.threads", 8, 16), Ok(()));
        let message =
            |value| validate_thread_count("num.io.threads", 8, value).unwrap_err().to_string();
        assert_eq!(
            message(3),
            "Dynamic thread count update validation failed for num.io.threads=3, value should be at least half the current value 8"
        );
        assert_eq!(
            message(17),
            "Dynamic thread count update validation failed for num.io.threads=17, value should not be greater than double the current value 8"
        );
    }
}
