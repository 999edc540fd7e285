//! A topic's configuration: validates a set of overrides, and computes the typed values in force.
//!
//! Sources: `LogConfig`, `KafkaConfig.extractLogConfigMap`, `ControllerConfigurationValidator`.

use std::collections::BTreeMap;

use bytestring::ByteString;
use klamm_protocol::ErrorCode;

use super::broker_configs::BrokerConfigs;
use super::synonyms::topic_synonyms;
use super::validator::invalid;
use super::value::{ConfigValue, ConfigValueError, InvalidReason, parse_value};
use super::{ConfigDef, ConfigKey, Configs};

/// Why a topic's overrides are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicConfigError {
    #[error("Unknown topic config name: {0}")]
    UnknownName(ByteString),
    #[error("Null value not supported for topic configs: {}", .0.join(","))]
    NullValues(Vec<ByteString>),
    #[error(transparent)]
    Value(#[from] ConfigValueError),
    #[error(
        "conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})"
    )]
    CompactionLags { min: i64, max: i64 },
    #[error(
        "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."
    )]
    RemoteStorageDisabled,
    #[error(
        "Remote log storage only supports topics with cleanup.policy=delete or cleanup.policy being an empty list."
    )]
    RemoteStorageCleanupPolicy,
    #[error(
        "When `remote.log.copy.disable` is set to true, the `local.retention.{unit}` and `retention.{unit}` must be set to the identical value because there will be no more logs copied to the remote storage."
    )]
    RemoteCopyDisabledRetention { unit: &'static str },
    #[error(
        "It is invalid to disable remote storage without deleting remote data. If you want to keep the remote data and turn to read only, please set `remote.storage.enable=true,remote.log.copy.disable=true`. If you want to disable remote storage and delete all remote data, please set `remote.storage.enable=false,remote.log.delete.on.disable=true`."
    )]
    RemoteStorageTurnedOff,
}

impl TopicConfigError {
    /// The error code for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownName(_)
            | Self::NullValues(_)
            | Self::Value(_)
            | Self::CompactionLags { .. }
            | Self::RemoteStorageDisabled
            | Self::RemoteStorageCleanupPolicy
            | Self::RemoteCopyDisabledRetention { .. }
            | Self::RemoteStorageTurnedOff => ErrorCode::InvalidConfig,
        }
    }
}

/// The compression of a topic's stored records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionType {
    /// As the producer sent it.
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// The kind of a record's timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// Whether compressed batches are decompressed and validated on append (Klamm's own key).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressedRecordValidation {
    /// Only header, checksum and the frame of the codec: for trusted producers.
    None,
    /// Every record, as Apache Kafka does.
    Full,
}

/// A topic's values in force. Units are in the names; -1 means unlimited, as in Kafka.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicConfig {
    /// `internal.segment.bytes` if that is set.
    pub segment_bytes: i32,
    pub segment_ms: i64,
    pub segment_jitter_ms: i64,
    pub segment_index_bytes: i32,
    pub flush_messages: i64,
    pub flush_ms: i64,
    pub retention_bytes: i64,
    pub retention_ms: i64,
    pub max_message_bytes: i32,
    pub index_interval_bytes: i32,
    pub delete_retention_ms: i64,
    pub min_compaction_lag_ms: i64,
    pub max_compaction_lag_ms: i64,
    pub file_delete_delay_ms: i64,
    pub min_cleanable_dirty_ratio: f64,
    /// `cleanup.policy` contains `compact`.
    pub compact: bool,
    /// `cleanup.policy` contains `delete`.
    pub delete: bool,
    pub unclean_leader_election_enable: bool,
    pub min_insync_replicas: i32,
    pub compression_type: CompressionType,
    pub compression_gzip_level: i32,
    pub compression_lz4_level: i32,
    pub compression_zstd_level: i32,
    pub preallocate: bool,
    pub message_timestamp_type: TimestampType,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_after_max_ms: i64,
    pub flush_before_ack: bool,
    pub compressed_record_validation: CompressedRecordValidation,
}

