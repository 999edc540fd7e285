//! The configuration of a node: defaults < file < environment < flags, all 360 of Kafka's keys, the origin of each
//! value, and the typed parts for the parts of the broker.
//!
//! Invariants: a configuration has passed every check, so no later step fails because of an invalid value; an error
//! names the origin of the value; no code here opens a socket or writes a file.

use std::path::{Path, PathBuf};

use klamm_metadata::config_def::host_port::HostPort;
use klamm_metadata::config_def::{BrokerConfigs, ConfigDef, ConfigValueError, parse_value};
use klamm_protocol::ids::BrokerId;

pub mod advice;
pub mod check;
pub mod coordinators;
pub mod defaults;
pub(crate) mod dynamic;
pub mod environment;
pub mod listeners;
pub mod parts;
pub mod properties;
pub mod protection;
pub mod providers;
pub mod roles;
pub mod settings;

pub use advice::Advice;
pub use coordinators::{
    GroupsConfig, InternalReplication, InternalTopicConfig, TransactionsConfig,
};
pub use environment::Environment;
pub use listeners::{Endpoint, ListenersConfig, SecurityProtocol};
pub use parts::{
    LifecycleConfig, NetworkConfig, QuorumConfig, ReplicationConfig, StorageConfig, TopicsConfig,
};
pub use roles::{ProcessRoles, QuorumMembers};
pub use settings::{Origin, Setting, Settings};

use check::CrossCheckError;
use defaults::Given;
use listeners::ListenerError;
use properties::PropertiesError;
use protection::Unprotected;
use providers::Unresolved;
use roles::RoleError;

/// The configuration of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerConfig {
    pub node_id: BrokerId,
    pub roles: ProcessRoles,
    pub quorum_members: QuorumMembers,
    pub listeners: ListenersConfig,
    pub network: NetworkConfig,
    pub storage: StorageConfig,
    pub topics: TopicsConfig,
    pub replication: ReplicationConfig,
    pub quorum: QuorumConfig,
    pub lifecycle: LifecycleConfig,
    pub groups: GroupsConfig,
    pub transactions: TransactionsConfig,
    /// The cluster id for an empty data directory; `None` generates one.
    pub cluster_id: Option<String>,
    /// All keys as text, for DescribeConfigs and for topics' defaults. The dynamic layers are
    /// empty until the cluster image fills them.
    pub configs: BrokerConfigs,
}

/// The sources of a configuration.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    pub environment: Environment,
    /// `--override` flags, in their order.
    pub overrides: Vec<(String, String)>,
}

/// A configuration, with its settings and advice.
#[derive(Debug)]
pub struct Loaded {
    pub config: BrokerConfig,
    pub settings: Settings,
    pub advice: Vec<Advice>,
    /// Keys that demand security features that Klamm does not have. Empty if the node may start.
    pub unprotected: Vec<Unprotected>,
}

/// Why the configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", path.display())]
    Properties { path: PathBuf, source: PropertiesError },
    #[error("{}", join_lines(.0))]
    Values(Vec<BadValue>),
    #[error("{source}{}", set_at(.origins))]
    Listeners { source: ListenerError, origins: Vec<(String, Origin)> },
    #[error("{source}{}", set_at(.origins))]
    Roles { source: RoleError, origins: Vec<(String, Origin)> },
    #[error("{source}{}", set_at(.origins))]
    CrossCheck { source: CrossCheckError, origins: Vec<(String, Origin)> },
    /// Keys, and possibly listeners, demand security features that Klamm does not have.
    #[error("{}{}", join_lines(.keys), .listeners.as_ref().map(|error| format!("\n{error}")).unwrap_or_default())]
    Unprotected { keys: Vec<Unprotected>, listeners: Option<Box<Self>> },
    #[error("{}", join_lines(.0))]
    Unresolved(Vec<Unresolved>),
    #[error("environment {variable}: the value is not UTF-8; set it again, or unset it")]
    UnreadableVariable { variable: String },
}

impl ConfigError {
    /// Whether the listeners demand a security protocol that Klamm does not have, or are invalid because of security
    /// keys.
    fn is_of_protection(&self) -> bool {
        matches!(self, Self::Listeners { .. })
    }
}

/// A value that is invalid for its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {}{}", .written.as_ref().map_or_else(|| .source.to_string(), |written| without_value(.key, written)), default_hint(.key))]
pub struct BadValue {
    pub key: String,
    pub origin: Origin,
    pub source: ConfigValueError,
    /// The placeholder of a value from a config provider. Such a value may be a secret.
    pub written: Option<String>,
}

