//! Moves of replicas between the log directories of this broker (KIP-113, KIP-858; Kafka's `ReplicaAlterLogDirsManager`
//! and `ReplicaAlterLogDirsThread`): which are under way, and the one task that carries them on in turn.
//!
//! Copy until the copy is level, have the controller told of the new directory, and only when it has taken note put
//! the copy in the log's place: should the new directory fail, the controller knows whom it hits. Copying goes on
//! all the while, at no more than `replica.alter.log.dirs.io.max.bytes.per.second`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_log::error::{LogError, ReadError};
use klamm_protocol::Uuid;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::directories::recorded;
use super::partition::{MoveError, Partition};
use super::replica_manager::ReplicaManager;
use super::throttle::ReplicationQuota;
use crate::clock;
use klamm_protocol::ids::TopicIdPartition;

/// The pause when there is nothing to be done for any move: all are level, or throttled.
const IDLE_PAUSE: Duration = Duration::from_millis(50);
/// The pause of a move that has met an error.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// A move under way.
#[derive(Debug, Clone, Copy)]
struct Move {
    /// The controller has been told of the new directory.
    is_announced: bool,
    not_before: Instant,
}

/// The moves of this broker.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    under_way: Mutex<BTreeMap<TopicIdPartition, Move>>,
    news: Notify,
    quota: ReplicationQuota,
    /// Held while a request changes where replicas go.
    altering: Mutex<()>,
}