impl TopicConfig {
    /// The values of a topic with these overrides on this broker.
    ///
    /// # Errors An invalid override. Unknown names are skipped: they come from a newer controller.
    pub fn new(broker: &BrokerConfigs, overrides: &Configs) -> Result<Self, ConfigValueError> {
        let values = TopicValues::parse(broker, overrides)?;
        let policies = values.list("cleanup.policy");
        let has_policy = |policy: &str| policies.iter().any(|entry| entry == policy);
        Ok(Self {
            segment_bytes: values.segment_bytes(),
            segment_ms: values.long("segment.ms"),
            segment_jitter_ms: values.long("segment.jitter.ms"),
            segment_index_bytes: values.int("segment.index.bytes"),
            flush_messages: values.long("flush.messages"),
            flush_ms: values.long("flush.ms"),
            retention_bytes: values.long("retention.bytes"),
            retention_ms: values.long("retention.ms"),
            max_message_bytes: values.int("max.message.bytes"),
            index_interval_bytes: values.int("index.interval.bytes"),
            delete_retention_ms: values.long("delete.retention.ms"),
            min_compaction_lag_ms: values.long("min.compaction.lag.ms"),
            max_compaction_lag_ms: values.long("max.compaction.lag.ms"),
            file_delete_delay_ms: values.long("file.delete.delay.ms"),
            min_cleanable_dirty_ratio: values.double("min.cleanable.dirty.ratio"),
            compact: has_policy("compact"),
            delete: has_policy("delete"),
            unclean_leader_election_enable: values.boolean("unclean.leader.election.enable"),
            min_insync_replicas: values.int("min.insync.replicas"),
            compression_type: values.compression_type(),
            compression_gzip_level: values.int("compression.gzip.level"),
            compression_lz4_level: values.int("compression.lz4.level"),
            compression_zstd_level: values.int("compression.zstd.level"),
            preallocate: values.boolean("preallocate"),
            message_timestamp_type: values.timestamp_type(),
            message_timestamp_before_max_ms: values.long("message.timestamp.before.max.ms"),
            message_timestamp_after_max_ms: values.long("message.timestamp.after.max.ms"),
            flush_before_ack: values.boolean("flush.before.ack"),
            compressed_record_validation: values.compressed_record_validation(),
        })
    }
}

/// Validates all overrides of a topic together, as the controller does for CreateTopics and after an alteration.
///
/// `existing` are the topic's overrides before, `broker` the controller's own configuration.
pub fn validate_topic_configs(
    existing: &Configs,
    overrides: &Configs,
    broker: &BrokerConfigs,
) -> Result<(), TopicConfigError> {
    if let Some(name) = overrides.keys().find(|name| !ConfigDef::topic().contains(name)) {
        return Err(TopicConfigError::UnknownName(name.clone()));
    }
    let values = TopicValues::parse(broker, overrides)?;
    let (min, max) = (values.long("min.compaction.lag.ms"), values.long("max.compaction.lag.ms"));
    if min > max {
        return Err(TopicConfigError::CompactionLags { min, max });
    }
    if values.boolean("remote.storage.enable") {
        validate_remote_storage(&values, broker)
    } else {
        validate_remote_storage_off(&values, existing)
    }
}

fn validate_remote_storage(
    values: &TopicValues,
    broker: &BrokerConfigs,
) -> Result<(), TopicConfigError> {
    if !broker.boolean("remote.log.storage.system.enable") {
        return Err(TopicConfigError::RemoteStorageDisabled);
    }
    if !matches!(values.list("cleanup.policy"), [] | [_])
        || values.list("cleanup.policy") == ["compact"]
    {
        return Err(TopicConfigError::RemoteStorageCleanupPolicy);
    }
    for unit in ["bytes", "ms"] {
        validate_local_retention(values, unit)?;
    }
    if !values.boolean("remote.log.copy.disable") {
        return Ok(());
    }
    for unit in ["bytes", "ms"] {
        let (_, local, _, retention) = retentions(values, unit);
        if local != -2 && local != retention {
            return Err(TopicConfigError::RemoteCopyDisabledRetention { unit });
        }
    }
    Ok(())
}

fn validate_local_retention(
    values: &TopicValues,
    unit: &'static str,
) -> Result<(), ConfigValueError> {
    let (local_name, local, name, value) = retentions(values, unit);
    let is_unlimited = if unit == "bytes" { value < 0 } else { value == -1 };
    let reason = if is_unlimited || local == -2 {
        return Ok(());
    } else if local == -1 {
        InvalidReason::UnlimitedLocalRetention { name, value }
    } else if local > value {
        InvalidReason::LocalRetentionTooLarge { name, value }
    } else {
        return Ok(());
    };
    Err(invalid(local_name, &ConfigValue::Long(local), reason))
}

/// The local retention's name and value, the retention's name and value.
fn retentions(values: &TopicValues, unit: &str) -> (&'static str, i64, &'static str, i64) {
    let (local, name) = match unit {
        "bytes" => ("local.retention.bytes", "retention.bytes"),
        _ => ("local.retention.ms", "retention.ms"),
    };
    (local, values.long(local), name, values.long(name))
}

