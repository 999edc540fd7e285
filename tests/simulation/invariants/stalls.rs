//! No partition stands still for a silent follower: what a sufficient part of the ISR has, is committed soon, as long as
//! the controller answers the leader, and its last word on the partition has reached it.

use super::{CONFIRMED_MS, Cluster, Committed, Invariant};
use crate::batch::PartitionId;
use crate::observation::{Life, Observation};
use crate::scenario::{CALL_TIMEOUT_MS, FOLLOWER_SILENCE_MS};
use klamm_protocol::ids::{LeaderEpoch, Offset};
use std::collections::BTreeMap;

/// The silence itself, and attempts to reach the controller on a network that loses messages.
const LIMIT_MS: i64 = FOLLOWER_SILENCE_MS + 8 * CALL_TIMEOUT_MS;
/// Between two looks at a high watermark that waits all the time.
const LOOK_MS: i64 = 2 * FOLLOWER_SILENCE_MS;

/// A high watermark that waits.
#[derive(Debug)]
struct Stall {
    epoch: LeaderEpoch,
    /// What has been there since, and is not committed.
    reached: Offset,
    since_ms: i64,
    seen_ms: i64,
}

#[derive(Debug, Default)]
pub(super) struct Stalls {
    waiting: BTreeMap<(Life, PartitionId), Stall>,
}

impl Invariant for Stalls {
    fn observe(
        &mut self,
        seen: &Observation,
        known: &Committed,
        _: &Cluster<'_>,
    ) -> Result<(), String> {
        let &Observation::Waiting {
            life,
            partition,
            epoch,
            partition_epoch,
            committed,
            reached,
            unconfirmed_ms,
            at_ms,
        } = seen
        else {
            return Ok(());
        };
        let found = known.led_knowingly((life, partition), epoch, partition_epoch);
        if reached <= committed || unconfirmed_ms > CONFIRMED_MS || found.is_none() {
            self.waiting.remove(&(life, partition));
            return Ok(());
        }
        let begun = Stall { epoch, reached, since_ms: at_ms, seen_ms: at_ms };
        let stall = self.waiting.entry((life, partition)).or_insert(begun);
        let is_same = stall.epoch == epoch && stall.reached > committed;
        if !is_same || at_ms - stall.seen_ms > LOOK_MS {
            *stall = Stall { epoch, reached, since_ms: at_ms, seen_ms: at_ms };
        }
        stall.seen_ms = at_ms;
        let waited_ms = at_ms - stall.since_ms;
        if waited_ms > LIMIT_MS {
            return Err(format!(
                "{life:?} has left {partition} at {committed} for {waited_ms} ms, though a sufficient part of the ISR \
                 has everything below {}: {found:?}",
                stall.reached
            ));
        }
        Ok(())
    }
}
