//! Which of the broker's directories a replica's log is opened in, if any.
//!
//! A replica that is recorded in a directory which this broker does not have is offline: what it has acknowledged lies
//! there. Only one that nobody counts on (neither in sync nor eligible, and another broker leads) is begun anew
//! elsewhere, while all directories are in use, and not before the metadata have recorded it there: a log that the
//! metadata do not know of must never come to be counted, for the next start might open the other one.

use crate::batch::PartitionId;
use crate::log_directories::{Availability, LogDirectories};
use crate::metadata_driver::NodeStep;
use crate::plant::Plant;
use klamm_metadata::directory_id;
use klamm_metadata::image::partition::Partition;
use klamm_metadata::known_replica::KnownReplica;
use klamm_protocol::Uuid;
use klamm_protocol::ids::BrokerId;

/// What becomes of a replica that is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// Its log is opened here; an empty one if there is none.
    Open(Uuid),
    /// The controller is asked to record it here first.
    Record(Uuid),
    /// There is no room to open it now. The controller is told, so that another replica leads.
    NoRoom,
    /// Its log is not where the metadata have it, and may be in a directory that is not in use.
    Elsewhere,
    /// Its directory has to come back.
    Offline,
}

/// What this process knows of a replica.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    /// Where it has had the replica open.
    pub(super) opened_in: Option<Uuid>,
    /// The partition is older than the process: an earlier one may have opened the replica.
    pub(super) is_old: bool,
}

/// Where a replica goes that is not open.
pub(super) fn place(
    broker: BrokerId,
    id: PartitionId,
    partition: &Partition,
    replica: Before,
    logs: &LogDirectories,
    step: &mut NodeStep<'_>,
) -> Placement {
    match wanted(broker, id, partition, replica, logs, step) {
        Placement::Open(directory) if !logs.has_room(directory) => Placement::NoRoom,
        placement => placement,
    }
}

fn wanted(
    broker: BrokerId,
    id: PartitionId,
    partition: &Partition,
    replica: Before,
    logs: &LogDirectories,
    step: &mut NodeStep<'_>,
) -> Placement {
    let recorded = partition.directory(broker).expect("it replicates the partition");
    let found = logs.found(id);
    let known =
        KnownReplica::of(Uuid::ZERO, partition, broker).expect("it replicates the partition");
    // What has failed since it was opened is not to be found where the metadata look for it by mistake: the controller
    // hears of that first.
    let has_failed = replica.opened_in.is_some_and(|at| at != recorded && !logs.is_online(at));
    if has_failed && found.is_empty() {
        return Placement::Offline;
    }
    if logs.is_online(recorded) {
        // The recorded one wins. One elsewhere, without it, was opened before its place could be recorded.
        let ignores_record = step.plant == Plant::OtherLogWins;
        let was_there = replica.is_old || logs.copy_in(id).is_some();
        if found.is_empty() && was_there && !known.may_replace_log(logs.are_all_listed()) {
            return Placement::Elsewhere;
        }
        let other = found.iter().copied().find(|directory| *directory != recorded);
        return match other {
            Some(other) if ignores_record || !found.contains(&recorded) => Placement::Open(other),
            _ => Placement::Open(recorded),
        };
    }
    // Nor is it begun anew if its place could not be recorded before.
    if directory_id::is_reserved(recorded) && has_failed {
        return Placement::Offline;
    }
    if let Some(only) = found.first().filter(|_| directory_id::is_reserved(recorded)) {
        return Placement::Open(*only);
    }
    let may_be_elsewhere = || replica.is_old && !logs.are_all_online();
    let is_missed = known.is_missed(|directory| logs.is_online(directory), may_be_elsewhere);
    let is_new = !is_missed && recorded != directory_id::LOST;
    if is_new || step.plant == Plant::OpensMissedReplicaEmpty {
        return Placement::Open(any_online(logs, step));
    }
    let ignores_elr = step.plant == Plant::BeginsEligibleReplicaAnew;
    let ignored = ignores_elr && !partition.isr.contains(&broker) && known.is_led_elsewhere;
    // While a directory is not in use it may come back, and what has failed in this life was fetched in this life: the
    // leader may be counting on that by now.
    let may_begin_anew = known.can_be_fetched() && logs.are_all_online();
    match !is_missed || may_begin_anew || ignored {
        true => Placement::Record(found.first().copied().unwrap_or_else(|| same_online(logs, id))),
        false => Placement::Offline,
    }
}

/// The same one each time, as long as the directories are the same: two answers must not cross.
fn same_online(logs: &LogDirectories, id: PartitionId) -> Uuid {
    let online: Vec<Uuid> = logs.with(Availability::Online).collect();
    online[id % online.len()]
}

fn any_online(logs: &LogDirectories, step: &mut NodeStep<'_>) -> Uuid {
    let online: Vec<Uuid> = logs.with(Availability::Online).collect();
    let count = u64::try_from(online.len()).expect("few");
    online[usize::try_from(step.random.below(count)).expect("an index")]
}
