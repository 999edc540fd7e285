//! The leader's state of one follower (Kafka's `Replica` and `ReplicaState`).

use super::event::FollowerFetch;
use super::leader::SILENCE_CHECKS;
use klamm_protocol::ids::{BrokerId, Offset};

/// The status of a registered broker in the cluster metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerStatus {
    /// The offset of its registration record.
    pub broker_epoch: i64,
    pub fenced: bool,
    pub in_controlled_shutdown: bool,
}

/// Long before any time.
const NEVER_MS: i64 = i64::MIN;

/// A follower as seen from the leader. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteReplica {
    /// The follower has all records below, on disk if the topic has flush.before.ack. None before its first fetch in
    /// this leadership.
    pub log_end_offset: Option<Offset>,
    /// -1, which is below every offset, before the first fetch: DeleteRecords waits for it.
    pub log_start_offset: Offset,
    pub last_caught_up_ms: i64,
    last_fetch_ms: i64,
    /// The leader's log end when the follower last fetched.
    leader_end_offset: Option<Offset>,
    /// The broker epoch of the last fetch; none before the first fetch, and of a fetch before v15.
    pub broker_epoch: Option<i64>,
    pub status: Option<BrokerStatus>,
    /// The number of checks in a row in which the high watermark waited for this follower and it had got no further.
    silent_checks: u32,
    probation: Probation,
}

/// How long a follower that was removed for its silence stays out of the ISR. Each removal doubles the time, so that a
/// follower that is silent again and again (a disk that syncs for seconds) holds up writes ever more rarely.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Probation {
    removals: u32,
    until_ms: i64,
}

/// A follower that was not removed for so many times `failover.follower.silence.ms` begins anew.
const FORGIVEN_AFTER: i64 = 120;
/// The longest time out of the ISR is two to this power times `failover.follower.silence.ms`.
const MOST_DOUBLINGS: u32 = 6;

impl Probation {
    /// After the first removal the follower is back as soon as it has caught up.
    fn on_removed(&mut self, now_ms: i64, silence_ms: i64) {
        let calm_ms = now_ms.saturating_sub(self.until_ms);
        let is_forgiven = calm_ms > silence_ms.saturating_mul(FORGIVEN_AFTER);
        let removals = if is_forgiven { 1 } else { self.removals.saturating_add(1) };
        let length_ms = match removals - 1 {
            0 => 0,
            repeated => silence_ms.saturating_mul(1 << repeated.min(MOST_DOUBLINGS)),
        };
        *self = Self { removals, until_ms: now_ms.saturating_add(length_ms) };
    }
}

impl RemoteReplica {
    /// A follower at the start of a leadership. If it is in the ISR, its lag time begins now.
    pub(super) fn new(in_sync: bool, status: Option<BrokerStatus>, now_ms: i64) -> Self {
        Self {
            log_end_offset: None,
            log_start_offset: -1,
            last_caught_up_ms: if in_sync { now_ms } else { NEVER_MS },
            last_fetch_ms: NEVER_MS,
            leader_end_offset: None,
            broker_epoch: None,
            status,
            silent_checks: 0,
            probation: Probation::default(),
        }
    }

    /// The time of its last fetch; [`i64::MIN`] before the first one in this leadership.
    pub fn last_fetch_ms(&self) -> i64 {
        self.last_fetch_ms
    }

    /// A new epoch of the same leader: the follower's log end stays known.
    pub(super) fn on_leader_epoch(
        &mut self,
        in_sync: bool,
        leader_end_offset: Offset,
        now_ms: i64,
    ) {
        let since_ms = if in_sync { now_ms } else { NEVER_MS };
        self.leader_end_offset = Some(leader_end_offset);
        self.last_fetch_ms = since_ms;
        self.last_caught_up_ms = since_ms;
    }

    /// The controller has removed the follower from the ISR, for example because its log directory has failed or its
    /// log is lost. Its earlier progress does not count until it fetches again.
    pub(super) fn on_taken_out_of_isr(&mut self) {
        self.last_caught_up_ms = NEVER_MS;
        self.last_fetch_ms = NEVER_MS;
    }

    /// A follower that fetches at the log end which the leader had at its previous fetch had caught up at that time,
    /// although the leader has appended since.
    pub(super) fn on_fetch(&mut self, fetch: &FollowerFetch, leader_end_offset: Offset) {
        if fetch.fetch_offset >= leader_end_offset {
            self.last_caught_up_ms = self.last_caught_up_ms.max(fetch.now_ms);
        } else if Some(fetch.fetch_offset) >= self.leader_end_offset {
            self.last_caught_up_ms = self.last_caught_up_ms.max(self.last_fetch_ms);
        }
        if Some(fetch.fetch_offset) > self.log_end_offset {
            self.silent_checks = 0;
        }
        self.log_end_offset = Some(fetch.fetch_offset);
        self.log_start_offset = fetch.log_start_offset;
        self.leader_end_offset = self.leader_end_offset.max(Some(leader_end_offset));
        self.last_fetch_ms = fetch.now_ms;
        self.broker_epoch = fetch.broker_epoch;
    }

    /// The leader looks whether the follower holds back the high watermark.
    pub(super) fn on_silence_check(&mut self, holds_back: bool) {
        self.silent_checks = if holds_back { self.silent_checks.saturating_add(1) } else { 0 };
    }

    /// Whether the follower has held back the high watermark for `failover.follower.silence.ms` without getting further.
    pub(super) fn is_silent(&self) -> bool {
        self.silent_checks > SILENCE_CHECKS
    }

    /// The leader proposes the ISR without this follower, because it was silent.
    pub(super) fn on_removed_for_silence(&mut self, now_ms: i64, silence_ms: i64) {
        self.probation.on_removed(now_ms, silence_ms);
    }

    /// Whether the follower stays out of the ISR for now, because it was silent repeatedly.
    pub(super) fn is_on_probation(&self, now_ms: i64) -> bool {
        now_ms < self.probation.until_ms
    }

    /// Whether the follower is at the leader's log end, or was there within the allowed lag.
    pub(super) fn is_caught_up(&self, leader_end_offset: Offset, now_ms: i64, lag_ms: i64) -> bool {
        self.log_end_offset == Some(leader_end_offset)
            || now_ms.saturating_sub(self.last_caught_up_ms) <= lag_ms
    }

    /// Whether the controller would accept the follower in the ISR (KIP-841, KIP-903): its broker is unfenced, not in
    /// controlled shutdown, and has the broker epoch of the fetch. A broker that has restarted since may have lost the
    /// end of its log.
    pub(super) fn is_isr_eligible(&self) -> bool {
        let (Some(status), Some(_)) = (self.status, self.log_end_offset) else { return false };
        !status.fenced
            && !status.in_controlled_shutdown
            && self.broker_epoch.is_none_or(|fetched| fetched == status.broker_epoch)
    }
}

/// A member of a proposed ISR: the broker id with the broker epoch of its last fetch.
pub(super) fn broker_with_epoch(
    id: BrokerId,
    replica: Option<&RemoteReplica>,
) -> (BrokerId, Option<i64>) {
    (id, replica.and_then(|replica| replica.broker_epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_silence_keeps_the_follower_out_for_longer_until_it_was_calm() {
        let mut probation = Probation::default();
        let mut now_ms = 1_000_000;
        for length in [0, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 64_000] {
            probation.on_removed(now_ms, 1_000);
            assert_eq!(probation.until_ms - now_ms, length);
            now_ms = probation.until_ms + 120_000;
        }
        probation.on_removed(now_ms + 1, 1_000);
        assert_eq!(probation.until_ms, now_ms + 1);
    }
}
