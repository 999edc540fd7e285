//! The group coordinators of this broker: one for each partition of `__consumer_offsets` that it
//! leads.
//!
//! Finds the coordinator of a group, and starts and ends coordinators as leadership moves. Decisions are made in
//! `klamm_coordinator`. (Kafka: `GroupCoordinatorService`, `CoordinatorRuntime`)

mod answer;
mod driver;
mod loader;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use klamm_coordinator::group::{DeletedTopic, GroupConfig, GroupShard, ListFilter, partition_for};
use klamm_coordinator::runtime::{Effects, RequestToken};
use klamm_metadata::delta::{ImageDelta, PartitionDelta};
use klamm_metadata::image::ClusterImage;
use klamm_protocol::ErrorCode;
use klamm_protocol::compression::Compression;
use klamm_protocol::ids::{BrokerId, PartitionIndex};
use klamm_protocol::messages::list_groups_response::ListedGroup;
use tokio::runtime::Handle;
use tracing::error;

pub(crate) use self::answer::PendingAnswer;
use self::driver::{Coordinator, Settings};
use crate::cluster::internal_topics::CONSUMER_OFFSETS;
use crate::config::{BrokerConfig, GroupsConfig};
use crate::replica::replica_manager::ReplicaManager;

fn settings(config: &GroupsConfig) -> Settings<GroupConfig> {
    let size = |value: i32| usize::try_from(value).unwrap_or_default();
    let compression = u8::try_from(config.offsets_topic_compression_codec)
        .ok()
        .and_then(|id| Compression::from_id(id).ok())
        .expect("the table allows the ids of codecs only");
    Settings {
        shard: GroupConfig {
            min_session_timeout_ms: config.min_session_timeout_ms,
            max_session_timeout_ms: config.max_session_timeout_ms,
            initial_rebalance_delay_ms: config.initial_rebalance_delay_ms,
            max_size: size(config.max_size),
            offset_metadata_max_size: size(config.offset_metadata_max_bytes),
            offsets_retention_ms: config.offsets_retention_ms,
            offsets_retention_check_interval_ms: config.offsets_retention_check_interval_ms,
            offset_commit_timeout_ms: i64::from(config.offset_commit_timeout_ms),
        },
        compression,
        load_buffer_bytes: u64::try_from(config.offsets_load_buffer_size).unwrap_or(1),
    }
}

/// The coordinators, by their partition.
pub(crate) struct GroupCoordinators {
    broker_id: BrokerId,
    settings: Settings<GroupConfig>,
    replicas: Arc<ReplicaManager>,
    runtime: Handle,
    coordinators: RwLock<BTreeMap<PartitionIndex, Arc<Coordinator<GroupShard>>>>,
}

impl GroupCoordinators {
    /// The coordinators of partitions that `replicas` leads.
    pub(crate) fn new(
        config: &BrokerConfig,
        replicas: Arc<ReplicaManager>,
        runtime: Handle,
    ) -> Self {
        Self {
            broker_id: config.node_id,
            settings: settings(&config.groups),
            replicas,
            runtime,
            coordinators: RwLock::default(),
        }
    }

    /// Starts and ends coordinators as the leaderships of `__consumer_offsets` move. Loading runs in the background.
    /// The partitions have already taken their roles.
    pub(crate) fn on_published(&self, delta: &ImageDelta, _image: &ClusterImage) {
        if delta.deleted_topics.iter().any(|topic| topic.name == CONSUMER_OFFSETS) {
            self.end_all();
        }
        self.forget_topics(delta);
        let moved = delta.changed_partitions.iter();
        for change in moved.filter(|change| change.topic.name == CONSUMER_OFFSETS) {
            if change.is_newly_led_by(self.broker_id) {
                self.end(change.index);
                self.begin(change);
            } else if change.after.leader != Some(self.broker_id) {
                self.end(change.index);
            }
        }
    }

    fn begin(&self, change: &PartitionDelta) {
        let Some(partition) = self.replicas.partitions.get(change.topic.id, change.index) else {
            // The reason has been logged. When the partition is open, this is called again.
            error!("{CONSUMER_OFFSETS}-{} is not open: its groups are not served", change.index);
            return;
        };
        let coordinator = Coordinator::start(partition, self.settings.clone(), &self.runtime);
        let other = self.write().insert(change.index, coordinator);
        if let Some(other) = other {
            other.end();
        }
    }

