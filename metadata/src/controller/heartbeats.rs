//! Who was heard from when, and how far each broker has read the metadata log
//! (Kafka's BrokerHeartbeatTracker and BrokerHeartbeatManager).
//!
//! Soft state: never in the log, empty again after a failover. Fencing itself is the image's.

use std::collections::BTreeMap;

use klamm_protocol::ids::{BrokerId, Offset};

/// What is known of the sessions of brokers that have sent heartbeats.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerHeartbeats {
    session_timeout_ms: i64,
    sessions: BTreeMap<BrokerId, Session>,
}

/// One broker's session.
#[derive(Debug, Clone, PartialEq)]
struct Session {
    epoch: i64,
    last_contact_ms: i64,
    metadata_offset: Offset,
    controlled_shutdown_offset: Option<Offset>,
}

impl BrokerHeartbeats {
    /// Nobody has been heard from.
    pub fn new(session_timeout_ms: i64) -> Self {
        Self { session_timeout_ms, sessions: BTreeMap::new() }
    }

    /// A sign of life. Another epoch starts another session.
    pub fn on_contact(&mut self, broker: BrokerId, epoch: i64, now_ms: i64) {
        let fresh = Session {
            epoch,
            last_contact_ms: now_ms,
            metadata_offset: -1,
            controlled_shutdown_offset: None,
        };
        let session = self.sessions.entry(broker).or_insert_with(|| fresh.clone());
        if session.epoch != epoch {
            *session = fresh;
        }
        session.last_contact_ms = now_ms;
    }

    /// Notes how far a broker has read.
    pub fn on_metadata_offset(&mut self, broker: BrokerId, offset: Offset) {
        if let Some(session) = self.sessions.get_mut(&broker) {
            session.metadata_offset = offset;
        }
    }

    /// The session ends: the broker registers anew, or has gone.
    pub fn remove(&mut self, broker: BrokerId) {
        self.sessions.remove(&broker);
    }

    /// A fenced broker is no longer shutting down in a controlled way.
    pub fn on_fenced(&mut self, broker: BrokerId) {
        if let Some(session) = self.sessions.get_mut(&broker) {
            session.controlled_shutdown_offset = None;
        }
    }

    /// The broker may stop once all others have read up to `offset`, where its last leadership
    /// was handed over. Later offsets do not count.
    pub fn on_controlled_shutdown(&mut self, broker: BrokerId, offset: Offset) {
        if let Some(session) = self.sessions.get_mut(&broker) {
            session.controlled_shutdown_offset.get_or_insert(offset);
        }
    }

    /// Up to where the others must have read before the broker may stop.
    pub fn controlled_shutdown_offset(&self, broker: BrokerId) -> Option<Offset> {
        self.sessions.get(&broker)?.controlled_shutdown_offset
    }

    /// Whether the broker's registration of this epoch was heard from within the timeout.
    pub fn has_valid_session(&self, broker: BrokerId, epoch: i64, now_ms: i64) -> bool {
        self.sessions
            .get(&broker)
            .is_some_and(|session| session.epoch == epoch && !self.is_expired(session, now_ms))
    }

    /// The broker whose session expired first, if any has, among those that `counts`.
    pub fn first_expired(
        &self,
        now_ms: i64,
        counts: impl Fn(BrokerId) -> bool,
    ) -> Option<(BrokerId, i64)> {
        self.sessions
            .iter()
            .filter(|(id, session)| counts(**id) && self.is_expired(session, now_ms))
            .min_by_key(|(_, session)| session.last_contact_ms)
            .map(|(id, session)| (*id, session.epoch))
    }

    /// The lowest offset to which a broker that `counts`, and is not shutting down, has read.
    pub fn lowest_offset(&self, counts: impl Fn(BrokerId) -> bool) -> Offset {
        self.sessions
            .iter()
            .filter(|(id, session)| counts(**id) && session.controlled_shutdown_offset.is_none())
            .map(|(_, session)| session.metadata_offset)
            .min()
            .unwrap_or(Offset::MAX)
    }

    /// When the next session that `counts` expires, if no more heartbeats come.
    pub fn next_expiry_ms(&self, counts: impl Fn(BrokerId) -> bool) -> Option<i64> {
        self.sessions
            .iter()
            .filter(|(id, _)| counts(**id))
            .map(|(_, session)| session.last_contact_ms.saturating_add(self.session_timeout_ms))
            .min()
    }

    fn is_expired(&self, session: &Session, now_ms: i64) -> bool {
        now_ms.saturating_sub(session.last_contact_ms) >= self.session_timeout_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lasts_for_the_timeout_after_the_last_contact() {
        let mut heartbeats = BrokerHeartbeats::new(9_000);
        assert!(!heartbeats.has_valid_session(1, 5, 0));
        heartbeats.on_contact(1, 5, 1_000);
        assert!(heartbeats.has_valid_session(1, 5, 9_999));
        assert!(!heartbeats.has_valid_session(1, 6, 1_000));
        assert!(!heartbeats.has_valid_session(1, 5, 10_000));
        assert_eq!(heartbeats.first_expired(9_999, |_| true), None);
        assert_eq!(heartbeats.first_expired(10_000, |_| true), Some((1, 5)));
        assert_eq!(heartbeats.first_expired(10_000, |_| false), None);
        assert_eq!(heartbeats.next_expiry_ms(|_| true), Some(10_000));
    }

    #[test]
    fn the_longest_silence_expires_first() {
        let mut heartbeats = BrokerHeartbeats::new(10);
        heartbeats.on_contact(1, 5, 3);
        heartbeats.on_contact(2, 6, 2);
        assert_eq!(heartbeats.first_expired(20, |_| true), Some((2, 6)));
    }

    #[test]
    fn brokers_that_shut_down_do_not_hold_the_lowest_offset_back() {
        let mut heartbeats = BrokerHeartbeats::new(10);
        assert_eq!(heartbeats.lowest_offset(|_| true), Offset::MAX);
        for (id, offset) in [(1, 30), (2, 20)] {
            heartbeats.on_contact(id, 5, 0);
            heartbeats.on_metadata_offset(id, offset);
        }
        assert_eq!(heartbeats.lowest_offset(|_| true), 20);
        heartbeats.on_controlled_shutdown(2, 40);
        heartbeats.on_controlled_shutdown(2, 50);
        assert_eq!(heartbeats.controlled_shutdown_offset(2), Some(40));
        assert_eq!(heartbeats.lowest_offset(|_| true), 30);
        heartbeats.on_fenced(2);
        assert_eq!(heartbeats.controlled_shutdown_offset(2), None);
    }

    #[test]
    fn a_new_epoch_forgets_the_old_session() {
        let mut heartbeats = BrokerHeartbeats::new(10);
        heartbeats.on_contact(1, 5, 0);
        heartbeats.on_metadata_offset(1, 7);
        heartbeats.on_controlled_shutdown(1, 9);
        heartbeats.on_contact(1, 6, 1);
        assert_eq!(heartbeats.controlled_shutdown_offset(1), None);
        assert_eq!(heartbeats.lowest_offset(|_| true), -1);
    }
}
