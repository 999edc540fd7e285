//! The same offset in the same leader epoch is the same batch in every replica, and only the leader of an
//! epoch writes in it.

use super::{Cluster, Committed, Invariant};
use crate::batch::{PARTITIONS, PartitionBatch, PartitionId};
use crate::observation::{Life, Observation};
use klamm_protocol::ids::{LeaderEpoch, Offset};
use std::collections::BTreeMap;
use std::rc::Rc;

#[derive(Debug, Default)]
pub(super) struct LogMatching {
    written: BTreeMap<(PartitionId, LeaderEpoch, Offset), Rc<PartitionBatch>>,
    writers: BTreeMap<(PartitionId, LeaderEpoch), Life>,
    /// The highest high watermarks.
    committed: BTreeMap<PartitionId, Offset>,
}

impl Invariant for LogMatching {
    fn observe(
        &mut self,
        seen: &Observation,
        _: &Committed,
        _: &Cluster<'_>,
    ) -> Result<(), String> {
        if let Observation::HighWatermark { partition, offset, .. } = seen {
            let committed = self.committed.entry(*partition).or_default();
            *committed = (*committed).max(*offset);
        }
        let Observation::Written { life, partition, batch } = seen else { return Ok(()) };
        let (epoch, offset) = (batch.leader_epoch, batch.base_offset);
        let writer = *self.writers.entry((*partition, epoch)).or_insert(batch.writer);
        if writer != batch.writer {
            let other = batch.writer;
            return Err(format!("{writer:?} and {other:?} write in {partition}, epoch {epoch}"));
        }
        let known = self.written.entry((*partition, epoch, offset));
        let known = known.or_insert_with(|| Rc::clone(batch));
        if !Rc::ptr_eq(known, batch) {
            return Err(format!("{life:?} writes {batch:?} in {partition}, not {known:?}"));
        }
        Ok(())
    }

    /// All logs hold the same below the high watermark.
    fn finish(&mut self, committed: &Committed, cluster: &Cluster<'_>) -> Result<(), String> {
        for partition in 0..PARTITIONS.len() {
            let end = self.committed.get(&partition).copied().unwrap_or(0);
            let replicas = committed.replicas(partition).into_iter();
            let logs: Vec<_> =
                replicas.filter_map(|id| cluster.nodes[&id].disk.logs.get(partition)).collect();
            for pair in logs.windows(2) {
                let batches = pair[0].log.batches().iter().zip(pair[1].log.batches());
                for (one, other) in batches {
                    let is_committed = one.base_offset < end || other.base_offset < end;
                    if is_committed && !Rc::ptr_eq(one, other) {
                        return Err(format!("{partition} has {one:?} and {other:?}"));
                    }
                }
            }
        }
        Ok(())
    }
}
