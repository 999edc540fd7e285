//! The loggers of this process and their levels, which clients read and change while it runs (resource BROKER_LOGGER,
//! KIP-412).
//!
//! A logger has the level of the longest configured name that is a prefix of its own, or that of `root`: a level of
//! `klamm` applies to `klamm_log` too. A change lasts until the process ends and applies to the whole process, as
//! logging does.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use bytestring::ByteString;
use klamm_metadata::config_def::alter::AlterOperation;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;
use klamm_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use tracing::level_filters::LevelFilter;
use tracing::{error, warn};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::reload;

use super::{LogLevels, level_of};

/// The logger whose level applies to all without a level of their own (`LoggingController.ROOT_LOGGER`).
const ROOT: &str = "root";
/// Loggers that are always listed: Klamm's crates and rooms, which include their modules, and the ones with Kafka's
/// names. Kafka's tools can set listed loggers only.
const BUILT_IN: [&str; 16] = [
    "kafka.server.BrokerLifecycleManager",
    "kafka.server.BrokerServer",
    "kafka.server.KafkaConfig",
    "klamm",
    "klamm::api",
    "klamm::cluster",
    "klamm::controller",
    "klamm::coordinator",
    "klamm::net",
    "klamm::replica",
    "klamm::server",
    "klamm_coordinator",
    "klamm_log",
    "klamm_metadata",
    "klamm_protocol",
    "klamm_replication",
];
/// The maximum number of loggers with a level of their own: more than there are modules.
const MAX_LEVELS: usize = 1_000;
/// `LogLevelConfig.VALID_LOG_LEVELS`
const LEVELS: [&str; 6] = ["DEBUG", "ERROR", "FATAL", "INFO", "TRACE", "WARN"];

/// Why a change of log levels is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoggerRefusal {
    #[error("Node id must be an integer, but it is: {name}")]
    NodeIdNotANumber { name: ByteString },
    #[error("Unexpected node id. Expected {expected}, but received {found}")]
    OtherNode { expected: BrokerId, found: BrokerId },
    #[error("Logger {name} does not exist!")]
    UnknownLogger { name: ByteString },
    #[error(
        "Cannot set the log level of {name} to {level} as it is not a supported log level. Valid \
         log levels are {}",
        LEVELS.join(", ")
    )]
    UnknownLevel { name: ByteString, level: ByteString },
    #[error("Removing the log level of the {ROOT} logger is not allowed")]
    RootRemoved,
    #[error("a log level can be set and deleted, but is no list to append to or subtract from")]
    NotAList,
    #[error("Unknown operation type {0}")]
    UnknownOperation(i8),
    #[error("{MAX_LEVELS} loggers have a level of their own: delete one first")]
    TooManyLevels,
}

impl LoggerRefusal {
    /// The error code for the client.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownLogger { .. } | Self::UnknownLevel { .. } => ErrorCode::InvalidConfig,
            Self::NodeIdNotANumber { .. }
            | Self::OtherNode { .. }
            | Self::RootRemoved
            | Self::NotAList
            | Self::TooManyLevels => ErrorCode::InvalidRequest,
            Self::UnknownOperation(_) => ErrorCode::UnknownServerError,
        }
    }

    /// The message for the client. Kafka sends none for an unknown operation.
    pub(crate) fn message(&self) -> Option<ByteString> {
        match self {
            Self::UnknownOperation(_) => None,
            refusal => Some(refusal.to_string().into()),
        }
    }
}

/// The state that [`super::init`] sets up: one in a process, as there is one subscriber.
struct Installed {
    levels: Mutex<LogLevels>,
    filter: reload::Handle<Targets, Registry>,
}

static INSTALLED: OnceLock<Installed> = OnceLock::new();

/// Stores the levels and the filter, so that clients can change them.
pub(super) fn install(levels: LogLevels, filter: reload::Handle<Targets, Registry>) {
    let levels = Mutex::new(levels);
    assert!(
        INSTALLED.set(Installed { levels, filter }).is_ok(),
        "a process has one subscriber, and it has just been set"
    );
}

/// Every logger with its level. Empty if a program that embeds this library has set up its own logging.
pub(crate) fn all() -> BTreeMap<String, &'static str> {
    INSTALLED.get().map_or_else(BTreeMap::new, |installed| {
        installed.levels.lock().unwrap_or_else(PoisonError::into_inner).all()
    })
}

