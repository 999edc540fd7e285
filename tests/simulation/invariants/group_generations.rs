//! A generation of the group deals each partition out once, and to a member always the same, as long as the group lives.

use super::{Cluster, Committed, Invariant};
use crate::batch::PartitionId;
use crate::observation::Observation;
use bytestring::ByteString;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct GroupGenerations {
    assigned: BTreeMap<(i32, ByteString), Vec<PartitionId>>,
    /// The latest generation that a member has heard of.
    latest: i32,
    /// A group that was deleted begins with the first generation again: up to here two groups may be told of.
    floor: i32,
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
            // An answer may be under way that nobody has seen yet.
            self.floor = self.latest + 1;
        }
        let Observation::Assigned { member, generation, partitions } = seen else {
            return Ok(());
        };
        self.latest = self.latest.max(*generation);
        if *generation <= self.floor {
            return Ok(());
        }
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
