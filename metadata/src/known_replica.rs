//! A broker's replica of a partition in the metadata, and the decisions about its log: whether a missing one may start
//! empty, and which of two logs is the replica.

use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset, PartitionIndex, or_minus_one};

use crate::directory_id;
use crate::image::ClusterImage;
use crate::image::partition::Partition;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownReplica {
    /// The topic's id.
    pub topic_id: Uuid,
    /// Its recorded directory.
    pub directory: Uuid,
    /// It is in the ISR, ELR or last known ELR: it may have the only copy of records.
    pub is_counted_on: bool,
    /// Another broker leads, from which its records can be fetched.
    pub is_led_elsewhere: bool,
}

/// The last epoch and the end offset of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogEnd {
    /// The epoch of its last record, or its latest epoch without a record; none if it has no epoch.
    pub last_epoch: Option<LeaderEpoch>,
    /// The offset after its last record.
    pub end: Offset,
}

impl LogEnd {
    /// Whether the log ever had a record. Retention deletes records, but keeps the end offset.
    fn has_records(self) -> bool {
        self.end > 0
    }
}

impl std::fmt::Display for LogEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ends at offset {} in epoch {}", self.end, or_minus_one(self.last_epoch))
    }
}

impl KnownReplica {
    /// The broker's replica of a partition; none if it has none.
    pub fn of(topic_id: Uuid, partition: &Partition, broker: BrokerId) -> Option<Self> {
        let counted = [&partition.isr, &partition.elr, &partition.last_known_elr];
        Some(Self {
            topic_id,
            directory: partition.directory(broker)?,
            is_counted_on: counted.iter().any(|replicas| replicas.contains(&broker)),
            is_led_elsewhere: partition.leader.is_some_and(|leader| leader != broker),
        })
    }

    /// As [`Self::of`], for a partition by name.
    pub fn find(
        image: &ClusterImage,
        broker: BrokerId,
        topic: &str,
        index: PartitionIndex,
    ) -> Option<Self> {
        let topic = image.topics.by_name(topic)?;
        Self::of(topic.id, topic.partition(index)?, broker)
    }

    /// Whether its log, which is in no directory in use, must be in one that is not in use. `is_in_use` returns whether
    /// a directory is in use; `may_be_elsewhere`, whether a replica whose directory was never reported may have been
    /// opened in one that is not mounted.
    pub fn is_missed(
        &self,
        is_in_use: impl FnOnce(Uuid) -> bool,
        may_be_elsewhere: impl FnOnce() -> bool,
    ) -> bool {
        match self.directory {
            directory_id::LOST => self.is_counted_on,
            directory_id::UNASSIGNED | directory_id::MIGRATING | directory_id::NOT_BEGUN => {
                self.is_counted_on && may_be_elsewhere()
            }
            directory => !is_in_use(directory),
        }
    }

    /// Whether its log may have been in a directory: in the recorded one, or in any if none is recorded or its broker
    /// has reported it as given up.
    pub fn may_lie_in(&self, directory: Uuid) -> bool {
        self.directory == directory || directory_id::is_reserved(self.directory)
    }

    /// Whether it can start with an empty log although its log is missing: it is in neither ISR nor ELR, and another
    /// broker leads.
    pub fn can_be_fetched(&self) -> bool {
        !self.is_counted_on && self.is_led_elsewhere
    }

    /// Whether a copy (KIP-113), or an empty log, may take the place of its log, which is in no directory in use. The copy
    /// may lack what was appended last, and the metadata may have the directory of a copy that was given up. So not
    /// while the log may be in a directory that is not in use, or whose logs have not been listed, unless the records
    /// can be fetched.
    pub fn may_replace_log(&self, are_all_found: bool) -> bool {
        are_all_found || self.can_be_fetched()
    }

