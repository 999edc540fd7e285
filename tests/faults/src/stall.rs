//! The meter of stalls: for how long a partition had no record acknowledged. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::history::Acknowledged;

/// What a fault cost the partitions that the failed node led, and all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stalls {
    /// The longest time without an acknowledged record on a partition that the node led.
    pub led: Duration,
    /// On any other partition.
    pub others: Duration,
}

/// The longest time within `from..to` for which one of the partitions had no record acknowledged.
///
/// What began before `from` counts from the last acknowledgement on; what has not ended at `to` counts up to there.
pub fn longest_stall(
    acknowledged: &[Acknowledged],
    partitions: &BTreeSet<i32>,
    from: Duration,
    to: Duration,
) -> Duration {
    let longest = |partition: &i32| {
        let times: Vec<Duration> = acknowledged
            .iter()
            .filter(|record| record.id.partition == *partition)
            .map(|record| record.at)
            .collect();
        longest_gap(&times, from, to)
    };
    partitions.iter().map(longest).max().unwrap_or_default()
}

/// `times` ascend.
fn longest_gap(times: &[Duration], from: Duration, to: Duration) -> Duration {
    let first_inside = times.partition_point(|at| *at <= from);
    let mut before = first_inside.checked_sub(1).map_or(from, |last| times[last]);
    let mut longest = Duration::ZERO;
    for at in times[first_inside..].iter().copied().filter(|at| *at < to).chain([to]) {
        longest = longest.max(at - before);
        before = at;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::RecordId;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn stall(times: &[(i32, u64)], partitions: &[i32], from: u64, to: u64) -> Duration {
        let acknowledged: Vec<Acknowledged> = (0..)
            .zip(times)
            .map(|(number, (partition, at))| Acknowledged {
                id: RecordId { partition: *partition, number },
                offset: None,
                at: ms(*at),
            })
            .collect();
        longest_stall(&acknowledged, &partitions.iter().copied().collect(), ms(from), ms(to))
    }

    #[test]
    fn the_longest_gap_counts_from_the_last_acknowledgement_before_the_fault() {
        assert_eq!(stall(&[(0, 90), (0, 95), (0, 400), (0, 450)], &[0], 100, 460), ms(305));
    }

    #[test]
    fn a_partition_that_works_does_not_hide_one_that_does_not() {
        let times = [(0, 100), (1, 100), (0, 110), (0, 120), (0, 130), (1, 130), (0, 140)];
        assert_eq!(stall(&times, &[0, 1], 100, 140), ms(30));
        assert_eq!(stall(&times, &[0], 100, 140), ms(10));
    }

    #[test]
    fn a_stall_that_does_not_end_counts_up_to_the_end() {
        assert_eq!(stall(&[(0, 100)], &[0], 100, 900), ms(800));
        assert_eq!(stall(&[(0, 100), (0, 950)], &[0], 100, 900), ms(800));
        assert_eq!(stall(&[], &[0], 100, 900), ms(800));
    }
}
