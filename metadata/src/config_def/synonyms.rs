//! The broker keys that give the default of a topic's, a group's or another broker key, with order and conversion.
//!
//! Sources: `ServerTopicConfigSynonyms`, `DynamicBrokerConfig.brokerConfigSynonyms`,
//! `GroupConfig.ALL_GROUP_CONFIG_SYNONYMS`.

const MS_PER_MINUTE: i64 = 60_000;
const MS_PER_HOUR: i64 = 3_600_000;

/// A broker key that gives the default of a topic key, and the factor of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSynonym {
    pub broker_key: &'static str,
    /// Milliseconds per unit of the broker key if the units differ, else `None`.
    pub ms_per_unit: Option<i64>,
}

impl TopicSynonym {
    const fn same(broker_key: &'static str) -> Self {
        Self { broker_key, ms_per_unit: None }
    }

    const fn minutes(broker_key: &'static str) -> Self {
        Self { broker_key, ms_per_unit: Some(MS_PER_MINUTE) }
    }

    const fn hours(broker_key: &'static str) -> Self {
        Self { broker_key, ms_per_unit: Some(MS_PER_HOUR) }
    }

    /// Converts the text of a broker value to the topic key's unit. Text that is not an integer counts as zero, as in
    /// `ConfigSynonym`.
    pub fn convert(&self, value: &str) -> String {
        match self.ms_per_unit {
            None => value.to_owned(),
            Some(ms) => {
                let count: i32 = value.trim().parse().unwrap_or(0);
                (i64::from(count) * ms).to_string()
            }
        }
    }
}

/// The broker keys for a topic key, the strongest first. Empty for keys that only topics have.
pub fn topic_synonyms(topic_key: &str) -> &'static [TopicSynonym] {
    TOPIC_SYNONYMS
        .iter()
        .find(|(name, _)| *name == topic_key)
        .map_or(&[], |(_, synonyms)| *synonyms)
}

const TOPIC_SYNONYMS: &[(&str, &[TopicSynonym])] = &[
    ("segment.bytes", &[TopicSynonym::same("log.segment.bytes")]),
    ("segment.ms", &[TopicSynonym::same("log.roll.ms"), TopicSynonym::hours("log.roll.hours")]),
    (
        "segment.jitter.ms",
        &[TopicSynonym::same("log.roll.jitter.ms"), TopicSynonym::hours("log.roll.jitter.hours")],
    ),
    ("segment.index.bytes", &[TopicSynonym::same("log.index.size.max.bytes")]),
    ("flush.messages", &[TopicSynonym::same("log.flush.interval.messages")]),
    (
        "flush.ms",
        &[
            TopicSynonym::same("log.flush.interval.ms"),
            TopicSynonym::same("log.flush.scheduler.interval.ms"),
        ],
    ),
    ("retention.bytes", &[TopicSynonym::same("log.retention.bytes")]),
    (
        "retention.ms",
        &[
            TopicSynonym::same("log.retention.ms"),
            TopicSynonym::minutes("log.retention.minutes"),
            TopicSynonym::hours("log.retention.hours"),
        ],
    ),
    ("max.message.bytes", &[TopicSynonym::same("message.max.bytes")]),
    ("index.interval.bytes", &[TopicSynonym::same("log.index.interval.bytes")]),
    ("delete.retention.ms", &[TopicSynonym::same("log.cleaner.delete.retention.ms")]),
    ("min.compaction.lag.ms", &[TopicSynonym::same("log.cleaner.min.compaction.lag.ms")]),
    ("max.compaction.lag.ms", &[TopicSynonym::same("log.cleaner.max.compaction.lag.ms")]),
    ("file.delete.delay.ms", &[TopicSynonym::same("log.segment.delete.delay.ms")]),
    ("min.cleanable.dirty.ratio", &[TopicSynonym::same("log.cleaner.min.cleanable.ratio")]),
    ("cleanup.policy", &[TopicSynonym::same("log.cleanup.policy")]),
    ("unclean.leader.election.enable", &[TopicSynonym::same("unclean.leader.election.enable")]),
    ("min.insync.replicas", &[TopicSynonym::same("min.insync.replicas")]),
    ("compression.type", &[TopicSynonym::same("compression.type")]),
    ("compression.gzip.level", &[TopicSynonym::same("compression.gzip.level")]),
    ("compression.lz4.level", &[TopicSynonym::same("compression.lz4.level")]),
    ("compression.zstd.level", &[TopicSynonym::same("compression.zstd.level")]),
    ("preallocate", &[TopicSynonym::same("log.preallocate")]),
    ("message.timestamp.type", &[TopicSynonym::same("log.message.timestamp.type")]),
    (
        "message.timestamp.before.max.ms",
        &[TopicSynonym::same("log.message.timestamp.before.max.ms")],
    ),
    ("message.timestamp.after.max.ms", &[TopicSynonym::same("log.message.timestamp.after.max.ms")]),
    ("local.retention.ms", &[TopicSynonym::same("log.local.retention.ms")]),
    ("local.retention.bytes", &[TopicSynonym::same("log.local.retention.bytes")]),
    ("flush.before.ack", &[TopicSynonym::same("log.flush.before.ack")]),
    ("compressed.record.validation", &[TopicSynonym::same("log.compressed.record.validation")]),
];