fn validate_remote_storage_off(
    values: &TopicValues,
    existing: &Configs,
) -> Result<(), TopicConfigError> {
    let was_on =
        existing.get("remote.storage.enable").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    if was_on && !values.boolean("remote.log.delete.on.disable") {
        return Err(TopicConfigError::RemoteStorageTurnedOff);
    }
    Ok(())
}

/// All topic keys with their parsed values: override, else the broker's value, else default.
#[derive(Debug)]
pub(super) struct TopicValues {
    values: BTreeMap<&'static str, Option<ConfigValue>>,
}

impl TopicValues {
    pub(super) fn parse(
        broker: &BrokerConfigs,
        overrides: &Configs,
    ) -> Result<Self, ConfigValueError> {
        let mut values = BTreeMap::new();
        for key in ConfigDef::topic() {
            let value = match overrides.get(key.name) {
                Some(text) => Some(parse_value(key, text)?),
                None => broker_value(broker, key)?,
            };
            values.insert(key.name, value);
        }
        Ok(Self { values })
    }

    pub(super) fn get(&self, name: &str) -> Option<&ConfigValue> {
        self.values.get(name)?.as_ref()
    }

    fn boolean(&self, name: &str) -> bool {
        match self.get(name) {
            Some(ConfigValue::Boolean(value)) => *value,
            other => panic!("{name} is no boolean but {other:?}"),
        }
    }

    fn int(&self, name: &str) -> i32 {
        match self.get(name) {
            Some(ConfigValue::Int(value)) => *value,
            other => panic!("{name} is no INT but {other:?}"),
        }
    }

    fn long(&self, name: &str) -> i64 {
        match self.get(name) {
            Some(ConfigValue::Long(value)) => *value,
            other => panic!("{name} is no LONG but {other:?}"),
        }
    }

    fn double(&self, name: &str) -> f64 {
        match self.get(name) {
            Some(ConfigValue::Double(value)) => *value,
            other => panic!("{name} is no DOUBLE but {other:?}"),
        }
    }

    fn list(&self, name: &str) -> &[String] {
        match self.get(name) {
            Some(ConfigValue::List(entries)) => entries,
            other => panic!("{name} is no LIST but {other:?}"),
        }
    }

    fn string(&self, name: &str) -> &str {
        match self.get(name) {
            Some(ConfigValue::String(value)) => value,
            other => panic!("{name} is no STRING but {other:?}"),
        }
    }

    fn segment_bytes(&self) -> i32 {
        match self.get("internal.segment.bytes") {
            Some(ConfigValue::Int(bytes)) => *bytes,
            _ => self.int("segment.bytes"),
        }
    }

    fn compression_type(&self) -> CompressionType {
        match self.string("compression.type") {
            "producer" => CompressionType::Producer,
            "uncompressed" => CompressionType::Uncompressed,
            "gzip" => CompressionType::Gzip,
            "snappy" => CompressionType::Snappy,
            "lz4" => CompressionType::Lz4,
            "zstd" => CompressionType::Zstd,
            other => panic!("the validator let compression.type={other} through"),
        }
    }

    fn timestamp_type(&self) -> TimestampType {
        match self.string("message.timestamp.type") {
            "CreateTime" => TimestampType::CreateTime,
            "LogAppendTime" => TimestampType::LogAppendTime,
            other => panic!("the validator let message.timestamp.type={other} through"),
        }
    }

    fn compressed_record_validation(&self) -> CompressedRecordValidation {
        match self.string("compressed.record.validation") {
            "none" => CompressedRecordValidation::None,
            "full" => CompressedRecordValidation::Full,
            other => panic!("the validator let compressed.record.validation={other} through"),
        }
    }
}

