//! Opens the logs of replicas, and retries those that cannot be opened.
//!
//! The table keeps such a replica with the reason, and answers KAFKA_STORAGE_ERROR for it. It is tried again, one per
//! log directory until there is room; when it is open, it takes the role that the newest image has for it. If another
//! replica is in the ISR or ELR, this broker meanwhile reports the directory of its replica as given up (`LOST`, or
//! `NOT_BEGUN` if there never was a log): the controller moves the leadership and removes the replica from the ISR. The
//! real directory is reported when the log is open.

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

use super::{ReplicaManager, resume_move};
use crate::blocking;
use crate::replica::log_manager::{OpenError, may_be_elsewhere};
use crate::replica::settings::partition_config;
use crate::replica::table::Unopened;
use klamm_protocol::ids::{TopicIdPartition, TopicPartition};

/// The pause before logs that could not be opened are tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Why a replica is not opened whose log was about to move to another directory.
const ELSEWHERE: &str =
    "its log is not where it should be, and may be in a log directory that is not in use";
/// The maximum number of replicas that one log line names.
const MAX_NAMED: usize = 5;

impl ReplicaManager {
    /// Opens the logs of replicas that are not open.
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
                    resume_move(self, &partition);
                }
                Err(failure) => self.on_unopened(&failure, image),
            }
        }
    }

    /// Keeps a replica closed whose log has vanished, or may be in a directory that is not in use, while it is in the ISR or ELR.
    /// Another replica that has the records must lead, or none; once this one is in neither and another leads, it starts
    /// with the copy or an empty log.
    fn stays_closed(
        &self,
        change: &PartitionDelta,
        image: &ClusterImage,
        vanished: &mut Vanished,
    ) -> bool {
        let place = TopicPartition::new(change.topic.name.clone(), change.index);
        let replica = KnownReplica::of(change.topic.id, &change.after, self.config.node_id);
        let Some(replica) = replica else { return false };
        let dir = self.log_manager.vanished_from(&place, &replica);
        let reason = match &dir {
            Some(dir) => format!("{} was there before, and has vanished", dir.display()),
            None if may_be_elsewhere(&self.log_manager, &place, &replica) => ELSEWHERE.to_owned(),
            None => return false,
        };
        let key = change.key();
        let (topic, is_worth_a_try) = (place.topic, false);
        let is_news =
            self.partitions.insert_unopened(key, Unopened { topic, reason, is_worth_a_try });
        match &dir {
            Some(dir) if is_news => vanished.note(dir),
            None if is_news => {
                let (topic, index) = (&change.topic.name, change.index);
                error!(%topic, partition = index, "{topic}-{index} stays offline: {ELSEWHERE}");
            }
            _ => {}
        }
        let reason = match dir {
            Some(_) => LeaveReason::Vanished,
            // It may be back any time, and then has what nobody else has.
            None => LeaveReason::Unopened { is_begun: true },
        };
        self.leave(key, reason, image);
        true
    }

    fn on_unopened(&self, failure: &OpenError, image: &ClusterImage) {
        let key = TopicIdPartition::new(failure.topic_id, failure.index);
        let is_worth_a_try = match failure.source.severity() {
            Severity::Passes | Severity::Partition => true,
            // Heartbeats report the directory as failed, with all its replicas.
            Severity::Directory | Severity::Node => false,
        };
        let (topic, reason) = (failure.topic.clone(), failure.source.to_string());
        if self.partitions.insert_unopened(key, Unopened { topic, reason, is_worth_a_try }) {
            error!("{failure}");
        }
        if is_worth_a_try {
            let is_begun = self.log_manager.is_begun(&failure.topic, failure.index);
            self.leave(key, LeaveReason::Unopened { is_begun }, image);
            self.unopened.notify_one();
        }
    }

    /// Retries the logs that could not be opened, until `stop`, and calls `on_opened` for each that opens.
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

    /// Reports the replica's directory as given up, so that the controller moves the leadership and removes it from the
    /// ISR.
    fn leave(&self, key: TopicIdPartition, reason: LeaveReason, image: &ClusterImage) {
        let id = self.config.node_id;
        let topic = image.topics.by_id(key.topic_id);
        let Some(known) = topic.and_then(|topic| topic.partition(key.partition)) else { return };
        // A replica in the ELR has all committed records, as one in the ISR has.
        let mut others = known.isr.iter().chain(&known.elr).filter(|other| **other != id);
        let others_have_it = others.next().is_some();
        let given_up = match reason {
            LeaveReason::Unopened { .. } if !others_have_it => return,
            LeaveReason::Unopened { is_begun: false } => directory_id::NOT_BEGUN,
            LeaveReason::Unopened { is_begun: true } | LeaveReason::Vanished => directory_id::LOST,
        };
        let is_supported = image.metadata_version().is_directory_assignment_supported();
        if known.isr.contains(&id) && is_supported {
            self.assign_directory(key, given_up);
        }
    }

    /// Retries all logs that could not be opened once, and calls `on_opened` for each that opens. Blocks for the disk.
    fn open_again(self: &Arc<Self>, on_opened: &impl Fn(&ImageDelta, &ClusterImage)) {
        let mut still_lacking = BTreeSet::new();
        for key in self.partitions.all_unopened() {
            if self.stop.is_cancelled() {
                return;
            }
            let image = self.lock_applied();
            let Some(unopened) = self.partitions.unopened_at(key) else { continue };
            let place = self.log_manager.place_of(&unopened.topic, key.partition);
            // A log that has vanished is checked with the next image that changes the partition.
            if place.is_none() && !unopened.is_worth_a_try {
                continue;
            }
            // One failure shows that the directory still lacks space or descriptors.
            if still_lacking.contains(&place) {
                continue;
            }
            let Some(change) = PartitionDelta::as_new(&image, key) else {
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
            // The lock is held: no newer image may be applied before this call.
            on_opened(&delta, &image);
        }
    }
}

/// Why a replica leaves the ISR.
#[derive(Clone, Copy)]
enum LeaveReason {
    /// Its log is gone. It leaves even if no other replica can lead.
    Vanished,
    /// Its log may open at a later attempt. It leaves only if another replica can lead.
    Unopened {
        /// The replica has a partition directory.
        is_begun: bool,
    },
}

/// Names of partition directories that have vanished, by log directory.
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

/// Whether the log of a replica must be in a directory that is not mounted.
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
