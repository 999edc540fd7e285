//! Who joins the ISR of a partition is alive, and has fetched in the life that is registered: a broker that has
//! restarted since may have lost its tail, and one that is fenced holds everybody up (KIP-841, KIP-903).

use super::{Cluster, Committed, Invariant};
use crate::batch::{PARTITIONS, PartitionId};
use crate::observation::Observation;
use klamm_metadata::image::partition::Partition;
use klamm_protocol::ids::BrokerId;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct IsrMembers {
    /// The ISRs as they were committed last.
    isr: BTreeMap<PartitionId, Vec<BrokerId>>,
    /// By which broker epochs leaders have counted fetches of a follower.
    fetched: BTreeSet<(PartitionId, BrokerId, i64)>,
}

impl IsrMembers {
    fn check(
        &self,
        id: PartitionId,
        member: BrokerId,
        committed: &Committed,
    ) -> Result<(), String> {
        let broker = committed.loader.stable().brokers.get(member);
        let Some(broker) = broker.filter(|broker| !broker.fenced) else {
            return Err(format!("{member} joins the ISR of {id} and is fenced"));
        };
        let epoch = broker.epoch;
        match self.fetched.contains(&(id, member, epoch)) {
            true => Ok(()),
            false => Err(format!("{member} joins the ISR of {id} before its life {epoch} fetches")),
        }
    }

    /// Who is elected joins by that, whatever it has fetched.
    fn joined(&self, id: PartitionId, found: &Partition) -> Vec<BrokerId> {
        let Some(before) = self.isr.get(&id) else { return Vec::new() };
        let joined = found.isr.iter().copied();
        joined.filter(|member| Some(*member) != found.leader && !before.contains(member)).collect()
    }
}

impl Invariant for IsrMembers {
    fn observe(
        &mut self,
        seen: &Observation,
        committed: &Committed,
        _: &Cluster<'_>,
    ) -> Result<(), String> {
        match seen {
            Observation::FetchCounted { partition, follower, broker_epoch } => {
                let Some(broker_epoch) = broker_epoch else {
                    return Err(format!(
                        "{follower} fetches {partition} and does not say in which life"
                    ));
                };
                self.fetched.insert((*partition, *follower, *broker_epoch));
                Ok(())
            }
            Observation::MetadataCommitted { batch, .. }
                if batch.next_offset == committed.end() =>
            {
                for id in 0..PARTITIONS.len() {
                    let Some(found) = committed.partition(id) else { continue };
                    for member in self.joined(id, found) {
                        self.check(id, member, committed)?;
                    }
                    self.isr.insert(id, found.isr.clone());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
