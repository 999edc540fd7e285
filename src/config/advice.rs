//! Advice about keys that Klamm does not know or does not need.

use klamm_metadata::config_def::synonyms::listener_base_name;
use klamm_metadata::config_def::{ConfigDef, ConfigType};

use super::settings::{Origin, Settings};
use super::{protection, providers};

/// A hint about the configuration for the operator. The broker starts all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Advice {
    #[error("{origin}: unknown key '{key}'{}", did_you_mean(.suggestion.as_deref()))]
    UnknownKey { key: String, origin: Origin, suggestion: Option<String> },
    #[error("{origin}: '{key}' is ignored: it names a Java plug-in and Klamm has no JVM{}", .instead.map(|text| format!("; {text}")).unwrap_or_default())]
    JvmOnly { key: String, origin: Origin, instead: Option<&'static str> },
    #[error("{now}: '{key}' is set again and overrules {before}")]
    Repeated { key: String, before: Origin, now: Origin },
    #[error("{0}")]
    Operation(super::check::Caution),
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|key| format!(" (did you mean '{key}'?)")).unwrap_or_default()
}

/// Checks every key that is set.
pub fn on_settings(settings: &Settings) -> Vec<Advice> {
    let mut advice: Vec<Advice> = settings
        .repeated
        .iter()
        .map(|(key, before, now)| Advice::Repeated {
            key: key.clone(),
            before: before.clone(),
            now: now.clone(),
        })
        .collect();
    for (key, setting) in settings.iter() {
        if !is_known(key) {
            let suggestion = suggestion(key).map(str::to_owned);
            let (key, origin) = (key.to_owned(), setting.origin.clone());
            advice.push(Advice::UnknownKey { key, origin, suggestion });
        } else if names_plug_in(key, &setting.value) {
            let (key, origin) = (key.to_owned(), setting.origin.clone());
            let instead = instead_of(&key);
            advice.push(Advice::JvmOnly { key, origin, instead });
        }
    }
    advice
}

/// Whether the key is in the table, or has a prefix for plug-ins.
pub(super) fn is_known(key: &str) -> bool {
    let base = listener_base_name(key).unwrap_or(key);
    ConfigDef::broker().contains(base)
        || matches!(key, "super.users" | "allow.everyone.if.no.acl.found")
        || providers::is_of_providers(key)
        || ["rsm.config.", "rlmm.config."].iter().any(|prefix| key.starts_with(prefix))
}

const REPLICA_SELECTOR: &str = "replica.selector.class";
/// The selectors of Apache Kafka, which Klamm implements.
const REPLICA_SELECTORS: [&str; 2] = [
    "org.apache.kafka.common.replica.LeaderSelector",
    "org.apache.kafka.common.replica.RackAwareReplicaSelector",
];

/// Whether a key names a third-party Java class, which Klamm cannot load. Classes for security are refused elsewhere.
fn names_plug_in(key: &str, value: &str) -> bool {
    let value = value.trim();
    let base = listener_base_name(key).unwrap_or(key);
    let takes_a_class = ConfigDef::broker().get(base).is_some_and(|known| {
        known.config_type == ConfigType::Class
            || base.ends_with(".class")
            || base.ends_with(".class.name")
            || matches!(base, "metric.reporters" | "kafka.metrics.reporters")
    });
    takes_a_class
        && !value.is_empty()
        && !protection::is_default(base, value)
        && protection::demand(key, value).is_none()
        && !(base == REPLICA_SELECTOR && REPLICA_SELECTORS.contains(&value))
}

fn instead_of(key: &str) -> Option<&'static str> {
    match key {
        REPLICA_SELECTOR => Some(
            "consumers read from leaders; org.apache.kafka.common.replica.RackAwareReplicaSelector is built in",
        ),
        _ => None,
    }
}

