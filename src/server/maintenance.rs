//! The background maintenance of logs: retention, checkpoints, flushes by `flush.ms`, removal of deleted files, expiry
//! of producers.
//!
//! All disk access runs on the blocking pool.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::replica::replica_manager::ReplicaManager;
use crate::{blocking, clock};

/// How often the directories and files of deleted logs are checked.
const REMOVE_DELETED_INTERVAL: Duration = Duration::from_secs(5);

/// The upper bound of the periods, which covers Kafka's default of `log.flush.scheduler.interval.ms`.
const LONGEST_PERIOD: Duration = Duration::from_secs(365 * 24 * 3600);
/// The delay after DeleteRecords before log start offsets are checkpointed, so that a crash does not bring deleted
/// records back. One write covers all that have moved within it.
const LOG_START_DELAY: Duration = Duration::from_millis(200);

/// Runs until `stop`.
pub(crate) async fn run(replicas: Arc<ReplicaManager>, stop: CancellationToken) {
    let storage = &replicas.config.storage;
    let mut retention = interval(storage.retention_check_interval);
    let mut producers = interval(storage.producer_id_expiration_check_interval);
    let mut checkpoints = interval(storage.flush_offset_checkpoint_interval);
    let mut overdue = interval(storage.flush_scheduler_interval);
    let mut deleted = interval(REMOVE_DELETED_INTERVAL);
    loop {
        let work: fn(&ReplicaManager) = tokio::select! {
            () = stop.cancelled() => return,
            _ = retention.tick() => apply_retention,
            _ = producers.tick() => expire_producers,
            _ = checkpoints.tick() => write_checkpoints,
            () = replicas.log_starts_moved.notified() => tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOG_START_DELAY) => write_checkpoints,
            },
            _ = overdue.tick() => flush_overdue,
            _ = deleted.tick() => remove_deleted,
        };
        let replicas = Arc::clone(&replicas);
        blocking::run(move || work(&replicas)).await;
    }
}

/// Ticks of which the first comes after one period: the start needs no maintenance.
fn interval(period: Duration) -> tokio::time::Interval {
    let period = period.clamp(Duration::from_millis(1), LONGEST_PERIOD);
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

fn apply_retention(replicas: &ReplicaManager) {
    let now = clock::now();
    for partition in replicas.partitions.all() {
        let applied = partition.with_log_on_disk(|log| log.apply_retention(now));
        match applied {
            Ok(Ok(deleted)) => {
                for segment in deleted {
                    info!(
                        topic = %partition.topic(), partition = partition.index(), "{}-{}: segment {} ({} bytes) deleted because of {:?}",
                        partition.topic(),
                        partition.index(),
                        segment.base_offset,
                        segment.bytes,
                        segment.reason
                    );
                }
            }
            Ok(Err(failure)) => {
                error!(topic = %partition.topic(), partition = partition.index(), "{}-{}: retention failed: {failure}", partition.topic(), partition.index());
            }
            // Closed meanwhile.
            Err(_) => {}
        }
    }
}

fn expire_producers(replicas: &ReplicaManager) {
    let now = clock::now();
    for partition in replicas.partitions.all() {
        // A closed log needs no expiry of producers.
        partition
            .with_log(|log| {
                let expiration_ms = log.config().producer_id_expiration_ms;
                log.producers_mut().remove_expired(now, expiration_ms);
            })
            .ok();
    }
}

fn write_checkpoints(replicas: &ReplicaManager) {
    replicas.log_manager.write_checkpoints(&replicas.partitions.all());
}

fn flush_overdue(replicas: &ReplicaManager) {
    let now_ms = clock::now_ms();
    replicas.partitions.all().iter().for_each(|partition| partition.flush_if_overdue(now_ms));
}

fn remove_deleted(replicas: &ReplicaManager) {
    if !replicas.log_manager.any_online() {
        error!("all log directories have failed, the broker stops");
        replicas.session.failed.cancel();
        return;
    }
    let now_ms = clock::now_ms();
    replicas.log_manager.remove_deleted(now_ms);
    for partition in replicas.partitions.all() {
        if let Ok(Err(failure)) = partition.with_log_on_disk(|log| log.remove_deleted_files(now_ms))
        {
            error!(topic = %partition.topic(), partition = partition.index(), "{}-{}: the deletion of old files failed: {failure}", partition.topic(), partition.index());
        }
    }
}
