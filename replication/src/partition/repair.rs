//! Decides how a replica whose disk has damaged records below the flushed offset is repaired. The broker carries it out.
//!
//! A replica that lacks records must not be counted on. So the broker first reports the replica's directory as lost,
//! also if the replica is in neither ISR nor ELR: a leader may be about to take it into the ISR for its last fetch, and
//! the controller refuses that only once it has the report. The log is truncated before the damage after that, and then
//! the replica follows like any other. Its directory is reported again when it has fetched what it had: a fetch from before
//! the truncation, which the network has delayed, would take it into the ISR without.

use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};

/// What a broker knows of its damaged replica.
#[derive(Debug, Clone, Copy)]
pub struct DamagedReplica<'m> {
    pub broker: BrokerId,
    /// The partition in the metadata.
    pub leader: Option<BrokerId>,
    pub isr: &'m [BrokerId],
    pub elr: &'m [BrokerId],
    pub last_known_elr: &'m [BrokerId],
    /// The metadata have the replica's directory as lost.
    pub is_given_up: bool,
    /// The epoch in which the replica follows a leader.
    pub following_epoch: Option<LeaderEpoch>,
}

/// The next step of the repair of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairStep {
    /// No other replica has all the records: this one serves the intact ones, and its directory is reported.
    Serve,
    /// The replica serves nothing, and its directory is reported as lost.
    Leave,
    /// Nobody counts on the replica, and it follows in this epoch: the log is truncated before the damage.
    Cut(LeaderEpoch),
    /// The metadata, or a leader to fetch from, has to come first.
    Wait,
}

/// The repair of a replica, from the discovery of damage until its records are fetched again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repair {
    /// The replica's directory was reported as lost when the metadata did not have it as that. Before, the metadata may
    /// be older than a report of the directory, by which the replica has joined the ISR since.
    has_left: bool,
    /// The epoch of the truncation, and where the log ended: fetches in that epoch have acknowledged what is below.
    truncated: Option<(LeaderEpoch, Offset)>,
}

impl Repair {
    pub fn next_step(&mut self, replica: &DamagedReplica<'_>) -> RepairStep {
        if replica.is_counted_on() && !replica.is_held_elsewhere() {
            self.has_left = false;
            return RepairStep::Serve;
        }
        if !replica.is_given_up {
            self.has_left = true;
            return RepairStep::Leave;
        }
        match replica.following_epoch {
            _ if !self.has_left => RepairStep::Wait,
            _ if replica.is_counted_on() => RepairStep::Leave,
            Some(epoch) => RepairStep::Cut(epoch),
            None => RepairStep::Wait,
        }
    }

    /// The log, which ended at `end`, was truncated for the leader of `epoch`.
    pub fn on_cut(&mut self, epoch: LeaderEpoch, end: Offset) {
        let before = self.truncated.filter(|(earlier, _)| *earlier == epoch);
        self.truncated = Some((epoch, before.map_or(end, |(_, before)| end.max(before))));
    }

    /// Whether the directory may be reported again. Another epoch refuses the fetches from before the truncation.
    pub fn may_return(&self, following_epoch: Option<LeaderEpoch>, log_end: Offset) -> bool {
        self.truncated.is_none_or(|(epoch, end)| following_epoch != Some(epoch) || log_end >= end)
    }
}

