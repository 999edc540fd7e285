//! The leader's state of one follower (Kafka's `Replica` and `ReplicaState`).

use super::event::FollowerFetch;
use klamm_protocol::ids::{BrokerId, Offset};

/// The status of a registered broker in the cluster metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerStatus {
    /// The offset of its registration record.
    pub broker_epoch: i64,
    pub fenced: bool,
    pub in_controlled_shutdown: bool,
}

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
}

impl RemoteReplica {
    /// A follower at the start of a leadership. If it is in the ISR, its lag time begins now.
    pub(super) fn new(in_sync: bool, status: Option<BrokerStatus>, now_ms: i64) -> Self {
        Self {
            log_end_offset: None,
            log_start_offset: -1,
            last_caught_up_ms: if in_sync { now_ms } else { 0 },
            last_fetch_ms: 0,
            leader_end_offset: None,
            broker_epoch: None,
            status,
        }
    }

    /// The time of its last fetch; 0 before the first one in this leadership.
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
        let since_ms = if in_sync { now_ms } else { 0 };
        self.leader_end_offset = Some(leader_end_offset);
        self.last_fetch_ms = since_ms;
        self.last_caught_up_ms = since_ms;
    }

    /// The controller has removed the follower from the ISR, for example because its log directory has failed or its
    /// log is lost. Its earlier progress does not count until it fetches again.
    pub(super) fn on_taken_out_of_isr(&mut self) {
        self.last_caught_up_ms = 0;
        self.last_fetch_ms = 0;
    }

    /// A follower that fetches at the log end which the leader had at its previous fetch had caught up at that time,
    /// although the leader has appended since.
    pub(super) fn on_fetch(&mut self, fetch: &FollowerFetch, leader_end_offset: Offset) {
        if fetch.fetch_offset >= leader_end_offset {
            self.last_caught_up_ms = self.last_caught_up_ms.max(fetch.now_ms);
        } else if Some(fetch.fetch_offset) >= self.leader_end_offset {
            self.last_caught_up_ms = self.last_caught_up_ms.max(self.last_fetch_ms);
        }
        self.log_end_offset = Some(fetch.fetch_offset);
        self.log_start_offset = fetch.log_start_offset;
        self.leader_end_offset = self.leader_end_offset.max(Some(leader_end_offset));
        self.last_fetch_ms = fetch.now_ms;
        self.broker_epoch = fetch.broker_epoch;
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
