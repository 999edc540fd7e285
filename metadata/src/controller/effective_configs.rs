//! The values of a topic's configuration that decisions depend on: the topic's own, else the
//! brokers', else the default.

use super::Controller;
use crate::config_def::{ConfigDef, ConfigValue, parse_value};
use crate::image::topics::Topic;

/// The number of in-sync replicas that a write with acks=all needs.
pub const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// Whether a replica from outside the ISR may lead.
const UNCLEAN_LEADER_ELECTION_ENABLE: &str = "unclean.leader.election.enable";

impl Controller {
    /// The topic's min.insync.replicas, at most its replication factor.
    pub(super) fn effective_min_isr(&self, topic: &Topic) -> usize {
        let configured = match self.topic_value(topic, MIN_INSYNC_REPLICAS) {
            Some(ConfigValue::Int(value)) => usize::try_from(value).unwrap_or(1),
            _ => unreachable!("min.insync.replicas is an INT with a default"),
        };
        let replicas = topic.partition(0).map_or(usize::MAX, |first| first.replicas.len());
        configured.min(replicas)
    }

    /// Whether the topic prefers availability to durability.
    pub(super) fn is_unclean_election_enabled(&self, topic: &str) -> bool {
        let topic = self.image().topics.by_name(topic);
        let value = topic.and_then(|t| self.topic_value(t, UNCLEAN_LEADER_ELECTION_ENABLE));
        matches!(value, Some(ConfigValue::Boolean(true)))
    }

    /// A topic's own value, or that of the broker key of the same name. An invalid value that an older version has
    /// accepted counts as not set.
    fn topic_value(&self, topic: &Topic, name: &str) -> Option<ConfigValue> {
        let key = ConfigDef::topic().get(name)?;
        let own = self.image().configs.of_topic(&topic.name).get(name);
        let own = own.and_then(|text| parse_value(key, text).ok());
        own.or_else(|| self.broker_configs.value(name))
    }

    /// The min.insync.replicas of this node's static configuration.
    pub(super) fn static_min_insync_replicas(&self) -> String {
        self.settings.static_configs.int(MIN_INSYNC_REPLICAS).to_string()
    }
}
