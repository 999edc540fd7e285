//! Committed offsets never go back, nor do they expire because somebody sets a clock: a member that asks where to
//! begin is shown at least what was acknowledged, up to its generation, when it asked; and within a generation
//! commits rise.

use super::{Cluster, Committed, Invariant};
use crate::batch::PartitionId;
use crate::observation::Observation;
use bytestring::ByteString;
use klamm_protocol::ids::Offset;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct CommittedOffsets {
    /// The highest acknowledged offset of each partition and generation.
    acknowledged: BTreeMap<(PartitionId, i32), Offset>,
    /// What a member that has asked must at least be shown.
    owed: BTreeMap<(ByteString, PartitionId), Offset>,
}

impl Invariant for CommittedOffsets {
    fn observe(
        &mut self,
        seen: &Observation,
        _: &Committed,
        _: &Cluster<'_>,
    ) -> Result<(), String> {
        match seen {
            Observation::OffsetCommitted { generation, partition, offset } => {
                let known = self.acknowledged.entry((*partition, *generation)).or_default();
                *known = offset.max(known).to_owned();
            }
            Observation::OffsetDeleted => {
                return Err("a committed offset is deleted within seconds".to_owned());
            }
            Observation::OffsetsAsked { member, generation, partitions } => {
                for partition in partitions {
                    let until = (*partition, *generation);
                    let owed = self.acknowledged.range((*partition, i32::MIN)..=until);
                    let owed = owed.map(|(_, offset)| *offset).max().unwrap_or(-1);
                    self.owed.insert((member.clone(), *partition), owed);
                }
            }
            Observation::OffsetShown { member, partition, offset } => {
                let owed = self.owed.get(&(member.clone(), *partition)).copied().unwrap_or(-1);
                if *offset < owed {
                    return Err(format!(
                        "{member} is shown {offset} for {partition}, {owed} was acknowledged"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
