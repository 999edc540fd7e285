//! The answers of DescribeConfigs and CreateTopics about a resource: each key's value, its source, and its synonyms.
//!
//! As in Kafka the two answers differ: for the source of a topic key DescribeConfigs (`ConfigHelper`) checks only the
//! first broker key, CreateTopics (`KafkaConfigSchema`) all of them.

use bytestring::ByteString;

use super::broker_configs::BrokerConfigs;
use super::group_config::GroupValues;
use super::synonyms::{
    broker_synonyms_with_listener, group_synonym, listener_base_name, topic_synonyms,
};
use super::topic_config::TopicValues;
use super::value::{ConfigValueError, parse_type, parse_value};
use super::{ConfigDef, ConfigKey, ConfigType, Configs, UpdateMode, Visibility};

/// The source of a value (`DescribeConfigsResponse.ConfigSource`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    Topic,
    DynamicBroker,
    DynamicDefaultBroker,
    StaticBroker,
    Default,
    DynamicBrokerLogger,
    ClientMetrics,
    Group,
}

impl ConfigSource {
    /// The id on the wire.
    pub fn id(self) -> i8 {
        match self {
            Self::Topic => 1,
            Self::DynamicBroker => 2,
            Self::DynamicDefaultBroker => 3,
            Self::StaticBroker => 4,
            Self::Default => 5,
            Self::DynamicBrokerLogger => 6,
            Self::ClientMetrics => 7,
            Self::Group => 8,
        }
    }
}

/// One source with a value for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSynonym {
    pub name: ByteString,
    /// `None` for a secret.
    pub value: Option<ByteString>,
    pub source: ConfigSource,
}

/// One key of a described resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedConfig {
    pub name: ByteString,
    /// `None` for a secret, and if the value is null.
    pub value: Option<ByteString>,
    pub source: ConfigSource,
    pub is_sensitive: bool,
    pub read_only: bool,
    /// `None` for an unknown key (wire id 0).
    pub config_type: Option<ConfigType>,
    /// The strongest first; the answer has them only on request.
    pub synonyms: Vec<ConfigSynonym>,
    pub documentation: Option<&'static str>,
}

impl DescribedConfig {
    /// The type's id in a DescribeConfigs response.
    pub fn type_id(&self) -> i8 {
        self.config_type.map_or(0, ConfigType::id)
    }
}

/// The requested keys of a resource. A null list and an empty one both mean all.
#[derive(Debug, Clone, Copy)]
pub struct KeyFilter<'a>(pub &'a [ByteString]);

impl KeyFilter<'_> {
    /// Whether a known key without a value is described.
    fn lists_unset(self, key: &ConfigKey) -> bool {
        match key.visibility {
            Visibility::Public => self.takes(key.name),
            Visibility::Klamm => self.0.iter().any(|name| name == key.name),
            Visibility::Internal | Visibility::DynamicOnly => false,
        }
    }

    fn takes(self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|asked| asked == name)
    }
}

/// Describes a topic with these overrides.
///
/// # Errors
/// An invalid stored override.
pub fn describe_topic(
    broker: &BrokerConfigs,
    overrides: &Configs,
    keys: KeyFilter<'_>,
) -> Result<Vec<DescribedConfig>, ConfigValueError> {
    let values = TopicValues::parse(broker, overrides)?;
    let described =
        ConfigDef::topic().iter().filter(|key| is_listed(key, overrides, keys)).map(|key| {
            let value = values.get(key.name).map(|value| value.to_string().into());
            let behind = topic_synonyms(key.name)
                .first()
                .map_or_else(Vec::new, |synonym| broker_sources(broker, synonym.broker_key, false));
            describe_resource_key(key, value, overrides, ConfigSource::Topic, behind)
        });
    Ok(described
        .chain(unknown_keys(ConfigDef::topic(), overrides, keys, ConfigSource::Topic))
        .collect())
}

/// Describes a group with these overrides.
///
/// # Errors
/// An invalid stored override.
pub fn describe_group(
    broker: &BrokerConfigs,
    overrides: &Configs,
    keys: KeyFilter<'_>,
) -> Result<Vec<DescribedConfig>, ConfigValueError> {
    let values = GroupValues::parse(broker, overrides)?;
    let described =
        ConfigDef::group().iter().filter(|key| is_listed(key, overrides, keys)).map(|key| {
            let value = values.get(key.name).map(|value| value.to_string().into());
            let behind = match group_synonym(key.name) {
                Some(broker_key) => broker_sources(broker, broker_key, false),
                None => default_source(key),
            };
            describe_resource_key(key, value, overrides, ConfigSource::Group, behind)
        });
    Ok(described
        .chain(unknown_keys(ConfigDef::group(), overrides, keys, ConfigSource::Group))
        .collect())
}

