//! Voters change one at a time, so that any two majorities that follow one another have a node in common; and
//! a change that is said to be done is committed (KIP-853).

use super::{Cluster, Committed, Invariant};
use crate::observation::Observation;
use klamm_protocol::ids::{BrokerId, Offset};
use klamm_replication::quorum::ControlChange;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct Voters {
    /// The voters of each committed record that names them.
    committed: BTreeMap<Offset, BTreeSet<BrokerId>>,
}

impl Voters {
    fn on_committed(&mut self, offset: Offset, ids: BTreeSet<BrokerId>) -> Result<(), String> {
        let before = self.committed.range(..offset).next_back();
        let changed = before.map(|(_, before)| before.symmetric_difference(&ids).count());
        if changed > Some(1) || ids.is_empty() {
            return Err(format!("the voters change from {before:?} to {ids:?} at {offset}"));
        }
        self.committed.insert(offset, ids);
        Ok(())
    }
}

impl Invariant for Voters {
    fn observe(
        &mut self,
        seen: &Observation,
        committed: &Committed,
        _: &Cluster<'_>,
    ) -> Result<(), String> {
        match seen {
            Observation::MetadataCommitted { batch, .. } => {
                for (offset, change) in &batch.changes {
                    if let ControlChange::Voters(voters) = change {
                        self.on_committed(*offset, voters.ids().collect())?;
                    }
                }
                Ok(())
            }
            Observation::VotersChanged { life, offset } if *offset >= committed.end() => {
                Err(format!("{life:?} says that the voters at {offset} are in force"))
            }
            _ => Ok(()),
        }
    }
}
