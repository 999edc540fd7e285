//! A replica cuts damaged records off only when nobody counts on it, and is in a new directory only when the metadata
//! have had that: of a directory that fails the controller must know what was in it (KIP-858).

use super::{Cluster, Committed, Invariant};
use crate::batch::{PARTITIONS, PartitionId};
use crate::observation::Observation;
use klamm_protocol::Uuid;
use klamm_protocol::ids::BrokerId;
use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub(super) struct LogDirectories {
    /// The directories that the metadata have had for replicas.
    recorded: BTreeSet<(PartitionId, BrokerId, Uuid)>,
}

impl Invariant for LogDirectories {
    fn observe(
        &mut self,
        seen: &Observation,
        committed: &Committed,
        _: &Cluster<'_>,
    ) -> Result<(), String> {
        match seen {
            Observation::DamageCut { broker, partition } => {
                let found = committed.partition(*partition);
                let counted =
                    found.into_iter().flat_map(|found| found.isr.iter().chain(&found.elr));
                match counted.into_iter().any(|counted| counted == broker) {
                    true => Err(format!("{broker} cuts {partition} and is counted on")),
                    false => Ok(()),
                }
            }
            Observation::ReplicaMoved { broker, partition, directory } => {
                match self.recorded.contains(&(*partition, *broker, *directory)) {
                    true => Ok(()),
                    false => Err(format!("{partition} of {broker} is in a directory not recorded")),
                }
            }
            Observation::MetadataCommitted { batch, .. }
                if batch.next_offset == committed.end() =>
            {
                for id in 0..PARTITIONS.len() {
                    let Some(found) = committed.partition(id) else { continue };
                    let replicas = found.replicas.iter().zip(&found.directories);
                    self.recorded.extend(replicas.map(|(broker, at)| (id, *broker, *at)));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