/// Describes a client metrics subscription.
///
/// # Errors An invalid stored config.
pub fn describe_client_metrics(
    configs: &Configs,
    keys: KeyFilter<'_>,
) -> Result<Vec<DescribedConfig>, ConfigValueError> {
    let mut described = Vec::new();
    for key in ConfigDef::client_metrics().iter().filter(|key| keys.takes(key.name)) {
        let value = match configs.get(key.name) {
            Some(text) => Some(parse_value(key, text)?),
            None => key.default_value(),
        };
        let value = value.map(|value| value.to_string().into());
        let source = ConfigSource::ClientMetrics;
        described.push(describe_resource_key(key, value, configs, source, Vec::new()));
    }
    Ok(described)
}

/// Describes this broker: every key in force.
pub fn describe_broker(broker: &BrokerConfigs, keys: KeyFilter<'_>) -> Vec<DescribedConfig> {
    let known = ConfigDef::broker()
        .iter()
        .filter(|key| is_listed(key, broker.originals(), keys))
        .map(|key| {
            let value = broker.value(key.name).map(|value| value.to_string().into());
            describe_broker_key(broker, key.name, value, true)
        });
    let unknown = broker
        .originals()
        .iter()
        .filter(|(name, _)| !ConfigDef::broker().contains(name) && keys.takes(name))
        .map(|(name, text)| {
            describe_broker_key(broker, name, Some(listener_value(name, text).into()), true)
        });
    known.chain(unknown).collect()
}

/// Describes the dynamic default of all brokers (resource BROKER with an empty name).
pub fn describe_broker_default(
    broker: &BrokerConfigs,
    keys: KeyFilter<'_>,
) -> Vec<DescribedConfig> {
    broker
        .dynamic_default()
        .iter()
        .filter(|(name, _)| keys.takes(name))
        .map(|(name, text)| describe_broker_key(broker, name, Some(text.clone()), false))
        .collect()
}

/// A topic's configs in the answer to CreateTopics, sorted by name. Overrides are shown as they were sent, broker
/// values are converted to the topic's unit.
pub fn created_topic_configs(broker: &BrokerConfigs, overrides: &Configs) -> Vec<DescribedConfig> {
    let mut configs: Vec<DescribedConfig> = ConfigDef::topic()
        .iter()
        .filter(|key| key.visibility == Visibility::Public || overrides.contains_key(key.name))
        .map(|key| {
            let (value, source) = created_value(broker, overrides, key);
            DescribedConfig {
                name: ByteString::from_static(key.name),
                value,
                source,
                is_sensitive: key.is_sensitive(),
                read_only: false,
                config_type: Some(key.config_type),
                synonyms: Vec::new(),
                documentation: key.documentation,
            }
        })
        .collect();
    configs.sort_by(|a, b| a.name.cmp(&b.name));
    configs
}

fn created_value(
    broker: &BrokerConfigs,
    overrides: &Configs,
    key: &ConfigKey,
) -> (Option<ByteString>, ConfigSource) {
    if let Some(text) = overrides.get(key.name) {
        return (Some(text.clone()), ConfigSource::Topic);
    }
    let layers = [
        (broker.dynamic_broker(), ConfigSource::DynamicBroker),
        (broker.dynamic_default(), ConfigSource::DynamicDefaultBroker),
        (broker.statics(), ConfigSource::StaticBroker),
    ];
    for (layer, source) in layers {
        for synonym in topic_synonyms(key.name) {
            if let Some(text) = layer.get(synonym.broker_key) {
                return (Some(synonym.convert(text).into()), source);
            }
        }
    }
    (key.default_value().map(|value| value.to_string().into()), ConfigSource::Default)
}

fn is_listed(key: &ConfigKey, set: &Configs, keys: KeyFilter<'_>) -> bool {
    keys.lists_unset(key) || (set.contains_key(key.name) && keys.takes(key.name))
}

