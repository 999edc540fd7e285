//! Limits the replication traffic of replicas that catch up (KIP-73; Kafka's `ReplicationQuotaManager`): which replicas
//! are throttled, and whether the recent rate exceeds the limit.
//!
//! Only replicas outside the ISR are throttled. No clock: the caller passes time in.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use klamm_protocol::ids::{BrokerId, PartitionIndex};

/// The window over which a rate is taken: `replication.quota.window.num` seconds.
const WINDOW_SECONDS: i64 = 11;

/// The value of `leader.replication.throttled.replicas` or of `follower.replication.throttled.replicas`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum ThrottledReplicas {
    #[default]
    None,
    All,
    These(BTreeSet<(PartitionIndex, BrokerId)>),
}

impl ThrottledReplicas {
    /// Reads a value that the controller has accepted: `*`, or `partition:broker` pairs.
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let entries = text.unwrap_or_default().split(',').map(str::trim);
        let entries = entries.filter(|entry| !entry.is_empty()).collect::<Vec<_>>();
        if entries.is_empty() {
            return Self::None;
        }
        if entries.contains(&"*") {
            return Self::All;
        }
        let pairs = entries.iter().filter_map(|entry| {
            let (partition, broker) = entry.split_once(':')?;
            Some((partition.trim().parse().ok()?, broker.trim().parse().ok()?))
        });
        Self::These(pairs.collect())
    }

    /// Whether a broker's replica of a partition is throttled.
    pub(crate) fn contains(&self, index: PartitionIndex, broker: BrokerId) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::These(replicas) => replicas.contains(&(index, broker)),
        }
    }
}

/// Bytes in one second.
#[derive(Debug, Clone, Copy)]
struct Sample {
    second: i64,
    bytes: u64,
}

/// The bytes sent or fetched for throttled replicas in the last seconds.
#[derive(Debug, Default)]
pub(crate) struct ReplicationQuota {
    samples: Mutex<VecDeque<Sample>>,
}

impl ReplicationQuota {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self, bytes: usize, now_ms: i64) {
        if bytes == 0 {
            return;
        }
        let (second, bytes) = (now_ms.div_euclid(1000), bytes as u64);
        let mut samples = self.lock();
        forget(&mut samples, second);
        match samples.back_mut().filter(|sample| sample.second >= second) {
            Some(sample) => sample.bytes = sample.bytes.saturating_add(bytes),
            None => samples.push_back(Sample { second, bytes }),
        }
    }

    /// Whether the average of the window has reached `rate` bytes per second.
    pub(crate) fn is_exceeded(&self, rate: i64, now_ms: i64) -> bool {
        let second = now_ms.div_euclid(1000);
        let mut samples = self.lock();
        forget(&mut samples, second);
        let Some(first) = samples.front() else { return rate == 0 };
        let seconds = u64::try_from(second - first.second + 1).unwrap_or(1);
        let bytes = samples.iter().fold(0_u64, |sum, sample| sum.saturating_add(sample.bytes));
        bytes / seconds >= u64::try_from(rate).unwrap_or_default()
    }
}

fn forget(samples: &mut VecDeque<Sample>, second: i64) {
    while samples.front().is_some_and(|sample| sample.second <= second - WINDOW_SECONDS) {
        samples.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_named_one_by_one_or_all_at_once() {
        let these = ThrottledReplicas::parse(Some("0:1, 2:3"));
        assert!(these.contains(0, 1) && these.contains(2, 3));
        assert!(!these.contains(0, 3) && !these.contains(1, 1));
        assert!(ThrottledReplicas::parse(Some("*")).contains(7, 9));
        for none in [None, Some("")] {
            assert_eq!(ThrottledReplicas::parse(none), ThrottledReplicas::None);
        }
    }

    #[test]
    fn a_burst_is_waited_off_until_its_average_is_allowed() {
        let quota = ReplicationQuota::default();
        assert!(!quota.is_exceeded(100, 5_000));
        quota.record(350, 5_000);
        assert!(quota.is_exceeded(100, 5_900));
        assert!(quota.is_exceeded(100, 7_900), "350 bytes in 3 seconds");
        assert!(!quota.is_exceeded(100, 8_000), "350 bytes in 4 seconds");
        assert!(!quota.is_exceeded(1, 17_000), "forgotten after the window");
    }

    #[test]
    fn a_rate_of_zero_lets_nothing_through() {
        let quota = ReplicationQuota::default();
        assert!(quota.is_exceeded(0, 5_000));
        quota.record(1, 5_000);
        assert!(quota.is_exceeded(0, 5_000));
    }
}
