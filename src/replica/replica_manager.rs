//! The replicas of this broker as the cluster metadata has them: which it holds, which it leads, and from
//! whom it fetches the others (Kafka's `ReplicaManager.applyDelta`, `AbstractFetcherManager`).
//!
//! The publisher calls in with every new image, on its thread; what a replica's role means is in
//! [`super::handle`]. Followers are made before leaders, as in Kafka: their fetching takes its time. What cannot be
//! opened is tried again with the newest image: see [`opening`].

mod opening;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytestring::ByteString;
use klamm_metadata::delta::{ImageDelta, PartitionDelta};
use klamm_metadata::image::ClusterImage;
use klamm_metadata::known_replica::KnownReplica;
use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, LeaderEpoch};
use klamm_replication::partition::{BrokerStatus, IsrProposal, Registration};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::alter_log_dirs::Moves;
use super::alter_partition::AlterPartitions;
use super::directories::{self, DirectoryAssignments};
use super::fetcher::{Assignment, Fetcher, FetcherOptions, Key};
use super::log_manager::{PlaceKey, end_of};
use super::partition::{BrokerStatuses, Partition};
use super::repair;
use super::throttle::ReplicationQuota;
use crate::clock;
use crate::config::ReplicationConfig;
use crate::controller::channel::ControllerChannel;
use crate::net::peer::PeerAddress;
use crate::node::Node;
use crate::owner::OwnerGuard;

/// A fetcher: its leader broker, and which of the `num.replica.fetchers` for it.
type FetcherKey = (BrokerId, u32);

/// A replica that is to be fetched for, or no longer.
struct Move {
    key: Key,
    /// The fetcher, the replica and the epoch that it follows.
    to: Option<(FetcherKey, Arc<Partition>, LeaderEpoch)>,
}

