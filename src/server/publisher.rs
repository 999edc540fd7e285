//! Applies committed metadata to this node, in this order: dynamic configuration, partitions, the image that handlers
//! read, coordinators.
//!
//! Partitions are opened when the image has the broker's own registration. The dynamic configuration does not wait for
//! it, because a controller has one too.
//!
//! Runs on a thread of its own: opening logs takes its time, and the quorum must not wait for it. When a client gets
//! the answer to a change, this node has applied it.

use std::sync::Arc;
use std::thread::JoinHandle;

use klamm_metadata::config_def::Configs;
use klamm_metadata::delta::ImageDelta;
use klamm_metadata::image::ClusterImage;
use klamm_metadata::image::configs::{ConfigResource, ConfigResourceType};
use tracing::{error, warn};

use crate::api::services::Services;
use crate::broker_session::BrokerSession;
use crate::config::dynamic::{self, DynamicBrokerConfig};
use crate::controller::publications::Publications;
use crate::coordinator::GroupCoordinators;
use crate::metadata_cache::{MetadataCache, PublishedImage};
use crate::owner::OwnerGuard;
use crate::replica::replica_manager::ReplicaManager;
use crate::replica::settings::partition_config;

/// Applies images to this node.
pub(crate) struct Publisher {
    config: Arc<DynamicBrokerConfig>,
    session: Arc<BrokerSession>,
    metadata_cache: Arc<MetadataCache>,
    replicas: Arc<ReplicaManager>,
    groups: Arc<GroupCoordinators>,
    applied: Arc<PublishedImage>,
    /// The dynamic configuration that is in force: of all brokers, and of this node.
    dynamic_configs: (Configs, Configs),
    /// An image has had the registration of this process.
    caught_up: bool,
    /// The log has said that this broker does not enforce the cluster's client quotas.
    quotas_reported: bool,
}

impl Publisher {
    pub(crate) fn new(services: &Services) -> Self {
        Self {
            config: Arc::clone(&services.config),
            session: Arc::clone(&services.session),
            metadata_cache: Arc::clone(&services.metadata_cache),
            replicas: Arc::clone(&services.replicas),
            groups: Arc::clone(&services.groups),
            applied: Arc::default(),
            dynamic_configs: Default::default(),
            caught_up: false,
            quotas_reported: false,
        }
    }

    /// Applies images until [`Publications::stop`]. A panic stops the node: it would serve an older state than the
    /// committed one.
    pub(crate) fn start(
        mut self,
        publications: Arc<Publications>,
    ) -> std::io::Result<JoinHandle<()>> {
        let owner = OwnerGuard::of("applying the metadata", &self.session.failed);
        std::thread::Builder::new().name("publisher".to_owned()).spawn(move || {
            let _owner = owner;
            while let Some((published, completions)) = publications.take() {
                if let Some(published) = published {
                    self.publish(published);
                }
                for completion in completions {
                    completion(Ok(()));
                }
            }
        })
    }

    fn publish(&mut self, published: PublishedImage) {
        let published = Arc::new(published);
        if !self.caught_up {
            // Older images may have partitions that were deleted since, whose names may belong to new ones: no log is
            // opened for them. An image with this process's registration is as new as its start.
            let own = published.image.brokers.get(self.config.node_id);
            let own = own.filter(|own| own.incarnation_id == self.session.incarnation_id);
            let Some(own) = own else {
                self.apply_broker_configs(&published.image);
                self.metadata_cache.publish(published);
                return;
            };
            self.caught_up = true;
            self.session.on_own_registration(own.epoch);
            self.replicas.settle(&published.image);
        }
        self.report_unenforced_quotas(&published.image);
        let before = std::mem::replace(&mut self.applied, Arc::clone(&published));
        let delta = ImageDelta::between(&before.image, &published.image);
        if delta.is_empty() {
            self.metadata_cache.publish(published);
            return;
        }
        self.apply_configs(&delta, &published.image);
        self.replicas.on_published(&delta, &published.image);
        self.metadata_cache.publish(Arc::clone(&published));
        self.groups.on_published(&delta, &published.image);
    }

    /// Logs once that client quotas in the metadata are not enforced. Apache Kafka would throttle the clients.
    fn report_unenforced_quotas(&mut self, image: &ClusterImage) {
        let has_quotas = image.client_quotas.iter().next().is_some();
        if has_quotas && !std::mem::replace(&mut self.quotas_reported, true) {
            error!(
                "the metadata log has client quotas, which this version of Klamm does not enforce yet: \
                 no client is slowed down by this broker"
            );
        }
    }

    fn apply_configs(&mut self, delta: &ImageDelta, image: &ClusterImage) {
        let of_brokers = delta
            .changed_configs
            .iter()
            .any(|resource| resource.type_ == ConfigResourceType::Broker);
        if of_brokers {
            self.apply_broker_configs(image);
            for partition in self.replicas.partitions.all() {
                let overrides = image.configs.of(&ConfigResource::topic(partition.topic().clone()));
                let config = self.config.current();
                partition.set_config(partition_config(&config, partition.topic(), overrides));
            }
        }
        for resource in &delta.changed_configs {
            if resource.type_ != ConfigResourceType::Topic {
                continue;
            }
            let Some(topic) = image.topics.by_name(&resource.name) else { continue };
            let overrides = image.configs.of(resource);
            let config = self.config.current();
            for (index, _) in topic.partitions() {
                if let Some(partition) = self.replicas.partitions.get(topic.id, index) {
                    partition.set_config(partition_config(&config, &topic.name, overrides));
                }
            }
        }
    }

    /// Applies the dynamic configuration of this node, if it has changed.
    fn apply_broker_configs(&mut self, image: &ClusterImage) {
        let of_all = image.configs.of(&ConfigResource::all_brokers());
        let of_this = image.configs.of(&ConfigResource::broker(self.config.node_id));
        if (of_all, of_this) == (&self.dynamic_configs.0, &self.dynamic_configs.1) {
            return;
        }
        self.dynamic_configs = (of_all.clone(), of_this.clone());
        let mut configs = self.config.current().configs.clone();
        let mut ignored = configs.set_dynamic_default(of_all.clone());
        ignored.extend(configs.set_dynamic_broker(of_this.clone()));
        if !ignored.is_empty() {
            warn!("dynamic broker configurations without effect here: {}", ignored.join(", "));
        }
        for refusal in dynamic::without_effect(&configs) {
            error!("a dynamic configuration of this broker has no effect: {refusal}");
        }
        self.config.replace(configs);
        self.session.heartbeat_due.notify_one();
    }
}
