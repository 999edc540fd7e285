//! State reached by replay is equal on every node at equal offsets, however the node got there: record
//! by record, from a snapshot, or by deciding it as controller.

use super::{Cluster, Committed, Invariant};
use crate::observation::Observation;
use std::rc::Rc;

#[derive(Debug, Default)]
pub(super) struct EqualState;

impl Invariant for EqualState {
    fn observe(
        &mut self,
        seen: &Observation,
        committed: &Committed,
        cluster: &Cluster<'_>,
    ) -> Result<(), String> {
        let Observation::MetadataApplied { life, end_offset } = seen else { return Ok(()) };
        let process = cluster.nodes[&life.0].process.as_ref();
        let Some(metadata) = process.map(|process| &process.metadata) else { return Ok(()) };
        let reference = &committed.loader;
        let own = metadata.controller.committed();
        let at_end = own.end_offset() == reference.end_offset();
        if at_end && (own.newest() != reference.newest() || own.stable() != reference.stable()) {
            return Err(format!("the state of {life:?} at {end_offset} is another one"));
        }
        let deciding = metadata.controller.controller().loader();
        // One that has been replaced and does not know it decides by what nobody else will ever commit.
        let log = &cluster.nodes[&life.0].disk.metadata;
        let last = committed.batches.values().next_back();
        let is_committed = last
            .is_some_and(|last| log.find(last.base_offset).is_some_and(|it| Rc::ptr_eq(it, last)));
        let decided = is_committed
            && metadata.controller.controller().is_active()
            && deciding.end_offset() == reference.end_offset()
            && deciding.newest() != reference.newest();
        if decided {
            return Err(format!("controller {life:?} decides on another state at {end_offset}"));
        }
        Ok(())
    }
}
