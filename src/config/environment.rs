//! Environment variables that set configuration keys: `KAFKA_*` as in the apache/kafka and Confluent images,
//! `KAFKA_CFG_*` as in Bitnami's, and the cluster id.
//!
//! Source of the mapping and of the exclusions: `kafka.docker.KafkaDockerWrapper`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

/// A variable that sets a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentSetting {
    pub key: String,
    pub value: String,
    pub variable: String,
}

/// All variables of the process, for placeholders. They may be secrets, so they are never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<OsString, OsString>);

impl Variables {
    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} variables", self.0.len())
    }
}

/// The configuration in the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// Sorted by variable, except that `KAFKA_X` comes after `KAFKA_CFG_X` and so wins.
    pub settings: Vec<EnvironmentSetting>,
    /// The cluster id for a new data directory, if set.
    pub cluster_id: Option<String>,
    /// Variables that look like settings but are not UTF-8.
    pub unreadable: Vec<String>,
    pub variables: Variables,
}

/// Variables for the JVM or for scripts, which set no key.
const FOR_SCRIPTS: &[&str] = &[
    // Those that `KafkaDockerWrapper` excludes, and those that its `launch` script reads.
    "KAFKA_VERSION",
    "KAFKA_HEAP_OPTS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_OPTS",
    "KAFKA_JMX_OPTS",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_LOG4J_ROOT_LOGLEVEL",
    "KAFKA_LOG4J_LOGGERS",
    "KAFKA_TOOLS_LOG4J_LOGLEVEL",
    "KAFKA_JMX_HOSTNAME",
    "KAFKA_JMX_PORT",
    // `kafka-run-class.sh`
    "KAFKA_DEBUG",
    "KAFKA_LOG4J_CMD_OPTS",
    "KAFKA_MODE",
    // The directory and user of a Kafka installation: common scripts, service units, Bitnami's image.
    "KAFKA_HOME",
    "KAFKA_BASE_DIR",
    "KAFKA_BIN_DIR",
    "KAFKA_CERTS_DIR",
    "KAFKA_CONF_DIR",
    "KAFKA_CONF_FILE",
    "KAFKA_DAEMON_GROUP",
    "KAFKA_DAEMON_USER",
    "KAFKA_DATA_DIR",
    "KAFKA_ENABLE_KRAFT",
    "KAFKA_EXTRA_FLAGS",
    "KAFKA_GROUP",
    "KAFKA_INITSCRIPTS_DIR",
    "KAFKA_MOUNTED_CONF_DIR",
    "KAFKA_SKIP_KRAFT_STORAGE_INIT",
    "KAFKA_USER",
    "KAFKA_VOLUME_DIR",
];

/// Whether a variable is for scripts, or is set by Kubernetes and Docker in containers next to a service whose name
/// begins with `kafka`: `KAFKA_PORT`, `KAFKA_SERVICE_HOST`, `KAFKA_0_PORT_9092_TCP_ADDR`.
fn is_for_scripts(variable: &str) -> bool {
    let is_of_service =
        ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter().any(|ending| variable.ends_with(ending))
            || variable.contains("_SERVICE_PORT_")
            || variable.split_once("_PORT_").is_some_and(|(_, port)| {
                let (number, rest) = port.split_once('_').unwrap_or((port, ""));
                number.bytes().all(|digit| digit.is_ascii_digit())
                    && (rest.starts_with("TCP") || rest.starts_with("UDP"))
            });
    FOR_SCRIPTS.contains(&variable) || is_of_service
}

/// The cluster id's names: Apache's and Confluent's, then Bitnami's two.
const CLUSTER_ID: &[&str] = &["CLUSTER_ID", "KAFKA_CLUSTER_ID", "KAFKA_KRAFT_CLUSTER_ID"];

impl Environment {
    /// Selects the settings from the variables of a process.
    pub fn from_variables(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let variables: BTreeMap<_, _> = variables.into_iter().collect();
        let mut environment = Self { variables: Variables(variables), ..Self::default() };
        let mut relevant = Vec::new();
        for (variable, value) in &environment.variables.0 {
            let Some(variable) = variable.to_str() else { continue };
            let is_setting = variable.starts_with(PREFIX) && !is_for_scripts(variable);
            if !is_setting && !CLUSTER_ID.contains(&variable) {
                continue;
            }
            match value.to_str() {
                Some(value) => relevant.push((variable.to_owned(), value.to_owned())),
                None => environment.unreadable.push(variable.to_owned()),
            }
        }
        let find = |name: &&str| relevant.iter().find(|(variable, _)| variable == name);
        environment.cluster_id = CLUSTER_ID.iter().find_map(find).map(|(_, value)| value.clone());
        environment.settings = relevant.into_iter().filter_map(setting).collect();
        environment.settings.sort_by_key(|setting| {
            (!setting.variable.starts_with(BITNAMI_PREFIX), setting.variable.clone())
        });
        environment
    }
}