impl DamagedReplica<'_> {
    fn is_counted_on(&self) -> bool {
        let has_all = self.leader == Some(self.broker) || self.isr.contains(&self.broker);
        // Without a leader, the last known one may be elected.
        let may_lead = self.leader.is_none() && self.last_known_elr.contains(&self.broker);
        has_all || self.elr.contains(&self.broker) || may_lead
    }

    /// Whether another replica has all committed records.
    fn is_held_elsewhere(&self) -> bool {
        self.isr.iter().chain(self.elr).any(|replica| *replica != self.broker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKER: BrokerId = 1;
    const ANOTHER: Option<BrokerId> = Some(2);

    fn replica(
        leader: Option<BrokerId>,
        isr: &[BrokerId],
        is_given_up: bool,
    ) -> DamagedReplica<'_> {
        DamagedReplica {
            broker: BROKER,
            leader,
            isr,
            elr: &[],
            last_known_elr: &[],
            is_given_up,
            following_epoch: leader.filter(|leader| *leader != BROKER).map(|_| 7),
        }
    }

    /// A repair whose replica has left.
    fn left() -> Repair {
        let mut repair = Repair::default();
        assert_eq!(repair.next_step(&replica(ANOTHER, &[2], false)), RepairStep::Leave);
        repair
    }

    #[test]
    fn a_replica_that_others_can_stand_in_for_leaves_before_it_is_cut() {
        let mut repair = Repair::default();
        for leader in [Some(BROKER), ANOTHER, None] {
            assert_eq!(repair.next_step(&replica(leader, &[BROKER, 2], false)), RepairStep::Leave);
            assert_eq!(repair.next_step(&replica(leader, &[BROKER, 2], true)), RepairStep::Leave);
        }
        let eligible = DamagedReplica { elr: &[BROKER], ..replica(ANOTHER, &[2], true) };
        assert_eq!(repair.next_step(&eligible), RepairStep::Leave);
        assert_eq!(repair.next_step(&replica(ANOTHER, &[2], true)), RepairStep::Cut(7));
    }

    #[test]
    fn a_replica_outside_the_isr_leaves_as_well_because_it_may_be_about_to_join() {
        assert_eq!(left().next_step(&replica(ANOTHER, &[2], true)), RepairStep::Cut(7));
    }

    #[test]
    fn metadata_from_before_the_last_report_of_the_directory_say_nothing() {
        let mut repair = Repair::default();
        assert_eq!(repair.next_step(&replica(ANOTHER, &[2], true)), RepairStep::Wait);
        assert_eq!(repair.next_step(&replica(ANOTHER, &[BROKER, 2], true)), RepairStep::Wait);
        assert_eq!(repair.next_step(&replica(ANOTHER, &[2], false)), RepairStep::Leave);
        assert_eq!(repair.next_step(&replica(ANOTHER, &[2], true)), RepairStep::Cut(7));
    }

    #[test]
    fn the_only_replica_with_all_records_serves_what_is_intact_and_begins_to_leave_anew() {
        let last_known = DamagedReplica { last_known_elr: &[BROKER], ..replica(None, &[], true) };
        for alone in
            [replica(Some(BROKER), &[BROKER], true), replica(None, &[BROKER], true), last_known]
        {
            let mut repair = left();
            assert_eq!(repair.next_step(&alone), RepairStep::Serve);
            assert_eq!(
                repair.next_step(&replica(Some(BROKER), &[BROKER, 2], true)),
                RepairStep::Wait
            );
            assert_eq!(
                repair.next_step(&replica(Some(BROKER), &[BROKER, 2], false)),
                RepairStep::Leave
            );
        }
    }

    #[test]
    fn a_truncated_replica_returns_when_it_has_fetched_what_it_had_or_the_epoch_is_another() {
        let mut repair = left();
        repair.on_cut(7, 20);
        assert!(!repair.may_return(Some(7), 19));
        assert!(repair.may_return(Some(7), 20) && repair.may_return(Some(8), 5));
        // More damage, found while the records are fetched.
        assert_eq!(repair.next_step(&replica(ANOTHER, &[2], true)), RepairStep::Cut(7));
        repair.on_cut(7, 12);
        assert!(!repair.may_return(Some(7), 19) && repair.may_return(Some(7), 20));
        repair.on_cut(8, 12);
        assert!(repair.may_return(Some(8), 12));
    }

    #[test]
    fn without_a_leader_nothing_is_cut() {
        assert_eq!(left().next_step(&replica(None, &[2], true)), RepairStep::Wait);
        assert_eq!(left().next_step(&replica(None, &[], true)), RepairStep::Wait);
    }
}