/// The known key that was most probably meant.
pub fn suggestion(key: &str) -> Option<&'static str> {
    // If more than a third of the letters differ, it is not a typing mistake.
    let limit = (key.chars().count() / 3).clamp(1, 6);
    ConfigDef::broker()
        .iter()
        .map(|known| (strsim::damerau_levenshtein(key, known.name), known.name))
        .filter(|&(distance, _)| distance <= limit)
        .min()
        .map(|(_, name)| name)
        .or_else(|| topic_key_suggestion(key))
}

/// The broker's name of a topic key that was set in a broker's file.
fn topic_key_suggestion(key: &str) -> Option<&'static str> {
    klamm_metadata::config_def::synonyms::topic_synonyms(key)
        .first()
        .map(|synonym| synonym.broker_key)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::properties;

    fn advice(text: &str) -> Vec<String> {
        let mut settings = Settings::default();
        settings
            .add_file(Path::new("server.properties"), properties::parse(text.as_bytes()).unwrap());
        on_settings(&settings).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_misspelt_key_is_answered_with_the_right_one() {
        assert_eq!(
            advice("\nadvertised.listener=PLAINTEXT://a:1"),
            [
                "server.properties:2: unknown key 'advertised.listener' (did you mean 'advertised.listeners'?)"
            ]
        );
        assert_eq!(suggestion("log.retention.hour"), Some("log.retention.hours"));
        assert_eq!(suggestion("num.partition"), Some("num.partitions"));
        assert_eq!(suggestion("file.delete.delay.ms"), Some("log.segment.delete.delay.ms"));
        assert_eq!(suggestion("my.own.key"), None);
    }

    #[test]
    fn known_keys_are_not_talked_about() {
        assert_eq!(
            advice(
                "node.id=1\nlistener.name.external.ssl.keystore.location=/x\nsuper.users=User:a\nlistener.name.a.plain.sasl.jaas.config=x\nlog.flush.before.ack=false"
            ),
            [""; 0]
        );
    }

    #[test]
    fn java_plug_ins_are_named_as_ignored() {
        assert_eq!(
            advice("metric.reporters=com.example.Reporter"),
            [
                "server.properties:1: 'metric.reporters' is ignored: it names a Java plug-in and Klamm has no JVM"
            ]
        );
        for key in [
            "group.share.persister.class.name",
            "kafka.metrics.reporters",
            "remote.log.metadata.manager.class.name",
            "remote.log.storage.manager.class.name",
        ] {
            assert_eq!(advice(&format!("{key}=a.B")).len(), 1, "{key}");
        }
        let selector = advice("replica.selector.class=a.B");
        assert!(selector[0].contains("; consumers read from leaders; org.apache"), "{selector:?}");
    }

    #[test]
    fn what_is_obeyed_or_at_its_default_is_not_said_to_be_ignored() {
        for line in [
            "metric.reporters=",
            "metric.reporters=org.apache.kafka.common.metrics.JmxReporter",
            "replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector",
            "replica.selector.class=org.apache.kafka.common.replica.LeaderSelector",
            "group.share.persister.class.name=org.apache.kafka.server.share.persister.DefaultStatePersister",
            "config.providers=env",
            "config.providers.env.class=org.apache.kafka.common.config.provider.EnvVarConfigProvider",
            "config.providers.env.param.allowlist.pattern=A.*",
        ] {
            assert_eq!(advice(line), [""; 0], "{line}");
        }
    }

    #[test]
    fn what_asks_for_protection_is_no_matter_of_advice() {
        for key in ["authorizer.class.name", "create.topic.policy.class.name", "sasl.login.class"] {
            assert_eq!(advice(&format!("{key}=a.B")), [""; 0], "{key}");
        }
    }

    #[test]
    fn a_key_that_is_set_twice_is_pointed_out() {
        assert_eq!(
            advice("node.id=1\nnode.id=2"),
            ["server.properties:2: 'node.id' is set again and overrules server.properties:1"]
        );
    }
}
