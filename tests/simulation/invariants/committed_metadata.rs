//! Committed metadata are never lost: every node commits the same batches, what is committed is on the
//! disks of a majority of the voters, an active controller has all of it, and nobody cuts what it has
//! replayed. No node meets a message that only an incorrect one would send.

use super::{Cluster, Committed, Invariant};
use crate::batch::MetadataBatch;
use crate::node::Node;
use crate::observation::Observation;
use klamm_protocol::ids::LeaderEpoch;
use klamm_replication::quorum::{Anomaly, VoterSet};
use std::rc::Rc;

#[derive(Debug, Default)]
pub(super) struct CommittedMetadata;

impl Invariant for CommittedMetadata {
    fn observe(
        &mut self,
        seen: &Observation,
        committed: &Committed,
        cluster: &Cluster<'_>,
    ) -> Result<(), String> {
        match seen {
            Observation::MetadataCommitted { life, batch } => {
                let offset = batch.base_offset;
                match committed.batches.get(&offset) {
                    Some(known) if Rc::ptr_eq(known, batch) => Ok(()),
                    None if offset == committed.end() => check_durable(batch, cluster),
                    known => Err(format!("{life:?} commits {batch:?} at {offset}, not {known:?}")),
                }
            }
            Observation::ControllerActive { life, epoch } => {
                check_complete(&cluster.nodes[&life.0], *epoch, committed)
            }
            Observation::MetadataCut { life, end_offset, applied } if end_offset < applied => {
                Err(format!("{life:?} cut its log to {end_offset} after replaying up to {applied}"))
            }
            // A fetch that was delayed or doubled arrives after a later one.
            Observation::Contradiction { anomaly: Anomaly::FetchOffsetWentBack { .. }, .. } => {
                Ok(())
            }
            // Who has lost the log that named the voters, or who answers it, may know a leader by its id alone.
            Observation::Contradiction {
                anomaly: Anomaly::LeaderWithoutEndpoint { .. }, ..
            } if cluster.scenario.changes_voters => Ok(()),
            Observation::Contradiction { life, anomaly } => {
                Err(format!("{life:?} met {anomaly:?} among correct nodes"))
            }
            _ => Ok(()),
        }
    }
}

/// What a snapshot covers counts as there: it was synced before the log was deleted.
fn has_durably(node: &Node, batch: &Rc<MetadataBatch>) -> bool {
    let log = &node.disk.metadata;
    let found = log.find_synced(batch.base_offset);
    batch.next_offset <= log.start() || found.is_some_and(|found| Rc::ptr_eq(found, batch))
}

/// The voters that a node goes by: the last ones that its log, its snapshot or its format names.
fn voters(node: &Node) -> VoterSet {
    let process = node.process.as_ref();
    let membership = process.map(|process| process.metadata.quorum.membership().clone());
    membership.unwrap_or_else(|| node.disk.boot().membership).voters.latest().clone()
}

/// Whoever has let the first node know was the leader, whose voters may be others than that node's yet.
fn check_durable(batch: &Rc<MetadataBatch>, cluster: &Cluster<'_>) -> Result<(), String> {
    let is_held_by_majority = |voters: &VoterSet| {
        let holders = voters.ids().filter(|id| has_durably(&cluster.nodes[id], batch)).count();
        !voters.is_empty() && holders >= voters.majority()
    };
    if !cluster.nodes.values().any(|node| is_held_by_majority(&voters(node))) {
        let offset = batch.base_offset;
        return Err(format!("metadata offset {offset} is committed but on too few disks"));
    }
    Ok(())
}

/// A controller that hears late that it became active may have been replaced; of what its successor has committed it
/// knows nothing.
fn check_complete(node: &Node, epoch: LeaderEpoch, committed: &Committed) -> Result<(), String> {
    let log = &node.disk.metadata;
    let beyond = committed.batches.values().filter(|batch| batch.next_offset > log.start());
    for batch in beyond.filter(|batch| batch.epoch < epoch) {
        if !log.find(batch.base_offset).is_some_and(|found| Rc::ptr_eq(found, batch)) {
            let (id, offset) = (node.id, batch.base_offset);
            return Err(format!("controller {id} lacks committed metadata offset {offset}"));
        }
    }
    Ok(())
}
