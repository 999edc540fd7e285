//! A group's configuration (KIP-848, KIP-932, KIP-1071): validates a set of overrides, and computes the values in
//! force.
//!
//! Source: `GroupConfig`.

use std::collections::BTreeMap;

use bytestring::ByteString;
use klamm_protocol::ErrorCode;

use super::broker_configs::BrokerConfigs;
use super::synonyms::group_synonym;
use super::value::{ConfigValue, ConfigValueError, parse_value};
use super::{ConfigDef, Configs};

/// Why a group's overrides are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupConfigError {
    #[error("Default group resources are not allowed.")]
    EmptyGroupName,
    #[error("Unknown group config name: {0}")]
    UnknownName(ByteString),
    #[error("Null value not supported for group configs: {}", .0.join(","))]
    NullValues(Vec<ByteString>),
    #[error(transparent)]
    Value(#[from] ConfigValueError),
    #[error("{name} must be greater than or equal to {bound}")]
    BelowMinimum { name: &'static str, bound: &'static str },
    #[error("{name} must be less than or equal to {bound}")]
    AboveMaximum { name: &'static str, bound: &'static str },
    #[error("{session} must be greater than {heartbeat}")]
    SessionNotAboveHeartbeat { session: &'static str, heartbeat: &'static str },
}

impl GroupConfigError {
    /// The error code for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::EmptyGroupName => ErrorCode::InvalidRequest,
            Self::UnknownName(_)
            | Self::NullValues(_)
            | Self::Value(_)
            | Self::BelowMinimum { .. }
            | Self::AboveMaximum { .. }
            | Self::SessionNotAboveHeartbeat { .. } => ErrorCode::InvalidConfig,
        }
    }
}

/// A group key and the broker keys that limit its value.
struct Limits {
    name: &'static str,
    min: Option<&'static str>,
    max: &'static str,
    /// Checked only if the group itself sets the key: Kafka does not check the default of a key whose broker-wide value
    /// can change (KAFKA-20337).
    only_if_set: bool,
}

impl Limits {
    const fn new(name: &'static str, min: &'static str, max: &'static str) -> Self {
        Self { name, min: Some(min), max, only_if_set: false }
    }

    const fn if_set(name: &'static str, min: &'static str, max: &'static str) -> Self {
        Self { name, min: Some(min), max, only_if_set: true }
    }
}

/// In the order of Kafka's checks.
const LIMITS: &[Limits] = &[
    Limits::new(
        "consumer.heartbeat.interval.ms",
        "group.consumer.min.heartbeat.interval.ms",
        "group.consumer.max.heartbeat.interval.ms",
    ),
    Limits::new(
        "consumer.session.timeout.ms",
        "group.consumer.min.session.timeout.ms",
        "group.consumer.max.session.timeout.ms",
    ),
    Limits::if_set(
        "consumer.assignment.interval.ms",
        "group.consumer.min.assignment.interval.ms",
        "group.consumer.max.assignment.interval.ms",
    ),
    Limits::new(
        "share.heartbeat.interval.ms",
        "group.share.min.heartbeat.interval.ms",
        "group.share.max.heartbeat.interval.ms",
    ),
    Limits::new(
        "share.session.timeout.ms",
        "group.share.min.session.timeout.ms",
        "group.share.max.session.timeout.ms",
    ),
    Limits::new(
        "share.record.lock.duration.ms",
        "group.share.min.record.lock.duration.ms",
        "group.share.max.record.lock.duration.ms",
    ),
    Limits::new(
        "share.delivery.count.limit",
        "group.share.min.delivery.count.limit",
        "group.share.max.delivery.count.limit",
    ),
    Limits::new(
        "share.partition.max.record.locks",
        "group.share.min.partition.max.record.locks",
        "group.share.max.partition.max.record.locks",
    ),
    Limits::if_set(
        "share.assignment.interval.ms",
        "group.share.min.assignment.interval.ms",
        "group.share.max.assignment.interval.ms",
    ),
    Limits::new(
        "streams.heartbeat.interval.ms",
        "group.streams.min.heartbeat.interval.ms",
        "group.streams.max.heartbeat.interval.ms",
    ),
    Limits::new(
        "streams.session.timeout.ms",
        "group.streams.min.session.timeout.ms",
        "group.streams.max.session.timeout.ms",
    ),
    Limits {
        name: "streams.num.standby.replicas",
        min: None,
        max: "group.streams.max.standby.replicas",
        only_if_set: false,
    },
    Limits::if_set(
        "streams.assignment.interval.ms",
        "group.streams.min.assignment.interval.ms",
        "group.streams.max.assignment.interval.ms",
    ),
];

const SESSIONS_AND_HEARTBEATS: &[(&str, &str)] = &[
    ("consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"),
    ("share.session.timeout.ms", "share.heartbeat.interval.ms"),
    ("streams.session.timeout.ms", "streams.heartbeat.interval.ms"),
];

/// Validates all overrides of a group together, as the controller does after an alteration. `broker` is the
/// controller's own configuration.
pub fn validate_group_configs(
    group: &str,
    overrides: &Configs,
    broker: &BrokerConfigs,
) -> Result<(), GroupConfigError> {
    if group.is_empty() {
        return Err(GroupConfigError::EmptyGroupName);
    }
    if let Some(name) = overrides.keys().find(|name| !ConfigDef::group().contains(name)) {
        return Err(GroupConfigError::UnknownName(name.clone()));
    }
    let values = GroupValues::parse(broker, overrides)?;
    for limits in LIMITS {
        if !limits.only_if_set || overrides.contains_key(limits.name) {
            check_limits(limits, values.int(limits.name), broker)?;
        }
    }
    for &(session, heartbeat) in SESSIONS_AND_HEARTBEATS {
        if values.int(session) <= values.int(heartbeat) {
            return Err(GroupConfigError::SessionNotAboveHeartbeat { session, heartbeat });
        }
    }
    Ok(())
}

