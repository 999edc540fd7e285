//! The session of this process as a registered broker: its incarnation, its broker epoch, and its lease (KIP-631,
//! Kafka's `BrokerLifecycleManager`).

use std::sync::atomic::{AtomicI64, Ordering};

use klamm_protocol::Uuid;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::BrokerConfig;
use crate::{clock, random};

/// No heartbeat was answered yet.
const NEVER_MS: i64 = i64::MIN;
/// No broker epoch yet.
const UNREGISTERED: i64 = -1;

/// The session of this broker with its cluster. Handlers, replicas and heartbeats share it.
#[derive(Debug)]
pub(crate) struct BrokerSession {
    /// Identifies this process: every start has a new one.
    pub(crate) incarnation_id: Uuid,
    /// `broker.session.timeout.ms`
    session_timeout_ms: i64,
    /// Whether a leader stops acknowledging when the controller has not answered a heartbeat for a session timeout
    /// (`failover.leader.lease.enable`; false if this node is the whole cluster).
    has_lease: bool,
    /// [`UNREGISTERED`] before the registration.
    broker_epoch: AtomicI64,
    /// How long after a heartbeat without a later answer a controller has this broker's leaderships moved:
    /// `failover.broker.silence.ms` after it has received the next one. Clients that are sent away sooner find no other
    /// leader, and pause.
    confirmation_ms: i64,
    /// When the last heartbeat was sent that the controller has answered, by the steady clock; [`NEVER_MS`] before the
    /// first.
    confirmed_ms: AtomicI64,
    /// Triggers a heartbeat, because the broker has a change to report.
    pub(crate) heartbeat_due: Notify,
    /// Cancelled when the node must stop.
    pub(crate) failed: CancellationToken,
}

impl BrokerSession {
    /// The session of a process that is not registered yet. `failed` is cancelled when the node must stop.
    pub(crate) fn new(config: &BrokerConfig, failed: CancellationToken) -> Self {
        let lifecycle = &config.lifecycle;
        let interval_ms = i64::try_from(lifecycle.heartbeat_interval.as_millis());
        let interval_ms = interval_ms.expect("an interval is an i32 of milliseconds");
        Self {
            incarnation_id: random::uuid(),
            session_timeout_ms: lifecycle.session_timeout_ms,
            has_lease: lifecycle.leader_lease_enable && !config.is_alone(),
            broker_epoch: AtomicI64::new(UNREGISTERED),
            confirmation_ms: lifecycle.silence_ms.saturating_add(interval_ms),
            confirmed_ms: AtomicI64::new(NEVER_MS),
            heartbeat_due: Notify::new(),
            failed,
        }
    }

    /// The epoch of this broker's registration; none before it.
    pub(crate) fn broker_epoch(&self) -> Option<i64> {
        Some(self.broker_epoch.load(Ordering::Acquire)).filter(|epoch| *epoch != UNREGISTERED)
    }

    /// The metadata has this process's registration, perhaps before the controller's response arrives. The epoch is set
    /// at once: a leader could not tell fetches without it from those of an earlier process of this broker (KIP-903).
    pub(crate) fn on_own_registration(&self, epoch: i64) {
        // If the response has arrived first, its epoch stays.
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        self.broker_epoch.compare_exchange(UNREGISTERED, epoch, success, failure).ok();
    }

    pub(crate) fn set_broker_epoch(&self, epoch: i64) {
        self.broker_epoch.store(epoch, Ordering::Release);
    }

    /// The controller has answered a heartbeat that was sent at `sent_ms` and the broker is not fenced: renews the
    /// lease.
    pub(crate) fn renew_lease(&self, sent_ms: i64) {
        self.confirmed_ms.store(sent_ms, Ordering::Release);
    }

    /// Whether the controller has answered a heartbeat within `broker.session.timeout.ms`. Without an answer another
    /// broker may lead by now, and records that only this broker has would be lost.
    pub(crate) fn has_valid_lease(&self) -> bool {
        self.is_confirmed_within(self.session_timeout_ms)
    }

    /// Whether the controller has answered a heartbeat so lately that it has not moved this broker's leaderships. If not,
    /// what cannot be committed here may be accepted by another broker.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.is_confirmed_within(self.confirmation_ms)
    }

    fn is_confirmed_within(&self, limit_ms: i64) -> bool {
        let confirmed_ms = self.confirmed_ms.load(Ordering::Acquire);
        !self.has_lease
            || confirmed_ms == NEVER_MS
            || clock::now_ms().saturating_sub(confirmed_ms) < limit_ms
    }

    /// Now minus `broker.session.timeout.ms`, in ms of the steady clock: a broker that has fetched since then is alive.
    pub(crate) fn session_start_ms(&self) -> i64 {
        clock::now_ms().saturating_sub(self.session_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registration_in_the_metadata_counts_until_the_controllers_answer_comes() {
        let config = BrokerConfig::from_pairs([("node.id", "1")]).unwrap();
        let session = BrokerSession::new(&config, CancellationToken::new());
        assert_eq!(session.broker_epoch(), None);
        session.on_own_registration(7);
        assert_eq!(session.broker_epoch(), Some(7));
        session.set_broker_epoch(9);
        session.on_own_registration(7);
        assert_eq!(session.broker_epoch(), Some(9));
    }
}
