//! Applies committed metadata to this broker, in this order: dynamic configuration, partitions, the
//! image that everyone reads, coordinators.
//!
//! Runs on the metadata thread. A client that has been answered finds what it asked for done here.

use std::sync::Arc;

use klamm_metadata::config_def::BrokerConfigs;
use klamm_metadata::delta::{ImageDelta, PartitionDelta};
use klamm_metadata::image::ClusterImage;
use klamm_metadata::image::configs::{ConfigResource, ConfigResourceType};
use klamm_metadata::loader::MetadataLoader;
use klamm_replication::partition::Registration;
use tracing::{error, warn};

use crate::cluster::Published;
use crate::node::Node;
use crate::partition::settings::partition_config;

/// Applies images to a node.
pub(crate) struct Publisher {
    node: Arc<Node>,
    published: Arc<Published>,
}

impl Publisher {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, published: Arc::default() }
    }

    /// Publishes what the loader holds and what the quorum is at.
    pub(crate) fn publish(&mut self, loader: &MetadataLoader, kraft_version: i16) {
        let published = Arc::new(Published {
            image: loader.stable().clone(),
            end_offset: loader.end_offset(),
            kraft_version,
        });
        let before = std::mem::replace(&mut self.published, Arc::clone(&published));
        let delta = ImageDelta::between(&before.image, &published.image);
        if delta.is_empty() {
            self.node.cluster.publish(published);
            return;
        }
        if before.end_offset == 0 {
            let topics = &published.image.topics;
            self.node.store.set_strays_aside(|topic, index| {
                topics.by_name(topic).is_some_and(|topic| topic.partition(index).is_some())
            });
        }
        self.apply_configs(&delta, &published.image);
        self.apply_partitions(&delta, &published.image);
        self.node.cluster.publish(Arc::clone(&published));
        self.node.groups.on_published(&delta, &published.image);
    }

    fn apply_configs(&self, delta: &ImageDelta, image: &ClusterImage) {
        let of_brokers = delta
            .changed_configs
            .iter()
            .any(|resource| resource.type_ == ConfigResourceType::Broker);
        if of_brokers {
            self.apply_broker_configs(image);
            for partition in self.node.partitions.all() {
                let overrides = image.configs.of(&ConfigResource::topic(partition.topic().clone()));
                let configs = self.node.configs();
                partition.set_config(partition_config(&configs, partition.topic(), overrides));
            }
        }
        for resource in &delta.changed_configs {
            if resource.type_ != ConfigResourceType::Topic {
                continue;
            }
            let Some(topic) = image.topics.by_name(&resource.name) else { continue };
            let overrides = image.configs.of(resource);
            let configs = self.node.configs();
            for (index, _) in topic.partitions() {
                if let Some(partition) = self.node.partitions.get(topic.id, index) {
                    partition.set_config(partition_config(&configs, &topic.name, overrides));
                }
            }
        }
    }

    fn apply_broker_configs(&self, image: &ClusterImage) {
        let mut configs = BrokerConfigs::clone(&self.node.configs());
        let of_all = image.configs.of(&ConfigResource::all_brokers());
        let mut ignored = configs.set_dynamic_default((*of_all).clone());
        let of_this = image.configs.of(&ConfigResource::broker(self.node.config.node_id));
        ignored.extend(configs.set_dynamic_broker((*of_this).clone()));
        if !ignored.is_empty() {
            warn!("dynamic broker configurations without effect here: {}", ignored.join(", "));
        }
        self.node.set_configs(configs);
    }

    fn apply_partitions(&self, delta: &ImageDelta, image: &ClusterImage) {
        for topic in &delta.deleted_topics {
            for (index, _) in topic.partitions() {
                if let Some(partition) = self.node.partitions.remove(topic.id, index) {
                    self.node.store.delete(&partition);
                }
            }
        }
        let here = |change: &&PartitionDelta| change.is_replica(self.node.config.node_id);
        let mut opened = Vec::new();
        for change in delta.changed_partitions.iter().filter(here) {
            if self.node.partitions.get(change.topic.id, change.index).is_none() {
                opened.push(change);
            }
        }
        self.open(&opened, image);
        for change in delta.changed_partitions.iter().filter(here) {
            self.take_role(change);
        }
    }

    fn open(&self, changes: &[&PartitionDelta], image: &ClusterImage) {
        let configs = self.node.configs();
        let wanted = changes.iter().map(|change| {
            let overrides = image.configs.of(&ConfigResource::topic(change.topic.name.clone()));
            let config = partition_config(&configs, &change.topic.name, overrides);
            (change.topic.name.clone(), change.topic.id, change.index, config)
        });
        for opened in self.node.store.open_all(wanted.collect()) {
            match opened {
                Ok(partition) => self.node.partitions.insert(partition),
                Err(failure) => error!("{failure}"),
            }
        }
    }

    fn take_role(&self, change: &PartitionDelta) {
        let Some(partition) = self.node.partitions.get(change.topic.id, change.index) else {
            return;
        };
        if change.after.leader != self.node.config.node_id {
            partition.follow();
            return;
        }
        partition.lead(&Registration {
            leader_epoch: change.after.leader_epoch,
            partition_epoch: change.after.partition_epoch,
            replicas: change.after.replicas.clone(),
            isr: change.after.isr.clone(),
        });
    }
}