    /// Which of two logs, 0 or 1, is the replica; `directories` are their directories.
    ///
    /// The one in the recorded directory, if the replica is in ISR or ELR: that log has the acknowledged records.
    /// Otherwise, or if that log never had a record, the one with the later end. A log that cannot be read has no end.
    pub fn choose(&self, directories: [Uuid; 2], ends: [Option<LogEnd>; 2]) -> usize {
        let recorded = directories.iter().position(|directory| *directory == self.directory);
        if let Some(recorded) = recorded
            && self.is_counted_on
            && ends[recorded].is_none_or(LogEnd::has_records)
        {
            return recorded;
        }
        let rank = |at: usize| ends[at].map(|end| (end.has_records(), end));
        match rank(0).cmp(&rank(1)) {
            std::cmp::Ordering::Less => 1,
            std::cmp::Ordering::Greater => 0,
            std::cmp::Ordering::Equal => recorded.unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: [Uuid; 2] = [Uuid::from_bytes([1; 16]), Uuid::from_bytes([2; 16])];

    fn end(last_epoch: LeaderEpoch, end: Offset) -> Option<LogEnd> {
        Some(LogEnd { last_epoch: Some(last_epoch), end })
    }

    fn replica(directory: Uuid, is_counted_on: bool) -> KnownReplica {
        let topic_id = Uuid::from_bytes([7; 16]);
        KnownReplica { topic_id, directory, is_counted_on, is_led_elsewhere: true }
    }

    fn choose(recorded: Option<usize>, is_counted_on: bool, ends: [Option<LogEnd>; 2]) -> usize {
        let directory = recorded.map_or(directory_id::UNASSIGNED, |at| HERE[at]);
        replica(directory, is_counted_on).choose(HERE, ends)
    }

    #[test]
    fn the_recorded_log_stays_as_long_as_it_is_counted_on_and_has_records() {
        assert_eq!(choose(Some(0), true, [end(3, 10), end(9, 99)]), 0);
        assert_eq!(choose(Some(1), true, [end(9, 99), end(3, 10)]), 1);
        // The unreadable log may have the acknowledged records: the replica stays offline instead of using an older
        // log.
        assert_eq!(choose(Some(1), true, [end(9, 99), None]), 1);
    }

    #[test]
    fn an_empty_log_never_stands_in_for_one_with_records() {
        for recorded in [None, Some(0), Some(1)] {
            for is_counted_on in [false, true] {
                assert_eq!(choose(recorded, is_counted_on, [end(9, 0), end(0, 1)]), 1);
                assert_eq!(choose(recorded, is_counted_on, [end(0, 1), end(9, 0)]), 0);
            }
        }
    }

    #[test]
    fn where_nobody_counts_on_it_the_log_that_goes_further_stays() {
        assert_eq!(choose(Some(0), false, [end(3, 10), end(4, 5)]), 1);
        assert_eq!(choose(Some(0), false, [end(4, 5), end(4, 6)]), 1);
        assert_eq!(choose(None, true, [end(4, 7), end(4, 6)]), 0);
        assert_eq!(choose(Some(0), false, [None, end(0, 0)]), 1);
    }

    #[test]
    fn of_two_equal_logs_the_recorded_one_stays() {
        assert_eq!(choose(Some(1), false, [end(4, 6), end(4, 6)]), 1);
        assert_eq!(choose(None, false, [end(4, 6), end(4, 6)]), 0);
        assert_eq!(choose(Some(1), true, [end(0, 0), end(0, 0)]), 1);
    }

    #[test]
    fn a_log_in_a_directory_that_is_not_in_use_is_missed() {
        for is_counted_on in [false, true] {
            assert!(replica(HERE[0], is_counted_on).is_missed(|id| id == HERE[1], || false));
            assert!(!replica(HERE[0], is_counted_on).is_missed(|id| id == HERE[0], || true));
        }
    }

    #[test]
    fn a_log_whose_directory_was_never_told_is_missed_only_if_it_is_counted_on_and_may_be_elsewhere()
     {
        let never_told =
            [directory_id::UNASSIGNED, directory_id::MIGRATING, directory_id::NOT_BEGUN];
        for directory in never_told {
            let is_missed = |counted, elsewhere| {
                replica(directory, counted).is_missed(|_| unreachable!("reserved"), || elsewhere)
            };
            assert!(is_missed(true, true));
            assert!(!is_missed(true, false) && !is_missed(false, true));
        }
        // Its broker has given it up: its log is missing only if it is in ISR or ELR.
        let lost = |counted| replica(directory_id::LOST, counted).is_missed(|_| false, || false);
        assert!(lost(true) && !lost(false));
    }

    #[test]
    fn a_log_lies_in_the_recorded_directory_or_in_any_if_none_is_recorded() {
        assert!(replica(HERE[0], true).may_lie_in(HERE[0]));
        assert!(!replica(HERE[0], true).may_lie_in(HERE[1]));
        for reserved in [directory_id::UNASSIGNED, directory_id::MIGRATING, directory_id::LOST] {
            assert!(replica(reserved, true).may_lie_in(HERE[1]));
        }
    }

    #[test]
    fn a_log_is_replaced_that_is_nowhere_or_that_can_be_fetched() {
        for is_counted_on in [false, true] {
            assert!(replica(HERE[0], is_counted_on).may_replace_log(true));
        }
        assert!(replica(HERE[0], false).may_replace_log(false));
        assert!(!replica(HERE[0], true).may_replace_log(false));
    }

    #[test]
    fn only_what_nobody_counts_on_and_somebody_leads_can_be_fetched() {
        assert!(replica(HERE[0], false).can_be_fetched());
        assert!(!replica(HERE[0], true).can_be_fetched());
        let leaderless = KnownReplica { is_led_elsewhere: false, ..replica(HERE[0], false) };
        assert!(!leaderless.can_be_fetched());
    }
}