/// A broker key's synonyms, including the key itself; the first one that is set counts.
/// `log.flush.scheduler.interval.ms` is the default of another key but not its synonym.
pub fn broker_synonyms(name: &str) -> Vec<String> {
    const FAMILIES: &[&[&str]] = &[
        &["log.roll.ms", "log.roll.hours"],
        &["log.roll.jitter.ms", "log.roll.jitter.hours"],
        &["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
    ];
    if name == "log.flush.interval.ms" {
        return vec![name.to_owned(), "log.flush.scheduler.interval.ms".to_owned()];
    }
    match FAMILIES.iter().find(|family| family.contains(&name)) {
        Some(family) => family.iter().map(|&key| key.to_owned()).collect(),
        None => vec![name.to_owned()],
    }
}

/// Like [`broker_synonyms`]; a key with a listener prefix is followed by its base key.
pub fn broker_synonyms_with_listener(name: &str) -> Vec<String> {
    match listener_base_name(name) {
        Some(base) => vec![name.to_owned(), base.to_owned()],
        None => broker_synonyms(name),
    }
}

/// The key behind `listener.name.<listener>.` and, for keys of a SASL mechanism,
/// `listener.name.<listener>.<mechanism>.`; `None` without such a prefix.
pub fn listener_base_name(name: &str) -> Option<&str> {
    const MECHANISM_KEYS: &[&str] = &[
        "sasl.jaas.config",
        "sasl.login.callback.handler.class",
        "sasl.login.class",
        "sasl.server.callback.handler.class",
        "connections.max.reauth.ms",
    ];
    let base = strip_listener_prefix(name)?;
    Some(MECHANISM_KEYS.iter().find(|&&key| base.ends_with(key)).copied().unwrap_or(base))
}

/// The rest after `listener.name.<listener>.`, with the mechanism.
pub fn strip_listener_prefix(name: &str) -> Option<&str> {
    let (_listener, base) = name.strip_prefix("listener.name.")?.split_once('.')?;
    Some(base)
}

/// The broker key whose value is a group key's default; `None` for keys that only groups have.
pub fn group_synonym(group_key: &str) -> Option<&'static str> {
    GROUP_SYNONYMS.iter().find(|(name, _)| *name == group_key).map(|(_, broker_key)| *broker_key)
}

const GROUP_SYNONYMS: &[(&str, &str)] = &[
    ("consumer.session.timeout.ms", "group.consumer.session.timeout.ms"),
    ("consumer.heartbeat.interval.ms", "group.consumer.heartbeat.interval.ms"),
    ("consumer.assignment.interval.ms", "group.consumer.assignment.interval.ms"),
    ("share.session.timeout.ms", "group.share.session.timeout.ms"),
    ("share.heartbeat.interval.ms", "group.share.heartbeat.interval.ms"),
    ("share.record.lock.duration.ms", "group.share.record.lock.duration.ms"),
    ("share.delivery.count.limit", "group.share.delivery.count.limit"),
    ("share.partition.max.record.locks", "group.share.partition.max.record.locks"),
    ("share.assignment.interval.ms", "group.share.assignment.interval.ms"),
    ("streams.session.timeout.ms", "group.streams.session.timeout.ms"),
    ("streams.heartbeat.interval.ms", "group.streams.heartbeat.interval.ms"),
    ("streams.num.standby.replicas", "group.streams.num.standby.replicas"),
    ("streams.initial.rebalance.delay.ms", "group.streams.initial.rebalance.delay.ms"),
    ("streams.assignment.interval.ms", "group.streams.assignment.interval.ms"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_def::ConfigDef;

    #[test]
    fn every_synonym_is_a_key_of_its_table() {
        for (topic_key, synonyms) in TOPIC_SYNONYMS {
            assert!(ConfigDef::topic().contains(topic_key), "{topic_key}");
            for synonym in *synonyms {
                assert!(ConfigDef::broker().contains(synonym.broker_key), "{synonym:?}");
            }
        }
        for (group_key, broker_key) in GROUP_SYNONYMS {
            assert!(ConfigDef::group().contains(group_key), "{group_key}");
            assert!(ConfigDef::broker().contains(broker_key), "{broker_key}");
        }
    }

    #[test]
    fn hours_and_minutes_become_milliseconds() {
        let [_, minutes, hours] = topic_synonyms("retention.ms") else { panic!("three keys") };
        assert_eq!(minutes.convert("2"), "120000");
        assert_eq!(hours.convert(" 168 "), "604800000");
        assert_eq!(hours.convert("x"), "0");
    }

    #[test]
    fn a_listener_key_falls_back_to_its_base_key() {
        let synonyms = broker_synonyms_with_listener;
        assert_eq!(
            synonyms("listener.name.external.ssl.keystore.location"),
            ["listener.name.external.ssl.keystore.location", "ssl.keystore.location"]
        );
        assert_eq!(
            synonyms("listener.name.external.plain.sasl.jaas.config")[1],
            "sasl.jaas.config"
        );
        assert_eq!(synonyms("log.roll.hours"), ["log.roll.ms", "log.roll.hours"]);
        assert_eq!(synonyms("node.id"), ["node.id"]);
    }
}