/// Applies the changes of one resource of an IncrementalAlterConfigs request: all, or none.
pub(crate) fn alter(
    resource: &AlterConfigsResource,
    node_id: BrokerId,
    validate_only: bool,
) -> Result<(), LoggerRefusal> {
    let name = &resource.resource_name;
    let found: BrokerId =
        name.parse().map_err(|_| LoggerRefusal::NodeIdNotANumber { name: name.clone() })?;
    if found != node_id {
        return Err(LoggerRefusal::OtherNode { expected: node_id, found });
    }
    let Some(installed) = INSTALLED.get() else {
        let unknown =
            |config: &AlterableConfig| LoggerRefusal::UnknownLogger { name: config.name.clone() };
        return resource.configs.first().map_or(Ok(()), |config| Err(unknown(config)));
    };
    let mut levels = installed.levels.lock().unwrap_or_else(PoisonError::into_inner);
    let changed = levels.altered(&resource.configs)?;
    if validate_only || resource.configs.is_empty() {
        return Ok(());
    }
    match installed.filter.reload(changed.targets()) {
        Ok(()) => {
            *levels = changed;
            warn!("log levels are changed: {}", described(&resource.configs));
        }
        Err(failure) => error!("log levels are not changed: {failure}"),
    }
    Ok(())
}

fn described(configs: &[AlterableConfig]) -> String {
    let texts = configs.iter().map(|config| {
        format!("{}={}", config.name, config.value.as_deref().unwrap_or("(inherited)"))
    });
    texts.collect::<Vec<_>>().join(", ")
}

