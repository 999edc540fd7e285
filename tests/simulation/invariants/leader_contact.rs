//! A leader of the metadata log that a majority of the voters has been silent to for the check-quorum
//! time leads no more: it may have been replaced long ago.

use super::{Cluster, Committed, Invariant};
use crate::observation::Observation;
use crate::scenario::FETCH_TIMEOUT_MS;

/// A leader wakes at its deadline, give or take.
const SLACK_MS: i64 = 20;

#[derive(Debug, Default)]
pub(super) struct LeaderContact;

impl Invariant for LeaderContact {
    fn observe(
        &mut self,
        seen: &Observation,
        _: &Committed,
        _: &Cluster<'_>,
    ) -> Result<(), String> {
        let Observation::QuorumSilent { life, others, silent_ms } = seen else { return Ok(()) };
        // The time begins anew whenever each of a majority was heard from: one of them perhaps at its very
        // beginning, and not again, while the others are only heard from at its end.
        let periods = if *others > 1 { 2 } else { 1 };
        let limit_ms = i64::from(FETCH_TIMEOUT_MS) * 3 / 2 * periods + SLACK_MS;
        if *silent_ms > limit_ms {
            return Err(format!(
                "{life:?} leads on, {silent_ms} ms after a majority was heard from"
            ));
        }
        Ok(())
    }
}
