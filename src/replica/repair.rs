//! Repairs replicas whose disk has damaged records below the flushed offset: the segment is kept aside and the records
//! are fetched again from the leader. Damaged records are never served and never silently dropped.
//!
//! What is done next with such a replica, [`Repair`] decides: here it is given the facts, and obeyed. A replica
//! that is the only one with all the records stays: intact records are served, reads of damaged ones fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use klamm_log::error::{LogError, ReadError};
use klamm_metadata::directory_id;
use klamm_metadata::image::ClusterImage;
use klamm_metadata::image::partition::Partition as Registered;
use klamm_protocol::ids::{LeaderEpoch, Offset, TopicIdPartition};
use klamm_replication::partition::{DamagedReplica, Repair, RepairStep};
use tracing::{error, info, warn};

use super::directories::waits_for_election;
use super::partition::{Cut, Partition, serve_intact};
use super::replica_manager::ReplicaManager;

/// How often replicas with known damage are checked.
const REPAIR_INTERVAL: Duration = Duration::from_millis(200);

/// Repairs damaged replicas, for as long as it is polled.
pub(super) async fn run(replicas: Arc<ReplicaManager>) {
    let mut logged = BTreeSet::new();
    let mut repairs: BTreeMap<TopicIdPartition, Repair> = BTreeMap::new();
    let mut ticks = tokio::time::interval(REPAIR_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let before = std::mem::take(&mut repairs);
        for partition in replicas.partitions.all() {
            let damaged = partition.damage().segment();
            if damaged.is_none() && !partition.damage().is_refetching() {
                continue;
            }
            let key = partition.key();
            let repair =
                repairs.entry(key).or_insert(before.get(&key).copied().unwrap_or_default());
            if has_failed_directory(&replicas, &partition) {
                continue;
            }
            let Some(segment) = damaged else {
                finish(&replicas, &partition, repair);
                continue;
            };
            let image = replicas.metadata_cache.image();
            let topic = image.topics.by_id(partition.key().topic_id);
            let known = topic.and_then(|topic| topic.partition(partition.index()));
            let Some(known) = known else { continue };
            match repair.next_step(&damaged_replica(&replicas, &partition, &image, known)) {
                RepairStep::Wait => {}
                RepairStep::Serve => {
                    if logged.insert(key) {
                        let (topic, index) = (partition.topic(), partition.index());
                        error!(
                            %topic, partition = index, "{topic}-{index}: no other replica is in sync, the damaged records at \
                             {segment} cannot be fetched again: restore them from a backup, or wait \
                             for another replica"
                        );
                    }
                    serve(&replicas, &partition, known);
                }
                RepairStep::Leave => leave(&replicas, &partition),
                RepairStep::Cut(epoch) => cut(&replicas, partition, repair, epoch, segment).await,
            }
        }
    }
}

fn has_failed_directory(replicas: &ReplicaManager, partition: &Partition) -> bool {
    let directory = replicas.log_manager.directory_of(partition.topic(), partition.index());
    directory.is_none_or(|directory| replicas.log_manager.failed_directories().contains(&directory))
}

fn damaged_replica<'i>(
    replicas: &ReplicaManager,
    partition: &Partition,
    image: &ClusterImage,
    known: &'i Registered,
) -> DamagedReplica<'i> {
    let broker = replicas.config.node_id;
    let is_given_up = match image.metadata_version().is_directory_assignment_supported() {
        true => known.directory(broker).is_some_and(directory_id::is_given_up),
        // Nobody can be told. A leader removes a replica that does not fetch.
        false => partition.is_offline(),
    };
    DamagedReplica {
        broker,
        leader: known.leader,
        isr: &known.isr,
        elr: &known.elr,
        last_known_elr: &known.last_known_elr,
        is_given_up,
        following_epoch: partition.following_epoch(),
    }
}

/// The replica may have been given up while others were in the ISR beside it.
fn serve(replicas: &ReplicaManager, partition: &Partition, known: &Registered) {
    let id = replicas.config.node_id;
    if partition.is_offline() {
        serve_intact(partition);
        if has_failed_directory(replicas, partition) {
            return partition.fail();
        }
    }
    let is_given_up = known.directory(id).is_some_and(directory_id::is_given_up);
    if is_given_up || waits_for_election(known, id) {
        report_directory(replicas, partition);
    }
}

fn report_directory(replicas: &ReplicaManager, partition: &Partition) {
    let (topic, index) = (partition.topic(), partition.index());
    if let Some(directory) = replicas.log_manager.directory_id_for(topic, index) {
        replicas.assign_directory(partition.key(), directory);
    }
}

fn leave(replicas: &ReplicaManager, partition: &Partition) {
    let (topic, index) = (partition.topic(), partition.index());
    if !partition.is_offline() {
        warn!(%topic, partition = index, "{topic}-{index} is damaged: this replica leaves the ISR and is fetched again from the leader");
        partition.fail();
    }
    replicas.assign_directory(partition.key(), directory_id::LOST);
}

/// The log was truncated before the damage: reports its directory when it has what it had.
fn finish(replicas: &ReplicaManager, partition: &Partition, repair: &Repair) {
    let Some(view) = partition.view() else { return };
    if repair.may_return(partition.following_epoch(), view.log_end()) {
        partition.damage().on_refetched();
        report_directory(replicas, partition);
    }
}

async fn cut(
    replicas: &Arc<ReplicaManager>,
    partition: Arc<Partition>,
    repair: &mut Repair,
    epoch: LeaderEpoch,
    segment: Offset,
) {
    let (at, damaged) = (Arc::clone(replicas), Arc::clone(&partition));
    let cut = tokio::task::spawn_blocking(move || cut_before(&at, &damaged, epoch, segment)).await;
    let (topic, index) = (partition.topic(), partition.index());
    match cut {
        Ok(Ok(Some(end))) => {
            repair.on_cut(epoch, end);
            info!(%topic, partition = index, "{topic}-{index} is truncated to offset {segment} and fetched again from there")
        }
        Ok(Ok(None)) => return,
        Ok(Err(failure)) => {
            return error!(%topic, partition = index, "{topic}-{index} cannot be repaired: {failure}");
        }
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
    replicas.wake_fetcher(partition.key());
}

/// Keeps a copy of the damaged segment and truncates the log before it. Returns where the log ended, if this broker still
/// follows in that epoch.
fn cut_before(
    replicas: &ReplicaManager,
    partition: &Partition,
    epoch: LeaderEpoch,
    segment: Offset,
) -> Result<Option<Offset>, LogError> {
    let Some(view) = partition.view() else { return Ok(None) };
    let (log_start, end) = (view.log_start(), view.log_end());
    replicas.log_manager.keep_damaged(partition, segment);
    let cut = if segment > log_start { Cut::To(segment) } else { Cut::FullyAndStartAt(log_start) };
    replicas.log_manager.cut(&replicas.partitions.all(), partition, epoch, cut)?;
    Ok(partition.on_repaired(epoch).then_some(end))
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
