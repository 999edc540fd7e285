//! What holds at every step, and what a cluster reaches whose faults have ended.

use super::{Brokers, Record, length};
use klamm_protocol::ids::BrokerId;
use klamm_replication::partition::Replica;
use std::collections::BTreeSet;

impl Brokers {
    /// The in-sync replicas hold, on disk, everything below the high watermark (R7). A broker that is fenced is in sync
    /// only as the last one (KIP-841).
    pub(crate) fn check(&mut self) -> Result<(), String> {
        if let Some(violation) = self.violation.take() {
            return Err(violation);
        }
        let isr = &self.registration.isr;
        if let Some(fenced) = isr.iter().find(|id| isr.len() > 1 && self.statuses[id].fenced) {
            return Err(format!("{fenced} is fenced and in the ISR {isr:?}"));
        }
        let Some(leader_id) = self.leader else { return Ok(()) };
        let leader_log = &self.brokers[&leader_id];
        let leader = leader_log.replica.as_ref().and_then(Replica::leader);
        let current = self.registration.leader_epoch;
        let Some(leader) = leader.filter(|leader| leader.leader_epoch() == current) else {
            return Ok(());
        };
        let committed = length(leader.high_watermark());
        for member in &self.registration.isr {
            let broker = &self.brokers[member];
            let held = if self.flush_before_ack { broker.flushed } else { broker.log.len() };
            let holds = held >= committed && broker.log[..committed] == leader_log.log[..committed];
            if !holds {
                return Err(format!("{member} is in sync and lacks part of 0..{committed}"));
            }
        }
        Ok(())
    }

    /// Ends the faults. Followers that fetch all there is join the ISR, even if the leader has something new at each of
    /// their fetches.
    pub(crate) fn heal_under_load(&mut self) -> Result<(), String> {
        for id in 1..=3 {
            self.restart(id);
        }
        for _ in 0..200 {
            self.round(|brokers, id| brokers.produce(id))?;
        }
        let isr = &self.registration.isr;
        match isr.len() {
            3 => Ok(()),
            _ => Err(format!("the ISR is {isr:?} although all followers keep pace")),
        }
    }

    /// All brokers hear of the metadata, do this, sync and fetch.
    fn round(&mut self, act: impl Fn(&mut Self, BrokerId)) -> Result<(), String> {
        self.now_ms += 10;
        for id in 1..=3 {
            self.publish(id);
            act(self, id);
            self.flush(id);
        }
        for id in 1..=3 {
            self.fetch(id);
        }
        while !self.answers.is_empty() {
            self.deliver_answer();
        }
        self.deliver_proposal();
        self.check()
    }

    /// It is quiet: everyone catches up, all logs are equal and hold what was acknowledged.
    pub(crate) fn come_to_rest(&mut self) -> Result<(), String> {
        for _ in 0..400 {
            self.round(|_, _| {})?;
        }
        let logs: BTreeSet<&Vec<Record>> =
            self.brokers.values().map(|broker| &broker.log).collect();
        if logs.len() != 1 || self.registration.isr.len() != 3 {
            let isr = &self.registration.isr;
            return Err(format!("{} different logs, ISR {isr:?} after healing", logs.len()));
        }
        let log = logs.first().expect("one log");
        let lost =
            self.acknowledged.iter().find(|(at, record)| log.get(length(**at)) != Some(record));
        lost.map_or(Ok(()), |lost| Err(format!("{lost:?} was acknowledged and is lost")))
    }
}
