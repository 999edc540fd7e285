//! The high watermark never falls while a leader leads, and never exceeds what each member of the committed
//! ISR holds on disk.

use super::{Cluster, Committed, Invariant};
use crate::batch::{PARTITIONS, PartitionId};
use crate::observation::{Life, Observation};
use klamm_protocol::ids::{LeaderEpoch, Offset};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy)]
struct Led {
    life: Life,
    epoch: LeaderEpoch,
    offset: Offset,
}

#[derive(Debug, Default)]
pub(super) struct HighWatermark {
    /// The last that was heard of the leader of the latest epoch.
    latest: BTreeMap<PartitionId, Led>,
    highest: BTreeMap<PartitionId, Offset>,
}

impl HighWatermark {
    pub(super) fn highest(&self) -> impl Iterator<Item = (PartitionId, Offset)> {
        self.highest.iter().map(|(partition, offset)| (*partition, *offset))
    }

    fn on_moved(&mut self, partition: PartitionId, led: Led) -> Result<(), String> {
        let Led { life, epoch, offset } = led;
        if let Some(before) = self.latest.get(&partition)
            && before.epoch == epoch
            && before.life == life
            && before.offset > offset
        {
            let from = before.offset;
            return Err(format!(
                "{partition}: high watermark of {life:?} falls {from} -> {offset}"
            ));
        }
        if self.latest.get(&partition).is_none_or(|before| before.epoch <= epoch) {
            self.latest.insert(partition, led);
        }
        let highest = self.highest.entry(partition).or_default();
        *highest = offset.max(*highest);
        Ok(())
    }

    /// The last committed batch is on the disk of each member of the ISR. That those before it are as
    /// well follows from log matching.
    fn check(
        &self,
        id: PartitionId,
        committed: &Committed,
        cluster: &Cluster<'_>,
    ) -> Result<(), String> {
        let Some(led) = self.latest.get(&id).filter(|led| led.offset > 0) else { return Ok(()) };
        let Some(found) = committed.partition(id) else { return Ok(()) };
        let leads = found.leader == Some(led.life.0) && found.leader_epoch == led.epoch;
        if !leads || !cluster.has_disk_of(led.life.0, id, found) {
            return Ok(());
        }
        let Some(last) = cluster.batch(led.life.0, id, led.offset - 1) else {
            return Err(format!("{id}: {:?} lacks what it has committed: {led:?}", led.life));
        };
        for member in &found.isr {
            if cluster.has_disk_of(*member, id, found) && !cluster.has_durably(*member, id, last) {
                let offset = led.offset;
                return Err(format!("{id}: {member} is in sync and lacks part of 0..{offset}"));
            }
        }
        Ok(())
    }
}

impl Invariant for HighWatermark {
    fn observe(
        &mut self,
        seen: &Observation,
        committed: &Committed,
        cluster: &Cluster<'_>,
    ) -> Result<(), String> {
        match seen {
            Observation::HighWatermark { life, partition, epoch, leads: true, offset } => {
                let led = Led { life: *life, epoch: *epoch, offset: *offset };
                self.on_moved(*partition, led)?;
                self.check(*partition, committed, cluster)
            }
            Observation::MetadataCommitted { batch, .. }
                if batch.next_offset == committed.end() =>
            {
                (0..PARTITIONS.len()).try_for_each(|id| self.check(id, committed, cluster))
            }
            _ => Ok(()),
        }
    }
}