    fn end(&self, index: PartitionIndex) {
        let ended = self.write().remove(&index);
        if let Some(coordinator) = ended {
            coordinator.end();
        }
    }

    fn end_all(&self) {
        let ended = std::mem::take(&mut *self.write());
        ended.values().for_each(|coordinator| coordinator.end());
    }

    /// Deletes the offsets of deleted topics, outside the publisher's thread.
    fn forget_topics(&self, delta: &ImageDelta) {
        let deleted = delta.deleted_topics.iter();
        let deleted: Arc<[DeletedTopic]> = deleted
            .map(|topic| DeletedTopic { topic_id: topic.id, name: topic.name.clone() })
            .collect();
        if deleted.is_empty() {
            return;
        }
        for coordinator in self.all() {
            let deleted = Arc::clone(&deleted);
            self.runtime.spawn_blocking(move || {
                coordinator
                    .notify(move |shard, effects| shard.on_topics_deleted(&deleted, effects));
            });
        }
    }

    /// Ends all coordinators: nothing is appended afterwards.
    pub(crate) fn shut_down(&self) {
        self.end_all();
    }

    fn write(
        &self,
    ) -> std::sync::RwLockWriteGuard<'_, BTreeMap<PartitionIndex, Arc<Coordinator<GroupShard>>>>
    {
        self.coordinators.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<Coordinator<GroupShard>>> {
        let coordinators = self.coordinators.read().unwrap_or_else(PoisonError::into_inner);
        coordinators.values().map(Arc::clone).collect()
    }

    /// The coordinator of a group, if it is on this broker.
    fn coordinator_of(
        &self,
        image: &ClusterImage,
        group_id: &str,
    ) -> Result<Arc<Coordinator<GroupShard>>, ErrorCode> {
        let index = partition_of(image, group_id).ok_or(ErrorCode::NotCoordinator)?;
        let coordinators = self.coordinators.read().unwrap_or_else(PoisonError::into_inner);
        coordinators.get(&index).map(Arc::clone).ok_or(ErrorCode::NotCoordinator)
    }

    /// Sends a request to the coordinator of its group, which decides at once; the answer may come later.
    pub(crate) fn send_request(
        &self,
        image: &ClusterImage,
        group_id: &str,
        event: impl FnOnce(&mut GroupShard, RequestToken, &mut Effects<GroupShard>),
    ) -> PendingAnswer {
        let coordinator = self.coordinator_of(image, group_id);
        PendingAnswer(coordinator.and_then(|coordinator| coordinator.send_request(event)))
    }

    /// Like [`Self::send_request`], for requests in which an empty group id is invalid on every
    /// broker.
    pub(crate) fn send_member_request(
        &self,
        image: &ClusterImage,
        group_id: &str,
        event: impl FnOnce(&mut GroupShard, RequestToken, &mut Effects<GroupShard>),
    ) -> PendingAnswer {
        if group_id.is_empty() {
            return PendingAnswer(Err(ErrorCode::InvalidGroupId));
        }
        self.send_request(image, group_id, event)
    }

    /// Runs an event of the coordinator of a group whose answer needs no wait.
    pub(crate) fn call<R>(
        &self,
        image: &ClusterImage,
        group_id: &str,
        event: impl FnOnce(&mut GroupShard, &mut Effects<GroupShard>) -> R,
    ) -> Result<R, ErrorCode> {
        self.coordinator_of(image, group_id)?.call(event)
    }

    /// The groups of all coordinators of this broker.
    ///
    /// # Errors COORDINATOR_LOAD_IN_PROGRESS while any is loading: the list would be incomplete.
    pub(crate) fn list(&self, filter: &ListFilter) -> Result<Vec<ListedGroup>, ErrorCode> {
        let mut groups = Vec::new();
        for coordinator in self.all() {
            match coordinator.call(|shard, _| shard.on_list_groups(filter)) {
                Ok(listed) => groups.extend(listed),
                // Another broker coordinates these groups now, and lists them.
                Err(ErrorCode::NotCoordinator) => {}
                Err(code) => return Err(code),
            }
        }
        Ok(groups)
    }
}

/// The partition of `__consumer_offsets` that holds a group, if the topic exists.
pub(crate) fn partition_of(image: &ClusterImage, group_id: &str) -> Option<PartitionIndex> {
    let topic = image.topics.by_name(CONSUMER_OFFSETS)?;
    let partitions = i32::try_from(topic.partition_count()).ok().filter(|count| *count > 0)?;
    Some(partition_for(group_id, partitions))
}
