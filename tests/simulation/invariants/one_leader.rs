//! An epoch has one leader, of the metadata log and of every partition: one node, in one of its lives.
//! A node that comes back never leads an epoch on (KAFKA-10527).

use super::{Cluster, Committed, Invariant};
use crate::batch::PartitionId;
use crate::observation::{Life, Observation};
use klamm_protocol::ids::LeaderEpoch;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct OneLeader {
    /// None stands for the metadata log.
    leaders: BTreeMap<(Option<PartitionId>, LeaderEpoch), Life>,
}

impl Invariant for OneLeader {
    fn observe(
        &mut self,
        seen: &Observation,
        _: &Committed,
        _: &Cluster<'_>,
    ) -> Result<(), String> {
        let (life, log, epoch) = match seen {
            Observation::QuorumLed { life, epoch } => (*life, None, *epoch),
            Observation::PartitionLed { life, partition, epoch } => {
                (*life, Some(*partition), *epoch)
            }
            _ => return Ok(()),
        };
        match self.leaders.insert((log, epoch), life) {
            Some(other) if other != life || log.is_none() => {
                Err(format!("epoch {epoch} of log {log:?} is led by {other:?} and by {life:?}"))
            }
            _ => Ok(()),
        }
    }
}
