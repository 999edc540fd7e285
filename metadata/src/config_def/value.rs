//! A configuration value and its parser: accepts the same text as Kafka's `ConfigDef.parseType` and `parseValue`, and
//! refuses with the same messages.

use std::fmt;

use klamm_protocol::ErrorCode;

use super::java_text::{parse_double, print_double, split_list, trim};
use super::{ConfigKey, ConfigType, Validator};

/// A parsed value.
#[derive(Debug, Clone, PartialEq)]
pub enum ConfigValue {
    Boolean(bool),
    String(String),
    Int(i32),
    Short(i16),
    Long(i64),
    Double(f64),
    List(Vec<String>),
    /// The name of a Java class. It is not loaded, so any name is accepted.
    Class(String),
    Password(String),
}

impl fmt::Display for ConfigValue {
    /// As `ConfigDef.convertToString`. A password prints in clear text: check `ConfigKey::is_sensitive` before showing
    /// a value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Short(value) => value.fmt(f),
            Self::Long(value) => value.fmt(f),
            Self::Double(value) => f.write_str(&print_double(*value)),
            Self::List(values) => f.write_str(&values.join(",")),
            Self::String(value) | Self::Class(value) | Self::Password(value) => f.write_str(value),
        }
    }
}

/// Why a value is refused. The text is exactly Kafka's: tools match on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigValueError {
    #[error("Invalid value {value} for configuration {name}: {reason}")]
    Invalid { name: String, value: String, reason: InvalidReason },
    #[error("Configuration '{name}' must not be empty. Valid values include: {valid}")]
    EmptyList { name: String, valid: String },
    #[error("Configuration '{name}' values must not be empty.")]
    EmptyListEntry { name: String },
    #[error(
        "Invalid configuration value for {name}. Each entry should be in the form `{{id}}@{{host}}:{{port}}`."
    )]
    VoterForm { name: String },
    #[error("Failed to parse voter ID as an integer from {text}")]
    VoterId { text: String },
    #[error(
        "Failed to parse host {part} from entry {entry} for the configuration {name}. Each entry should be in the form `{{id}}@{{host}}:{{port}}`."
    )]
    VoterAddress { name: String, part: &'static str, entry: String },
    #[error(
        "Failed to parse host {part} from {entry} for the configuration {name}. Each entry should be in the form \"{{host}}:{{port}}\""
    )]
    BootstrapServer { name: String, part: &'static str, entry: String },
}

impl ConfigValueError {
    /// The error code for the client: Kafka answers a `ConfigException` with INVALID_CONFIG.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid { .. }
            | Self::EmptyList { .. }
            | Self::EmptyListEntry { .. }
            | Self::VoterForm { .. }
            | Self::VoterId { .. }
            | Self::VoterAddress { .. }
            | Self::BootstrapServer { .. } => ErrorCode::InvalidConfig,
        }
    }
}

