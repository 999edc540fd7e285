//! Opening the logs of replicas, and what becomes of those that cannot be opened.
//!
//! They are remembered with the reason (the table answers KAFKA_STORAGE_ERROR for them) and tried again, one for each log
//! directory at a time until there is room; then each takes the role that the newest image has for it. Meanwhile the
//! controller is told that this replica has lost its directory, where another is in sync: it moves the leadership and
//! takes this one out of the ISR, and hears of the real directory when the log is open.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use klamm_log::error::Severity;
use klamm_metadata::delta::{ImageDelta, PartitionDelta};
use klamm_metadata::directory_id;
use klamm_metadata::image::ClusterImage;
use klamm_metadata::image::configs::ConfigResource;
use klamm_metadata::known_replica::KnownReplica;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{ReplicaManager, go_on_with_move};
use crate::blocking;
use crate::replica::log_manager::OpenError;
use crate::replica::settings::partition_config;
use crate::replica::table::Unopened;
use klamm_protocol::ids::{TopicIdPartition, TopicPartition};

/// The pause before what could not be opened is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How many replicas a line of the log names.
const MAX_NAMED: usize = 5;

impl ReplicaManager {
    /// Opens the logs of replicas that are new here.
    pub(super) fn open(&self, changes: &[&PartitionDelta], image: &ClusterImage) {
        let broker = self.config.current();
        let is_open =
            |change: &PartitionDelta| self.partitions.get(change.topic.id, change.index).is_some();
        let closed = changes.iter().copied().filter(|change| !is_open(change));
        let mut vanished = Vanished::default();
        let closed = closed.filter(|change| !self.stays_closed(change, image, &mut vanished));
        let (missed, wanted): (Vec<_>, Vec<_>) = closed.partition(|change| is_missed(self, change));
        vanished.report();
        report_missed(self, &missed);
        let wanted = wanted.into_iter().map(|change| {
            if let Some(directory) = change.after.directory(self.config.node_id) {
                self.log_manager.prefer_recorded(&change.topic.name, change.index, directory);
            }
            let overrides = image.configs.of(&ConfigResource::topic(change.topic.name.clone()));
            let config = partition_config(&broker, &change.topic.name, overrides);
            (change.topic.name.clone(), change.topic.id, change.index, config)
        });
        let wanted: Vec<_> = wanted.collect();
        if !wanted.is_empty() {
            self.log_manager.cordon(|directory| self.is_cordoned(directory));
        }
        for opened in self.log_manager.open_all(wanted) {
            match opened {
                Ok(partition) => {
                    self.partitions.insert(Arc::clone(&partition));
                    go_on_with_move(self, &partition);
                }
                Err(failure) => self.on_unopened(&failure, image),
            }
        }
    }

    /// Keeps a replica closed whose log has vanished while the cluster counts on it. Others that have the records are
    /// to lead, and nobody if there are none; once nobody counts on this one, it begins anew.
    fn stays_closed(
        &self,
        change: &PartitionDelta,
        image: &ClusterImage,
        told: &mut Vanished,
    ) -> bool {
        let place = TopicPartition::new(change.topic.name.clone(), change.index);
        let replica = KnownReplica::of(change.topic.id, &change.after, self.config.node_id);
        let vanished = replica.and_then(|replica| self.log_manager.vanished_from(&place, &replica));
        let Some(dir) = vanished else { return false };
        let key = TopicIdPartition::new(change.topic.id, change.index);
        let reason = format!("{} was there before, and has vanished", dir.display());
        let unopened = Unopened { topic: place.topic, reason, is_worth_a_try: false };
        if self.partitions.insert_unopened(key, unopened) {
            told.note(&dir);
        }
        self.leave(key, Leaves::Vanished, image);
        true
    }

    fn on_unopened(&self, failure: &OpenError, image: &ClusterImage) {
        let key = TopicIdPartition::new(failure.topic_id, failure.index);
        let is_worth_a_try = match failure.source.severity() {
            Severity::Passes | Severity::Partition => true,
            // Heartbeats say so, of all its replicas at once.
            Severity::Directory | Severity::Node => false,
        };
        let (topic, reason) = (failure.topic.clone(), failure.source.to_string());
        if self.partitions.insert_unopened(key, Unopened { topic, reason, is_worth_a_try }) {
            error!("{failure}");
        }
        if is_worth_a_try {
            let is_begun = self.log_manager.is_begun(&failure.topic, failure.index);
            self.leave(key, Leaves::Unopened { is_begun }, image);
            self.unopened.notify_one();
        }
    }

    /// Tries to open what could not be opened, until `stop`, and calls `on_opened` with each that has been.
    pub(crate) async fn keep_opening(
        self: Arc<Self>,
        stop: CancellationToken,
        on_opened: impl Fn(&ImageDelta, &ClusterImage) + Send + Sync + 'static,
    ) {
        let on_opened = Arc::new(on_opened);
        stop.run_until_cancelled(async {
            loop {
                self.unopened.notified().await;
                tokio::time::sleep(RETRY_INTERVAL).await;
                let (replicas, on_opened) = (Arc::clone(&self), Arc::clone(&on_opened));
                blocking::run(move || replicas.open_again(&*on_opened)).await;
                if self.partitions.is_any_worth_a_try() {
                    self.unopened.notify_one();
                }
            }
        })
        .await;
    }