const PREFIX: &str = "KAFKA_";
const BITNAMI_PREFIX: &str = "KAFKA_CFG_";

fn setting((variable, value): (String, String)) -> Option<EnvironmentSetting> {
    if CLUSTER_ID.contains(&variable.as_str()) {
        return None;
    }
    let name = variable.strip_prefix(BITNAMI_PREFIX).or_else(|| variable.strip_prefix(PREFIX))?;
    Some(EnvironmentSetting { key: key_of(name), value, variable })
}

/// One underscore is a dot, two are an underscore, three are a dash.
fn key_of(name: &str) -> String {
    name.to_lowercase().replace('_', ".").replace("...", "-").replace("..", "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::from_variables(
            pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))),
        )
    }

    fn keys(pairs: &[(&str, &str)]) -> Vec<String> {
        environment(pairs).settings.into_iter().map(|setting| setting.key).collect()
    }

    #[test]
    fn underscores_become_dots_underscores_and_dashes() {
        assert_eq!(
            keys(&[
                ("KAFKA_LOG_DIRS", "/data"),
                ("KAFKA_A__B", "1"),
                ("KAFKA_A___B", "1"),
                ("PATH", "/bin"),
            ]),
            ["a_b", "a-b", "log.dirs"]
        );
    }

    #[test]
    fn variables_for_the_jvm_and_for_scripts_are_no_settings() {
        for variable in FOR_SCRIPTS {
            assert_eq!(keys(&[(variable, "x")]), [""; 0], "{variable}");
        }
        for variable in [
            "KAFKA_PORT",
            "KAFKA_SERVICE_HOST",
            "KAFKA_SERVICE_PORT",
            "KAFKA_SERVICE_PORT_CLIENT",
            "KAFKA_PORT_9092_TCP",
            "KAFKA_PORT_9092_TCP_ADDR",
            "KAFKA_BROKER_0_PORT",
            "KAFKA_BROKER_0_PORT_9092_TCP_PROTO",
        ] {
            assert_eq!(keys(&[(variable, "tcp://10.0.0.1:9092")]), [""; 0], "{variable}");
        }
        assert_eq!(keys(&[("KAFKA_ADVERTISED_LISTENER", "x")]), ["advertised.listener"]);
    }

    #[test]
    fn no_key_is_taken_for_a_variable_of_scripts() {
        for key in klamm_metadata::config_def::ConfigDef::broker() {
            let name = key.name.replace('_', "__").replace('-', "___").replace('.', "_");
            let variable = format!("KAFKA_{}", name.to_uppercase());
            assert_eq!(keys(&[(&variable, "x")]), [key.name]);
        }
    }

    #[test]
    fn no_variable_is_printed() {
        let found = environment(&[("DATABASE_PASSWORD", "hunter2")]);
        assert!(!format!("{found:?}").contains("hunter2"));
    }

    #[test]
    fn bitnamis_spelling_is_taken_and_loses_to_apaches() {
        let settings = environment(&[("KAFKA_NODE_ID", "1"), ("KAFKA_CFG_NODE_ID", "2")]).settings;
        assert_eq!(settings.len(), 2);
        assert_eq!((settings[1].key.as_str(), settings[1].value.as_str()), ("node.id", "1"));
    }

    #[test]
    fn the_cluster_id_is_not_a_setting() {
        let found = environment(&[("KAFKA_KRAFT_CLUSTER_ID", "b"), ("CLUSTER_ID", "a")]);
        assert_eq!(found.cluster_id.as_deref(), Some("a"));
        assert_eq!(found.settings, []);
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_utf8_is_reported() {
        use std::os::unix::ffi::OsStringExt;
        let value = OsString::from_vec(vec![0xff]);
        let found = Environment::from_variables([
            (OsString::from("KAFKA_NODE_ID"), value.clone()),
            (OsString::from("OTHER"), value),
        ]);
        assert_eq!(found.unreadable, ["KAFKA_NODE_ID"]);
    }
}