/// Why a replica does not move.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BeginError {
    #[error("a log directory of this broker is offline")]
    OfflineDirectory,
    #[error("the replica is gone")]
    Gone,
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Moves {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TopicIdPartition, Move>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with a copy that the partition has.
    pub(super) fn go_on(&self, key: TopicIdPartition) {
        let begun = Move { is_announced: false, not_before: Instant::now() };
        self.lock().insert(key, begun);
        self.news.notify_one();
    }

    /// Whether the controller has been told where the replica will be rather than where it is.
    pub(super) fn is_announced(&self, key: TopicIdPartition) -> bool {
        self.lock().get(&key).is_some_and(|moving| moving.is_announced)
    }

    /// Has a replica lie in another directory, or stay where it is. Blocks for the disk.
    pub(crate) fn alter(
        &self,
        replicas: &ReplicaManager,
        partition: &Partition,
        directory: &Path,
    ) -> Result<(), BeginError> {
        let _altering = self.altering.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = replicas.log_manager.place_at(directory).ok_or(BeginError::Gone)?;
        if partition.future_place().is_some_and(|place| place != wanted) {
            self.give_up(replicas, partition);
        }
        let (topic, index) = (partition.topic(), partition.index());
        let present = replicas.log_manager.place_of(topic, index).ok_or(BeginError::Gone)?;
        if present == wanted || partition.future_place().is_some() {
            return Ok(());
        }
        if !replicas.log_manager.failed_directories().is_empty() {
            // The log may have a copy there already.
            return Err(BeginError::OfflineDirectory);
        }
        let future = replicas.log_manager.create_future(partition, wanted)?;
        if let Err(future) = partition.begin_move(future) {
            replicas.log_manager.discard_future(partition, *future);
            return Err(BeginError::Gone);
        }
        // What an earlier log in that directory has left there does not hold for the copy.
        replicas.log_manager.write_checkpoints(&replicas.partitions.all());
        info!(%topic, partition = index, "{topic}-{index} moves to {}", directory.display());
        self.go_on(TopicIdPartition::new(partition.topic_id(), index));
        Ok(())
    }

    fn give_up(&self, replicas: &ReplicaManager, partition: &Partition) {
        let (topic, index) = (partition.topic(), partition.index());
        let key = TopicIdPartition::new(partition.topic_id(), index);
        let Some(future) = partition.take_future() else { return };
        info!(
            %topic, partition = index, "{topic}-{index} does not move to {}",
            replicas.log_manager.path_at(future.place).display()
        );
        replicas.log_manager.discard_future(partition, future);
        let ended = self.lock().remove(&key);
        if ended.is_some_and(|ended| ended.is_announced)
            && let Some(present) = replicas.log_manager.directory_id_for(topic, index)
        {
            replicas.assign_directory(key, present);
        }
    }

    /// Carries moves on, for as long as it is polled.
    pub(super) async fn run(&self, replicas: Arc<ReplicaManager>) {
        loop {
            let keys: Vec<TopicIdPartition> = self.lock().keys().copied().collect();
            if keys.is_empty() {
                self.news.notified().await;
                continue;
            }
            let mut progress = false;
            for key in keys {
                progress |= self.step(&replicas, key).await;
            }
            if !progress {
                tokio::time::sleep(IDLE_PAUSE).await;
            }
        }
    }

    /// One turn of one move; whether there was something to do.
    async fn step(&self, replicas: &Arc<ReplicaManager>, key: TopicIdPartition) -> bool {
        let Some(moving) = self.lock().get(&key).copied() else { return false };
        let partition = replicas.partitions.get(key.topic_id, key.partition);
        let place = partition.as_ref().and_then(|partition| partition.future_place());
        let (Some(partition), Some(place)) = (partition, place) else {
            self.forget(replicas, key);
            return false;
        };
        if !replicas.log_manager.is_online(place) {
            error!(topic = %partition.topic(), partition = partition.index(), "{}-{} stays: the directory has failed", partition.topic(), partition.index());
            self.give_up(replicas, &partition);
            return false;
        }
        let rate = replicas.config.current().replication.alter_log_dirs_rate;
        let must_wait = partition.is_offline() || moving.not_before > Instant::now();
        if must_wait || self.quota.is_exceeded(rate, clock::now_ms()) {
            return false;
        }
        let turn = Turn { replicas: Arc::clone(replicas), partition: Arc::clone(&partition), key };
        match tokio::task::spawn_blocking(move || turn.take()).await {
            Ok(Ok(Taken { bytes, outcome })) => {
                self.quota.record(usize::try_from(bytes).unwrap_or(usize::MAX), clock::now_ms());
                self.on_outcome(replicas, key, outcome);
                bytes > 0
            }
            Ok(Err(failure)) => {
                self.on_failure(&partition, key, &failure);
                false
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    fn on_outcome(&self, replicas: &ReplicaManager, key: TopicIdPartition, outcome: Outcome) {
        match outcome {
            Outcome::GoesOn => {}
            Outcome::Level(directory) => self.announce(replicas, key, directory),
            Outcome::Over => self.forget(replicas, key),
        }
    }

    /// The copy is level: the controller is told of its directory, if it still is the copy that it was.
    fn announce(&self, replicas: &ReplicaManager, key: TopicIdPartition, directory: Uuid) {
        let mut under_way = self.lock();
        let Some(moving) = under_way.get_mut(&key).filter(|moving| !moving.is_announced) else {
            return;
        };
        let wanted = replicas
            .partitions
            .get(key.topic_id, key.partition)
            .and_then(|partition| partition.with_future(|future| future.directory_id));
        if wanted == Some(directory) {
            moving.is_announced = true;
            replicas.assign_directory(key, directory);
        }
    }

    /// The move is over, unless another has begun meanwhile.
    fn forget(&self, replicas: &ReplicaManager, key: TopicIdPartition) {
        let mut under_way = self.lock();
        let partition = replicas.partitions.get(key.topic_id, key.partition);
        if partition.is_none_or(|partition| partition.future_place().is_none()) {
            under_way.remove(&key);
        }
    }

    fn on_failure(&self, partition: &Partition, key: TopicIdPartition, failure: &MoveError) {
        if let MoveError::Read(ReadError::Corrupt { segment, .. }) = failure {
            partition.on_corrupt(*segment);
        }
        warn!(topic = %partition.topic(), partition = partition.index(), "{}-{} does not move for now: {failure}", partition.topic(), partition.index());
        if let Some(moving) = self.lock().get_mut(&key) {
            moving.not_before = Instant::now() + ERROR_PAUSE;
        }
    }
}

/// What a turn has come to.
struct Taken {
    bytes: u64,
    outcome: Outcome,
}

enum Outcome {
    GoesOn,
    /// With the log, in a directory that the cluster does not have for the replica.
    Level(Uuid),
    Over,
}

/// What is done at once for one move. Blocks for the disk.
struct Turn {
    replicas: Arc<ReplicaManager>,
    partition: Arc<Partition>,
    key: TopicIdPartition,
}

impl Turn {
    fn take(self) -> Result<Taken, MoveError> {
        let Some(copied) = self.partition.copy_to_future()? else {
            return Ok(Taken { bytes: 0, outcome: Outcome::Over });
        };
        let outcome = match self.unrecorded_directory() {
            _ if !copied.is_level => Outcome::GoesOn,
            Some(directory) => Outcome::Level(directory),
            None => self.replace()?,
        };
        Ok(Taken { bytes: copied.bytes, outcome })
    }

    /// The new directory, as long as the cluster has another for the replica.
    fn unrecorded_directory(&self) -> Option<Uuid> {
        let image = self.replicas.metadata_cache.image();
        if !image.metadata_version().is_directory_assignment_supported() {
            return None;
        }
        let wanted = self.partition.with_future(|future| future.directory_id)?;
        (recorded(&image, self.key, self.replicas.config.node_id) != Some(wanted)).then_some(wanted)
    }

    fn replace(&self) -> Result<Outcome, MoveError> {
        let log_manager = &self.replicas.log_manager;
        let partitions = self.replicas.partitions.all();
        if !log_manager.replace_with_future(&partitions, &self.partition)? {
            return Ok(Outcome::GoesOn);
        }
        let (topic, index) = (self.partition.topic(), self.partition.index());
        if let Some(path) = log_manager.directory_of(topic, index) {
            info!(%topic, partition = index, "{topic}-{index} has moved to {}", path.display());
        }
        Ok(Outcome::Over)
    }
}
