//! What a leader knows of its producers is what its log tells, whatever was cut or lost on the way; so no
//! producer is ever told that its next batch does not follow its last, unless by a leader that another has followed:
//! that one may have acknowledged more.

use super::{Cluster, Committed, Invariant};
use crate::observation::Observation;

#[derive(Debug, Default)]
pub(super) struct ProducerState;

impl Invariant for ProducerState {
    fn observe(
        &mut self,
        seen: &Observation,
        committed: &Committed,
        _: &Cluster<'_>,
    ) -> Result<(), String> {
        match seen {
            Observation::ProducersRebuilt { life, partition, equal: false } => {
                Err(format!("{life:?} knows other producers of {partition} than its log"))
            }
            Observation::SequenceRefused { partition, epoch, value } => {
                let newest = committed.partition(*partition).map(|found| found.leader_epoch);
                if newest > Some(*epoch) {
                    return Ok(());
                }
                Err(format!("{value:?} is refused by {partition}, and all before it were taken"))
            }
            _ => Ok(()),
        }
    }
}
