//! A broker's configuration in its layers: static (file, environment, flags), dynamic default
//! (all brokers) and dynamic (this broker), and the values in force.
//!
//! Invariants: every value here has been parsed once, so reading it cannot fail; an invalid dynamic value, or one of a
//! key that is not dynamic, was dropped when it was set, as in Kafka (`DynamicBrokerConfig.fromPersistentProps`).

use std::collections::BTreeMap;

use bytestring::ByteString;

use super::alter::{dynamic_config_error, strip_for_validation};
use super::synonyms::broker_synonyms;
use super::{ConfigDef, ConfigValue, ConfigValueError, Configs, parse_value};

/// The three layers of a broker's configuration, as text.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerConfigs {
    statics: Configs,
    dynamic_default: Configs,
    dynamic_broker: Configs,
    /// The merged layers: configured values, of a family of synonyms only the strongest.
    merged: Configs,
}

impl BrokerConfigs {
    /// A configuration with the static layer only. Unknown keys are kept, as Kafka keeps them for plug-ins.
    ///
    /// # Errors The first invalid value.
    pub fn new(mut statics: Configs) -> Result<Self, ConfigValueError> {
        copy_node_id(&mut statics);
        for (name, text) in &statics {
            if let Some(key) = ConfigDef::broker().get(name) {
                parse_value(key, text)?;
            }
        }
        let merged = statics.clone();
        Ok(Self {
            statics,
            dynamic_default: BTreeMap::new(),
            dynamic_broker: BTreeMap::new(),
            merged,
        })
    }

    /// Replaces the dynamic default of all brokers (the configs of resource BROKER "").
    /// Returns the keys that were dropped because their value is invalid on this broker.
    pub fn set_dynamic_default(&mut self, configs: Configs) -> Vec<ByteString> {
        let (kept, ignored) = without_invalid(configs, false);
        self.dynamic_default = kept;
        self.merge();
        ignored
    }

    /// Replaces the dynamic configs of this broker (resource BROKER with its node id).
    /// Returns the keys that were dropped because their value is invalid on this broker.
    pub fn set_dynamic_broker(&mut self, configs: Configs) -> Vec<ByteString> {
        let (kept, ignored) = without_invalid(configs, true);
        self.dynamic_broker = kept;
        self.merge();
        ignored
    }

    pub fn statics(&self) -> &Configs {
        &self.statics
    }

    pub fn dynamic_default(&self) -> &Configs {
        &self.dynamic_default
    }

    pub fn dynamic_broker(&self) -> &Configs {
        &self.dynamic_broker
    }

    /// The configured values of all layers, the strongest of each key (Kafka's `originals`).
    pub fn originals(&self) -> &Configs {
        &self.merged
    }

    /// The value of a broker key in force: configured, else default; `None` if that is null.
    ///
    /// # Panics If the key is not in the table.
    pub fn value(&self, name: &str) -> Option<ConfigValue> {
        let key = ConfigDef::broker().known(name);
        match self.merged.get(name) {
            Some(text) => {
                Some(parse_value(key, text).expect("values are parsed when they are set"))
            }
            None => key.default_value(),
        }
    }

    /// The value of a BOOLEAN key that has a default.
    pub fn boolean(&self, name: &str) -> bool {
        match self.value(name) {
            Some(ConfigValue::Boolean(value)) => value,
            other => panic!("{name} is no boolean but {other:?}"),
        }
    }

    /// The value of a key of type SHORT, INT or LONG; `None` if it is null.
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.value(name)? {
            ConfigValue::Short(value) => Some(i64::from(value)),
            ConfigValue::Int(value) => Some(i64::from(value)),
            ConfigValue::Long(value) => Some(value),
            other => panic!("{name} is no integer but {other:?}"),
        }
    }

    /// The value of an INT key that has a default.
    pub fn int(&self, name: &str) -> i32 {
        match self.value(name) {
            Some(ConfigValue::Int(value)) => value,
            other => panic!("{name} is no INT but {other:?}"),
        }
    }

    /// The value of a SHORT key that has a default.
    pub fn short(&self, name: &str) -> i16 {
        match self.value(name) {
            Some(ConfigValue::Short(value)) => value,
            other => panic!("{name} is no SHORT but {other:?}"),
        }
    }

    /// The value of a LONG key that has a default.
    pub fn long(&self, name: &str) -> i64 {
        match self.value(name) {
            Some(ConfigValue::Long(value)) => value,
            other => panic!("{name} is no LONG but {other:?}"),
        }
    }

    /// The value of a DOUBLE key that has a default.
    pub fn double(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(ConfigValue::Double(value)) => value,
            other => panic!("{name} is no DOUBLE but {other:?}"),
        }
    }

    /// The value of a STRING key; `None` if it is null.
    pub fn string(&self, name: &str) -> Option<String> {
        match self.value(name)? {
            ConfigValue::String(value) => Some(value),
            other => panic!("{name} is no STRING but {other:?}"),
        }
    }

    /// The entries of a LIST key; `None` if it is null.
    pub fn list(&self, name: &str) -> Option<Vec<String>> {
        match self.value(name)? {
            ConfigValue::List(entries) => Some(entries),
            other => panic!("{name} is no LIST but {other:?}"),
        }
    }

    fn merge(&mut self) {
        let mut merged = self.statics.clone();
        override_configs(&mut merged, &self.dynamic_default);
        override_configs(&mut merged, &self.dynamic_broker);
        self.merged = merged;
        self.clamp_assignment_intervals();
    }

    /// Dynamic assignment intervals are clamped to their bounds and not refused
    /// (`GroupCoordinatorConfig.clampDynamicConfigs`).
    fn clamp_assignment_intervals(&mut self) {
        for protocol in ["consumer", "share", "streams"] {
            let name = format!("group.{protocol}.assignment.interval.ms");
            if !self.merged.contains_key(name.as_str()) {
                continue;
            }
            let min = self.int(&format!("group.{protocol}.min.assignment.interval.ms"));
            let max = self.int(&format!("group.{protocol}.max.assignment.interval.ms"));
            let value = self.int(&name);
            if value < min {
                self.merged.insert(name.into(), min.to_string().into());
            } else if value > max {
                self.merged.insert(name.into(), max.to_string().into());
            }
        }
    }
}

