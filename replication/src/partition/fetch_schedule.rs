//! When a fetcher fetches for each of its replicas (Kafka: `PartitionFetchState.delay` and `failedPartitions` of
//! `AbstractFetcherThread`).
//!
//! A replica whose fetch fails is left out, and the others continue: for a pause that doubles with every failure in a
//! row, or until its leader epoch changes in the metadata. Times are milliseconds of the steady clock.

use std::collections::BTreeMap;

use klamm_protocol::ids::LeaderEpoch;

/// The result of a fetch for one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchOutcome {
    /// Fetch again at once.
    Progressed,
    /// Fetch again after a pause.
    BackOff,
    /// Fetch again when the leader epoch in the metadata has changed.
    AwaitMetadata,
}

/// A pause that doubles with every failure in a row.
#[derive(Debug, Clone, Copy)]
struct Backoff {
    until_ms: i64,
    length_ms: i64,
}

/// Why the fetcher does not fetch for a replica.
#[derive(Debug, Clone, Copy)]
enum LeftOut {
    BackingOff(Backoff),
    /// Until the leader epoch in the metadata differs from this one.
    Failed(LeaderEpoch),
}

/// See the module. `K` identifies a replica.
#[derive(Debug)]
pub struct FetchSchedule<K> {
    first_backoff_ms: i64,
    longest_backoff_ms: i64,
    left_out: BTreeMap<K, LeftOut>,
    /// The current pause, while the leader's broker cannot be reached.
    unreachable: Option<Backoff>,
    patience: Patience,
}

/// How long to wait for the leader's broker to send something of an answer. It doubles each time in vain, up to
/// `replica.socket.timeout.ms`, and stays so long while the broker needs it.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    first_ms: i64,
    longest_ms: i64,
    current_ms: i64,
}

impl Patience {
    pub fn new(first_ms: i64, longest_ms: i64) -> Self {
        let longest_ms = longest_ms.max(1);
        let first_ms = first_ms.clamp(1, longest_ms);
        Self { first_ms, longest_ms, current_ms: first_ms }
    }

    /// The wait for the next answer.
    pub fn ms(&self) -> i64 {
        self.current_ms
    }

    fn on_answered(&mut self, took_ms: i64) {
        if took_ms <= self.first_ms {
            self.current_ms = self.first_ms;
        }
    }

    fn on_unanswered(&mut self) {
        self.current_ms = self.current_ms.saturating_mul(2).min(self.longest_ms);
    }
}

impl<K: Copy + Ord> FetchSchedule<K> {
    /// Pauses last from `first_backoff_ms` to `longest_backoff_ms` (`replica.fetch.backoff.ms`), or always the first if
    /// that is longer.
    pub fn new(first_backoff_ms: i64, longest_backoff_ms: i64, patience: Patience) -> Self {
        let longest_backoff_ms = longest_backoff_ms.max(first_backoff_ms);
        let (left_out, unreachable) = (BTreeMap::new(), None);
        Self { first_backoff_ms, longest_backoff_ms, left_out, unreachable, patience }
    }

    /// The metadata has changed the replicas to fetch for. `epoch_of` returns the leader epoch in which a replica
    /// follows, `None` for one that the fetcher no longer fetches for.
    pub fn on_assignment(&mut self, epoch_of: impl Fn(&K) -> Option<LeaderEpoch>) {
        self.left_out.retain(|replica, left_out| {
            let epoch = epoch_of(replica);
            match left_out {
                LeftOut::BackingOff(_) => epoch.is_some(),
                LeftOut::Failed(failed) => epoch == Some(*failed),
            }
        });
    }

    /// A fetch for a replica has been answered. The replica followed in this epoch.
    pub fn on_outcome(
        &mut self,
        replica: K,
        epoch: LeaderEpoch,
        outcome: FetchOutcome,
        now_ms: i64,
    ) {
        let previous = match self.left_out.remove(&replica) {
            Some(LeftOut::BackingOff(backoff)) => Some(backoff),
            Some(LeftOut::Failed(_)) | None => None,
        };
        let left_out = match outcome {
            FetchOutcome::Progressed => return,
            FetchOutcome::AwaitMetadata => LeftOut::Failed(epoch),
            FetchOutcome::BackOff => LeftOut::BackingOff(self.backoff_after(previous, now_ms)),
        };
        self.left_out.insert(replica, left_out);
    }

    /// Leaves a replica out until `until_ms` (KIP-73). A replica that waits for the metadata keeps waiting for it.
    pub fn throttle(&mut self, replica: K, until_ms: i64) {
        let pause = LeftOut::BackingOff(Backoff { until_ms, length_ms: 0 });
        let left_out = self.left_out.entry(replica).or_insert(pause);
        if let LeftOut::BackingOff(backoff) = left_out {
            backoff.until_ms = backoff.until_ms.max(until_ms);
        }
    }

    /// Whether to fetch for the replica now.
    pub fn is_due(&self, replica: &K, now_ms: i64) -> bool {
        self.due_ms(replica).is_some_and(|due_ms| due_ms <= now_ms)
    }

    /// When to fetch for the replica; `None` while it waits for the metadata.
    pub fn due_ms(&self, replica: &K) -> Option<i64> {
        match self.left_out.get(replica) {
            None => Some(i64::MIN),
            Some(LeftOut::BackingOff(backoff)) => Some(backoff.until_ms),
            Some(LeftOut::Failed(_)) => None,
        }
    }

