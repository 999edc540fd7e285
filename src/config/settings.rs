//! All settings, merged: defaults < file < environment < flags, each value with its origin.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use klamm_metadata::config_def::synonyms::broker_synonyms;

use super::environment::Environment;
use super::properties::Property;

/// The origin of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A default of Klamm, for a key without a suitable default in Kafka; the text is the reason.
    Klamm(&'static str),
    File {
        path: PathBuf,
        line: usize,
    },
    Environment {
        variable: String,
    },
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Klamm(reason) => write!(f, "Klamm's default: {reason}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::Flag => f.write_str("--override"),
        }
    }
}

/// A value and its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub value: String,
    pub origin: Origin,
}

/// All keys that are set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<String, Setting>,
    /// Keys with a value from a config provider, and the placeholder of each.
    written: BTreeMap<String, String>,
    /// Keys that a file sets twice, the overruled setting first.
    pub repeated: Vec<(String, Origin, Origin)>,
}

impl Settings {
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.values.get(key)
    }

    pub fn value(&self, key: &str) -> Option<&str> {
        self.get(key).map(|setting| setting.value.as_str())
    }

    pub fn contains(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The placeholder of a key whose value was resolved (`${env:RACK}`).
    pub fn written(&self, key: &str) -> Option<&str> {
        self.written.get(key).map(String::as_str)
    }

    /// The settings by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.values.iter().map(|(key, setting)| (key.as_str(), setting))
    }

    /// Adds the settings of a file. Within a file Kafka's rules apply: the last entry of a key wins, and a key does not
    /// hide its synonyms.
    pub fn add_file(&mut self, path: &Path, properties: Vec<Property>) {
        for Property { key, value, line } in properties {
            let origin = Origin::File { path: path.to_owned(), line };
            let setting = Setting { value, origin: origin.clone() };
            if let Some(overruled) = self.values.insert(key.clone(), setting) {
                self.repeated.push((key, overruled.origin, origin));
            }
        }
    }

    /// Adds the settings of the environment.
    pub fn add_environment(&mut self, environment: &Environment) {
        let settings = environment.settings.iter().map(|found| {
            let origin = Origin::Environment { variable: found.variable.clone() };
            (found.key.clone(), Setting { value: found.value.clone(), origin })
        });
        self.add_layer(settings.collect());
    }

    /// Adds the `--override key=value` flags in their order.
    pub fn add_flags(&mut self, overrides: &[(String, String)]) {
        let settings = overrides.iter().map(|(key, value)| {
            (key.clone(), Setting { value: value.clone(), origin: Origin::Flag })
        });
        self.add_layer(settings.collect());
    }

    /// Sets a key that is not set.
    pub fn add_default(&mut self, key: &str, value: impl Into<String>, reason: &'static str) {
        let setting = Setting { value: value.into(), origin: Origin::Klamm(reason) };
        self.values.entry(key.to_owned()).or_insert(setting);
    }

    /// Replaces a value and keeps its origin.
    pub(super) fn amend(&mut self, key: &str, value: String) {
        if let Some(setting) = self.values.get_mut(key) {
            setting.value = value;
        }
    }

    /// Replaces a placeholder by its value.
    pub(super) fn resolve(&mut self, key: &str, value: String) {
        if let Some(setting) = self.values.get_mut(key) {
            let written = std::mem::replace(&mut setting.value, value);
            self.written.insert(key.to_owned(), written);
        }
    }

    /// A stronger layer hides all synonyms of its keys: `KAFKA_LOG_DIR` overrides `log.dirs` in the file. Within a
    /// layer no key is hidden.
    fn add_layer(&mut self, layer: Vec<(String, Setting)>) {
        for (key, _) in &layer {
            for name in other_names(key) {
                self.values.remove(&name);
            }
        }
        self.values.extend(layer);
    }
}

fn other_names(key: &str) -> Vec<String> {
    const PAIRS: &[[&str; 2]] = &[
        ["log.dirs", "log.dir"],
        ["node.id", "broker.id"],
        ["inter.broker.listener.name", "security.inter.broker.protocol"],
    ];
    match PAIRS.iter().find(|pair| pair.contains(&key)) {
        Some(pair) => pair.iter().map(|&name| name.to_owned()).collect(),
        None => broker_synonyms(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::properties;

    fn file(text: &str) -> Settings {
        let mut settings = Settings::default();
        settings.add_file(Path::new("f"), properties::parse(text.as_bytes()).unwrap());
        settings
    }

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::from_variables(pairs.iter().map(|(k, v)| (k.into(), v.into())))
    }

    fn origin(settings: &Settings, key: &str) -> String {
        settings.get(key).unwrap().origin.to_string()
    }

    #[test]
    fn flags_beat_the_environment_and_the_environment_beats_the_file() {
        let mut settings = file("a=1\nb=1\nc=1");
        settings.add_environment(&environment(&[("KAFKA_B", "2"), ("KAFKA_C", "2")]));
        settings.add_flags(&[("c".into(), "3".into())]);
        settings.add_default("a", "0", "unused");
        settings.add_default("d", "0", "why");
        let values: Vec<_> =
            settings.iter().map(|(k, s)| (k, s.value.as_str(), s.origin.to_string())).collect();
        assert_eq!(
            values,
            [
                ("a", "1", "f:1".to_owned()),
                ("b", "2", "environment KAFKA_B".to_owned()),
                ("c", "3", "--override".to_owned()),
                ("d", "0", "Klamm's default: why".to_owned()),
            ]
        );
    }

    #[test]
    fn the_last_entry_of_a_file_wins_and_the_first_is_remembered() {
        let settings = file("a=1\n\na=2");
        assert_eq!(settings.value("a"), Some("2"));
        assert_eq!(origin(&settings, "a"), "f:3");
        assert_eq!(settings.repeated.len(), 1);
        assert_eq!(settings.repeated[0].1.to_string(), "f:1");
    }

    #[test]
    fn a_stronger_layer_hides_the_other_names_of_what_it_sets() {
        let mut settings = file("log.retention.ms=1\nlog.retention.minutes=2\nlog.dirs=/a");
        assert!(settings.contains("log.retention.minutes"));
        settings.add_environment(&environment(&[("KAFKA_LOG_RETENTION_HOURS", "3")]));
        settings.add_flags(&[("log.dir".into(), "/b".into())]);
        let keys: Vec<_> = settings.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["log.dir", "log.retention.hours"]);
    }
}