    /// Has the controller move what this replica is counted on for to others.
    fn leave(&self, key: TopicIdPartition, leaves: Leaves, image: &ClusterImage) {
        let id = self.config.node_id;
        let topic = image.topics.by_id(key.topic_id);
        let Some(known) = topic.and_then(|topic| topic.partition(key.partition)) else { return };
        // An eligible leader replica has all that was acknowledged, as one in sync has.
        let mut others = known.isr.iter().chain(&known.elr).filter(|other| **other != id);
        let others_have_it = others.next().is_some();
        let given_up = match leaves {
            Leaves::Unopened { .. } if !others_have_it => return,
            Leaves::Unopened { is_begun: false } => directory_id::NOT_BEGUN,
            Leaves::Unopened { is_begun: true } | Leaves::Vanished => directory_id::LOST,
        };
        let is_supported = image.metadata_version().is_directory_assignment_supported();
        if known.isr.contains(&id) && is_supported {
            self.assign_directory(key, given_up);
        }
    }

    /// Tries once more to open what could not be opened, and calls `on_opened` with the image and each replica that is open now.
    /// Blocks for the disk.
    fn open_again(self: &Arc<Self>, on_opened: &impl Fn(&ImageDelta, &ClusterImage)) {
        let mut still_lacking = BTreeSet::new();
        for key in self.partitions.all_unopened() {
            if self.stop.is_cancelled() {
                return;
            }
            let image = self.lock_applied();
            let Some(unopened) = self.partitions.unopened_at(key) else { continue };
            let place = self.log_manager.place_of(&unopened.topic, key.partition);
            // What has vanished is looked at with the next image that changes it.
            if place.is_none() && !unopened.is_worth_a_try {
                continue;
            }
            // One is enough to find out that the directory still lacks something.
            if still_lacking.contains(&place) {
                continue;
            }
            let Some(change) = as_change(key, &image) else {
                self.partitions.remove_unopened(key);
                continue;
            };
            let delta = ImageDelta::of_partitions(vec![change]);
            self.take_roles(delta.changed_partitions.iter().collect(), &delta, &image);
            if self.partitions.get(key.topic_id, key.partition).is_none() {
                still_lacking.insert(self.log_manager.place_of(&unopened.topic, key.partition));
                continue;
            }
            info!("{}-{} is open: {} has passed", unopened.topic, key.partition, unopened.reason);
            // Under the lock: no newer image may be applied in between.
            on_opened(&delta, &image);
        }
    }
}

/// Why a replica gives up what it is counted on for.
#[derive(Clone, Copy)]
enum Leaves {
    /// Its log is gone: nobody leads if nobody else can.
    Vanished,
    /// Its log will likely be open in a moment: it leaves if others can lead.
    Unopened {
        /// There is a log.
        is_begun: bool,
    },
}

/// Partition directories that have vanished, by the log directory that they were in.
#[derive(Default)]
struct Vanished(BTreeMap<PathBuf, Vec<String>>);

impl Vanished {
    fn note(&mut self, dir: &Path) {
        let (parent, name) = (dir.parent(), dir.file_name());
        let (parent, name) =
            parent.zip(name).expect("a partition's directory is in a log directory");
        let names = self.0.entry(parent.to_path_buf()).or_default();
        names.push(name.to_string_lossy().into_owned());
    }

    fn report(&self) {
        for (directory, names) in &self.0 {
            let more = if names.len() > MAX_NAMED { " and others" } else { "" };
            error!(
                "{} partitions stay offline: their directories were in {} before, and have vanished: {}{more}. If others have the \
                 records, they lead, and these are fetched from them; otherwise stop the node, put the directories back and start \
                 again. If they are lost for good, delete the topics, or see docs/operating.md",
                names.len(),
                directory.display(),
                names.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ")
            );
        }
    }
}

/// Whether the log of a replica must be in a directory that is not here.
fn is_missed(replicas: &ReplicaManager, change: &PartitionDelta) -> bool {
    let replica = KnownReplica::of(change.topic.id, &change.after, replicas.config.node_id);
    replicas.log_manager.place_of(&change.topic.name, change.index).is_none()
        && replica.is_some_and(|replica| replicas.log_manager.is_out_of_reach(&replica))
}

fn report_missed(replicas: &ReplicaManager, missed: &[&PartitionDelta]) {
    if missed.is_empty() {
        return;
    }
    for change in missed {
        if let Some(directory) = change.after.directory(replicas.config.node_id) {
            replicas.log_manager.note_missed(
                &TopicPartition::new(change.topic.name.clone(), change.index),
                directory,
            );
        }
    }
    let directories =
        missed.iter().filter_map(|change| change.after.directory(replicas.config.node_id));
    let directories: BTreeSet<String> =
        directories.map(|directory| format!("directory {directory}")).collect();
    let named = missed.iter().take(MAX_NAMED);
    let named = named.map(|change| format!("{}-{}", change.topic.name, change.index));
    let more = if missed.len() > MAX_NAMED { " and others" } else { "" };
    error!(
        "{} replicas stay offline, their logs are in {}, which is none of log.dirs: {}{more}. Mount the disk or put the path back \
         into log.dirs, and they are served again; if it is lost for good, see docs/operating.md",
        missed.len(),
        directories.into_iter().collect::<Vec<_>>().join(", "),
        named.collect::<Vec<_>>().join(", ")
    );
}

/// A replica as if the image were the first that has it.
fn as_change(key: TopicIdPartition, image: &ClusterImage) -> Option<PartitionDelta> {
    let topic = image.topics.shared_by_id(key.topic_id)?;
    let after = topic.partition(key.partition)?.clone();
    Some(PartitionDelta { topic, index: key.partition, before: None, after })
}