#[derive(Default)]
struct Fetchers {
    running: BTreeMap<FetcherKey, watch::Sender<Arc<Assignment>>>,
    places: BTreeMap<Key, FetcherKey>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct ReplicaManager {
    /// The node and the runtime, once both are there.
    surroundings: OnceLock<(Weak<Node>, Handle)>,
    /// The image that the replicas go by. Held while one is being applied.
    applied: Mutex<ClusterImage>,
    /// Some replica could not be opened.
    unopened: Notify,
    fetchers: Mutex<Fetchers>,
    proposals: Arc<AlterPartitions>,
    directories: Arc<DirectoryAssignments>,
    pub(crate) moves: Arc<Moves>,
    /// What went to throttled replicas that this broker leads, and came for those that follow here.
    pub(crate) leader_quota: ReplicationQuota,
    pub(crate) follower_quota: ReplicationQuota,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl ReplicaManager {
    /// Tells the replicas of the node that they are part of, before anything is published to it.
    ///
    /// # Panics
    /// When called again.
    pub(crate) fn attach(&self, node: &Arc<Node>, runtime: &Handle) {
        let attached = self.surroundings.set((Arc::downgrade(node), runtime.clone()));
        assert!(attached.is_ok(), "replicas are part of one node");
        let (proposals, proposing) = (Arc::clone(&self.proposals), Arc::clone(node));
        self.own(node, "AlterPartition", async move {
            let channel = channel(&proposing, "alter-partition");
            let broker_epoch = || proposing.broker_epoch();
            proposals.run(proposing.config.node_id, &channel, broker_epoch).await;
        });
        let (directories, assigning) = (Arc::clone(&self.directories), Arc::clone(node));
        self.own(node, "AssignReplicasToDirs", async move {
            directories.run(&assigning, &channel(&assigning, "assign-replicas-to-dirs")).await;
        });
        let moves = Arc::clone(&self.moves);
        let moving = Arc::clone(node);
        self.own(node, "moving replicas to other log directories", async move {
            moves.run(moving).await;
        });
        self.own(node, "checking the ISRs", check_isrs(Arc::clone(node)));
        let failures = directories::watch_failures(Arc::clone(node));
        self.own(node, "watching for log directories that fail", failures);
        let returns = directories::watch_returns(Arc::clone(node));
        self.own(node, "watching for log directories that return", returns);
        self.own(node, "repairing damaged segments", repair::run(Arc::clone(node)));
        self.own(node, "scrubbing segments", repair::scrub(Arc::clone(node)));
        self.own(node, "opening replicas again", opening::run(Arc::clone(node)));
    }

    /// Runs a task of the replicas until all of them are stopped. A panic in it stops the node.
    fn own(
        &self,
        node: &Node,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let (_, runtime) = self.surroundings.get().expect("the replicas are attached");
        self.tasks
            .spawn_on(OwnerGuard::of(what, &node.failed).run(self.until_stopped(task)), runtime);
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

    /// Ends all fetching and proposing.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        *self.lock() = Fetchers::default();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Has the controller asked for a change of a partition's in-sync replicas.
    pub(crate) fn propose(&self, partition: &Arc<Partition>, proposal: IsrProposal) {
        self.proposals.propose(Arc::clone(partition), proposal);
    }

    /// Has the controller told in which directory a replica lies.
    pub(super) fn assign_directory(&self, key: Key, directory: Uuid) {
        self.directories.assign(key, directory);
    }

    /// A replica can be fetched for again.
    pub(super) fn wake_fetcher(&self, key: Key) {
        let fetchers = self.lock();
        let place = fetchers.places.get(&key);
        if let Some(fetcher) = place.and_then(|place| fetchers.running.get(place)) {
            fetcher.send_modify(|_| {});
        }
    }

    fn lock(&self) -> MutexGuard<'_, Fetchers> {
        self.fetchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares what lies in directories that have come into use with an image.
    pub(crate) fn settle(&self, node: &Arc<Node>, image: &ClusterImage) {
        let id = node.config.node_id;
        let known = |topic: &str, index| KnownReplica::find(image, id, topic, index);
        let open = |(topic, index): &PlaceKey| {
            let partition = node.partitions.get(image.topics.by_name(topic)?.id, *index)?;
            Some(end_of(&partition.view()?))
        };
        node.store.note_topics(image.topics.iter().map(|topic| topic.id));
        for (key, place) in node.store.settle(&known, &open) {
            let Some(topic) = image.topics.by_name(&key.0) else { continue };
            let Some(partition) = node.partitions.remove(topic.id, key.1) else { continue };
            self.move_all(node, vec![Move { key: (topic.id, key.1), to: None }]);
            node.store.displace(&partition, key, place);
        }
    }

    /// Makes the replicas what a new image says.
    pub(crate) fn on_published(&self, node: &Arc<Node>, delta: &ImageDelta, image: &ClusterImage) {
        let id = node.config.node_id;
        let mut applied = self.lock_applied();
        *applied = image.clone();
        node.store.note_topics(delta.created_topics.iter().map(|topic| topic.id));
        self.remove(node, delta);
        let changed: BTreeSet<Key> = delta.changed_partitions.iter().map(key_of).collect();
        let returned = self.settle_returned(node, image);
        let returned = returned.iter().flat_map(|all| &all.changed_partitions);
        let returned = returned.filter(|change| !changed.contains(&key_of(change)));
        let here = |change: &&PartitionDelta| change.is_replica(id);
        let here = delta.changed_partitions.iter().chain(returned).filter(here);
        self.take_roles(node, here.collect(), delta, image);
        tell_statuses(node, delta, &statuses(image));
    }

    fn lock_applied(&self) -> MutexGuard<'_, ClusterImage> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The replicas of directories that have come back and that the controller knows again, as if they were new.
    fn settle_returned(&self, node: &Arc<Node>, image: &ClusterImage) -> Option<ImageDelta> {
        let mut ids = node.store.unsettled_ids();
        let registered = image.brokers.get(node.config.node_id)?;
        ids.retain(|id| registered.directories.contains(id));
        if ids.is_empty() {
            return None;
        }
        node.store.find_returned(&ids);
        self.settle(node, image);
        let mut delta = ImageDelta::between(&ClusterImage::default(), image);
        let is_open =
            |change: &PartitionDelta| node.partitions.get(change.topic.id, change.index).is_some();
        delta.changed_partitions.retain(|change| !is_open(change));
        Some(delta)
    }

    /// Opens those of the replicas that are not open, and has them lead or follow.
    fn take_roles(
        &self,
        node: &Arc<Node>,
        here: Vec<&PartitionDelta>,
        delta: &ImageDelta,
        image: &ClusterImage,
    ) {
        let id = node.config.node_id;
        self.open(node, &here, image);
        self.report_directories(node, &here, image);
        let (led, followed): (Vec<_>, Vec<_>) =
            here.into_iter().partition(|change| change.after.leader == id);
        let fetchers = fetcher_count(node);
        let moves = followed.into_iter().filter_map(|change| follow(node, change, fetchers));
        let moves: Vec<Move> = moves.collect();
        let ended = led.iter().map(|change| Move { key: key_of(change), to: None });
        self.assign(node, ended.chain(moves).collect(), delta, image);
        let statuses = statuses(image);
        for change in led {
            if let Some(partition) = node.partitions.get(change.topic.id, change.index) {
                partition.lead(&registration(change), &statuses);
            }
        }
    }

    /// Where the metadata does not have the directory of a replica, or another, the controller is told.
    fn report_directories(&self, node: &Node, changes: &[&PartitionDelta], image: &ClusterImage) {
        if !image.metadata_version().is_directory_assignment_supported() {
            return;
        }
        for change in changes {
            let Some(recorded) = change.after.directory(node.config.node_id) else { continue };
            let partition = node.partitions.get(change.topic.id, change.index);
            // What is not open may not be counted on, wherever it lies.
            let is_usable = partition.is_some_and(|partition| !partition.is_offline());
            if !is_usable || self.moves.is_announced(key_of(change)) {
                continue;
            }
            let actual = node.store.directory_id_for(&change.topic.name, change.index);
            let is_news = |actual: &Uuid| {
                *actual != recorded || directories::waits_for_election(&change.after, node)
            };
            if let Some(actual) = actual.filter(is_news) {
                self.directories.assign(key_of(change), actual);
            }
        }
    }

    /// ReplicaManager of deleted topics, and those that a reassignment has taken from this broker.
    fn remove(&self, node: &Arc<Node>, delta: &ImageDelta) {
        let id = node.config.node_id;
        let deleted = delta.deleted_topics.iter().flat_map(|topic| {
            topic.partitions().map(|(index, _)| (topic.id, index)).collect::<Vec<_>>()
        });
        let moved = delta.changed_partitions.iter().filter(|change| change.is_removed_from(id));
        let mut any = false;
        for (topic_id, index) in deleted.chain(moved.map(key_of)) {
            if let Some(unopened) = node.partitions.remove_unopened((topic_id, index)) {
                node.store.delete_unopened(&unopened.topic, index);
                any = true;
            }
            let Some(partition) = node.partitions.remove(topic_id, index) else { continue };
            let ended = vec![Move { key: (topic_id, index), to: None }];
            self.move_all(node, ended);
            node.store.delete(&partition);
            any = true;
        }
        if any {
            // Another log may soon have the name, for which their offsets do not hold.
            node.store.write_checkpoints(&node.partitions.all());
        }
    }

    /// Gives replicas to their fetchers and tells fetchers where their leaders are.
    fn assign(&self, node: &Arc<Node>, moves: Vec<Move>, delta: &ImageDelta, image: &ClusterImage) {
        self.move_all(node, moves);
        let listener = &node.config.listeners.inter_broker_listener_name;
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
            // A fetcher without anything to fetch ends when its assignment does.
            !sender.borrow().partitions.is_empty()
        });
    }

    fn move_all(&self, node: &Arc<Node>, moves: Vec<Move>) {
        let mut fetchers = self.lock();
        let fetchers = &mut *fetchers;
        let mut changes: BTreeMap<FetcherKey, Vec<Move>> = BTreeMap::new();
        for step in moves {
            let to = step.to.as_ref().map(|(fetcher, ..)| *fetcher);
            let from = match to {
                Some(to) => fetchers.places.insert(step.key, to),
                None => fetchers.places.remove(&step.key),
            };
            if let Some(from) = from.filter(|from| Some(*from) != to) {
                changes.entry(from).or_default().push(Move { key: step.key, to: None });
            }
            if let Some(to) = to {
                changes.entry(to).or_default().push(step);
            }
        }
        for (fetcher, moves) in changes {
            let sender = match fetchers.running.entry(fetcher) {
                Entry::Occupied(running) => running.into_mut(),
                Entry::Vacant(absent) => absent.insert(self.start(node, fetcher)),
            };
            sender.send_modify(|assignment| {
                let partitions = &mut Arc::make_mut(assignment).partitions;
                for Move { key, to } in moves {
                    match to {
                        Some((_, partition, epoch)) => partitions.insert(key, (partition, epoch)),
                        None => partitions.remove(&key),
                    };
                }
            });
        }
    }

    fn start(
        &self,
        node: &Arc<Node>,
        (leader_id, number): FetcherKey,
    ) -> watch::Sender<Arc<Assignment>> {
        let (sender, assignments) = watch::channel(Arc::default());
        let Some((_, runtime)) = self.surroundings.get() else { return sender };
        let configs = node.configs();
        let timeout_ms = configs.int("replica.socket.timeout.ms");
        let options = FetcherOptions {
            leader_id,
            client_id: format!("broker-{}-fetcher-{number}", node.config.node_id).into(),
            config: ReplicationConfig::new(&configs),
            request_timeout: Duration::from_millis(u64::try_from(timeout_ms).unwrap_or_default()),
        };
        info!("fetcher {number} for broker {leader_id} starts");
        let fetcher = Fetcher::new(Arc::clone(node), options, assignments);
        let what = format!("fetcher {number} for broker {leader_id}");
        let run = OwnerGuard::of(what, &node.failed).run(self.until_stopped(fetcher.run()));
        self.tasks.spawn_on(run, runtime);
        sender
    }
}

/// A channel to the controller of its own for each purpose: one must not wait for the other.
fn channel(node: &Node, purpose: &str) -> ControllerChannel {
    let timeout_ms = node.config.configs.int("controller.socket.timeout.ms");
    let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or_default());
    let client_id = ByteString::from(format!("broker-{}-{purpose}", node.config.node_id));
    ControllerChannel::new(node.config.node_id, client_id, node.controller.clone(), timeout)
}

