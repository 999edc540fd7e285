//! Repairs replicas whose disk has damaged records below the flushed offset: the segment is kept aside and the records
//! are fetched again from the leader. Damaged records are never served and never silently dropped.
//!
//! A replica that lacks records must not stay in the ISR. So this broker first reports the replica's directory as lost:
//! the controller removes the replica from the ISR and moves the leadership. The log is truncated before the damage
//! only after the metadata has the replica in neither ISR nor ELR; then the replica follows like any other. A replica
//! that is alone in the ISR stays as it is: intact records are served, reads of damaged ones fail.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use klamm_log::error::{LogError, ReadError};
use klamm_metadata::directory_id;
use tracing::{error, info, warn};

use super::partition::{Cut, Partition};
use super::replica_manager::ReplicaManager;
use klamm_protocol::ids::TopicIdPartition;

/// How often replicas with known damage are checked.
const REPAIR_INTERVAL: Duration = Duration::from_millis(200);

/// Repairs damaged replicas, for as long as it is polled.
pub(super) async fn run(replicas: Arc<ReplicaManager>) {
    let mut logged = BTreeSet::new();
    let mut ticks = tokio::time::interval(REPAIR_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for partition in replicas.partitions.all() {
            let Some(segment) = partition.damaged_segment() else { continue };
            match next_step(&replicas, &partition) {
                Step::None => {}
                Step::Alone => {
                    if logged.insert(TopicIdPartition::new(partition.topic_id(), partition.index()))
                    {
                        let (topic, index) = (partition.topic(), partition.index());
                        error!(
                            %topic, partition = index, "{topic}-{index}: no other replica is in sync, the damaged records at \
                             {segment} cannot be fetched again: restore them from a backup, or wait \
                             for another replica"
                        );
                    }
                }
                Step::Leave => leave(&replicas, &partition),
                Step::Cut => cut(&replicas, partition, segment).await,
            }
        }
    }
}

/// The next step of the repair of a replica.
enum Step {
    None,
    /// This replica is alone in the ISR: no other replica has all the records.
    Alone,
    /// The controller has to remove this replica from ISR and ELR first.
    Leave,
    /// The replica is in neither ISR nor ELR, and another broker leads: the log may be truncated.
    Cut,
}

fn next_step(replicas: &ReplicaManager, partition: &Partition) -> Step {
    let id = replicas.config.node_id;
    let image = replicas.metadata_cache.image();
    let topic = image.topics.by_id(partition.topic_id());
    let Some(known) = topic.and_then(|topic| topic.partition(partition.index())) else {
        return Step::None;
    };
    let directory = replicas.log_manager.directory_of(partition.topic(), partition.index());
    if directory
        .is_none_or(|directory| replicas.log_manager.failed_directories().contains(&directory))
    {
        return Step::None;
    }
    if known.isr == [id] {
        return Step::Alone;
    }
    let counted_on = known.isr.contains(&id) || known.elr.contains(&id) || known.leader == Some(id);
    match counted_on {
        true => Step::Leave,
        // Without a leader there is no broker to fetch from.
        false if known.has_leader() => Step::Cut,
        false => Step::None,
    }
}

fn leave(replicas: &ReplicaManager, partition: &Partition) {
    let (topic, index) = (partition.topic(), partition.index());
    if !partition.is_offline() {
        warn!(%topic, partition = index, "{topic}-{index} is damaged: this replica leaves the ISR and is fetched again from the leader");
        partition.fail();
    }
    replicas
        .assign_directory(TopicIdPartition::new(partition.topic_id(), index), directory_id::LOST);
}

async fn cut(replicas: &Arc<ReplicaManager>, partition: Arc<Partition>, segment: i64) {
    let key: TopicIdPartition = TopicIdPartition::new(partition.topic_id(), partition.index());
    let (at, damaged) = (Arc::clone(replicas), Arc::clone(&partition));
    let cut = tokio::task::spawn_blocking(move || cut_before(&at, &damaged, segment)).await;
    let (topic, index) = (partition.topic(), partition.index());
    match cut {
        Ok(Ok(true)) => {
            info!(%topic, partition = index, "{topic}-{index} is truncated to offset {segment} and fetched again from there")
        }
        Ok(Ok(false)) => return,
        Ok(Err(failure)) => {
            return error!(%topic, partition = index, "{topic}-{index} cannot be repaired: {failure}");
        }
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
    if let Some(directory) = replicas.log_manager.directory_id_for(topic, index) {
        replicas.assign_directory(key, directory);
    }
    replicas.wake_fetcher(key);
}

/// Keeps a copy of the damaged segment and truncates the log before it; false if this broker does not follow yet.
fn cut_before(
    replicas: &ReplicaManager,
    partition: &Partition,
    segment: i64,
) -> Result<bool, LogError> {
    let Some(epoch) = partition.following_epoch() else { return Ok(false) };
    let Some(log_start) = partition.view().map(|view| view.log_start()) else { return Ok(false) };
    replicas.log_manager.keep_damaged(partition, segment);
    let cut = if segment > log_start { Cut::To(segment) } else { Cut::FullyAndStartAt(log_start) };
    replicas.log_manager.cut(&replicas.partitions.all(), partition, epoch, cut)?;
    partition.on_repaired();
    Ok(true)
}

/// Verifies all sealed segments again and again, for as long as it is polled, to find damage while another replica
/// still has the records. The rate is limited, so that requests are not slowed down (`log.scrub.interval.ms`,
/// `log.scrub.io.max.bytes.per.second`).
pub(super) async fn scrub(replicas: Arc<ReplicaManager>) {
    loop {
        let interval = replicas.config.current().storage.scrub_interval;
        tokio::time::sleep(interval).await;
        for partition in replicas.partitions.all() {
            scrub_one(&replicas, &partition).await;
        }
    }
}

async fn scrub_one(replicas: &ReplicaManager, partition: &Partition) {
    let Some(view) = partition.view().filter(|_| !partition.is_offline()) else { return };
    for sealed in 0..view.sealed_segments() {
        let rate = replicas.config.current().storage.scrub_rate;
        if rate == 0 {
            return;
        }
        let looked_at = view.clone();
        let verified = tokio::task::spawn_blocking(move || looked_at.verify(sealed)).await;
        match verified {
            Ok(Ok(bytes)) => {
                let pause_ms = bytes.saturating_mul(1000) / rate;
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
            Ok(Err(ReadError::Corrupt { segment, .. })) => {
                partition.on_corrupt(segment);
                return;
            }
            // The segment was deleted or truncated meanwhile, or the directory has failed, which the reader has
            // reported.
            Ok(Err(_)) => return,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}
