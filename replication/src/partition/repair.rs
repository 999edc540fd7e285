//! Decides how a replica whose disk has damaged records below the flushed offset is repaired. The broker carries it out.
//!
//! A replica that lacks records must not be counted on. So the broker first reports the replica's directory as lost,
//! also if the replica is in neither ISR nor ELR: a leader may be about to take it into the ISR for its last fetch, and
//! the controller refuses that only once it has the report. The log is truncated before the damage after that, and then
//! the replica follows like any other.

use klamm_protocol::ids::{BrokerId, LeaderEpoch};

/// What a broker knows of its damaged replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DamagedReplica {
    /// It is in the ISR or ELR, or leads.
    is_counted_on: bool,
    /// Another replica is in the ISR or ELR: it has all committed records.
    is_held_elsewhere: bool,
    is_given_up: bool,
    following_epoch: Option<LeaderEpoch>,
}

/// The next step of the repair of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairStep {
    /// No other replica has all the records: this one serves the intact ones.
    Serve,
    /// The replica serves nothing, and its directory is reported as lost.
    Leave,
    /// Nobody counts on the replica, and it follows in this epoch: the log is truncated before the damage, then its
    /// directory is reported.
    Cut(LeaderEpoch),
    /// There is no leader to fetch from.
    Wait,
}

impl DamagedReplica {
    /// The replica of `broker` in the metadata. `is_given_up` is whether they have its directory as lost, or have no
    /// directories; `following_epoch`, the epoch in which it follows a leader.
    pub fn of(
        broker: BrokerId,
        leader: BrokerId,
        in_sync_or_eligible: impl IntoIterator<Item = BrokerId>,
        is_given_up: bool,
        following_epoch: Option<LeaderEpoch>,
    ) -> Self {
        let (mut is_counted_on, mut is_held_elsewhere) = (leader == broker, false);
        for replica in in_sync_or_eligible {
            is_counted_on |= replica == broker;
            is_held_elsewhere |= replica != broker;
        }
        Self { is_counted_on, is_held_elsewhere, is_given_up, following_epoch }
    }

    pub fn next_step(&self) -> RepairStep {
        if self.is_counted_on && !self.is_held_elsewhere {
            return RepairStep::Serve;
        }
        if self.is_counted_on || !self.is_given_up {
            return RepairStep::Leave;
        }
        self.following_epoch.map_or(RepairStep::Wait, RepairStep::Cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKER: BrokerId = 1;
    const NOBODY: BrokerId = -1;

    fn step(leader: BrokerId, counted: &[BrokerId], is_given_up: bool) -> RepairStep {
        let counted = counted.iter().copied();
        let following_epoch = (leader != BROKER && leader != NOBODY).then_some(7);
        DamagedReplica::of(BROKER, leader, counted, is_given_up, following_epoch).next_step()
    }

    #[test]
    fn a_replica_that_others_can_stand_in_for_leaves_before_it_is_cut() {
        for is_given_up in [false, true] {
            assert_eq!(step(BROKER, &[BROKER, 2], is_given_up), RepairStep::Leave);
            assert_eq!(step(2, &[BROKER, 2], is_given_up), RepairStep::Leave);
            assert_eq!(step(NOBODY, &[BROKER, 2], is_given_up), RepairStep::Leave);
        }
        assert_eq!(step(2, &[2], true), RepairStep::Cut(7));
    }

    #[test]
    fn a_replica_outside_the_isr_is_given_up_as_well_because_it_may_be_about_to_join() {
        assert_eq!(step(2, &[2], false), RepairStep::Leave);
    }

    #[test]
    fn the_only_replica_with_all_records_serves_what_is_intact() {
        for is_given_up in [false, true] {
            assert_eq!(step(BROKER, &[BROKER], is_given_up), RepairStep::Serve);
            assert_eq!(step(NOBODY, &[BROKER], is_given_up), RepairStep::Serve);
        }
    }

    #[test]
    fn without_a_leader_nothing_is_cut() {
        assert_eq!(step(NOBODY, &[2], true), RepairStep::Wait);
        assert_eq!(step(NOBODY, &[], true), RepairStep::Wait);
    }
}
