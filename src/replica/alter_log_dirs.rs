//! Moves replicas between the log directories of this broker (KIP-113, KIP-858; Kafka's `ReplicaAlterLogDirsManager` and
//! `ReplicaAlterLogDirsThread`): the moves under way, and the one task that advances them in turn.
//!
//! A move copies the log until the copy has caught up, reports the new directory to the controller
//! (AssignReplicasToDirs), and replaces the log with the copy only after the metadata has the new directory: if that
//! directory fails later, the controller knows that this replica was in it. Copying continues meanwhile, at no more
//! than `replica.alter.log.dirs.io.max.bytes.per.second`.

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

/// The pause when no move can advance: all have caught up, or are throttled.
const IDLE_PAUSE: Duration = Duration::from_millis(50);
/// The pause of a move after an error.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// A move under way.
#[derive(Debug, Clone, Copy)]
struct Move {
    /// The new directory has been reported to the controller.
    is_announced: bool,
    not_before: Instant,
}

/// The moves of this broker.
#[derive(Debug, Default)]
pub(crate) struct ReplicaAlterLogDirs {
    moves: Mutex<BTreeMap<TopicIdPartition, Move>>,
    news: Notify,
    quota: ReplicationQuota,
    /// Held while AlterReplicaLogDirs changes the target directory of a replica.
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

impl ReplicaAlterLogDirs {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TopicIdPartition, Move>> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a move whose copy the partition already has.
    pub(super) fn add(&self, key: TopicIdPartition) {
        let begun = Move { is_announced: false, not_before: Instant::now() };
        self.lock().insert(key, begun);
        self.news.notify_one();
    }

    /// Whether the directory reported to the controller is the move's target, not the current one.
    pub(super) fn is_announced(&self, key: TopicIdPartition) -> bool {
        self.lock().get(&key).is_some_and(|moving| moving.is_announced)
    }

    /// Begins to move a replica to `directory`, or cancels its move if it lies there already. Blocks for the disk.
    pub(crate) fn alter(
        &self,
        replicas: &ReplicaManager,
        partition: &Partition,
        directory: &Path,
    ) -> Result<(), BeginError> {
        let _altering = self.altering.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = replicas.log_manager.place_at(directory).ok_or(BeginError::Gone)?;
        if partition.future_place().is_some_and(|place| place != wanted) {
            self.cancel(replicas, partition);
        }
        let (topic, index) = (partition.topic(), partition.index());
        let present = replicas.log_manager.place_of(topic, index).ok_or(BeginError::Gone)?;
        if present == wanted || partition.future_place().is_some() {
            return Ok(());
        }
        if !replicas.log_manager.failed_directories().is_empty() {
            // The failed directory may hold a copy of the log already.
            return Err(BeginError::OfflineDirectory);
        }
        let future = replicas.log_manager.create_future(partition, wanted)?;
        if let Err(future) = partition.begin_move(future) {
            replicas.log_manager.discard_future(partition, *future);
            return Err(BeginError::Gone);
        }
        // Checkpoint entries of an earlier log of this partition in that directory do not apply to the copy.
        replicas.log_manager.write_checkpoints(&replicas.partitions.all());
        info!(%topic, partition = index, "{topic}-{index} moves to {}", directory.display());
        self.add(TopicIdPartition::new(partition.topic_id(), index));
        Ok(())
    }