/// A topic key's value on a broker without overrides (`KafkaConfig.extractLogConfigMap`).
///
/// The broker's value must pass the topic key's validator too, which may be stricter: `log.retention.ms` accepts any
/// number, `retention.ms` none below -1.
fn broker_value(
    broker: &BrokerConfigs,
    key: &ConfigKey,
) -> Result<Option<ConfigValue>, ConfigValueError> {
    let synonyms = topic_synonyms(key.name);
    let found = synonyms.iter().find_map(|synonym| {
        broker.value(synonym.broker_key).map(|value| synonym.convert(&value.to_string()))
    });
    match found {
        // For Kafka any negative retention of the broker means unlimited.
        Some(text) if key.name == "retention.ms" && text.starts_with('-') => {
            Ok(Some(ConfigValue::Long(-1)))
        }
        Some(text) => parse_value(key, &text).map(Some),
        None => Ok(key.default_value()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(pairs: &[(&str, &str)]) -> Configs {
        pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
    }

    fn broker(pairs: &[(&str, &str)]) -> BrokerConfigs {
        BrokerConfigs::new(configs(pairs)).unwrap()
    }

    fn refusal(overrides: &[(&str, &str)]) -> String {
        validate_topic_configs(&BTreeMap::new(), &configs(overrides), &broker(&[]))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn without_overrides_kafkas_defaults_are_in_force() {
        let config = TopicConfig::new(&broker(&[]), &BTreeMap::new()).unwrap();
        assert_eq!(config.segment_bytes, 1 << 30);
        assert_eq!(config.retention_ms, 604_800_000);
        assert_eq!(config.segment_ms, 604_800_000);
        assert_eq!(config.flush_ms, i64::MAX);
        assert_eq!((config.compact, config.delete), (false, true));
        assert_eq!(config.compression_type, CompressionType::Producer);
        assert_eq!(config.message_timestamp_type, TimestampType::CreateTime);
        assert!(config.flush_before_ack);
        assert_eq!(config.compressed_record_validation, CompressedRecordValidation::Full);
    }

    #[test]
    fn an_override_beats_the_broker_and_the_broker_beats_the_default() {
        let broker = broker(&[("log.retention.minutes", "2"), ("message.max.bytes", "77")]);
        let config = TopicConfig::new(&broker, &configs(&[("max.message.bytes", "5")])).unwrap();
        assert_eq!(config.retention_ms, 120_000);
        assert_eq!(config.max_message_bytes, 5);
    }

    #[test]
    fn a_negative_retention_of_the_broker_is_unlimited() {
        let broker = broker(&[("log.retention.hours", "-5")]);
        assert_eq!(TopicConfig::new(&broker, &BTreeMap::new()).unwrap().retention_ms, -1);
    }

    #[test]
    fn internal_segment_bytes_win_over_segment_bytes() {
        let overrides = configs(&[("internal.segment.bytes", "100")]);
        assert_eq!(TopicConfig::new(&broker(&[]), &overrides).unwrap().segment_bytes, 100);
    }

    #[test]
    fn unknown_names_are_refused_before_bad_values() {
        assert_eq!(
            refusal(&[("message.timestamp.difference.max.ms", "5"), ("retention.ms", "x")]),
            "Unknown topic config name: message.timestamp.difference.max.ms"
        );
    }

    #[test]
    fn the_compaction_lags_must_not_cross() {
        assert_eq!(
            refusal(&[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")]),
            "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)"
        );
    }

    #[test]
    fn remote_storage_needs_a_broker_that_has_it() {
        assert_eq!(
            refusal(&[("remote.storage.enable", "true")]),
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."
        );
    }

    #[test]
    fn with_remote_storage_local_retention_stays_below_retention() {
        let broker = broker(&[("remote.log.storage.system.enable", "true")]);
        let validate = |pairs: &[(&str, &str)]| {
            let mut overrides = configs(pairs);
            overrides.insert("remote.storage.enable".into(), "true".into());
            validate_topic_configs(&BTreeMap::new(), &overrides, &broker)
                .map_err(|error| error.to_string())
        };
        assert_eq!(validate(&[]), Ok(()));
        assert_eq!(
            validate(&[("retention.ms", "5"), ("local.retention.ms", "6")]),
            Err("Invalid value 6 for configuration local.retention.ms: Value must not be more than retention.ms property value: 5".into())
        );
        assert_eq!(
            validate(&[("retention.bytes", "5"), ("local.retention.bytes", "-1")]),
            Err("Invalid value -1 for configuration local.retention.bytes: Value must not be -1 as retention.bytes value is set as 5.".into())
        );
        assert!(validate(&[("cleanup.policy", "compact")]).unwrap_err().starts_with("Remote log"));
        assert_eq!(validate(&[("cleanup.policy", "")]), Ok(()));
        assert!(
            validate(&[("remote.log.copy.disable", "true"), ("local.retention.ms", "6")])
                .unwrap_err()
                .contains("`local.retention.ms` and `retention.ms`")
        );
    }

    #[test]
    fn remote_storage_is_not_turned_off_in_passing() {
        let existing = configs(&[("remote.storage.enable", "true")]);
        let validate = |pairs| validate_topic_configs(&existing, &configs(pairs), &broker(&[]));
        assert_eq!(validate(&[]), Err(TopicConfigError::RemoteStorageTurnedOff));
        assert_eq!(validate(&[("remote.log.delete.on.disable", "true")]), Ok(()));
    }
}
