//! The periodic tasks of the active controller: fences brokers whose session expired, writes a NoOpRecord so that
//! offsets move, elects preferred leaders, and elects leaders uncleanly where that is enabled (Kafka's
//! PeriodicTaskControlManager).

use klamm_protocol::messages::no_op_record::NoOpRecord;
use klamm_protocol::metadata_record::MetadataRecord;

use super::outcome::Outcome;
use super::partition_change::Election;
use super::{Controller, ControllerSettings};
use crate::image::partition::Partition;
use crate::image::topics::Topic;

/// The maximum number of elections in one round; the next round continues.
const MAX_ELECTIONS_PER_ROUND: usize = 1_000;

/// A periodic task. A period of 0 means never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Timer {
    period_ms: i64,
    due_ms: i64,
}

impl Timer {
    fn start(period_ms: i64, now_ms: i64) -> Self {
        Self { period_ms, due_ms: now_ms.saturating_add(period_ms) }
    }

    /// Whether the task is due; if so, schedules it again after a period.
    fn fire(&mut self, now_ms: i64) -> bool {
        let fires = self.period_ms > 0 && now_ms >= self.due_ms;
        if fires {
            self.due_ms = now_ms.saturating_add(self.period_ms);
        }
        fires
    }

    fn next_ms(self) -> Option<i64> {
        (self.period_ms > 0).then_some(self.due_ms)
    }
}

/// The periodic tasks of an active controller.
#[derive(Debug)]
pub(super) struct Timers {
    no_op: Timer,
    balance: Timer,
    unclean: Timer,
}

impl Timers {
    pub(super) fn start(settings: &ControllerSettings, now_ms: i64) -> Self {
        Self {
            no_op: Timer::start(settings.max_idle_interval_ms, now_ms),
            balance: Timer::start(settings.leader_imbalance_check_interval_ms, now_ms),
            unclean: Timer::start(settings.unclean_leader_election_interval_ms, now_ms),
        }
    }
}

impl Controller {
    /// Runs one due task, if any; call again until it returns `None`. One at a time, so that each sees the records of
    /// the one before.
    pub fn on_tick(&mut self, now_ms: i64) -> Option<Outcome<()>> {
        if let Some(fenced) = self.fence_one_stale_broker(now_ms) {
            return Some(fenced);
        }
        let timers = &mut self.active.as_mut()?.timers;
        if timers.no_op.fire(now_ms) {
            let no_op = MetadataRecord::NoOp(NoOpRecord::default());
            return Some(Outcome::spread(vec![no_op], ()));
        }
        if timers.balance.fire(now_ms) {
            return Some(Outcome::spread(self.balanced_leaders(), ()));
        }
        if timers.unclean.fire(now_ms) {
            return Some(Outcome::spread(self.unclean_leaders(), ()));
        }
        None
    }

    /// The next time at which [`Self::on_tick`] has a due task, if this controller is active.
    pub fn next_tick_ms(&self) -> Option<i64> {
        let active = self.active.as_ref()?;
        let brokers = &self.image().brokers;
        let expiry = active.heartbeats.next_expiry_ms(|id| brokers.is_alive(id));
        let Timers { no_op, balance, unclean } = &active.timers;
        [expiry, no_op.next_ms(), balance.next_ms(), unclean.next_ms()].into_iter().flatten().min()
    }

    fn fence_one_stale_broker(&mut self, now_ms: i64) -> Option<Outcome<()>> {
        let heartbeats = &self.active.as_ref()?.heartbeats;
        let brokers = &self.image().brokers;
        let (id, _) = heartbeats.first_expired(now_ms, |id| brokers.is_alive(id))?;
        let mut records = Vec::new();
        self.fence(id, &mut records);
        self.heartbeats_mut().on_fenced(id);
        Some(Outcome::spread(records, ()))
    }

    fn balanced_leaders(&self) -> Vec<MetadataRecord> {
        self.elected(Election::Preferred, |_, partition| !partition.has_preferred_leader())
    }

    fn unclean_leaders(&self) -> Vec<MetadataRecord> {
        self.elected(Election::Unclean, |topic, partition| {
            !partition.has_leader() && self.is_unclean_election_enabled(&topic.name)
        })
    }

    fn elected(
        &self,
        election: Election,
        needed: impl Fn(&Topic, &Partition) -> bool,
    ) -> Vec<MetadataRecord> {
        let partitions = self.image().topics.all_partitions();
        partitions
            .filter(|(topic, _, partition)| needed(topic, partition))
            .filter_map(|(topic, index, partition)| {
                self.changed_by_request(topic, index, partition, |change| {
                    change.election = election;
                })
            })
            .take(MAX_ELECTIONS_PER_ROUND)
            .collect()
    }
}

#[cfg(test)]
mod tests;
