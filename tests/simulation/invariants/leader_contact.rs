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
        let limit_ms = i64::from(FETCH_TIMEOUT_MS) * 3 / 2 + SLACK_MS;
        match seen {
            Observation::QuorumSilent { life, silent_ms } if *silent_ms > limit_ms => {
                Err(format!("{life:?} leads on, {silent_ms} ms after a majority was heard from"))
            }
            _ => Ok(()),
        }
    }
}
