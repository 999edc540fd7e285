//! What one consumer has read at an offset every other reads there, and it is what the logs hold in the end.

use super::{Cluster, Committed, Invariant};
use crate::batch::{PartitionId, Value};
use crate::observation::Observation;
use klamm_protocol::ids::Offset;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct ConsumedRecords {
    values: BTreeMap<(PartitionId, Offset), Option<Value>>,
}

impl Invariant for ConsumedRecords {
    fn observe(
        &mut self,
        seen: &Observation,
        _: &Committed,
        _: &Cluster<'_>,
    ) -> Result<(), String> {
        let Observation::Consumed { partition, offset, value } = seen else { return Ok(()) };
        let known = self.values.entry((*partition, *offset)).or_insert(*value);
        if known != value {
            return Err(format!("{partition} at {offset} was read as {known:?} and as {value:?}"));
        }
        Ok(())
    }

    fn finish(&mut self, committed: &Committed, cluster: &Cluster<'_>) -> Result<(), String> {
        for ((partition, offset), value) in &self.values {
            for id in committed.replicas(*partition) {
                let batch = cluster.batch(id, *partition, *offset);
                let held = batch.and_then(|batch| batch.value_at(*offset));
                if held != *value {
                    return Err(format!(
                        "{value:?} was read from {partition} at {offset}, {id} has {held:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}
