//! The replicas of this broker as the cluster metadata has them: which it holds, which it leads, and from which broker
//! it fetches the others (Kafka's `ReplicaManager.applyDelta`, `AbstractFetcherManager`).
//!
//! The publisher calls `on_published` with every new image, on its thread; what a replica's role means is in
//! [`super::partition`]. Followers start before leaders, as in Kafka: their fetching takes its time. A log that cannot
//! be opened is tried again with the newest image: see [`opening`].

mod opening;

use klamm_protocol::ids::TopicIdPartition;
use klamm_protocol::ids::TopicPartition;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_metadata::delta::{ImageDelta, PartitionDelta};
use klamm_metadata::image::ClusterImage;
use klamm_metadata::known_replica::KnownReplica;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, PartitionIndex};
use klamm_protocol::{ErrorCode, Uuid};
use klamm_replication::partition::{BrokerStatus, IsrProposal, Registration};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::alter_log_dirs::ReplicaAlterLogDirs;
use super::alter_partition::AlterPartitions;
use super::directories::{self, DirectoryAssignments};
use super::fetcher::{Assignment, Fetcher, FetcherOptions};
use super::held_back;
use super::log_manager::{DirectoryStatus, LogManager, end_of, is_full};
use super::partition::{BrokerStatuses, Partition};
use super::repair;
use super::room;
use super::table::{LookupError, PartitionTable};
use super::throttle::ReplicationQuota;
use crate::broker_session::BrokerSession;
use crate::clock;
use crate::config::dynamic::{self, DynamicBrokerConfig};
use crate::controller::channel::ControllerChannel;
use crate::controller::handle::ControllerHandle;
use crate::metadata_cache::MetadataCache;
use crate::net::peer::PeerAddress;
use crate::owner::OwnerGuard;

/// A fetcher: its leader broker, and which of the `num.replica.fetchers` for it.
type FetcherKey = (BrokerId, u32);

/// Assigns a replica to a fetcher, or removes it from its fetcher.
struct FetcherChange {
    key: TopicIdPartition,
    /// The new fetcher, the replica and the leader epoch that it follows; `None` to remove it.
    to: Option<(FetcherKey, Arc<Partition>, LeaderEpoch)>,
}

#[derive(Default)]
struct Fetchers {
    running: BTreeMap<FetcherKey, watch::Sender<Arc<Assignment>>>,
    places: BTreeMap<TopicIdPartition, FetcherKey>,
}

/// The parts of the node that the replicas share with others.
pub(crate) struct Shared {
    pub(crate) config: Arc<DynamicBrokerConfig>,
    pub(crate) session: Arc<BrokerSession>,
    pub(crate) metadata_cache: Arc<MetadataCache>,
}