/// `broker.id` and `node.id` are synonyms (`AbstractKafkaConfig.populateSynonyms`).
fn copy_node_id(statics: &mut Configs) {
    let (broker_id, node_id) = (statics.get("broker.id").cloned(), statics.get("node.id").cloned());
    match (broker_id, node_id) {
        (None, Some(id)) => statics.insert("broker.id".into(), id),
        (Some(id), None) => statics.insert("node.id".into(), id),
        _ => None,
    };
}

/// Puts stronger values over weaker ones. A key hides its whole family: `log.retention.hours` set
/// dynamically wins over a static `log.retention.ms`.
fn override_configs(merged: &mut Configs, stronger: &Configs) {
    for (name, text) in stronger {
        for synonym in broker_synonyms(name) {
            merged.remove(synonym.as_str());
        }
        merged.insert(name.clone(), text.clone());
    }
}

fn without_invalid(configs: Configs, per_broker: bool) -> (Configs, Vec<ByteString>) {
    let (kept, ignored): (BTreeMap<_, _>, BTreeMap<_, _>) =
        configs.into_iter().partition(|(name, text)| {
            dynamic_config_error(name, per_broker).is_none()
                && ConfigDef::broker()
                    .get(strip_for_validation(name))
                    .is_none_or(|key| parse_value(key, text).is_ok())
        });
    (kept, ignored.into_keys().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(pairs: &[(&str, &str)]) -> Configs {
        pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
    }

    #[test]
    fn a_dynamic_value_of_this_broker_beats_the_default_of_all_and_the_file() {
        let mut broker = BrokerConfigs::new(configs(&[("log.cleaner.backoff.ms", "1")])).unwrap();
        assert_eq!(broker.long("log.cleaner.backoff.ms"), 1);
        broker.set_dynamic_default(configs(&[("log.cleaner.backoff.ms", "2")]));
        assert_eq!(broker.long("log.cleaner.backoff.ms"), 2);
        broker.set_dynamic_broker(configs(&[("log.cleaner.backoff.ms", "3")]));
        assert_eq!(broker.long("log.cleaner.backoff.ms"), 3);
        broker.set_dynamic_broker(BTreeMap::new());
        broker.set_dynamic_default(BTreeMap::new());
        assert_eq!(broker.long("log.cleaner.backoff.ms"), 1);
    }

    #[test]
    fn a_stronger_layer_hides_the_whole_family_of_a_key() {
        let mut broker = BrokerConfigs::new(configs(&[("log.retention.hours", "5")])).unwrap();
        broker.set_dynamic_default(configs(&[("log.retention.ms", "7")]));
        assert_eq!(broker.integer("log.retention.ms"), Some(7));
        assert_eq!(broker.originals().get("log.retention.hours"), None);
    }

    #[test]
    fn what_cannot_be_dynamic_is_left_out_and_reported() {
        let mut broker = BrokerConfigs::new(BTreeMap::new()).unwrap();
        let ignored = broker.set_dynamic_default(configs(&[
            ("node.id", "5"),
            ("listeners", "PLAINTEXT://:1"),
            ("log.cleaner.threads", "x"),
            ("num.io.threads", "9"),
            ("my.plugin.key", "v"),
        ]));
        assert_eq!(ignored, ["listeners", "log.cleaner.threads", "node.id"]);
        assert_eq!(broker.int("num.io.threads"), 9);
        assert_eq!(broker.originals()["my.plugin.key"], "v");
    }

    #[test]
    fn node_id_and_broker_id_are_one() {
        let broker = BrokerConfigs::new(configs(&[("node.id", "7")])).unwrap();
        assert_eq!(broker.int("broker.id"), 7);
        let broker = BrokerConfigs::new(configs(&[("broker.id", "8")])).unwrap();
        assert_eq!(broker.int("node.id"), 8);
    }

    #[test]
    fn dynamic_assignment_intervals_are_clamped() {
        let mut broker = BrokerConfigs::new(BTreeMap::new()).unwrap();
        let name = "group.consumer.assignment.interval.ms";
        broker.set_dynamic_default(configs(&[(name, "2147483647")]));
        assert_eq!(broker.int(name), broker.int("group.consumer.max.assignment.interval.ms"));
    }

    #[test]
    fn a_bad_static_value_is_refused() {
        let error = BrokerConfigs::new(configs(&[("num.io.threads", "0")])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Invalid value 0 for configuration num.io.threads: Value must be at least 1"
        );
    }
}