fn check_limits(
    limits: &Limits,
    value: i32,
    broker: &BrokerConfigs,
) -> Result<(), GroupConfigError> {
    let name = limits.name;
    if let Some(bound) = limits.min.filter(|min| value < broker.int(min)) {
        return Err(GroupConfigError::BelowMinimum { name, bound });
    }
    if value > broker.int(limits.max) {
        return Err(GroupConfigError::AboveMaximum { name, bound: limits.max });
    }
    Ok(())
}

/// All group keys with their values: override, else the broker's value, else default.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupValues {
    values: BTreeMap<&'static str, ConfigValue>,
}

impl GroupValues {
    /// Parses a group's overrides over this broker's values, without a check of limits.
    pub fn parse(broker: &BrokerConfigs, overrides: &Configs) -> Result<Self, ConfigValueError> {
        let mut values = BTreeMap::new();
        for key in ConfigDef::group() {
            let value = match overrides.get(key.name) {
                Some(text) => parse_value(key, text)?,
                None => group_synonym(key.name)
                    .and_then(|broker_key| broker.value(broker_key))
                    .or_else(|| key.default_value())
                    .expect("every group key has a default"),
            };
            values.insert(key.name, value);
        }
        Ok(Self { values })
    }

    /// The values in force: a group's overrides, clamped to the broker's current limits, because they may have been
    /// stored under other limits (`GroupConfig.evaluate`).
    pub fn clamped(broker: &BrokerConfigs, overrides: &Configs) -> Result<Self, ConfigValueError> {
        let mut values = Self::parse(broker, overrides)?;
        for limits in LIMITS.iter().filter(|limits| overrides.contains_key(limits.name)) {
            let value = values.int(limits.name);
            let min = limits.min.map_or(value, |min| broker.int(min));
            let clamped = if value < min { min } else { value.min(broker.int(limits.max)) };
            values.values.insert(limits.name, ConfigValue::Int(clamped));
        }
        Ok(values)
    }

    pub fn get(&self, name: &str) -> Option<&ConfigValue> {
        self.values.get(name)
    }

    /// The value of an INT key.
    pub fn int(&self, name: &str) -> i32 {
        match self.get(name) {
            Some(ConfigValue::Int(value)) => *value,
            other => panic!("{name} is no INT but {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(pairs: &[(&str, &str)]) -> Configs {
        pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
    }

    fn validate(overrides: &[(&str, &str)]) -> Result<(), String> {
        let broker = BrokerConfigs::new(BTreeMap::new()).unwrap();
        validate_group_configs("g", &configs(overrides), &broker).map_err(|error| error.to_string())
    }

    #[test]
    fn every_limit_names_keys_that_exist() {
        for limits in LIMITS {
            assert!(ConfigDef::group().contains(limits.name), "{}", limits.name);
            for bound in limits.min.into_iter().chain([limits.max]) {
                assert!(ConfigDef::broker().contains(bound), "{bound}");
            }
        }
    }

    #[test]
    fn a_value_outside_the_brokers_limits_is_refused_with_the_limits_name() {
        assert_eq!(validate(&[("consumer.session.timeout.ms", "50000")]), Ok(()));
        assert_eq!(
            validate(&[("consumer.session.timeout.ms", "1")]),
            Err("consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms".into())
        );
        assert_eq!(
            validate(&[("share.delivery.count.limit", "1000")]),
            Err("share.delivery.count.limit must be less than or equal to group.share.max.delivery.count.limit".into())
        );
        assert_eq!(validate(&[("no.such", "1")]), Err("Unknown group config name: no.such".into()));
    }

    #[test]
    fn a_session_lasts_longer_than_a_heartbeat() {
        let broker =
            BrokerConfigs::new(configs(&[("group.consumer.max.heartbeat.interval.ms", "60000")]))
                .unwrap();
        let overrides = configs(&[
            ("consumer.heartbeat.interval.ms", "50000"),
            ("consumer.session.timeout.ms", "50000"),
        ]);
        assert_eq!(
            validate_group_configs("g", &overrides, &broker).unwrap_err().to_string(),
            "consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms"
        );
    }

    #[test]
    fn stored_values_are_clamped_to_the_limits_of_today() {
        let broker = BrokerConfigs::new(BTreeMap::new()).unwrap();
        let overrides = configs(&[
            ("consumer.session.timeout.ms", "999999"),
            ("consumer.heartbeat.interval.ms", "1"),
        ]);
        let values = GroupValues::clamped(&broker, &overrides).unwrap();
        assert_eq!(values.int("consumer.session.timeout.ms"), 60_000);
        assert_eq!(values.int("consumer.heartbeat.interval.ms"), 5_000);
        assert_eq!(values.int("share.delivery.count.limit"), 5);
    }

    #[test]
    fn a_group_needs_a_name() {
        let broker = BrokerConfigs::new(BTreeMap::new()).unwrap();
        let error = validate_group_configs("", &BTreeMap::new(), &broker).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidRequest);
    }
}
