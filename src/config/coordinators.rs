//! The typed configuration of the group, transaction and share coordinators and of their internal topics.

use klamm_metadata::config_def::BrokerConfigs;

/// The replication factor of an internal topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InternalReplication {
    /// The configured number: creation fails while there are fewer brokers.
    Exactly(i16),
    /// The default if it is not configured: this number, or the number of brokers if that is less.
    AtMost(i16),
}

impl InternalReplication {
    fn new(configs: &BrokerConfigs, name: &str) -> Self {
        let factor = configs.short(name);
        if configs.originals().contains_key(name) {
            Self::Exactly(factor)
        } else {
            Self::AtMost(factor)
        }
    }

    /// The number of replicas in a cluster with this many brokers, including fenced ones.
    pub fn factor(self, brokers: usize) -> i16 {
        match self {
            Self::Exactly(factor) => factor,
            Self::AtMost(factor) => factor.min(i16::try_from(brokers).unwrap_or(i16::MAX)).max(1),
        }
    }
}

/// An internal topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalTopicConfig {
    pub partitions: i32,
    pub replication: InternalReplication,
    pub segment_bytes: i32,
    /// `min.insync.replicas` of the topic; `None` uses the broker's.
    pub min_insync_replicas: Option<i32>,
}

/// Classic groups and committed offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupsConfig {
    pub min_session_timeout_ms: i32,
    pub max_session_timeout_ms: i32,
    pub initial_rebalance_delay_ms: i32,
    pub max_size: i32,
    pub offset_metadata_max_bytes: i32,
    pub offsets_load_buffer_size: i32,
    pub offsets_retention_ms: i64,
    pub offsets_retention_check_interval_ms: i64,
    pub offset_commit_timeout_ms: i32,
    /// Kafka's codec id for `__consumer_offsets`: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub offsets_topic_compression_codec: i32,
    pub offsets_topic: InternalTopicConfig,
}

impl GroupsConfig {
    pub fn new(configs: &BrokerConfigs) -> Self {
        Self {
            min_session_timeout_ms: configs.int("group.min.session.timeout.ms"),
            max_session_timeout_ms: configs.int("group.max.session.timeout.ms"),
            initial_rebalance_delay_ms: configs.int("group.initial.rebalance.delay.ms"),
            max_size: configs.int("group.max.size"),
            offset_metadata_max_bytes: configs.int("offset.metadata.max.bytes"),
            offsets_load_buffer_size: configs.int("offsets.load.buffer.size"),
            offsets_retention_ms: i64::from(configs.int("offsets.retention.minutes")) * 60_000,
            offsets_retention_check_interval_ms: configs
                .long("offsets.retention.check.interval.ms"),
            offset_commit_timeout_ms: configs.int("offsets.commit.timeout.ms"),
            offsets_topic_compression_codec: configs.int("offsets.topic.compression.codec"),
            offsets_topic: InternalTopicConfig {
                partitions: configs.int("offsets.topic.num.partitions"),
                replication: InternalReplication::new(configs, "offsets.topic.replication.factor"),
                segment_bytes: configs.int("offsets.topic.segment.bytes"),
                min_insync_replicas: None,
            },
        }
    }
}

/// Transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionsConfig {
    pub max_timeout_ms: i32,
    pub state_topic: InternalTopicConfig,
}

impl TransactionsConfig {
    pub fn new(configs: &BrokerConfigs) -> Self {
        let factor = "transaction.state.log.replication.factor";
        Self {
            max_timeout_ms: configs.int("transaction.max.timeout.ms"),
            state_topic: InternalTopicConfig {
                partitions: configs.int("transaction.state.log.num.partitions"),
                replication: InternalReplication::new(configs, factor),
                segment_bytes: configs.int("transaction.state.log.segment.bytes"),
                min_insync_replicas: Some(configs.int("transaction.state.log.min.isr")),
            },
        }
    }
}

/// The topic of the share coordinator.
pub fn share_state_topic(configs: &BrokerConfigs) -> InternalTopicConfig {
    let factor = "share.coordinator.state.topic.replication.factor";
    InternalTopicConfig {
        partitions: configs.int("share.coordinator.state.topic.num.partitions"),
        replication: InternalReplication::new(configs, factor),
        segment_bytes: configs.int("share.coordinator.state.topic.segment.bytes"),
        min_insync_replicas: Some(i32::from(
            configs.short("share.coordinator.state.topic.min.isr"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(pairs: &[(&str, &str)]) -> GroupsConfig {
        let statics = pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
        GroupsConfig::new(&BrokerConfigs::new(statics).unwrap())
    }

    #[test]
    fn an_internal_topic_fits_a_small_cluster_unless_somebody_set_its_factor() {
        let replication = groups(&[]).offsets_topic.replication;
        assert_eq!(replication, InternalReplication::AtMost(3));
        assert_eq!([0, 1, 2, 5].map(|brokers| replication.factor(brokers)), [1, 1, 2, 3]);
        let set = groups(&[("offsets.topic.replication.factor", "3")]).offsets_topic.replication;
        assert_eq!(set.factor(1), 3);
    }

    #[test]
    fn retention_is_in_milliseconds() {
        assert_eq!(groups(&[]).offsets_retention_ms, 7 * 24 * 3_600_000);
    }
}
