//! A generation of the group deals each partition out once, and to a member always the same, as long as the group lives.

use super::{Cluster, Committed, Invariant};
use crate::batch::PartitionId;
use crate::observation::Observation;
use bytestring::ByteString;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct GroupGenerations {
    assigned: BTreeMap<(i32, ByteString), Vec<PartitionId>>,
    owners: BTreeMap<(i32, PartitionId), ByteString>,
}

impl Invariant for GroupGenerations {
    fn observe(
        &mut self,
        seen: &Observation,
        _: &Committed,
        _: &Cluster<'_>,
    ) -> Result<(), String> {
        if let Observation::GroupDeleted = seen {
            *self = Self::default();
        }
        let Observation::Assigned { member, generation, partitions } = seen else {
            return Ok(());
        };
        let key = (*generation, member.clone());
        let known = self.assigned.entry(key).or_insert_with(|| partitions.clone());
        if known != partitions {
            return Err(format!("{member} has {known:?} and {partitions:?} in {generation}"));
        }
        for partition in partitions {
            let owner = self.owners.entry((*generation, *partition));
            let owner = owner.or_insert_with(|| member.clone());
            if owner != member {
                return Err(format!("{partition} is {owner}'s and {member}'s in {generation}"));
            }
        }
        Ok(())
    }
}
