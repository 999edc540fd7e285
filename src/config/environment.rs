//! Environment variables that are configuration: `KAFKA_*` as the apache/kafka and Confluent images
//! spell them, `KAFKA_CFG_*` as Bitnami's do, and the cluster id.
//!
//! Source of the mapping and of the exclusions: `kafka.docker.KafkaDockerWrapper`.

use std::ffi::OsString;

/// A variable that sets a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentSetting {
    pub key: String,
    pub value: String,
    pub variable: String,
}

/// What the environment says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// Sorted by variable, except that `KAFKA_X` comes after `KAFKA_CFG_X` and so wins.
    pub settings: Vec<EnvironmentSetting>,
    /// The cluster id that a new data directory gets, if one is named.
    pub cluster_id: Option<String>,
    /// Variables that look like settings but are not UTF-8.
    pub unreadable: Vec<String>,
}

/// Variables of the images that are meant for the JVM or for scripts.
const NOT_SETTINGS: &[&str] = &[
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
];

/// The cluster id's names: Apache's and Confluent's, then Bitnami's two.
const CLUSTER_ID: &[&str] = &["CLUSTER_ID", "KAFKA_CLUSTER_ID", "KAFKA_KRAFT_CLUSTER_ID"];

impl Environment {
    /// Sorts out the variables of a process.
    pub fn from_variables(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self::default();
        let mut relevant = Vec::new();
        for (variable, value) in variables {
            let Some(variable) = variable.to_str() else { continue };
            if !variable.starts_with("KAFKA_") && !CLUSTER_ID.contains(&variable) {
                continue;
            }
            match value.into_string() {
                Ok(value) => relevant.push((variable.to_owned(), value)),
                Err(_) => environment.unreadable.push(variable.to_owned()),
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
    if NOT_SETTINGS.contains(&variable.as_str()) || CLUSTER_ID.contains(&variable.as_str()) {
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
    fn variables_for_the_jvm_are_no_settings() {
        assert_eq!(keys(&[("KAFKA_HEAP_OPTS", "-Xmx1g"), ("KAFKA_JMX_HOSTNAME", "h")]), [""; 0]);
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