/// Looks for followers that lag, twice in `replica.lag.time.max.ms`.
async fn check_isrs(node: Arc<Node>) {
    let half_ms = node.config.replication.lag_time_max_ms / 2;
    let period = Duration::from_millis(u64::try_from(half_ms).unwrap_or(1).max(1));
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now_ms = clock::now_ms();
        for partition in node.partitions.all().into_iter().filter(|p| p.is_leader()) {
            if let Some(proposal) = partition.check_isr(now_ms) {
                let (topic, index) = (partition.topic(), partition.index());
                info!("{topic}-{index}: {:?} of the ISR is proposed", proposal.change);
                node.replicas.propose(&partition, proposal);
            }
        }
    }
}

fn fetcher_count(node: &Node) -> u32 {
    u32::try_from(node.configs().int("num.replica.fetchers")).unwrap_or(1).max(1)
}

fn key_of(change: &PartitionDelta) -> Key {
    (change.topic.id, change.index)
}

fn registration(change: &PartitionDelta) -> Registration {
    Registration {
        leader_epoch: change.after.leader_epoch,
        partition_epoch: change.after.partition_epoch,
        replicas: change.after.replicas.clone(),
        isr: change.after.isr.clone(),
    }
}

/// A restart does not end a move.
fn go_on_with_move(node: &Node, partition: &Partition) {
    let Some(future) = node.store.found_future(partition) else { return };
    if partition.begin_move(future).is_ok() {
        node.replicas.moves.go_on((partition.topic_id(), partition.index()));
    }
}

/// Makes a replica a follower. What there is to fetch is news only with a new leader or a new epoch.
fn follow(node: &Node, change: &PartitionDelta, fetchers: u32) -> Option<Move> {
    let key = key_of(change);
    let partition = node.partitions.get(change.topic.id, change.index)?;
    let leader = change.after.leader;
    if !partition.follow(leader, &registration(change)) {
        return None;
    }
    if leader < 0 {
        return Some(Move { key, to: None });
    }
    let fetcher = (leader, fetcher_of(change, fetchers));
    Some(Move { key, to: Some((fetcher, partition, change.after.leader_epoch)) })
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

/// Leaders judge their followers by what the metadata says of the brokers.
fn tell_statuses(node: &Node, delta: &ImageDelta, statuses: &BrokerStatuses) {
    if delta.changed_brokers.is_empty() {
        return;
    }
    for partition in node.partitions.all().into_iter().filter(|p| p.is_leader()) {
        for broker in &delta.changed_brokers {
            partition.on_broker_status(*broker, statuses.get(broker).copied());
        }
    }
}

#[cfg(test)]
mod tests;