    /// The earliest end of a pause after `after_ms`.
    pub fn next_ms(&self, after_ms: i64) -> Option<i64> {
        let ends = self.left_out.values().filter_map(|left_out| match left_out {
            LeftOut::BackingOff(backoff) => Some(backoff.until_ms).filter(|end| *end > after_ms),
            LeftOut::Failed(_) => None,
        });
        ends.min()
    }

    /// The leader's broker cannot be reached. Returns when to try again, and whether this is the first failure in a
    /// row.
    pub fn on_unreachable(&mut self, now_ms: i64) -> (i64, bool) {
        let was_reached = self.unreachable.is_none();
        let backoff = self.backoff_after(self.unreachable, now_ms);
        self.unreachable = Some(backoff);
        self.patience.on_unanswered();
        (backoff.until_ms, was_reached)
    }

    /// The leader's broker has answered a fetch within this time.
    pub fn on_reached(&mut self, took_ms: i64) {
        self.unreachable = None;
        self.patience.on_answered(took_ms);
    }

    /// How long to wait for the leader's broker to send something of the next answer.
    pub fn patience_ms(&self) -> i64 {
        self.patience.ms()
    }

    /// When to fetch again after the leader's broker has answered a fetch with a top-level error.
    pub fn retry_ms(&self, now_ms: i64) -> i64 {
        self.backoff_after(None, now_ms).until_ms
    }

    fn backoff_after(&self, previous: Option<Backoff>, now_ms: i64) -> Backoff {
        let doubled = previous.map_or(0, |backoff| backoff.length_ms.saturating_mul(2));
        let length_ms = doubled.clamp(self.first_backoff_ms, self.longest_backoff_ms);
        Backoff { until_ms: now_ms.saturating_add(length_ms), length_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLICA: u8 = 7;

    fn schedule() -> FetchSchedule<u8> {
        FetchSchedule::new(20, 100, Patience::new(1_500, 30_000))
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_progress() {
        let mut schedule = schedule();
        let mut now_ms = 0;
        for length in [20, 40, 80, 100, 100] {
            schedule.on_outcome(REPLICA, 1, FetchOutcome::BackOff, now_ms);
            assert_eq!(schedule.next_ms(now_ms), Some(now_ms + length));
            assert!(!schedule.is_due(&REPLICA, now_ms + length - 1));
            now_ms += length;
            assert!(schedule.is_due(&REPLICA, now_ms));
            assert_eq!(
                schedule.next_ms(now_ms),
                None,
                "a pause that is over does not wake the fetcher again"
            );
        }
        schedule.on_outcome(REPLICA, 1, FetchOutcome::Progressed, now_ms);
        schedule.on_outcome(REPLICA, 1, FetchOutcome::BackOff, now_ms);
        assert_eq!(schedule.next_ms(now_ms), Some(now_ms + 20));
    }

    #[test]
    fn a_replica_that_awaits_the_metadata_is_due_with_another_leader_epoch_only() {
        let mut schedule = schedule();
        schedule.on_outcome(REPLICA, 4, FetchOutcome::AwaitMetadata, 0);
        schedule.throttle(REPLICA, 10);
        schedule.on_assignment(|_| Some(4));
        assert!(!schedule.is_due(&REPLICA, i64::MAX));
        assert_eq!(schedule.next_ms(0), None);
        schedule.on_assignment(|_| Some(5));
        assert!(schedule.is_due(&REPLICA, 0));
    }

    #[test]
    fn a_replica_that_is_gone_leaves_nothing_behind() {
        let mut schedule = schedule();
        schedule.on_outcome(REPLICA, 4, FetchOutcome::BackOff, 0);
        schedule.on_assignment(|_| None);
        assert!(schedule.left_out.is_empty());
    }

    #[test]
    fn a_throttle_neither_shortens_a_pause_nor_lengthens_the_next() {
        let mut schedule = schedule();
        schedule.throttle(REPLICA, 100);
        assert_eq!(schedule.next_ms(0), Some(100));
        schedule.on_outcome(REPLICA, 1, FetchOutcome::BackOff, 100);
        schedule.throttle(REPLICA, 110);
        assert_eq!(schedule.next_ms(100), Some(120));
    }

    #[test]
    fn a_broker_that_cannot_be_reached_is_tried_ever_more_rarely() {
        let mut schedule = schedule();
        assert_eq!(schedule.on_unreachable(0), (20, true));
        assert_eq!(schedule.on_unreachable(20), (60, false));
        schedule.on_reached(10);
        assert_eq!(schedule.on_unreachable(60), (80, true));
        assert_eq!(schedule.retry_ms(60), 80);
    }

    #[test]
    fn a_leader_that_needs_long_to_answer_gets_the_time_while_it_needs_it() {
        let mut schedule = schedule();
        for expected_ms in [1_500, 3_000, 6_000, 12_000, 24_000, 30_000, 30_000] {
            assert_eq!(schedule.patience_ms(), expected_ms);
            schedule.on_unreachable(0);
        }
        schedule.on_reached(2_000);
        assert_eq!(schedule.patience_ms(), 30_000);
        schedule.on_reached(1_500);
        assert_eq!(schedule.patience_ms(), 1_500);
        assert_eq!(Patience::new(1_500, 400).ms(), 400, "replica.socket.timeout.ms holds");
    }
}
