//! Log directories that are full: others lead and are in sync until there is room again.
//!
//! The first append that finds no space marks the directory as full. From then on nothing is appended in it and nothing
//! fetched into it. Where enough others are in sync, this broker gives its replicas there up (`DirectoryId.LOST`, as for
//! logs that cannot be opened), so that the controller, Apache Kafka's too, has others lead and takes these out of the
//! ISRs. Reads, deletions and retention go on. As soon as `failover.directory.room.bytes` can be allocated, the replicas
//! are reported where they are, and catch up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use klamm_metadata::delta::PartitionDelta;
use klamm_metadata::directory_id;
use klamm_metadata::image::ClusterImage;
use klamm_metadata::image::partition::Partition as Registered;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::log_manager::{full_places, has_room_again, is_full};
use super::partition::Partition;
use super::replica_manager::ReplicaManager;
use crate::blocking;

/// How often a full directory is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Whether a log directory has room for records.
#[derive(Debug)]
pub(crate) struct DirectoryRoom {
    is_full: AtomicBool,
    /// A directory has become full. Shared by all directories.
    news: Arc<Notify>,
}

impl DirectoryRoom {
    pub(super) fn new(news: Arc<Notify>) -> Self {
        Self { is_full: AtomicBool::new(false), news }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire)
    }

    /// An append found no space.
    pub(crate) fn on_full(&self) {
        if !self.is_full.swap(true, Ordering::AcqRel) {
            self.news.notify_one();
        }
    }

    /// There is room again.
    pub(super) fn on_room(&self) {
        self.is_full.store(false, Ordering::Release);
    }
}

/// Gives up the replicas of directories that become full, and takes them back, for as long as it is polled.
pub(super) async fn watch(replicas: Arc<ReplicaManager>) {
    let mut known = BTreeSet::new();
    loop {
        let news = replicas.log_manager.room_news.notified();
        if known.is_empty() {
            news.await;
        } else {
            drop(tokio::time::timeout(LOOK_INTERVAL, news).await);
        }
        let replicas = Arc::clone(&replicas);
        known = blocking::run(move || replicas.look_for_room(known)).await;
    }
}

impl ReplicaManager {
    /// Gives up the replicas of directories that have become full, and takes back those of directories in `known` that
    /// have room again. Returns the directories that are full now.
    fn look_for_room(&self, known: BTreeSet<usize>) -> BTreeSet<usize> {
        let room_bytes = self.config.storage.room_bytes;
        let (again, mut known): (BTreeSet<_>, BTreeSet<_>) = known
            .into_iter()
            .filter(|place| self.log_manager.is_online(*place))
            .partition(|place| has_room_again(&self.log_manager, *place, room_bytes));
        for place in again {
            info!("{}: there is room again", self.log_manager.path_at(place).display());
            self.for_each_in(place, |change, image| {
                self.report_directories(&[change], image);
                self.wake_fetcher(change.key());
            });
        }
        for place in full_places(&self.log_manager) {
            if known.insert(place) {
                warn!(
                    "{} is full: nothing is written there, and others lead and are in sync instead of its replicas where \
                     they can, until {room_bytes} bytes are free",
                    self.log_manager.path_at(place).display()
                );
                self.for_each_in(place, |change, image| self.leave_full(change, image));
            }
        }
        known
    }

    /// Calls `act` for each open replica in a directory, with its state in the image that the replicas have applied.
    fn for_each_in(&self, place: usize, act: impl Fn(&PartitionDelta, &ClusterImage)) {
        let image = self.lock_applied();
        for partition in self.partitions.all() {
            let (topic, index) = (partition.topic(), partition.index());
            if self.log_manager.place_of(topic, index) != Some(place) {
                continue;
            }
            if let Some(change) = PartitionDelta::as_new(&image, partition.key()) {
                act(&change, &image);
            }
        }
    }

    /// Gives up the replica, if its directory is full and others are in sync.
    pub(super) fn leave_full(&self, change: &PartitionDelta, image: &ClusterImage) {
        let Some(partition) = self.partitions.get(change.topic.id, change.index) else { return };
        if is_left_to_others(self, &partition, &change.after, image) {
            self.assign_directory(change.key(), directory_id::LOST);
        }
    }
}

/// Whether this broker leaves a partition to others, because its directory is full. `known` is the partition in `image`.
pub(crate) fn is_left_to_others(
    replicas: &ReplicaManager,
    partition: &Partition,
    known: &Registered,
    image: &ClusterImage,
) -> bool {
    let min_isr = partition.config().min_insync_replicas;
    image.metadata_version().is_directory_assignment_supported()
        && is_full(&replicas.log_manager, partition.topic(), partition.index())
        && known.can_spare(replicas.config.node_id, min_isr)
}