impl LogLevels {
    fn all(&self) -> BTreeMap<String, &'static str> {
        let named = BUILT_IN.into_iter().chain(self.loggers.keys().map(String::as_str));
        let levels = named.map(|name| (shown(name), name_of(self.level_for(name))));
        levels.chain([(ROOT.to_owned(), name_of(self.root))]).collect()
    }

    fn level_for(&self, logger: &str) -> LevelFilter {
        let above = self.loggers.iter().filter(|(name, _)| logger.starts_with(name.as_str()));
        above.max_by_key(|(name, _)| name.len()).map_or(self.root, |(_, level)| *level)
    }

    fn exists(&self, logger: &str) -> bool {
        let is_module_of = |name: &&str| {
            logger.strip_prefix(*name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        logger == ROOT || self.loggers.contains_key(logger) || BUILT_IN.iter().any(is_module_of)
    }

    /// Returns the levels after these changes.
    fn altered(&self, configs: &[AlterableConfig]) -> Result<Self, LoggerRefusal> {
        let mut changed = self.clone();
        for config in configs {
            changed.change(config, self)?;
        }
        if changed.loggers.len() > MAX_LEVELS {
            Err(LoggerRefusal::TooManyLevels)
        } else {
            Ok(changed)
        }
    }

    fn change(&mut self, config: &AlterableConfig, before: &Self) -> Result<(), LoggerRefusal> {
        let name = &config.name;
        let logger = target(name);
        let operation = AlterOperation::from_id(config.config_operation)
            .ok_or(LoggerRefusal::UnknownOperation(config.config_operation))?;
        if matches!(operation, AlterOperation::Append | AlterOperation::Subtract) {
            return Err(LoggerRefusal::NotAList);
        }
        if !before.exists(&logger) {
            return Err(LoggerRefusal::UnknownLogger { name: name.clone() });
        }
        if operation == AlterOperation::Delete {
            if name == ROOT {
                return Err(LoggerRefusal::RootRemoved);
            }
            self.loggers.remove(&logger);
            return Ok(());
        }
        let text = config.value.clone().unwrap_or_default();
        let level = level_of(&text).filter(|_| LEVELS.contains(&&*text));
        let level =
            level.ok_or_else(|| LoggerRefusal::UnknownLevel { name: name.clone(), level: text })?;
        if name == ROOT {
            self.root = level;
        } else {
            self.loggers.insert(logger, level);
        }
        Ok(())
    }
}

/// The tracing target of a logger. Kafka's tools accept no colon in a key, so a module can be named with dots as well.
fn target(name: &str) -> String {
    let is_module = name.starts_with("klamm");
    if is_module { name.replace('.', "::") } else { name.to_owned() }
}

/// The name of a target for clients; see [`target`].
fn shown(target: &str) -> String {
    target.replace("::", ".")
}

fn name_of(level: LevelFilter) -> &'static str {
    match level.into_level() {
        None => "OFF",
        Some(level) => level.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, operation: i8, value: Option<&str>) -> AlterableConfig {
        AlterableConfig {
            name: name.into(),
            config_operation: operation,
            value: value.map(ByteString::from),
        }
    }

    fn levels() -> LogLevels {
        let loggers = BTreeMap::from([("klamm::net".to_owned(), LevelFilter::TRACE)]);
        LogLevels { root: LevelFilter::INFO, loggers }
    }

    #[test]
    fn a_logger_takes_the_level_of_the_longest_name_that_its_own_begins_with() {
        let changed = levels().altered(&[config("klamm", 0, Some("WARN"))]).unwrap();
        assert_eq!(changed.level_for("klamm::net::connection"), LevelFilter::TRACE);
        assert_eq!(changed.level_for("klamm::api::handlers"), LevelFilter::WARN);
        assert_eq!(changed.level_for("kafka.server.BrokerServer"), LevelFilter::INFO);
        assert_eq!(changed.all()["root"], "INFO");
        assert_eq!(changed.all()["klamm_log"], "WARN");
    }

    #[test]
    fn a_deleted_level_is_inherited_again() {
        let changed = levels().altered(&[config("klamm::net", 1, None)]).unwrap();
        assert_eq!(changed.level_for("klamm::net"), LevelFilter::INFO);
    }

    #[test]
    fn the_root_has_a_level_that_changes_and_never_goes() {
        let changed = levels().altered(&[config("root", 0, Some("FATAL"))]).unwrap();
        assert_eq!(changed.root, LevelFilter::ERROR);
        let refusal = levels().altered(&[config("root", 1, None)]);
        assert_eq!(refusal, Err(LoggerRefusal::RootRemoved));
    }

    #[test]
    fn unknown_loggers_levels_and_operations_are_refused_with_kafkas_codes() {
        let code = |change| levels().altered(&[change]).unwrap_err().code();
        assert_eq!(code(config("org.example", 0, Some("INFO"))), ErrorCode::InvalidConfig);
        assert_eq!(code(config("klammer", 0, Some("INFO"))), ErrorCode::InvalidConfig);
        assert_eq!(code(config("klamm", 0, Some("LOUD"))), ErrorCode::InvalidConfig);
        assert_eq!(code(config("klamm", 0, Some("info"))), ErrorCode::InvalidConfig);
        assert_eq!(code(config("klamm", 2, Some("INFO"))), ErrorCode::InvalidRequest);
        assert_eq!(code(config("klamm", 9, Some("INFO"))), ErrorCode::UnknownServerError);
    }

    #[test]
    fn modules_have_names_that_kafkas_tools_accept() {
        let changed =
            levels().altered(&[config("klamm.api.handlers.fetch", 0, Some("WARN"))]).unwrap();
        assert_eq!(changed.level_for("klamm::api::handlers::fetch"), LevelFilter::WARN);
        assert_eq!(changed.all()["klamm.api.handlers.fetch"], "WARN");
        let changed = changed.altered(&[config("klamm::api::handlers::fetch", 1, None)]).unwrap();
        assert!(!changed.all().contains_key("klamm.api.handlers.fetch"));
    }

    #[test]
    fn levels_have_a_bound() {
        let many: Vec<_> = (0..=MAX_LEVELS)
            .map(|n| config(&format!("klamm::module{n}"), 0, Some("INFO")))
            .collect();
        assert_eq!(levels().altered(&many), Err(LoggerRefusal::TooManyLevels));
        assert!(levels().altered(&many[..MAX_LEVELS - 1]).is_ok());
    }

    #[test]
    fn a_node_alters_its_own_loggers_only() {
        let resource = |name: &str| AlterConfigsResource {
            resource_type: 8,
            resource_name: name.into(),
            configs: Vec::new(),
        };
        assert_eq!(alter(&resource("1"), 1, true), Ok(()));
        let other = LoggerRefusal::OtherNode { expected: 1, found: 2 };
        assert_eq!(alter(&resource("2"), 1, true), Err(other));
        let name = ByteString::new();
        assert_eq!(alter(&resource(""), 1, true), Err(LoggerRefusal::NodeIdNotANumber { name }));
    }
}