fn describe_resource_key(
    key: &ConfigKey,
    value: Option<ByteString>,
    overrides: &Configs,
    source: ConfigSource,
    behind: Vec<ConfigSynonym>,
) -> DescribedConfig {
    let mut synonyms = behind;
    if overrides.contains_key(key.name) {
        let own =
            ConfigSynonym { name: ByteString::from_static(key.name), value: value.clone(), source };
        synonyms.insert(0, own);
    }
    DescribedConfig {
        name: ByteString::from_static(key.name),
        value,
        source: synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source),
        is_sensitive: key.is_sensitive(),
        read_only: false,
        config_type: Some(key.config_type),
        synonyms,
        documentation: key.documentation,
    }
}

/// Overrides with keys that this version does not know: shown by name, and as secrets, because their meaning is
/// unknown.
fn unknown_keys(
    def: &ConfigDef,
    overrides: &Configs,
    keys: KeyFilter<'_>,
    source: ConfigSource,
) -> impl Iterator<Item = DescribedConfig> {
    overrides.keys().filter(move |name| !def.contains(name) && keys.takes(name)).map(move |name| {
        let synonym = ConfigSynonym { name: name.clone(), value: None, source };
        DescribedConfig {
            name: name.clone(),
            value: None,
            source,
            is_sensitive: true,
            read_only: false,
            config_type: None,
            synonyms: vec![synonym],
            documentation: None,
        }
    })
}

fn describe_broker_key(
    broker: &BrokerConfigs,
    name: &str,
    value: Option<ByteString>,
    per_broker: bool,
) -> DescribedConfig {
    let config_type = broker_config_type(name);
    let is_sensitive = config_type.is_none_or(|known| known == ConfigType::Password);
    let mut synonyms = broker_sources(broker, name, is_sensitive);
    if !per_broker {
        synonyms.retain(|synonym| synonym.source == ConfigSource::DynamicDefaultBroker);
    }
    let key = ConfigDef::broker().get(name);
    DescribedConfig {
        name: name.into(),
        value: value.filter(|_| !is_sensitive),
        source: synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source),
        is_sensitive,
        read_only: key.is_none_or(|key| key.update_mode == UpdateMode::ReadOnly),
        config_type,
        synonyms,
        documentation: key.and_then(|key| key.documentation),
    }
}

/// The type of a broker key, without its listener prefix.
fn broker_config_type(name: &str) -> Option<ConfigType> {
    let base = listener_base_name(name);
    let key = ConfigDef::broker().get(name).or_else(|| ConfigDef::broker().get(base?));
    key.map(|key| key.config_type)
}

fn listener_value(name: &str, text: &str) -> String {
    let parsed = broker_config_type(name).map(|config_type| parse_type(name, text, config_type));
    match parsed {
        Some(Ok(value)) => value.to_string(),
        Some(Err(_)) | None => text.to_owned(),
    }
}

/// Every source with a value for a broker key or a synonym of it, the strongest first. As in Kafka, sources before the
/// first one with the key's own name are dropped.
fn broker_sources(broker: &BrokerConfigs, name: &str, is_sensitive: bool) -> Vec<ConfigSynonym> {
    let names = broker_synonyms_with_listener(name);
    let layers = [
        (broker.dynamic_broker(), ConfigSource::DynamicBroker),
        (broker.dynamic_default(), ConfigSource::DynamicDefaultBroker),
        (broker.statics(), ConfigSource::StaticBroker),
    ];
    let mut sources = Vec::new();
    for (layer, source) in layers {
        for name in &names {
            if let Some(text) = layer.get(name.as_str()) {
                let value = (!is_sensitive).then(|| text.clone());
                sources.push(ConfigSynonym { name: name.as_str().into(), value, source });
            }
        }
    }
    for name in &names {
        sources.extend(ConfigDef::broker().get(name).into_iter().flat_map(default_source));
    }
    let first = sources.iter().position(|source| source.name == name).unwrap_or(sources.len());
    sources.split_off(first)
}

fn default_source(key: &ConfigKey) -> Vec<ConfigSynonym> {
    // Kafka does not define the broker quotas statically, so their defaults are no source.
    let value = key.default_value().filter(|_| key.visibility != Visibility::DynamicOnly);
    let source = value.map(|value| ConfigSynonym {
        name: ByteString::from_static(key.name),
        value: (!key.is_sensitive()).then(|| value.to_string().into()),
        source: ConfigSource::Default,
    });
    source.into_iter().collect()
}

#[cfg(test)]
mod tests;