/// See the module.
pub(crate) struct ReplicaManager {
    pub(crate) config: Arc<DynamicBrokerConfig>,
    pub(crate) session: Arc<BrokerSession>,
    pub(crate) metadata_cache: Arc<MetadataCache>,
    pub(crate) log_manager: LogManager,
    pub(crate) partitions: PartitionTable,
    runtime: Handle,
    /// The image that the replicas last applied. Locked while one is being applied.
    applied: Mutex<ClusterImage>,
    /// Some replica could not be opened.
    unopened: Notify,
    /// DeleteRecords has moved a log start offset: wakes the maintenance task, which checkpoints it.
    pub(crate) log_starts_moved: Notify,
    fetchers: Mutex<Fetchers>,
    proposals: Arc<AlterPartitions>,
    directories: Arc<DirectoryAssignments>,
    pub(crate) alter_log_dirs: Arc<ReplicaAlterLogDirs>,
    /// Bytes sent to throttled followers of this broker's leaders.
    pub(crate) leader_quota: ReplicationQuota,
    /// Bytes fetched for throttled followers on this broker.
    pub(crate) follower_quota: ReplicationQuota,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl ReplicaManager {
    /// Starts the tasks of the replicas. Logs are opened when the first image is published.
    pub(crate) fn start(
        shared: Shared,
        log_manager: LogManager,
        controller: &ControllerHandle,
        runtime: Handle,
    ) -> Arc<Self> {
        let Shared { config, session, metadata_cache } = shared;
        let replicas = Arc::new(Self {
            config,
            session,
            metadata_cache,
            log_manager,
            runtime,
            partitions: PartitionTable::default(),
            applied: Mutex::default(),
            unopened: Notify::new(),
            log_starts_moved: Notify::new(),
            fetchers: Mutex::default(),
            proposals: Arc::default(),
            directories: Arc::default(),
            alter_log_dirs: Arc::default(),
            leader_quota: ReplicationQuota::default(),
            follower_quota: ReplicationQuota::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        replicas.start_tasks(controller);
        replicas
    }

    fn start_tasks(self: &Arc<Self>, controller: &ControllerHandle) {
        let channel = |purpose| ControllerChannel::new(&self.config, controller, purpose);
        let to_controller = channel("alter-partition");
        let (proposals, replicas) = (Arc::clone(&self.proposals), Arc::clone(self));
        self.own("AlterPartition", async move {
            let broker_epoch = || replicas.session.broker_epoch();
            proposals.run(replicas.config.node_id, &to_controller, broker_epoch).await;
        });
        let to_controller = channel("assign-replicas-to-dirs");
        let (directories, replicas) = (Arc::clone(&self.directories), Arc::clone(self));
        self.own("AssignReplicasToDirs", async move {
            directories.run(&replicas, &to_controller).await;
        });
        let (alter_log_dirs, replicas) = (Arc::clone(&self.alter_log_dirs), Arc::clone(self));
        self.own("moving replicas to other log directories", async move {
            alter_log_dirs.run(replicas).await;
        });
        self.own("checking the ISRs", check_isrs(Arc::clone(self)));
        self.own("looking for silent followers", held_back::run(Arc::clone(self)));
        let failures = directories::watch_failures(Arc::clone(self));
        self.own("watching for log directories that fail", failures);
        self.own("watching for log directories that are full", room::watch(Arc::clone(self)));
        self.own("repairing damaged segments", repair::run(Arc::clone(self)));
        self.own("scrubbing segments", repair::scrub(Arc::clone(self)));
    }

    /// Runs a task until [`Self::stop`]. A panic in it stops the node.
    fn own(&self, what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let owner = OwnerGuard::of(what, &self.session.failed);
        self.tasks.spawn_on(owner.run(self.until_stopped(task)), &self.runtime);
    }

    fn until_stopped<F: Future<Output = ()>>(&self, task: F) -> impl Future<Output = ()> + use<F> {
        let stop = self.stop.clone();
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        }
    }

    /// Stops the fetchers and all other tasks.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        *self.lock() = Fetchers::default();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The partition that a request names, if this broker has a replica of it.
    pub(crate) fn replica(
        &self,
        image: &ClusterImage,
        topic: &str,
        index: PartitionIndex,
    ) -> Result<Arc<Partition>, ErrorCode> {
        let topic_id = topic_id(image, topic, index)?;
        self.partitions.replica(topic_id, index).map_err(LookupError::code)
    }

    /// The partition that a request names, if this broker leads it.
    pub(crate) fn leader(
        &self,
        image: &ClusterImage,
        topic: &str,
        index: PartitionIndex,
    ) -> Result<Arc<Partition>, ErrorCode> {
        let topic_id = topic_id(image, topic, index)?;
        self.partitions.leader(topic_id, index).map_err(LookupError::code)
    }

    /// Whether a log directory takes no new replicas (KIP-1066).
    pub(crate) fn is_cordoned(&self, directory: &DirectoryStatus) -> bool {
        self.metadata_cache.image().metadata_version().is_cordoned_log_dirs_supported()
            && dynamic::is_cordoned(&self.config.current().configs, &directory.path)
    }

    /// Proposes a change of a partition's ISR to the controller (AlterPartition).
    pub(crate) fn propose(&self, partition: &Arc<Partition>, proposal: IsrProposal) {
        self.proposals.propose(Arc::clone(partition), proposal);
    }

    /// Reports to the controller in which directory a replica lies (AssignReplicasToDirs). A move has to announce its
    /// target again.
    pub(super) fn assign_directory(&self, key: TopicIdPartition, directory: Uuid) {
        self.alter_log_dirs.on_other_report(key, || self.directories.assign(key, directory));
    }

    /// Reports the directory that a replica moves to.
    pub(super) fn announce_directory(&self, key: TopicIdPartition, directory: Uuid) {
        self.directories.assign(key, directory);
    }

    /// Wakes the fetcher of a replica that can be fetched again.
    pub(super) fn wake_fetcher(&self, key: TopicIdPartition) {
        let fetchers = self.lock();
        let place = fetchers.places.get(&key);
        if let Some(fetcher) = place.and_then(|place| fetchers.running.get(place)) {
            fetcher.send_modify(|_| {});
        }
    }

    fn lock(&self) -> MutexGuard<'_, Fetchers> {
        self.fetchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares the logs found in newly used directories with an image. Closes a log where a found one replaces it.
    pub(crate) fn settle(self: &Arc<Self>, image: &ClusterImage) {
        let id = self.config.node_id;
        let known = |topic: &str, index| KnownReplica::find(image, id, topic, index);
        let open = |TopicPartition { topic, partition: index }: &TopicPartition| {
            let partition = self.partitions.get(image.topics.by_name(topic)?.id, *index)?;
            Some(end_of(&partition.view()?))
        };
        self.log_manager.note_topics(image.topics.iter().map(|topic| topic.id));
        for (key, place) in self.log_manager.settle(&known, &open) {
            let Some(topic) = image.topics.by_name(&key.topic) else { continue };
            let Some(partition) = self.partitions.remove(topic.id, key.partition) else { continue };
            self.change_fetchers(vec![FetcherChange {
                key: TopicIdPartition::new(topic.id, key.partition),
                to: None,
            }]);
            self.log_manager.displace(&partition, key, place);
        }
    }

    /// Applies a new image: opens, closes, leads and follows.
    pub(crate) fn on_published(self: &Arc<Self>, delta: &ImageDelta, image: &ClusterImage) {
        let id = self.config.node_id;
        let mut applied = self.lock_applied();
        *applied = image.clone();
        self.log_manager.note_topics(delta.created_topics.iter().map(|topic| topic.id));
        self.remove(delta);
        let changed: BTreeSet<TopicIdPartition> =
            delta.changed_partitions.iter().map(PartitionDelta::key).collect();
        let returned = self.settle_returned(image);
        let returned = returned.iter().flat_map(|all| &all.changed_partitions);
        let returned = returned.filter(|change| !changed.contains(&change.key()));
        let here = |change: &&PartitionDelta| change.is_replica(id);
        let here = delta.changed_partitions.iter().chain(returned).filter(here);
        self.take_roles(here.collect(), delta, image);
        apply_broker_statuses(self, delta, &statuses(image));
    }

    pub(super) fn lock_applied(&self) -> MutexGuard<'_, ClusterImage> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The replicas of directories that are back and registered with the controller again, as if they were new.
    fn settle_returned(self: &Arc<Self>, image: &ClusterImage) -> Option<ImageDelta> {
        let mut ids = self.log_manager.unsettled_ids();
        let registered = image.brokers.get(self.config.node_id)?;
        ids.retain(|id| registered.directories.contains(id));
        if ids.is_empty() {
            return None;
        }
        self.log_manager.find_returned(&ids);
        self.settle(image);
        self.partitions.all().iter().for_each(|partition| resume_move(self, partition));
        let mut delta = ImageDelta::between(&ClusterImage::default(), image);
        let is_open =
            |change: &PartitionDelta| self.partitions.get(change.topic.id, change.index).is_some();
        delta.changed_partitions.retain(|change| !is_open(change));
        Some(delta)
    }

    /// Opens the replicas that are not open, and makes all of them leaders or followers.
    fn take_roles(
        self: &Arc<Self>,
        here: Vec<&PartitionDelta>,
        delta: &ImageDelta,
        image: &ClusterImage,
    ) {
        let id = self.config.node_id;
        self.open(&here, image);
        self.report_directories(&here, image);
        here.iter().for_each(|change| self.leave_full(change, image));
        let (led, followed): (Vec<_>, Vec<_>) =
            here.into_iter().partition(|change| change.after.leader == Some(id));
        let fetchers = fetcher_count(self);
        let fetched = followed.into_iter().filter_map(|change| follow(self, change, fetchers));
        let fetched: Vec<FetcherChange> = fetched.collect();
        let ended = led.iter().map(|change| FetcherChange { key: change.key(), to: None });
        self.assign(ended.chain(fetched).collect(), delta, image);
        let statuses = statuses(image);
        for change in led {
            if let Some(partition) = self.partitions.get(change.topic.id, change.index) {
                partition.lead(&registration(change), &statuses);
            }
        }
    }

    /// Reports the directory of each replica where the metadata has none or another.
    pub(super) fn report_directories(&self, changes: &[&PartitionDelta], image: &ClusterImage) {
        if !image.metadata_version().is_directory_assignment_supported() {
            return;
        }
        for change in changes {
            let Some(recorded) = change.after.directory(self.config.node_id) else { continue };
            let partition = self.partitions.get(change.topic.id, change.index);
            // A replica that is not open, or lacks records, must stay out of the ISR, so its directory is not reported. One
            // that has failed is: the metadata may look for the replica in another.
            let has_failed = || {
                let place = self.log_manager.place_of(&change.topic.name, change.index);
                place.is_some_and(|place| !self.log_manager.is_online(place))
            };
            let is_usable = has_failed()
                || partition.is_some_and(|partition| {
                    !(partition.is_offline() || partition.damage().is_refetching())
                });
            // What was given up for want of room stays so until there is some.
            let lies_in_full = is_full(&self.log_manager, &change.topic.name, change.index);
            if !is_usable || lies_in_full || self.alter_log_dirs.is_announced(change.key()) {
                continue;
            }
            let actual = self.log_manager.directory_id_for(&change.topic.name, change.index);
            let is_news = |actual: &Uuid| {
                *actual != recorded
                    || directories::waits_for_election(&change.after, self.config.node_id)
            };
            if let Some(actual) = actual.filter(is_news) {
                self.assign_directory(change.key(), actual);
            }
        }
    }

    /// Removes the replicas of deleted topics, and those that a reassignment has taken from this broker.
    fn remove(self: &Arc<Self>, delta: &ImageDelta) {
        let id = self.config.node_id;
        let deleted = delta.deleted_topics.iter().flat_map(|topic| {
            let keys = topic.partitions().map(|(index, _)| TopicIdPartition::new(topic.id, index));
            keys.collect::<Vec<_>>()
        });
        let moved = delta.changed_partitions.iter().filter(|change| change.is_removed_from(id));
        let mut any = false;
        for key in deleted.chain(moved.map(PartitionDelta::key)) {
            if let Some(unopened) = self.partitions.remove_unopened(key) {
                self.log_manager.delete_unopened(&unopened.topic, key.partition);
                any = true;
            }
            let Some(partition) = self.partitions.remove(key.topic_id, key.partition) else {
                continue;
            };
            self.change_fetchers(vec![FetcherChange { key, to: None }]);
            self.log_manager.delete(&partition);
            any = true;
        }
        if any {
            // A new partition of the same name may be created, to which the old entries do not apply.
            self.log_manager.write_checkpoints(&self.partitions.all());
        }
    }

    /// Assigns replicas to fetchers and updates the fetchers' leader addresses.
    fn assign(
        self: &Arc<Self>,
        changes: Vec<FetcherChange>,
        delta: &ImageDelta,
        image: &ClusterImage,
    ) {
        self.change_fetchers(changes);
        let listener = &self.config.listeners.inter_broker_listener_name;
        let mut fetchers = self.lock();
        fetchers.running.retain(|(leader, _), sender| {
            let address = address_of(image, *leader, listener);
            let is_new = sender.borrow().address.is_none();
            if is_new || delta.changed_brokers.contains(leader) {
                sender.send_if_modified(|assignment| {
                    let is_news = assignment.address != address;
                    if is_news {
                        Arc::make_mut(assignment).address = address;
                    }
                    is_news
                });
            }
            // Dropping the sender ends a fetcher that has no partitions left.
            !sender.borrow().partitions.is_empty()
        });
    }

    fn change_fetchers(self: &Arc<Self>, changes: Vec<FetcherChange>) {
        let mut fetchers = self.lock();
        let fetchers = &mut *fetchers;
        let mut by_fetcher: BTreeMap<FetcherKey, Vec<FetcherChange>> = BTreeMap::new();
        for change in changes {
            let to = change.to.as_ref().map(|(fetcher, ..)| *fetcher);
            let from = match to {
                Some(to) => fetchers.places.insert(change.key, to),
                None => fetchers.places.remove(&change.key),
            };
            if let Some(from) = from.filter(|from| Some(*from) != to) {
                by_fetcher
                    .entry(from)
                    .or_default()
                    .push(FetcherChange { key: change.key, to: None });
            }
            if let Some(to) = to {
                by_fetcher.entry(to).or_default().push(change);
            }
        }
        for (fetcher, changes) in by_fetcher {
            let sender = match fetchers.running.entry(fetcher) {
                Entry::Occupied(running) => running.into_mut(),
                Entry::Vacant(absent) => absent.insert(self.start_fetcher(fetcher)),
            };
            sender.send_modify(|assignment| {
                let partitions = &mut Arc::make_mut(assignment).partitions;
                for FetcherChange { key, to } in changes {
                    match to {
                        Some((_, partition, epoch)) => partitions.insert(key, (partition, epoch)),
                        None => partitions.remove(&key),
                    };
                }
            });
        }
    }

    fn start_fetcher(
        self: &Arc<Self>,
        (leader_id, number): FetcherKey,
    ) -> watch::Sender<Arc<Assignment>> {
        let (sender, assignments) = watch::channel(Arc::default());
        let config = self.config.current().replication.clone();
        let options = FetcherOptions {
            leader_id,
            client_id: format!("broker-{}-fetcher-{number}", self.config.node_id).into(),
            request_timeout: config.socket_timeout,
            config,
        };
        info!("fetcher {number} for broker {leader_id} starts");
        let fetcher = Fetcher::new(Arc::clone(self), options, assignments);
        let what = format!("fetcher {number} for broker {leader_id}");
        let run = OwnerGuard::of(what, &self.session.failed).run(self.until_stopped(fetcher.run()));
        self.tasks.spawn_on(run, &self.runtime);
        sender
    }
}

/// The id of a topic that has such a partition.
fn topic_id(image: &ClusterImage, topic: &str, index: PartitionIndex) -> Result<Uuid, ErrorCode> {
    let topic = image.topics.by_name(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok(topic.id)
}

/// Looks for followers to remove from the ISR, twice per `replica.lag.time.max.ms`.
async fn check_isrs(replicas: Arc<ReplicaManager>) {
    let half_ms = replicas.config.replication.lag_time_max_ms / 2;
    let period = Duration::from_millis(u64::try_from(half_ms).unwrap_or(1).max(1));
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now_ms = clock::now_ms();
        for partition in replicas.partitions.all().into_iter().filter(|p| p.is_leader()) {
            if let Some(proposal) = partition.check_isr(now_ms) {
                let (topic, index) = (partition.topic(), partition.index());
                info!(%topic, partition = index, "{topic}-{index}: the ISR change {:?} is sent to the controller", proposal.change);
                replicas.propose(&partition, proposal);
            }
        }
    }
}

fn fetcher_count(replicas: &ReplicaManager) -> u32 {
    replicas.config.current().replication.num_fetchers
}

fn registration(change: &PartitionDelta) -> Registration {
    Registration {
        leader_epoch: change.after.leader_epoch,
        partition_epoch: change.after.partition_epoch,
        replicas: change.after.replicas.clone(),
        isr: change.after.isr.clone(),
    }
}

/// Resumes a move between log directories after a restart, or when the target directory is back.
fn resume_move(replicas: &ReplicaManager, partition: &Partition) {
    let Some(future) = replicas.log_manager.found_future(partition) else { return };
    match partition.begin_move(future) {
        Ok(()) => {
            replicas.alter_log_dirs.add(partition.key());
        }
        // The replica moves to another directory meanwhile.
        Err(future) => replicas.log_manager.discard_future(partition, *future),
    }
}

/// Makes a replica a follower. Its fetcher changes only with a new leader or a new epoch.
fn follow(
    replicas: &ReplicaManager,
    change: &PartitionDelta,
    fetchers: u32,
) -> Option<FetcherChange> {
    let key = change.key();
    let partition = replicas.partitions.get(change.topic.id, change.index)?;
    let leader = change.after.leader;
    if !partition.follow(leader, &registration(change)) {
        return None;
    }
    let Some(leader) = leader else { return Some(FetcherChange { key, to: None }) };
    let fetcher = (leader, fetcher_of(change, fetchers));
    Some(FetcherChange { key, to: Some((fetcher, partition, change.after.leader_epoch)) })
}

/// Spreads the partitions of a leader over its fetchers.
fn fetcher_of(change: &PartitionDelta, fetchers: u32) -> u32 {
    let hash = change
        .topic
        .id
        .as_bytes()
        .iter()
        .fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    hash.wrapping_add(change.index.cast_unsigned()) % fetchers
}

fn address_of(image: &ClusterImage, broker: BrokerId, listener: &str) -> Option<PeerAddress> {
    let endpoint = image.brokers.get(broker)?.listeners.get(listener)?;
    Some(PeerAddress { host: endpoint.host.clone(), port: endpoint.port })
}

fn statuses(image: &ClusterImage) -> BrokerStatuses {
    let brokers = image.brokers.iter().map(|broker| {
        let status = BrokerStatus {
            broker_epoch: broker.epoch,
            fenced: broker.fenced,
            in_controlled_shutdown: broker.in_controlled_shutdown,
        };
        (broker.id, status)
    });
    brokers.collect()
}

/// Gives the leaders the new status of the changed brokers: it decides which followers may join the ISR.
fn apply_broker_statuses(replicas: &ReplicaManager, delta: &ImageDelta, statuses: &BrokerStatuses) {
    if delta.changed_brokers.is_empty() {
        return;
    }
    for partition in replicas.partitions.all().into_iter().filter(|p| p.is_leader()) {
        for broker in &delta.changed_brokers {
            partition.on_broker_status(*broker, statuses.get(broker).copied());
        }
    }
}
