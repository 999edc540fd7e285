//! Every configuration key of Apache Kafka 4.3.1 and of Klamm: name, type, default, valid values,
//! update mode. One table serves the configuration file, `Describe*` and `Alter*Configs`.
//!
//! Invariants: the facts come from `kafka.tsv`, printed from Kafka's own jars by `tools/config-facts`, and `klamm.tsv`,
//! the few keys that Kafka lacks; no other place defines a key's type or default. Keys keep the order of Kafka's
//! `ConfigDef`, because Kafka reports the first invalid key. Every default passes its own validator.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytestring::ByteString;

pub mod alter;
pub mod broker_configs;
pub mod client_metrics;
pub mod describe;
mod duration;
pub mod group_config;
pub mod host_port;
mod java_text;
pub mod synonyms;
mod table;
pub mod topic_config;
pub mod validator;
pub mod value;

pub use broker_configs::BrokerConfigs;
pub use validator::Validator;
pub use value::{ConfigValue, ConfigValueError, parse_value};

/// The configured values of a resource, as text: key to value, as in requests and in the cluster image.
pub type Configs = BTreeMap<ByteString, ByteString>;

/// The kind of resource a key configures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigScope {
    Broker,
    Topic,
    Group,
    ClientMetrics,
}

/// The type of a key's value (Kafka's `ConfigDef.Type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigType {
    Boolean,
    String,
    Int,
    Short,
    Long,
    Double,
    List,
    Class,
    Password,
}

impl ConfigType {
    /// The id in a DescribeConfigs response (`DescribeConfigsResponse.ConfigType`); 0 is unknown.
    pub fn id(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
            Self::Class => 8,
            Self::Password => 9,
        }
    }

    /// The name that Kafka prints in error messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Int => "INT",
            Self::Short => "SHORT",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::List => "LIST",
            Self::Class => "CLASS",
            Self::Password => "PASSWORD",
        }
    }
}

/// How much a key matters to a user (Kafka's `ConfigDef.Importance`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Importance {
    High,
    Medium,
    Low,
}

/// Whether a broker key can change while brokers run, for one broker or for all (KIP-226).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateMode {
    /// Only the configuration file, the environment and flags set it.
    ReadOnly,
    /// `AlterConfigs` sets it for one broker.
    PerBroker,
    /// `AlterConfigs` sets it for one broker or as the default of all.
    ClusterWide,
    /// Topic, group and client metrics keys: always dynamic.
    Resource,
}

/// Where a key is defined, and whether it is listed and settable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    Public,
    /// Settable, but listed only if it was set (Kafka's `defineInternal`).
    Internal,
    /// A broker key that no file can set (the broker quotas of `QuotaConfig`).
    DynamicOnly,
    /// Klamm's own key. Listed only if it was set or requested by name, so that a list of all keys equals Kafka's.
    Klamm,
}

/// The default of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigDefault {
    Value(&'static str),
    /// The value is absent (Java's null).
    Null,
    /// Kafka refuses to start without a value.
    Required,
}

/// The definition of one key.
#[derive(Debug)]
pub struct ConfigKey {
    pub name: &'static str,
    pub config_type: ConfigType,
    pub default: ConfigDefault,
    pub importance: Importance,
    pub update_mode: UpdateMode,
    pub visibility: Visibility,
    pub validator: Validator,
    /// One line of documentation for DescribeConfigs; none if Klamm does not use the key.
    pub documentation: Option<&'static str>,
}

impl ConfigKey {
    /// Whether the value must never be shown.
    pub fn is_sensitive(&self) -> bool {
        self.config_type == ConfigType::Password
    }

    /// The parsed default; `None` if it is null or the key is required.
    pub fn default_value(&self) -> Option<ConfigValue> {
        match self.default {
            ConfigDefault::Value(text) => {
                Some(parse_value(self, text).expect("every default passes its own validator"))
            }
            ConfigDefault::Null | ConfigDefault::Required => None,
        }
    }
}

/// All keys of one scope, in the order of Kafka's `ConfigDef`.
#[derive(Debug)]
pub struct ConfigDef {
    keys: Vec<ConfigKey>,
    by_name: BTreeMap<&'static str, usize>,
}

impl ConfigDef {
    /// The table of one scope.
    pub fn of(scope: ConfigScope) -> &'static Self {
        static TABLES: LazyLock<BTreeMap<ConfigScope, ConfigDef>> = LazyLock::new(table::parse);
        &TABLES[&scope]
    }

    /// The broker keys.
    pub fn broker() -> &'static Self {
        Self::of(ConfigScope::Broker)
    }

    /// The topic keys.
    pub fn topic() -> &'static Self {
        Self::of(ConfigScope::Topic)
    }

    /// The group keys.
    pub fn group() -> &'static Self {
        Self::of(ConfigScope::Group)
    }

    /// The keys of a client metrics subscription (KIP-714).
    pub fn client_metrics() -> &'static Self {
        Self::of(ConfigScope::ClientMetrics)
    }

    pub fn get(&self, name: &str) -> Option<&ConfigKey> {
        self.by_name.get(name).map(|&position| &self.keys[position])
    }

    /// A key that exists, else panics.
    pub(crate) fn known(&self, name: &str) -> &ConfigKey {
        self.get(name).unwrap_or_else(|| panic!("{name} is no key of this table"))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The keys in definition order.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigKey> {
        self.keys.iter()
    }

    fn new(keys: Vec<ConfigKey>) -> Self {
        let by_name: BTreeMap<_, _> =
            keys.iter().enumerate().map(|(position, key)| (key.name, position)).collect();
        assert_eq!(by_name.len(), keys.len(), "a key is defined once");
        Self { keys, by_name }
    }
}

impl<'a> IntoIterator for &'a ConfigDef {
    type Item = &'a ConfigKey;
    type IntoIter = std::slice::Iter<'a, ConfigKey>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_has_all_of_kafkas_keys_and_ours() {
        let count = |scope, ours: bool| {
            let is_ours = |key: &&ConfigKey| (key.visibility == Visibility::Klamm) == ours;
            ConfigDef::of(scope).iter().filter(is_ours).count()
        };
        assert_eq!(count(ConfigScope::Broker, false), 363);
        assert_eq!(count(ConfigScope::Topic, false), 34);
        assert_eq!(count(ConfigScope::Group, false), 17);
        assert_eq!(count(ConfigScope::ClientMetrics, false), 3);
        assert_eq!(count(ConfigScope::Broker, true), 12);
        assert_eq!(count(ConfigScope::Topic, true), 2);
    }

    #[test]
    fn every_default_parses_and_prints_as_itself() {
        for scope in [ConfigScope::Broker, ConfigScope::Topic, ConfigScope::Group] {
            for key in ConfigDef::of(scope) {
                if let ConfigDefault::Value(text) = key.default {
                    assert_eq!(key.default_value().unwrap().to_string(), text, "{}", key.name);
                }
            }
        }
    }

    #[test]
    fn a_key_is_found_by_its_name_only() {
        let key = ConfigDef::topic().get("retention.ms").unwrap();
        assert_eq!(key.config_type, ConfigType::Long);
        assert_eq!(key.default, ConfigDefault::Value("604800000"));
        assert!(ConfigDef::topic().get("log.retention.ms").is_none());
        assert!(ConfigDef::broker().get("Retention.ms").is_none());
    }

    #[test]
    fn passwords_are_sensitive_and_nothing_else_is() {
        assert!(ConfigDef::broker().known("ssl.keystore.password").is_sensitive());
        assert!(!ConfigDef::broker().known("listeners").is_sensitive());
    }
}
