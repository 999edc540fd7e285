//! Moves replicas between the log directories of this broker (KIP-113, KIP-858; Kafka's `ReplicaAlterLogDirsManager` and
//! `ReplicaAlterLogDirsThread`): the moves under way, and the one task that advances them in turn.
//!
//! What is done next with a move, [`Move`] decides: here it is given the facts, and obeyed. Copying goes on at no more
//! than `replica.alter.log.dirs.io.max.bytes.per.second`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_log::error::{LogError, ReadError};
use klamm_protocol::Uuid;
use klamm_protocol::ids::TopicIdPartition;
use klamm_replication::partition::{AfterCopy, Move, MoveStep, MovingReplica, RecordedDirectory};
use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::directories::recorded;
use super::partition::{MoveError, Partition};
use super::replica_manager::ReplicaManager;
use super::throttle::ReplicationQuota;
use crate::clock;

/// The pause when no move can advance: all have caught up, or are throttled.
const IDLE_PAUSE: Duration = Duration::from_millis(50);

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
        self.lock().insert(key, Move::default());
        self.news.notify_one();
    }

    /// Whether the directory reported to the controller is the move's target, not the current one.
    pub(super) fn is_announced(&self, key: TopicIdPartition) -> bool {
        self.lock().get(&key).is_some_and(Move::is_announced)
    }

    /// Another directory of a replica is reported to the controller than the move's target, by `report`.
    pub(super) fn on_other_report(&self, key: TopicIdPartition, report: impl FnOnce()) {
        let mut moves = self.lock();
        if let Some(moving) = moves.get_mut(&key) {
            moving.on_other_report();
        }
        // The lock is held: the later report counts, so the move must not announce its target in between.
        report();
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
        let (topic, index) = (partition.topic(), partition.index());
        let present = replicas.log_manager.place_of(topic, index).ok_or(BeginError::Gone)?;
        let alteration = Move::alter(present, partition.future_place(), wanted);
        if alteration.cancels {
            self.cancel(replicas, partition);
        }
        if !alteration.begins {
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
        self.add(partition.key());
        Ok(())
    }

    fn cancel(&self, replicas: &ReplicaManager, partition: &Partition) {
        let (topic, index) = (partition.topic(), partition.index());
        let key = partition.key();
        let Some(future) = partition.take_future() else { return };
        info!(
            %topic, partition = index, "the move of {topic}-{index} to {} is cancelled",
            replicas.log_manager.path_at(future.place).display()
        );
        replicas.log_manager.discard_future(partition, future);
        let ended = self.lock().remove(&key);
        if ended.is_some_and(|ended| ended.is_announced()) {
            report_present(replicas, partition);
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
        let partition = replicas.partitions.get(key.topic_id, key.partition);
        let place = partition.as_ref().and_then(|partition| partition.future_place());
        let (Some(partition), Some(place)) = (partition, place) else {
            self.forget(replicas, key);
            return false;
        };
        let now_ms = clock::now_ms();
        let (topic, index) = (partition.topic(), partition.index());
        let present = replicas.log_manager.place_of(topic, index);
        let replica = MovingReplica {
            is_source_online: present
                .is_some_and(|present| replicas.log_manager.is_online(present)),
            is_target_online: replicas.log_manager.is_online(place),
            is_damaged: partition.is_offline() || partition.damage().is_refetching(),
        };
        let next = self.lock().get_mut(&key).map(|moving| moving.next_step(replica, now_ms));
        match next {
            None | Some(MoveStep::Wait) => return false,
            Some(MoveStep::Cancel) => {
                error!(%topic, partition = index, "the move of {topic}-{index} is cancelled: the target directory has failed");
                self.cancel(replicas, &partition);
                return false;
            }
            Some(MoveStep::Withdraw) => {
                report_present(replicas, &partition);
                return false;
            }
            Some(MoveStep::Copy) => {}
        }
        let rate = replicas.config.current().replication.alter_log_dirs_rate;
        if self.quota.is_exceeded(rate, now_ms) {
            return false;
        }
        let (at, moving) = (Arc::clone(replicas), Arc::clone(&partition));
        let copied = tokio::task::spawn_blocking(move || at.alter_log_dirs.copy(&at, &moving));
        match copied.await {
            Ok(Ok(bytes)) => {
                self.quota.record(usize::try_from(bytes).unwrap_or(usize::MAX), clock::now_ms());
                bytes > 0
            }
            Ok(Err(failure)) => {
                self.on_failure(&partition, key, &failure);
                false
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Copies once, on a blocking thread, and does what follows from it. Returns how many bytes were copied.
    fn copy(&self, replicas: &ReplicaManager, partition: &Partition) -> Result<u64, MoveError> {
        let key = partition.key();
        let Some(copied) = partition.copy_to_future()? else {
            self.forget(replicas, key);
            return Ok(0);
        };
        let recorded = recorded_directory(replicas, key, copied.directory_id);
        let after = {
            let mut moves = self.lock();
            // The move may have another target meanwhile.
            let target = partition.with_future(|future| future.directory_id);
            let moving = moves.get_mut(&key).filter(|_| target == Some(copied.directory_id));
            let Some(moving) = moving else { return Ok(copied.bytes) };
            let after = moving.on_copied(copied.is_level, recorded, clock::now_ms());
            if after == AfterCopy::Announce {
                replicas.announce_directory(key, copied.directory_id);
            }
            after
        };
        if after == AfterCopy::Replace {
            self.replace(replicas, partition, key)?;
        }
        Ok(copied.bytes)
    }

    fn replace(
        &self,
        replicas: &ReplicaManager,
        partition: &Partition,
        key: TopicIdPartition,
    ) -> Result<(), MoveError> {
        let partitions = replicas.partitions.all();
        if !replicas.log_manager.replace_with_future(&partitions, partition)? {
            return Ok(());
        }
        let (topic, index) = (partition.topic(), partition.index());
        if let Some(path) = replicas.log_manager.directory_of(topic, index) {
            info!(%topic, partition = index, "{topic}-{index} has moved to {}", path.display());
        }
        self.forget(replicas, key);
        // It may have left a full directory, into which nothing was fetched.
        replicas.wake_fetcher(key);
        Ok(())
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
            moving.on_failed(clock::now_ms());
        }
    }
}

/// Reports the directory of the log, in place of the copy's.
fn report_present(replicas: &ReplicaManager, partition: &Partition) {
    if let Some(present) =
        replicas.log_manager.directory_id_for(partition.topic(), partition.index())
    {
        let key = partition.key();
        replicas.assign_directory(key, present);
    }
}

/// The directory that the metadata has for a replica whose copy is in `copy`.
fn recorded_directory(
    replicas: &ReplicaManager,
    key: TopicIdPartition,
    copy: Uuid,
) -> RecordedDirectory {
    let image = replicas.metadata_cache.image();
    if !image.metadata_version().is_directory_assignment_supported() {
        return RecordedDirectory::NotSupported;
    }
    match recorded(&image, key, replicas.config.node_id) == Some(copy) {
        true => RecordedDirectory::New,
        false => RecordedDirectory::Another,
    }
}
