//! A replica cuts damaged records off only when nobody counts on it, and is in a new directory only when the metadata
//! have that: of a directory that fails the controller must know what was in it (KIP-858).

use super::{Cluster, Committed, Invariant};
use crate::observation::Observation;
use klamm_metadata::directory_id;

#[derive(Debug, Default)]
pub(super) struct LogDirectories;

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
                let found = committed.partition(*partition);
                let recorded = found.and_then(|found| found.directory(*broker));
                // The replica may have been moved away and back, which its broker has not heard.
                let is_known =
                    |recorded| recorded == *directory || directory_id::is_reserved(recorded);
                match recorded.is_none_or(is_known) {
                    true => Ok(()),
                    false => Err(format!("{partition} of {broker} is in a directory not recorded")),
                }
            }
            _ => Ok(()),
        }
    }
}
