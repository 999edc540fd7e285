//! A generation of the group deals each partition out once, and to a member always the same, as long as the group lives.
//!
//! A group that was deleted begins with the first generation again. Members are told apart by the group that they have
//! joined: a coordinator gives each an id that nobody had before, and deletes a group only when nobody is in it.

use super::{Cluster, Committed, Invariant};
use crate::batch::PartitionId;
use crate::observation::Observation;
use bytestring::ByteString;
use std::collections::BTreeMap;

/// A generation, of the group that came after so many that were deleted.
type Generation = (usize, i32);

#[derive(Debug, Default)]
pub(super) struct GroupGenerations {
    /// How many groups had been deleted when each member joined.
    joined: BTreeMap<ByteString, usize>,
    assigned: BTreeMap<(Generation, ByteString), Vec<PartitionId>>,
    owners: BTreeMap<(Generation, PartitionId), ByteString>,
}

impl GroupGenerations {
    fn on_joined(&mut self, member: &ByteString, deletions: usize) -> Result<(), String> {
        let known = *self.joined.entry(member.clone()).or_insert(deletions);
        if known != deletions {
            return Err(format!(
                "{member} is in the group after {known} and in the one after {deletions}"
            ));
        }
        Ok(())
    }

    fn on_assigned(
        &mut self,
        member: &ByteString,
        generation: i32,
        partitions: &[PartitionId],
    ) -> Result<(), String> {
        let Some(deletions) = self.joined.get(member) else {
            return Err(format!("{member} is in {generation}, and never joined"));
        };
        let key = (*deletions, generation);
        let known = self.assigned.entry((key, member.clone()));
        let known = known.or_insert_with(|| partitions.to_vec());
        if known != partitions {
            return Err(format!("{member} has {known:?} and {partitions:?} in {generation}"));
        }
        for partition in partitions {
            let owner = self.owners.entry((key, *partition)).or_insert_with(|| member.clone());
            if owner != member {
                return Err(format!("{partition} is {owner}'s and {member}'s in {generation}"));
            }
        }
        Ok(())
    }
}

impl Invariant for GroupGenerations {
    fn observe(
        &mut self,
        seen: &Observation,
        _: &Committed,
        _: &Cluster<'_>,
    ) -> Result<(), String> {
        match seen {
            Observation::Joined { member, deletions } => self.on_joined(member, *deletions),
            Observation::Assigned { member, generation, partitions } => {
                self.on_assigned(member, *generation, partitions)
            }
            _ => Ok(()),
        }
    }
}