/// The last part of Kafka's "Invalid value X for configuration Y: ...".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReason {
    #[error("Expected value to be either true or false")]
    NotBoolean,
    #[error("Not a number of type {}", .0.name())]
    NotANumber(ConfigType),
    #[error("Value must be at least {0}")]
    TooSmall(&'static str),
    #[error("Value must be no more than {0}")]
    TooLarge(&'static str),
    #[error("Value must be between {min} and {max} or equal to {or}")]
    OutsideRange { min: &'static str, max: &'static str, or: &'static str },
    #[error("String must be one of: {0}")]
    NotOneOf(String),
    #[error("String must be one of (case insensitive): {0}")]
    NotOneOfIgnoringCase(String),
    #[error("String must be non-empty")]
    Empty,
    #[error(
        "{0} must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
    )]
    ThrottledReplicas(String),
    #[error(
        "Invalid value `{value}` for configuration {name}. The value must be either 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'."
    )]
    ShareAutoOffsetReset { name: String, value: String },
    #[error("Value must not be -1 as {name} value is set as {value}.")]
    UnlimitedLocalRetention { name: &'static str, value: i64 },
    #[error("Value must not be more than {name} property value: {value}")]
    LocalRetentionTooLarge { name: &'static str, value: i64 },
}

/// Parses and validates the text of one key.
///
/// Duplicates in a list that must have none are dropped, as in Kafka.
pub fn parse_value(key: &ConfigKey, text: &str) -> Result<ConfigValue, ConfigValueError> {
    let mut value = parse_type(key.name, text, key.config_type)?;
    if let (ConfigValue::List(entries), Validator::List { .. }) = (&mut value, &key.validator) {
        remove_duplicates(entries);
    }
    key.validator.ensure_valid(key.name, &value)?;
    Ok(value)
}

/// Parses text of a type, without validation of the value.
pub fn parse_type(
    name: &str,
    text: &str,
    config_type: ConfigType,
) -> Result<ConfigValue, ConfigValueError> {
    let trimmed = trim(text);
    let parsed = match config_type {
        ConfigType::Boolean => parse_boolean(trimmed).map(ConfigValue::Boolean),
        ConfigType::Int => trimmed.parse().ok().map(ConfigValue::Int),
        ConfigType::Short => trimmed.parse().ok().map(ConfigValue::Short),
        ConfigType::Long => trimmed.parse().ok().map(ConfigValue::Long),
        ConfigType::Double => parse_double(trimmed).map(ConfigValue::Double),
        ConfigType::List => Some(ConfigValue::List(split_list(trimmed))),
        ConfigType::String => Some(ConfigValue::String(trimmed.to_owned())),
        ConfigType::Class => Some(ConfigValue::Class(trimmed.to_owned())),
        ConfigType::Password => Some(ConfigValue::Password(trimmed.to_owned())),
    };
    parsed.ok_or_else(|| ConfigValueError::Invalid {
        name: name.to_owned(),
        value: text.to_owned(),
        reason: match config_type {
            ConfigType::Boolean => InvalidReason::NotBoolean,
            number => InvalidReason::NotANumber(number),
        },
    })
}

fn parse_boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

fn remove_duplicates(entries: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    entries.retain(|entry| seen.insert(entry.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_def::ConfigDef;

    fn topic(name: &str, text: &str) -> Result<ConfigValue, String> {
        parse_value(ConfigDef::topic().known(name), text).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_trimmed_and_typed() {
        assert_eq!(topic("retention.ms", " +5 "), Ok(ConfigValue::Long(5)));
        assert_eq!(topic("preallocate", "TRUE"), Ok(ConfigValue::Boolean(true)));
        assert_eq!(topic("min.cleanable.dirty.ratio", "1"), Ok(ConfigValue::Double(1.0)));
        assert_eq!(
            topic("message.timestamp.type", " LogAppendTime "),
            Ok(ConfigValue::String("LogAppendTime".into()))
        );
    }

    #[test]
    fn refusals_are_worded_as_kafka_words_them() {
        for (name, text, message) in [
            (
                "retention.ms",
                "abc",
                "Invalid value abc for configuration retention.ms: Not a number of type LONG",
            ),
            (
                "retention.ms",
                "",
                "Invalid value  for configuration retention.ms: Not a number of type LONG",
            ),
            (
                "preallocate",
                "yes",
                "Invalid value yes for configuration preallocate: Expected value to be either true or false",
            ),
            (
                "segment.bytes",
                "9999999999",
                "Invalid value 9999999999 for configuration segment.bytes: Not a number of type INT",
            ),
        ] {
            assert_eq!(topic(name, text), Err(message.to_owned()));
        }
    }

    #[test]
    fn a_cleanup_policy_may_be_empty_and_loses_duplicates() {
        assert_eq!(topic("cleanup.policy", ""), Ok(ConfigValue::List(vec![])));
        assert_eq!(
            topic("cleanup.policy", "compact, delete,compact"),
            Ok(ConfigValue::List(vec!["compact".into(), "delete".into()]))
        );
    }

    #[test]
    fn lists_print_without_spaces() {
        assert_eq!(ConfigValue::List(vec!["a".into(), "b".into()]).to_string(), "a,b");
    }
}
