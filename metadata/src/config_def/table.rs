//! Parses the compiled-in tables of facts. An invalid line is a mistake of the build, so it panics with the line.

use std::collections::BTreeMap;

use super::{
    ConfigDef, ConfigDefault, ConfigKey, ConfigScope, ConfigType, Importance, UpdateMode,
    Validator, Visibility,
};

const KAFKA: &str = include_str!("kafka.tsv");
const KLAMM: &str = include_str!("klamm.tsv");
const DOCUMENTATION: &str = include_str!("documentation.tsv");

/// Parses both tables, Kafka's keys first.
pub(super) fn parse() -> BTreeMap<ConfigScope, ConfigDef> {
    let documentation = documentation();
    let mut keys: BTreeMap<ConfigScope, Vec<ConfigKey>> = BTreeMap::new();
    for line in rows(KAFKA).chain(rows(KLAMM)) {
        let (scope, key) = parse_row(line, &documentation);
        keys.entry(scope).or_default().push(key);
    }
    keys.into_iter().map(|(scope, keys)| (scope, ConfigDef::new(keys))).collect()
}

fn rows(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.lines().skip(1)
}

type Documentation = BTreeMap<(&'static str, &'static str), &'static str>;

fn documentation() -> Documentation {
    rows(DOCUMENTATION)
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let [scope, name, text] = columns[..] else { panic!("not three columns: {line}") };
            ((scope, name), text)
        })
        .collect()
}

fn parse_row(line: &'static str, documentation: &Documentation) -> (ConfigScope, ConfigKey) {
    let columns: Vec<&'static str> = line.split('\t').collect();
    let [scope, name, config_type, default, importance, update, flags, valid] = columns[..] else {
        panic!("not eight columns: {line}");
    };
    let key = ConfigKey {
        name,
        config_type: config_type_of(config_type),
        default: default_of(default),
        importance: importance_of(importance),
        update_mode: update_mode_of(update),
        visibility: visibility_of(flags),
        validator: Validator::from_fact(valid),
        documentation: documentation.get(&(scope, name)).copied(),
    };
    (scope_of(scope), key)
}

fn scope_of(text: &str) -> ConfigScope {
    match text {
        "broker" => ConfigScope::Broker,
        "topic" => ConfigScope::Topic,
        "group" => ConfigScope::Group,
        "client-metrics" => ConfigScope::ClientMetrics,
        _ => panic!("unknown scope {text}"),
    }
}

fn config_type_of(text: &str) -> ConfigType {
    match text {
        "BOOLEAN" => ConfigType::Boolean,
        "STRING" => ConfigType::String,
        "INT" => ConfigType::Int,
        "SHORT" => ConfigType::Short,
        "LONG" => ConfigType::Long,
        "DOUBLE" => ConfigType::Double,
        "LIST" => ConfigType::List,
        "CLASS" => ConfigType::Class,
        "PASSWORD" => ConfigType::Password,
        _ => panic!("unknown type {text}"),
    }
}

fn default_of(text: &'static str) -> ConfigDefault {
    match text {
        "null" => ConfigDefault::Null,
        "required" => ConfigDefault::Required,
        "\"\"" => ConfigDefault::Value(""),
        _ => ConfigDefault::Value(text),
    }
}

fn importance_of(text: &str) -> Importance {
    match text {
        "HIGH" => Importance::High,
        "MEDIUM" => Importance::Medium,
        "LOW" => Importance::Low,
        _ => panic!("unknown importance {text}"),
    }
}

fn update_mode_of(text: &str) -> UpdateMode {
    match text {
        "read-only" => UpdateMode::ReadOnly,
        "per-broker" => UpdateMode::PerBroker,
        "cluster-wide" => UpdateMode::ClusterWide,
        "-" => UpdateMode::Resource,
        _ => panic!("unknown update mode {text}"),
    }
}

fn visibility_of(text: &str) -> Visibility {
    match text {
        "-" => Visibility::Public,
        "internal" => Visibility::Internal,
        "dynamic-only" => Visibility::DynamicOnly,
        "klamm" => Visibility::Klamm,
        _ => panic!("unknown flag {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_documentation_names_a_key() {
        for (scope, name) in documentation().into_keys() {
            assert!(ConfigDef::of(scope_of(scope)).contains(name), "{scope} {name}");
        }
    }

    #[test]
    fn klamms_own_keys_are_documented() {
        for line in rows(KLAMM) {
            let (_, key) = parse_row(line, &documentation());
            assert!(key.documentation.is_some(), "{}", key.name);
        }
    }
}
