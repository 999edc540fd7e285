//! The topics in which the broker keeps its own state: their names and configurations.

use klamm_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};

use crate::config::coordinators::share_state_topic;
use crate::config::{BrokerConfig, InternalTopicConfig};

pub(crate) const CONSUMER_OFFSETS: &str = "__consumer_offsets";
pub(crate) const TRANSACTION_STATE: &str = "__transaction_state";
pub(crate) const SHARE_GROUP_STATE: &str = "__share_group_state";

/// Whether clients may not write to the topic, and see it marked as internal (`Topic.isInternal`).
pub(crate) fn is_internal(topic: &str) -> bool {
    matches!(topic, CONSUMER_OFFSETS | TRANSACTION_STATE | SHARE_GROUP_STATE)
}

/// The CreateTopics entry of an internal topic in a cluster with this many brokers, fenced ones included; `None` if the
/// topic is not internal.
pub(crate) fn creatable(
    config: &BrokerConfig,
    name: &str,
    brokers: usize,
) -> Option<CreatableTopic> {
    let (topic, configs) = match name {
        CONSUMER_OFFSETS => {
            let configs = vec![("cleanup.policy", "compact"), ("compression.type", "producer")];
            (config.groups.offsets_topic.clone(), configs)
        }
        TRANSACTION_STATE => {
            let configs = vec![
                ("unclean.leader.election.enable", "false"),
                ("compression.type", "uncompressed"),
                ("cleanup.policy", "compact"),
            ];
            (config.transactions.state_topic.clone(), configs)
        }
        SHARE_GROUP_STATE => {
            let configs = vec![
                ("cleanup.policy", "delete"),
                ("compression.type", "producer"),
                ("retention.ms", "-1"),
            ];
            (share_state_topic(&config.configs), configs)
        }
        _ => return None,
    };
    Some(creatable_topic(name, &topic, &configs, brokers))
}

fn creatable_topic(
    name: &str,
    topic: &InternalTopicConfig,
    configs: &[(&str, &str)],
    brokers: usize,
) -> CreatableTopic {
    let config = |name: &str, value: String| CreatableTopicConfig {
        name: name.into(),
        value: Some(value.into()),
    };
    let mut configs: Vec<_> =
        configs.iter().map(|(name, value)| config(name, (*value).to_owned())).collect();
    configs.push(config("segment.bytes", topic.segment_bytes.to_string()));
    let min_isr = topic.min_insync_replicas;
    configs.extend(min_isr.map(|min| config("min.insync.replicas", min.to_string())));
    CreatableTopic {
        name: name.into(),
        num_partitions: topic.partitions,
        replication_factor: topic.replication.factor(brokers),
        assignments: Vec::new(),
        configs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(name: &str) -> (i32, i16, Vec<(String, String)>) {
        let config = BrokerConfig::from_pairs([
            ("transaction.state.log.num.partitions", "7"),
            ("offsets.topic.replication.factor", "2"),
        ]);
        let topic = creatable(&config.unwrap(), name, 1).unwrap();
        let text = |config: &CreatableTopicConfig| {
            (config.name.to_string(), config.value.as_deref().unwrap().to_owned())
        };
        let mut configs: Vec<_> = topic.configs.iter().map(text).collect();
        configs.sort();
        (topic.num_partitions, topic.replication_factor, configs)
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn committed_offsets_are_compacted() {
        let configs = pairs(&[
            ("cleanup.policy", "compact"),
            ("compression.type", "producer"),
            ("segment.bytes", "104857600"),
        ]);
        assert_eq!(created(CONSUMER_OFFSETS), (50, 2, configs));
    }

    #[test]
    fn the_state_of_transactions_is_never_led_by_a_replica_that_fell_behind() {
        let configs = pairs(&[
            ("cleanup.policy", "compact"),
            ("compression.type", "uncompressed"),
            ("min.insync.replicas", "2"),
            ("segment.bytes", "104857600"),
            ("unclean.leader.election.enable", "false"),
        ]);
        assert_eq!(created(TRANSACTION_STATE), (7, 1, configs));
    }

    #[test]
    fn the_state_of_share_groups_is_kept_until_it_is_deleted() {
        let configs = pairs(&[
            ("cleanup.policy", "delete"),
            ("compression.type", "producer"),
            ("min.insync.replicas", "2"),
            ("retention.ms", "-1"),
            ("segment.bytes", "104857600"),
        ]);
        assert_eq!(created(SHARE_GROUP_STATE), (50, 1, configs));
    }

    #[test]
    fn no_other_topic_is_internal() {
        let config = BrokerConfig::from_pairs([("", ""); 0]).unwrap();
        assert_eq!(creatable(&config, "orders", 1), None);
        assert!(!is_internal("__cluster_metadata"));
    }
}