fn without_value(key: &str, written: &str) -> String {
    let type_ = ConfigDef::broker().get(key).map_or("", |known| known.config_type.name());
    format!("what {written} stands for is no valid value of {key} ({type_})")
}

fn join_lines(errors: &[impl ToString]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn default_hint(key: &str) -> String {
    match ConfigDef::broker().get(key).and_then(|key| key.default_value()) {
        Some(value) if !value.to_string().is_empty() => format!("; the default is {value}"),
        _ => String::new(),
    }
}

fn set_at(origins: &[(String, Origin)]) -> String {
    if origins.is_empty() {
        return String::new();
    }
    let places: Vec<String> =
        origins.iter().map(|(key, origin)| format!("{key} at {origin}")).collect();
    format!(" ({})", places.join(", "))
}

impl Loaded {
    /// Reads all sources and checks that this version can run what they describe.
    pub fn from_sources(sources: &Sources) -> Result<Self, ConfigError> {
        let loaded = Self::to_look_at(sources)?;
        if loaded.unprotected.is_empty() {
            return Ok(loaded);
        }
        Err(ConfigError::Unprotected { keys: loaded.unprotected, listeners: None })
    }

    /// As [`Self::from_sources`], but demands for missing security features are only listed.
    pub fn to_look_at(sources: &Sources) -> Result<Self, ConfigError> {
        let loaded = Self::read(sources)?;
        let config = &loaded.config;
        roles::check(config.node_id, config.roles, &config.quorum_members).map_err(|source| {
            let origins = origins(&loaded.settings, source.keys());
            ConfigError::Roles { source, origins }
        })?;
        Ok(loaded)
    }

    fn read(sources: &Sources) -> Result<Self, ConfigError> {
        let mut settings = Settings::default();
        if let Some(path) = &sources.file {
            settings.add_file(path, read_properties(path)?);
        }
        settings.add_environment(&sources.environment);
        settings.add_flags(&sources.overrides);
        if let Some(variable) = sources.environment.unreadable.first() {
            return Err(ConfigError::UnreadableVariable { variable: variable.clone() });
        }
        providers::resolve(&mut settings, &sources.environment.variables)
            .map_err(ConfigError::Unresolved)?;
        let mut advice = advice::on_settings(&settings);
        let mut unprotected = protection::unprotected(&settings);
        unprotected.extend(protection::unprotected_by_jvm(&sources.environment.variables));
        let given = Given {
            file: sources.file.is_some(),
            // KAFKA_HOME and similar variables are common and set no key.
            environment: sources
                .environment
                .settings
                .iter()
                .any(|setting| advice::is_known(&setting.key)),
        };
        defaults::add_defaults(&mut settings, given);
        let cluster_id = sources.environment.cluster_id.clone();
        let config = match BrokerConfig::from_settings(&settings, cluster_id) {
            Err(error) if error.is_of_protection() && !unprotected.is_empty() => {
                let listeners = Some(Box::new(error));
                return Err(ConfigError::Unprotected { keys: unprotected, listeners });
            }
            other => other?,
        };
        advice.extend(check::cautions(&config.configs).into_iter().map(Advice::Operation));
        Ok(Self { config, settings, advice, unprotected })
    }
}

/// The parts that are fixed until the process ends; the other parts are built from the values in force.
struct Fixed {
    node_id: BrokerId,
    roles: ProcessRoles,
    quorum_members: QuorumMembers,
    listeners: ListenersConfig,
    cluster_id: Option<String>,
}

impl BrokerConfig {
    /// A configuration from key-value pairs only, for programs that embed a broker: no file and no environment is read.
    ///
    /// ```
    /// use klamm::config::BrokerConfig;
    /// let config = BrokerConfig::from_pairs([
    ///     ("listeners", "PLAINTEXT://localhost:0"),
    ///     ("log.dirs", "target/my-broker"),
    /// ])?;
    /// assert_eq!(config.node_id, 1);
    /// # Ok::<(), klamm::config::ConfigError>(())
    /// ```
    pub fn from_pairs<K: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, ConfigError> {
        let overrides = pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        let sources = Sources { overrides, ..Sources::default() };
        Loaded::from_sources(&sources).map(|loaded| loaded.config)
    }

    /// Whether the configuration names no other node: an empty directory then becomes a new cluster of one node.
    pub(crate) fn is_alone(&self) -> bool {
        self.roles.broker && self.is_only_controller()
    }

    /// Whether this is a controller, and the configuration names no other one.
    pub(crate) fn is_only_controller(&self) -> bool {
        let members = &self.quorum_members;
        let own = |server: &HostPort| {
            let told = self.listeners.advertised_controller.iter();
            told.chain(&self.listeners.controller)
                .any(|at| at.port == server.port && at.host.as_deref() == Some(&*server.host))
        };
        self.roles.controller
            && members.voters.keys().all(|id| *id == self.node_id)
            && members.bootstrap_servers.iter().all(own)
    }

    fn from_settings(settings: &Settings, cluster_id: Option<String>) -> Result<Self, ConfigError> {
        let configs = parse_settings(settings)?;
        let roles = ProcessRoles::new(&configs);
        let node_id = roles::node_id(&configs).map_err(|source| {
            let origins = origins(settings, source.keys());
            ConfigError::Roles { source, origins }
        })?;
        let listeners = ListenersConfig::new(&configs, roles).map_err(|source| {
            let origins = origins(settings, source.keys());
            ConfigError::Listeners { source, origins }
        })?;
        check::check(&configs).map_err(|source| {
            let origins = origins(settings, &source.keys());
            ConfigError::CrossCheck { source, origins }
        })?;
        let fixed = Fixed {
            node_id,
            roles,
            quorum_members: QuorumMembers::new(&configs),
            listeners,
            cluster_id,
        };
        Ok(Self::new(fixed, configs))
    }

    fn new(fixed: Fixed, configs: BrokerConfigs) -> Self {
        let Fixed { node_id, roles, quorum_members, listeners, cluster_id } = fixed;
        Self {
            node_id,
            roles,
            quorum_members,
            listeners,
            network: NetworkConfig::new(&configs),
            storage: StorageConfig::new(&configs),
            topics: TopicsConfig::new(&configs),
            replication: ReplicationConfig::new(&configs),
            quorum: QuorumConfig::new(&configs),
            lifecycle: LifecycleConfig::new(&configs),
            groups: GroupsConfig::new(&configs),
            transactions: TransactionsConfig::new(&configs),
            cluster_id,
            configs,
        }
    }

    /// The same node with other configuration values.
    fn with_configs(&self, configs: BrokerConfigs) -> Self {
        let fixed = Fixed {
            node_id: self.node_id,
            roles: self.roles,
            quorum_members: self.quorum_members.clone(),
            listeners: self.listeners.clone(),
            cluster_id: self.cluster_id.clone(),
        };
        Self::new(fixed, configs)
    }
}

fn read_properties(path: &Path) -> Result<Vec<properties::Property>, ConfigError> {
    let bytes = std::fs::read(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    properties::parse(&bytes)
        .map_err(|source| ConfigError::Properties { path: path.to_owned(), source })
}

/// Parses every value, and reports all invalid ones and not only the first.
fn parse_settings(settings: &Settings) -> Result<BrokerConfigs, ConfigError> {
    let bad: Vec<BadValue> = settings
        .iter()
        .filter_map(|(key, setting)| {
            let source = parse_value(ConfigDef::broker().get(key)?, &setting.value).err()?;
            let written = settings.written(key).map(str::to_owned);
            Some(BadValue { key: key.to_owned(), origin: setting.origin.clone(), source, written })
        })
        .collect();
    if !bad.is_empty() {
        return Err(ConfigError::Values(bad));
    }
    let statics =
        settings.iter().map(|(key, setting)| (key.into(), setting.value.as_str().into())).collect();
    Ok(BrokerConfigs::new(statics).expect("every value has just been parsed"))
}

fn origins(settings: &Settings, keys: &[&str]) -> Vec<(String, Origin)> {
    keys.iter()
        .filter_map(|&key| Some((key.to_owned(), settings.get(key)?.origin.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(pairs: &[(&str, &str)]) -> String {
        BrokerConfig::from_pairs(pairs.iter().copied()).unwrap_err().to_string()
    }

    #[test]
    fn nothing_at_all_is_one_combined_node() {
        let config = BrokerConfig::from_pairs([("", ""); 0]).unwrap();
        assert_eq!(config.node_id, 1);
        assert_eq!(config.roles, ProcessRoles { broker: true, controller: true });
        assert_eq!(config.listeners.broker[0].to_string(), "PLAINTEXT://localhost:9092");
        assert_eq!(config.listeners.controller[0].to_string(), "CONTROLLER://localhost:9093");
        assert_eq!(config.storage.log_dirs, [PathBuf::from("./klamm-data")]);
        assert_eq!(config.storage.metadata_log_dir, PathBuf::from("./klamm-data"));
        assert_eq!(config.groups.initial_rebalance_delay_ms, 0);
        assert_eq!(config.network.socket_request_max_bytes, 104_857_600);
    }

    #[test]
    fn every_bad_value_is_reported_with_its_place_and_its_default() {
        assert_eq!(
            refusal(&[("num.io.threads", "0"), ("log.retention.ms", "week")]),
            "--override: Invalid value week for configuration log.retention.ms: Not a number of type LONG\n\
             --override: Invalid value 0 for configuration num.io.threads: Value must be at least 1; the default is 8"
        );
    }

    #[test]
    fn values_that_do_not_go_together_name_their_places() {
        assert_eq!(
            refusal(&[("replica.lag.time.max.ms", "5")]),
            "replica.fetch.wait.max.ms should always be less than or equal to replica.lag.time.max.ms to prevent frequent changes in ISR (replica.lag.time.max.ms at --override)"
        );
        assert!(
            refusal(&[("listeners", "PLAINTEXT://:1,B://:2")])
                .ends_with("(listeners at --override)")
        );
        assert!(refusal(&[("process.roles", "broker")]).ends_with("(process.roles at --override)"));
    }

    #[test]
    fn a_node_is_alone_where_nothing_names_others() {
        let alone =
            |key: &str, value: &str| BrokerConfig::from_pairs([(key, value)]).unwrap().is_alone();
        assert!(alone("controller.quorum.voters", "1@localhost:9093"));
        assert!(alone("controller.quorum.bootstrap.servers", "localhost:9093"));
        assert!(!alone("controller.quorum.voters", "1@localhost:9093,2@localhost:9193"));
        assert!(!alone("controller.quorum.bootstrap.servers", "localhost:9093,b:9093"));
        assert!(!alone("controller.quorum.bootstrap.servers", "other:9093"));
    }

    #[test]
    fn values_come_from_providers_and_do_not_show_in_errors() {
        let overrides = |value: &str| {
            let pairs = [
                ("config.providers", "env"),
                (
                    "config.providers.env.class",
                    "org.apache.kafka.common.config.provider.EnvVarConfigProvider",
                ),
                ("num.partitions", value),
            ];
            pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec()
        };
        let load = |value: &str| {
            let variables = [("SECRET", "hunter2"), ("COUNT", "3")];
            let environment =
                Environment::from_variables(variables.map(|(k, v)| (k.into(), v.into())));
            let overrides = overrides(value);
            Loaded::from_sources(&Sources { environment, overrides, ..Sources::default() })
        };
        assert_eq!(load("${env:COUNT}").unwrap().config.topics.num_partitions, 3);
        assert_eq!(
            load("${env:SECRET}").unwrap_err().to_string(),
            "--override: what ${env:SECRET} stands for is no valid value of num.partitions (INT); the default is 1"
        );
        assert_eq!(
            load("${env:NONE}").unwrap_err().to_string(),
            "--override: 'num.partitions' has ${env:NONE}, and the environment has no variable NONE: set it"
        );
    }

    #[test]
    fn variables_that_set_no_key_of_the_table_leave_the_defaults_alone() {
        let rebalance_delay_ms = |variable: &str| {
            let variables = [(variable.into(), "2".into())];
            let environment = Environment::from_variables(variables);
            let sources = Sources { environment, ..Sources::default() };
            Loaded::from_sources(&sources).unwrap().config.groups.initial_rebalance_delay_ms
        };
        assert_eq!(rebalance_delay_ms("KAFKA_HOME"), 0);
        assert_eq!(rebalance_delay_ms("KAFKA_NODE_ID"), 3000);
    }

    #[test]
    fn several_log_directories_share_one_metadata_log() {
        let config = BrokerConfig::from_pairs([
            ("log.dirs", "/a, /b"),
            ("metadata.log.dir", "/m"),
            ("listeners", "PLAINTEXT://localhost:0"),
        ])
        .unwrap();
        assert_eq!(config.storage.log_dirs, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(config.storage.metadata_log_dir, PathBuf::from("/m"));
    }
}