    fn cancel(&self, replicas: &ReplicaManager, partition: &Partition) {
        let (topic, index) = (partition.topic(), partition.index());
        let key = TopicIdPartition::new(partition.topic_id(), index);
        let Some(future) = partition.take_future() else { return };
        info!(
            %topic, partition = index, "the move of {topic}-{index} to {} is cancelled",
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

    /// Advances the moves, for as long as it is polled.
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

    /// Advances one move by one step; returns whether bytes were copied.
    async fn step(&self, replicas: &Arc<ReplicaManager>, key: TopicIdPartition) -> bool {
        let Some(moving) = self.lock().get(&key).copied() else { return false };
        let partition = replicas.partitions.get(key.topic_id, key.partition);
        let place = partition.as_ref().and_then(|partition| partition.future_place());
        let (Some(partition), Some(place)) = (partition, place) else {
            self.forget(replicas, key);
            return false;
        };
        if !replicas.log_manager.is_online(place) {
            error!(topic = %partition.topic(), partition = partition.index(), "the move of {}-{} is cancelled: the target directory has failed", partition.topic(), partition.index());
            self.cancel(replicas, &partition);
            return false;
        }
        let rate = replicas.config.current().replication.alter_log_dirs_rate;
        let must_wait = partition.is_offline() || moving.not_before > Instant::now();
        if must_wait || self.quota.is_exceeded(rate, clock::now_ms()) {
            return false;
        }
        let next = Step { replicas: Arc::clone(replicas), partition: Arc::clone(&partition), key };
        match tokio::task::spawn_blocking(move || next.run()).await {
            Ok(Ok(StepResult { bytes, state })) => {
                self.quota.record(usize::try_from(bytes).unwrap_or(usize::MAX), clock::now_ms());
                self.on_step(replicas, key, state);
                bytes > 0
            }
            Ok(Err(failure)) => {
                self.on_failure(&partition, key, &failure);
                false
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    fn on_step(&self, replicas: &ReplicaManager, key: TopicIdPartition, state: MoveState) {
        match state {
            MoveState::Copying => {}
            MoveState::CaughtUp(directory) => self.announce(replicas, key, directory),
            MoveState::Done => self.forget(replicas, key),
        }
    }

    /// The copy has caught up: reports its directory to the controller, unless the move has another target meanwhile.
    fn announce(&self, replicas: &ReplicaManager, key: TopicIdPartition, directory: Uuid) {
        let mut moves = self.lock();
        let Some(moving) = moves.get_mut(&key).filter(|moving| !moving.is_announced) else {
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

    /// Removes a move that is over, unless another of the same replica has begun meanwhile.
    fn forget(&self, replicas: &ReplicaManager, key: TopicIdPartition) {
        let mut moves = self.lock();
        let partition = replicas.partitions.get(key.topic_id, key.partition);
        if partition.is_none_or(|partition| partition.future_place().is_none()) {
            moves.remove(&key);
        }
    }

    fn on_failure(&self, partition: &Partition, key: TopicIdPartition, failure: &MoveError) {
        if let MoveError::Read(ReadError::Corrupt { segment, .. }) = failure {
            partition.on_corrupt(*segment);
        }
        warn!(topic = %partition.topic(), partition = partition.index(), "the move of {}-{} failed and is retried: {failure}", partition.topic(), partition.index());
        if let Some(moving) = self.lock().get_mut(&key) {
            moving.not_before = Instant::now() + ERROR_PAUSE;
        }
    }
}

/// The result of one step of a move.
struct StepResult {
    bytes: u64,
    state: MoveState,
}

enum MoveState {
    Copying,
    /// The copy has caught up, and the metadata has another directory for the replica.
    CaughtUp(Uuid),
    Done,
}

/// One step of one move, on a blocking thread.
struct Step {
    replicas: Arc<ReplicaManager>,
    partition: Arc<Partition>,
    key: TopicIdPartition,
}

impl Step {
    fn run(self) -> Result<StepResult, MoveError> {
        let Some(copied) = self.partition.copy_to_future()? else {
            return Ok(StepResult { bytes: 0, state: MoveState::Done });
        };
        let state = match self.unrecorded_directory() {
            _ if !copied.is_level => MoveState::Copying,
            Some(directory) => MoveState::CaughtUp(directory),
            None => self.replace()?,
        };
        Ok(StepResult { bytes: copied.bytes, state })
    }

    /// The new directory, as long as the metadata has another one for the replica.
    fn unrecorded_directory(&self) -> Option<Uuid> {
        let image = self.replicas.metadata_cache.image();
        if !image.metadata_version().is_directory_assignment_supported() {
            return None;
        }
        let wanted = self.partition.with_future(|future| future.directory_id)?;
        (recorded(&image, self.key, self.replicas.config.node_id) != Some(wanted)).then_some(wanted)
    }

    fn replace(&self) -> Result<MoveState, MoveError> {
        let log_manager = &self.replicas.log_manager;
        let partitions = self.replicas.partitions.all();
        if !log_manager.replace_with_future(&partitions, &self.partition)? {
            return Ok(MoveState::Copying);
        }
        let (topic, index) = (self.partition.topic(), self.partition.index());
        if let Some(path) = log_manager.directory_of(topic, index) {
            info!(%topic, partition = index, "{topic}-{index} has moved to {}", path.display());
        }
        Ok(MoveState::Done)
    }
}
