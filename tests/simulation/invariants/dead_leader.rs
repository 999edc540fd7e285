//! A leader does not judge followers whose fetches it cannot serve: one that has no room to open its log, or to begin
//! its epoch, must not take replicas out of the ISR that could lead in its place.

use super::{Cluster, Committed, Invariant};
use crate::batch::PartitionId;
use crate::observation::{Life, Observation};
use crate::scenario::FOLLOWER_SILENCE_MS;
use klamm_protocol::ids::BrokerId;
use klamm_replication::partition::SILENCE_CHECKS;
use std::collections::BTreeMap;

/// A follower that was refused may leave the ISR only when it has been silent for long enough since, but for one look.
const LIMIT_MS: i64 = FOLLOWER_SILENCE_MS - FOLLOWER_SILENCE_MS / SILENCE_CHECKS as i64;

#[derive(Debug, Default)]
pub(super) struct DeadLeader {
    /// When a node has last refused a follower's fetch, by its own clock.
    refused: BTreeMap<(Life, PartitionId, BrokerId), i64>,
}

impl Invariant for DeadLeader {
    fn observe(
        &mut self,
        seen: &Observation,
        _: &Committed,
        _: &Cluster<'_>,
    ) -> Result<(), String> {
        match seen {
            // Before it led it was not its to serve.
            Observation::PartitionLed { life, partition, .. } => {
                self.refused.retain(|(by, of, _), _| (by, of) != (life, partition));
            }
            Observation::FetchRefused { life, partition, follower, at_ms } => {
                self.refused.insert((*life, *partition, *follower), *at_ms);
            }
            Observation::ShrinkProposed { life, partition, follower, at_ms } => {
                let refused = self.refused.get(&(*life, *partition, *follower));
                if let Some(refused_ms) =
                    refused.filter(|refused_ms| at_ms - **refused_ms < LIMIT_MS)
                {
                    let since_ms = at_ms - refused_ms;
                    return Err(format!(
                        "{partition}: {life:?} takes {follower} out of the ISR, {since_ms} ms after it has refused it"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
