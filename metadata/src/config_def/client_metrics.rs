//! Validates the configuration of a client metrics subscription (KIP-714).
//!
//! Source: `ClientMetricsConfigs`.

use bytestring::ByteString;
use klamm_protocol::ErrorCode;

use super::value::{ConfigValue, ConfigValueError, parse_value};
use super::{ConfigDef, Configs};

const INTERVAL_MS: std::ops::RangeInclusive<i32> = 100..=3_600_000;

const MATCH_PARAMETERS: &[&str] = &[
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// Why a subscription is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientMetricsError {
    #[error("Subscription name can't be empty")]
    EmptyName,
    #[error("Unknown client metrics configuration: {0}")]
    UnknownName(ByteString),
    #[error("Null value not supported for client metrics configs: {}", .0.join(","))]
    NullValues(Vec<ByteString>),
    #[error(transparent)]
    Value(#[from] ConfigValueError),
    #[error("Invalid value {0} for interval.ms, interval must be between 100 and 3600000 (1 hour)")]
    Interval(i32),
    #[error("Illegal client matching pattern: {0}")]
    Match(String),
}

impl ClientMetricsError {
    /// The error code for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::EmptyName | Self::UnknownName(_) | Self::Interval(_) => ErrorCode::InvalidRequest,
            Self::NullValues(_) | Self::Value(_) | Self::Match(_) => ErrorCode::InvalidConfig,
        }
    }
}

/// Validates all configs of a subscription together. The right side of a `match` entry is not checked to be a regular
/// expression; the code that compiles it does that.
pub fn validate_client_metrics_configs(
    subscription: &str,
    configs: &Configs,
) -> Result<(), ClientMetricsError> {
    if subscription.is_empty() {
        return Err(ClientMetricsError::EmptyName);
    }
    if let Some(name) = configs.keys().find(|name| !ConfigDef::client_metrics().contains(name)) {
        return Err(ClientMetricsError::UnknownName(name.clone()));
    }
    for key in ConfigDef::client_metrics() {
        let Some(text) = configs.get(key.name) else { continue };
        match parse_value(key, text)? {
            ConfigValue::Int(interval_ms) if !INTERVAL_MS.contains(&interval_ms) => {
                return Err(ClientMetricsError::Interval(interval_ms));
            }
            ConfigValue::List(patterns) if key.name == "match" => check_patterns(&patterns)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_patterns(patterns: &[String]) -> Result<(), ClientMetricsError> {
    let is_pattern = |pattern: &&String| match pattern.split_once('=') {
        Some((parameter, value)) => {
            !value.is_empty()
                && !value.contains('=')
                && MATCH_PARAMETERS.contains(&parameter.trim())
        }
        None => false,
    };
    match patterns.iter().find(|pattern| !is_pattern(pattern)) {
        Some(pattern) => Err(ClientMetricsError::Match(pattern.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validate(pairs: &[(&str, &str)]) -> Result<(), String> {
        let configs = pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
        validate_client_metrics_configs("s", &configs).map_err(|error| error.to_string())
    }

    #[test]
    fn a_complete_subscription_is_valid() {
        assert_eq!(
            validate(&[
                ("metrics", "org.apache.kafka.producer."),
                ("interval.ms", "100"),
                ("match", "client_id=app.*,client_software_name=librdkafka"),
            ]),
            Ok(())
        );
    }

    #[test]
    fn intervals_names_and_patterns_are_checked() {
        assert_eq!(
            validate(&[("interval.ms", "99")]),
            Err("Invalid value 99 for interval.ms, interval must be between 100 and 3600000 (1 hour)".into())
        );
        assert_eq!(
            validate(&[("interval", "100")]),
            Err("Unknown client metrics configuration: interval".into())
        );
        for pattern in ["client_id", "host=a", "client_id=a=b", "client_id="] {
            assert_eq!(
                validate(&[("match", pattern)]),
                Err(format!("Illegal client matching pattern: {pattern}"))
            );
        }
    }
}
