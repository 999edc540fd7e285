//! The difference of two published images, which a broker's publisher applies.
//!
//! It is computed from the images themselves, not from the records between them, so that it is also correct after a
//! snapshot or a restart.

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, PartitionIndex, TopicIdPartition};

use crate::image::ClusterImage;
use crate::image::configs::ConfigResource;
use crate::image::partition::Partition;
use crate::image::topics::{Topic, TopicDifference};

/// The difference between two images.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageDelta {
    /// Deleted topics, in their last state. A topic that was deleted and created again with the same name is here and
    /// in `created_topics`.
    pub deleted_topics: Vec<Arc<Topic>>,
    /// Created topics.
    pub created_topics: Vec<Arc<Topic>>,
    /// Partitions that are new or differ; those of created topics too.
    pub changed_partitions: Vec<PartitionDelta>,
    /// Resources whose configuration differs. A deleted topic is not included.
    pub changed_configs: BTreeSet<ConfigResource>,
    /// Brokers that were added, removed or differ.
    pub changed_brokers: BTreeSet<BrokerId>,
    /// Whether a finalized feature level differs.
    pub features_changed: bool,
    /// Whether a client quota differs.
    pub client_quotas_changed: bool,
    /// Whether an access control entry differs.
    pub acls_changed: bool,
    /// Whether a SCRAM credential differs.
    pub scram_changed: bool,
}

/// A partition that is new or differs. A topic never loses partitions.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionDelta {
    /// The partition's topic in the new image.
    pub topic: Arc<Topic>,
    /// The partition's index.
    pub index: PartitionIndex,
    /// The partition before; none if it is new.
    pub before: Option<Partition>,
    /// The partition now.
    pub after: Partition,
}

impl PartitionDelta {
    /// A partition of an image, as if it were new there; none if the image does not have it.
    pub fn as_new(image: &ClusterImage, key: TopicIdPartition) -> Option<Self> {
        let topic = image.topics.shared_by_id(key.topic_id)?;
        let after = topic.partition(key.partition)?.clone();
        Some(Self { topic, index: key.partition, before: None, after })
    }

    /// The partition's topic id and index.
    pub fn key(&self) -> TopicIdPartition {
        TopicIdPartition::new(self.topic.id, self.index)
    }

    /// Whether this broker has a replica of it now.
    pub fn is_replica(&self, broker: BrokerId) -> bool {
        self.after.replicas.contains(&broker)
    }

    /// Whether this broker had a replica and has none any more, so that its log is deleted.
    pub fn is_removed_from(&self, broker: BrokerId) -> bool {
        !self.is_replica(broker)
            && self.before.as_ref().is_some_and(|before| before.replicas.contains(&broker))
    }

    /// Whether this broker leads it now in a new leader epoch.
    pub fn is_newly_led_by(&self, broker: BrokerId) -> bool {
        self.after.leader == Some(broker)
            && self
                .before
                .as_ref()
                .is_none_or(|before| before.leader_epoch != self.after.leader_epoch)
    }
}

impl ImageDelta {
    /// Compares two images.
    pub fn between(before: &ClusterImage, after: &ClusterImage) -> Self {
        let mut delta = Self {
            deleted_topics: Vec::new(),
            created_topics: Vec::new(),
            changed_partitions: Vec::new(),
            changed_configs: BTreeSet::new(),
            changed_brokers: BTreeSet::new(),
            features_changed: before.features != after.features,
            client_quotas_changed: before.client_quotas.differs_from(&after.client_quotas),
            acls_changed: before.acls.differs_from(&after.acls),
            scram_changed: before.scram.differs_from(&after.scram),
        };
        delta.compare_topics(before, after);
        delta.compare_configs(before, after);
        delta.compare_brokers(before, after);
        delta
    }

    /// A delta of these partitions only.
    pub fn of_partitions(changed_partitions: Vec<PartitionDelta>) -> Self {
        let nothing = ClusterImage::default();
        Self { changed_partitions, ..Self::between(&nothing, &nothing) }
    }

    /// Whether there is no change for a publisher.
    pub fn is_empty(&self) -> bool {
        self.deleted_topics.is_empty()
            && self.created_topics.is_empty()
            && self.changed_partitions.is_empty()
            && self.changed_configs.is_empty()
            && self.changed_brokers.is_empty()
            && !self.features_changed
            && !self.client_quotas_changed
            && !self.acls_changed
            && !self.scram_changed
    }

    fn compare_topics(&mut self, before: &ClusterImage, after: &ClusterImage) {
        for difference in before.topics.differences(&after.topics) {
            match difference {
                TopicDifference::Deleted(topic) => self.deleted_topics.push(Arc::clone(topic)),
                TopicDifference::Created(topic) => {
                    self.created_topics.push(Arc::clone(topic));
                    self.compare_partitions(None, topic);
                }
                TopicDifference::Changed(old, new) => self.compare_partitions(Some(old), new),
            }
        }
    }

    fn compare_partitions(&mut self, old: Option<&Arc<Topic>>, new: &Arc<Topic>) {
        for (index, after) in new.partitions() {
            let before = old.and_then(|topic| topic.partition(index));
            if before != Some(after) {
                self.changed_partitions.push(PartitionDelta {
                    topic: Arc::clone(new),
                    index,
                    before: before.cloned(),
                    after: after.clone(),
                });
            }
        }
    }

    fn compare_configs(&mut self, before: &ClusterImage, after: &ClusterImage) {
        if !before.configs.differs_from(&after.configs) {
            return;
        }
        let resources = before.configs.iter().chain(after.configs.iter());
        let changed = resources
            .map(|(resource, _)| resource)
            .filter(|resource| before.configs.of(resource) != after.configs.of(resource));
        let deleted: BTreeSet<_> = self
            .deleted_topics
            .iter()
            .filter(|topic| after.topics.by_name(&topic.name).is_none())
            .map(|topic| ConfigResource::topic(topic.name.clone()))
            .collect();
        self.changed_configs = changed.filter(|r| !deleted.contains(r)).cloned().collect();
    }

    fn compare_brokers(&mut self, before: &ClusterImage, after: &ClusterImage) {
        self.changed_brokers = before
            .brokers
            .iter()
            .chain(after.brokers.iter())
            .map(|broker| broker.id)
            .filter(|id| before.brokers.get(*id) != after.brokers.get(*id))
            .collect();
    }

    /// The ids of the deleted topics.
    pub fn deleted_topic_ids(&self) -> BTreeSet<Uuid> {
        self.deleted_topics.iter().map(|topic| topic.id).collect()
    }
}
