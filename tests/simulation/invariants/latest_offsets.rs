//! Where a partition ends never goes back for a consumer that follows its leaders, also right after an
//! election (KIP-207).

use super::{Cluster, Committed, Invariant};
use crate::observation::Observation;

#[derive(Debug, Default)]
pub(super) struct LatestOffsets;

impl Invariant for LatestOffsets {
    fn observe(
        &mut self,
        seen: &Observation,
        _: &Committed,
        _: &Cluster<'_>,
    ) -> Result<(), String> {
        match seen {
            Observation::LatestShown { partition, reached, latest } if latest < reached => {
                Err(format!("{partition} ends at {latest} for a consumer that has seen {reached}"))
            }
            _ => Ok(()),
        }
    }
}
