//! Acknowledged records are never lost, doubled or reordered: when they are acknowledged as many disks hold
//! them as min.insync.replicas asks for, every later leader has them at the same offsets, and in the end
//! every log holds each producer's records once and in order.

use super::{Cluster, Committed, Invariant};
use crate::batch::{DATA_PARTITIONS, PARTITIONS, PartitionBatch, PartitionId, Payload, Value};
use crate::observation::{Life, Observation};
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct AcknowledgedRecords {
    /// The value at each offset, and the first epoch in which it was acknowledged.
    values: BTreeMap<(PartitionId, Offset), (LeaderEpoch, Value)>,
    offsets: BTreeMap<(PartitionId, Value), Offset>,
    /// Replicas that have cut off damaged records, with what was behind those.
    cut: BTreeSet<(PartitionId, BrokerId)>,
}

impl AcknowledgedRecords {
    fn on_acknowledged(
        &mut self,
        (life, epoch): (Life, LeaderEpoch),
        place: (PartitionId, Offset),
        value: Value,
        committed: &Committed,
        cluster: &Cluster<'_>,
    ) -> Result<(), String> {
        let (partition, offset) = place;
        let known = *self.values.entry(place).or_insert((epoch, value));
        if known.1 != value {
            return Err(format!("{place:?} is acknowledged as {known:?} and as {value:?}"));
        }
        let first = *self.offsets.entry((partition, value)).or_insert(offset);
        if first != offset {
            return Err(format!("{value:?} of {partition} is at {first} and at {offset}"));
        }
        let batch = cluster.batch(life.0, partition, offset);
        let Some(batch) = batch.filter(|batch| batch.value_at(offset) == Some(value)) else {
            return Err(format!("{life:?} acknowledges {value:?} at {place:?}, but lacks it"));
        };
        let holders = cluster.nodes.keys();
        let holders = holders.filter(|id| cluster.has_durably(**id, partition, batch)).count();
        // What was acknowledged by the fetch of a follower was on its disk, even if that is gone by now.
        let isr = committed.partition(partition).map_or(&[][..], |found| &found.isr);
        let mut cut = self.cut.iter().filter(|(of, id)| *of == partition && !isr.contains(id));
        let gone = usize::from(cluster.restoring.is_some() || cut.next().is_some());
        if holders + gone < cluster.scenario.min_insync_replicas {
            return Err(format!("{value:?} at {place:?} is acknowledged on {holders} disks"));
        }
        Ok(())
    }

    /// What was acknowledged before `epoch` is there.
    fn check_held(
        &self,
        id: BrokerId,
        partition: PartitionId,
        epoch: LeaderEpoch,
        cluster: &Cluster<'_>,
    ) -> Result<(), String> {
        for ((_, offset), (acknowledged_in, value)) in
            self.values.range((partition, 0)..(partition + 1, 0))
        {
            if *acknowledged_in >= epoch {
                continue;
            }
            let batch = cluster.batch(id, partition, *offset);
            let found = batch.and_then(|batch| batch.value_at(*offset));
            if found != Some(*value) {
                return Err(format!(
                    "{partition}: {id} of epoch {epoch} has {found:?} at {offset}, and \
                     {value:?} was acknowledged in epoch {acknowledged_in}"
                ));
            }
        }
        Ok(())
    }
}

impl Invariant for AcknowledgedRecords {
    fn observe(
        &mut self,
        seen: &Observation,
        committed: &Committed,
        cluster: &Cluster<'_>,
    ) -> Result<(), String> {
        match seen {
            Observation::Acknowledged { life, partition, epoch, offset, value } => self
                .on_acknowledged(
                    (*life, *epoch),
                    (*partition, *offset),
                    *value,
                    committed,
                    cluster,
                ),
            Observation::DamageCut { broker, partition } => {
                self.cut.insert((*partition, *broker));
                Ok(())
            }
            Observation::PartitionLed { life, partition, epoch } => {
                self.check_held(life.0, *partition, *epoch, cluster)
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, committed: &Committed, cluster: &Cluster<'_>) -> Result<(), String> {
        for partition in 0..PARTITIONS.len() {
            for id in committed.replicas(partition) {
                self.check_held(id, partition, LeaderEpoch::MAX, cluster)?;
                let disk = cluster.nodes[&id].disk.logs.get(partition);
                if let Some(disk) = disk.filter(|_| partition < DATA_PARTITIONS) {
                    check_order(disk.log.batches().iter().map(|batch| &**batch))?;
                }
            }
        }
        Ok(())
    }
}

/// Every producer's values, from the first on, once each.
fn check_order<'l>(batches: impl Iterator<Item = &'l PartitionBatch>) -> Result<(), String> {
    let mut next: BTreeMap<i64, i32> = BTreeMap::new();
    for batch in batches {
        let Payload::Values(values) = &batch.payload else { continue };
        for value in values {
            let expected = next.entry(value.producer).or_default();
            if value.sequence != *expected {
                return Err(format!("{value:?} is where {expected} should be, in {batch:?}"));
            }
            *expected += 1;
        }
    }
    Ok(())
}
