//! A leader whose disk is full does not stay one for long where enough others are in sync, as long as the controller
//! answers it: nobody can write meanwhile.

use super::{CONFIRMED_MS, Cluster, Committed, Invariant};
use crate::batch::PartitionId;
use crate::observation::{Life, Observation};
use crate::scenario::CALL_TIMEOUT_MS;
use klamm_protocol::ids::LeaderEpoch;
use std::collections::BTreeMap;

/// Several attempts to reach the controller on a network that loses messages.
const LIMIT_MS: i64 = 5 * CALL_TIMEOUT_MS;
/// Between two looks at a leader that stays full.
const LOOK_MS: i64 = 2 * CALL_TIMEOUT_MS;

/// A leader that is full, in steady time of its node.
#[derive(Debug)]
struct Full {
    epoch: LeaderEpoch,
    since_ms: i64,
    seen_ms: i64,
}

#[derive(Debug, Default)]
pub(super) struct FullLeaders {
    full: BTreeMap<(Life, PartitionId), Full>,
}

impl Invariant for FullLeaders {
    fn observe(
        &mut self,
        seen: &Observation,
        known: &Committed,
        cluster: &Cluster<'_>,
    ) -> Result<(), String> {
        let &Observation::LeadsWithoutRoom {
            life,
            partition,
            epoch,
            partition_epoch,
            unconfirmed_ms,
            at_ms,
        } = seen
        else {
            return Ok(());
        };
        // A node whose metadata log waits for room as well does not know who is in sync by now.
        let found = known.led_knowingly((life, partition), epoch, partition_epoch);
        let min_isr = cluster.scenario.min_insync_replicas;
        let is_spared = found.is_some_and(|found| found.can_spare(life.0, min_isr));
        if !is_spared || unconfirmed_ms > CONFIRMED_MS {
            self.full.remove(&(life, partition));
            return Ok(());
        }
        let begun = || Full { epoch, since_ms: at_ms, seen_ms: at_ms };
        let full = self.full.entry((life, partition)).or_insert_with(begun);
        if full.epoch != epoch || at_ms - full.seen_ms > LOOK_MS {
            *full = begun();
        }
        full.seen_ms = at_ms;
        let stayed_ms = at_ms - full.since_ms;
        match stayed_ms > LIMIT_MS {
            true => {
                Err(format!("{life:?} is full and leads {partition} for {stayed_ms} ms: {found:?}"))
            }
            false => Ok(()),
        }
    }
}
