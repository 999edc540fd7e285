//! The sessions of brokers: the time of the last heartbeat, and how far each has read the metadata log (Kafka's
//! BrokerHeartbeatTracker and BrokerHeartbeatManager).
//!
//! Soft state: never in the log, and empty after a failover. Fencing itself is in the image.

use std::collections::BTreeMap;

use klamm_protocol::ids::{BrokerId, Offset};

/// The time without a false alarm after which the count of false alarms is reduced by one, in ms.
const CALM_MS: i64 = 120_000;
/// The number of false alarms without a consequence.
const FORGIVEN_FALSE_ALARMS: u32 = 3;
/// The maximum count of false alarms: after this many doublings every timeout has reached the session timeout.
const MAX_FALSE_ALARMS: u32 = 8;
/// After so many consecutive quick heartbeats the short timeout applies to a broker; after as many late ones the
/// session timeout applies again. A broker of Apache Kafka sends one every two seconds, but one or two at once when it
/// is ready to be unfenced, and when a log directory fails.
const QUICK_GAPS: u32 = 3;

/// The sessions of brokers that have sent heartbeats.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerHeartbeats {
    timeouts: SessionTimeouts,
    sessions: BTreeMap<BrokerId, Session>,
}

/// The timeouts after which a broker counts as lost, in ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionTimeouts {
    /// `broker.session.timeout.ms`: without a heartbeat of any broker.
    pub session_ms: i64,
    /// `failover.broker.silence.ms`: without a heartbeat of a broker whose heartbeats come quickly.
    pub silence_ms: i64,
    /// `failover.broker.grace.ms`: after its process was found to have ended.
    pub grace_ms: i64,
}

impl SessionTimeouts {
    /// How long a broker may send no heartbeat.
    fn timeout_ms(&self, session: &Session) -> i64 {
        let doublings = session.false_alarms.saturating_sub(FORGIVEN_FALSE_ALARMS);
        let timeout_ms = self.silence_ms.saturating_mul(1 << doublings);
        if session.is_quick { timeout_ms.min(self.session_ms) } else { self.session_ms }
    }
}

/// One broker's session.
#[derive(Debug, Clone, PartialEq)]
struct Session {
    epoch: i64,
    last_contact_ms: i64,
    /// The number of quick heartbeats minus the number of late ones, kept between 0 and `QUICK_GAPS`.
    quick_gaps: u32,
    /// Whether the short timeout applies: from a count of `QUICK_GAPS` on, until the count is 0 again. So one late
    /// heartbeat before a broker ends does not delay its detection.
    is_quick: bool,
    /// When no process was found to listen at its address, unless a heartbeat has come since.
    gone_since_ms: Option<i64>,
    /// A heartbeat has come after its process seemed to have ended: such reports are ignored for this broker.
    is_falsely_gone: bool,
    /// The number of false alarms: a heartbeat came after the timeout. From the fourth on each doubles the timeout: a
    /// machine that stalls repeatedly would otherwise lose its leaderships repeatedly.
    false_alarms: u32,
    last_false_alarm_ms: i64,
    /// -1, which is below every offset, until the first heartbeat has told it.
    metadata_offset: Offset,
    controlled_shutdown_offset: Option<Offset>,
    /// An election has started the session, and no heartbeat has come yet: it may be the session of an earlier process.
    is_assumed: bool,
    /// The controller has answered that the broker's process may end.
    may_end: bool,
}

impl Session {
    fn new(epoch: i64, now_ms: i64) -> Self {
        Self {
            epoch,
            last_contact_ms: now_ms,
            quick_gaps: 0,
            is_quick: false,
            gone_since_ms: None,
            is_falsely_gone: false,
            false_alarms: 0,
            last_false_alarm_ms: now_ms,
            metadata_offset: -1,
            controlled_shutdown_offset: None,
            is_assumed: false,
            may_end: false,
        }
    }
}

impl BrokerHeartbeats {
    /// Starts without sessions.
    pub fn new(timeouts: SessionTimeouts) -> Self {
        Self { timeouts, sessions: BTreeMap::new() }
    }

    /// Starts a session at an election, which expires as any other.
    pub fn assume(&mut self, broker: BrokerId, epoch: i64, now_ms: i64) {
        let session = Session { is_assumed: true, ..Session::new(epoch, now_ms) };
        self.sessions.insert(broker, session);
    }

    /// The controller answers that the broker's process may end.
    pub fn on_shut_down(&mut self, broker: BrokerId) {
        if let Some(session) = self.sessions.get_mut(&broker) {
            session.may_end = true;
        }
    }

    /// Whether the broker's process may have ended with the controller's leave.
    pub fn may_have_ended(&self, broker: BrokerId) -> bool {
        self.sessions.get(&broker).is_some_and(|session| session.may_end)
    }

    /// A heartbeat has come. Another epoch starts a new session.
    pub fn on_contact(&mut self, broker: BrokerId, epoch: i64, now_ms: i64) {
        let session = self.sessions.entry(broker).or_insert_with(|| Session::new(epoch, now_ms));
        if session.epoch != epoch {
            *session = Session::new(epoch, now_ms);
        }
        session.is_assumed = false;
        let gap_ms = now_ms.saturating_sub(session.last_contact_ms);
        if session.is_quick && gap_ms >= self.timeouts.timeout_ms(session) {
            session.false_alarms = (session.false_alarms + 1).min(MAX_FALSE_ALARMS);
            session.last_false_alarm_ms = now_ms;
        } else if now_ms.saturating_sub(session.last_false_alarm_ms) >= CALM_MS {
            session.false_alarms = session.false_alarms.saturating_sub(1);
            session.last_false_alarm_ms = now_ms;
        }
        // Three heartbeats fit into the short timeout, so that one late one does not exceed it.
        let is_quick = gap_ms > 0 && gap_ms.saturating_mul(3) <= self.timeouts.silence_ms;
        session.quick_gaps = match is_quick {
            true => (session.quick_gaps + 1).min(QUICK_GAPS),
            false => session.quick_gaps.saturating_sub(1),
        };
        session.is_quick = match session.quick_gaps {
            0 => false,
            QUICK_GAPS => true,
            _ => session.is_quick,
        };
        session.is_falsely_gone |= session.gone_since_ms.take().is_some();
        session.last_contact_ms = now_ms;
    }

    /// No process listens at the address of the broker's registration, so it has probably ended. The broker counts as
    /// lost if no heartbeat comes within the grace period.
    pub fn on_process_gone(&mut self, broker: BrokerId, epoch: i64, now_ms: i64) {
        if let Some(session) = self.sessions.get_mut(&broker)
            && session.epoch == epoch
            && !session.is_falsely_gone
        {
            session.gone_since_ms.get_or_insert(now_ms);
        }
    }

    /// Records how far a broker has read the metadata log.
    pub fn on_metadata_offset(&mut self, broker: BrokerId, offset: Offset) {
        if let Some(session) = self.sessions.get_mut(&broker) {
            session.metadata_offset = offset;
        }
    }

    /// Removes the session: the broker registers again, or is removed.
    pub fn remove(&mut self, broker: BrokerId) {
        self.sessions.remove(&broker);
    }

    /// Resets the count of quick heartbeats: the rate while a broker starts differs from its later rate.
    pub fn on_unfenced(&mut self, broker: BrokerId) {
        if let Some(session) = self.sessions.get_mut(&broker) {
            session.quick_gaps = 0;
            session.is_quick = false;
        }
    }

    /// Ends the controlled shutdown of a fenced broker.
    pub fn on_fenced(&mut self, broker: BrokerId) {
        if let Some(session) = self.sessions.get_mut(&broker) {
            session.controlled_shutdown_offset = None;
        }
    }

    /// The broker may shut down when all others have read up to `offset`, where its last leadership was moved. Later
    /// offsets do not change it.
    pub fn on_controlled_shutdown(&mut self, broker: BrokerId, offset: Offset) {
        if let Some(session) = self.sessions.get_mut(&broker) {
            session.controlled_shutdown_offset.get_or_insert(offset);
        }
    }

    /// The offset up to which the others must have read before the broker may shut down.
    pub fn controlled_shutdown_offset(&self, broker: BrokerId) -> Option<Offset> {
        self.sessions.get(&broker)?.controlled_shutdown_offset
    }

    /// Whether a heartbeat of this broker epoch has come within the timeout.
    pub fn has_valid_session(&self, broker: BrokerId, epoch: i64, now_ms: i64) -> bool {
        self.sessions
            .get(&broker)
            .filter(|session| session.epoch == epoch && !session.may_end)
            .is_some_and(|session| now_ms < self.expiry_ms(session))
    }

    /// Whether an election has started the broker's session and no heartbeat has come since.
    pub fn is_assumed(&self, broker: BrokerId) -> bool {
        self.sessions.get(&broker).is_some_and(|session| session.is_assumed)
    }

    /// Of the brokers that `counts` accepts, the one whose session expired first, if any.
    pub fn first_expired(
        &self,
        now_ms: i64,
        counts: impl Fn(BrokerId) -> bool,
    ) -> Option<(BrokerId, i64)> {
        self.sessions
            .iter()
            .filter(|(id, session)| counts(**id) && self.expiry_ms(session) <= now_ms)
            .min_by_key(|(_, session)| self.expiry_ms(session))
            .map(|(id, session)| (*id, session.epoch))
    }

    /// The lowest metadata offset of the brokers that `counts` accepts and that are not in controlled shutdown.
    pub fn lowest_offset(&self, counts: impl Fn(BrokerId) -> bool) -> Offset {
        self.sessions
            .iter()
            .filter(|(id, session)| counts(**id) && session.controlled_shutdown_offset.is_none())
            .map(|(_, session)| session.metadata_offset)
            .min()
            .unwrap_or(Offset::MAX)
    }

    /// When the next session of a broker that `counts` accepts expires, without further heartbeats.
    pub fn next_expiry_ms(&self, counts: impl Fn(BrokerId) -> bool) -> Option<i64> {
        self.sessions
            .iter()
            .filter(|(id, _)| counts(**id))
            .map(|(_, session)| self.expiry_ms(session))
            .min()
    }

    /// When the session expires without further heartbeats.
    fn expiry_ms(&self, session: &Session) -> i64 {
        let timeout_ms = self.timeouts.timeout_ms(session);
        let expiry_ms = session.last_contact_ms.saturating_add(timeout_ms);
        let grace_ms = self.timeouts.grace_ms;
        let gone_ms = session.gone_since_ms.map(|since_ms| since_ms.saturating_add(grace_ms));
        expiry_ms.min(gone_ms.unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeats(session_ms: i64) -> BrokerHeartbeats {
        BrokerHeartbeats::new(SessionTimeouts { session_ms, silence_ms: 1_200, grace_ms: 100 })
    }

    #[test]
    fn quick_heartbeats_make_silence_tell_soon_and_slow_ones_do_not() {
        let mut heartbeats = heartbeats(9_000);
        for now_ms in [0, 200, 400, 600] {
            heartbeats.on_contact(1, 5, now_ms);
        }
        heartbeats.on_contact(2, 5, 0);
        heartbeats.on_contact(2, 5, 2_000);
        assert_eq!(heartbeats.first_expired(1_799, |_| true), None);
        assert_eq!(heartbeats.first_expired(1_800, |_| true), Some((1, 5)));
        assert_eq!(heartbeats.next_expiry_ms(|id| id == 2), Some(11_000));
    }

    #[test]
    fn a_broker_that_hurries_to_be_unfenced_is_not_missed_before_its_session_ends() {
        let mut heartbeats = heartbeats(9_000);
        // The heartbeats of a starting Apache Kafka broker: every 10 ms until it has caught up, at once when it is
        // ready, then every 2 s.
        for now_ms in [0, 10, 20, 30, 40, 50, 250] {
            heartbeats.on_contact(1, 5, now_ms);
        }
        heartbeats.on_unfenced(1);
        assert_eq!(heartbeats.next_expiry_ms(|_| true), Some(9_250));
        // A log directory fails.
        for now_ms in [2_250, 2_400, 4_400] {
            heartbeats.on_contact(1, 5, now_ms);
            assert_eq!(heartbeats.next_expiry_ms(|_| true), Some(now_ms + 9_000));
        }
    }

    #[test]
    fn a_quick_broker_that_stops_after_a_late_heartbeat_is_missed_soon() {
        let mut heartbeats = heartbeats(9_000);
        for now_ms in [0, 200, 400, 600, 1_200] {
            heartbeats.on_contact(1, 5, now_ms);
        }
        assert_eq!(heartbeats.next_expiry_ms(|_| true), Some(2_400));
    }

    #[test]
    fn three_late_heartbeats_make_a_broker_one_that_may_be_silent_for_its_session() {
        let mut heartbeats = heartbeats(9_000);
        for now_ms in [0, 200, 400, 600, 1_200, 1_800, 2_400] {
            heartbeats.on_contact(1, 5, now_ms);
        }
        assert_eq!(heartbeats.next_expiry_ms(|_| true), Some(11_400));
        for now_ms in [2_600, 2_800] {
            heartbeats.on_contact(1, 5, now_ms);
            assert_eq!(heartbeats.next_expiry_ms(|_| true), Some(now_ms + 9_000));
        }
        heartbeats.on_contact(1, 5, 3_000);
        assert_eq!(heartbeats.next_expiry_ms(|_| true), Some(4_200));
    }

    #[test]
    fn repeated_false_alarms_double_the_patience_until_the_broker_has_been_calm() {
        let mut heartbeats = heartbeats(9_000);
        let mut now_ms = 0;
        let mut contact = |heartbeats: &mut BrokerHeartbeats, pause_ms| {
            now_ms += pause_ms;
            heartbeats.on_contact(1, 5, now_ms);
            heartbeats.next_expiry_ms(|_| true).unwrap() - now_ms
        };
        for _ in 0..QUICK_GAPS {
            contact(&mut heartbeats, 200);
        }
        assert_eq!(contact(&mut heartbeats, 200), 1_200);
        for timeout_ms in [1_200, 1_200, 1_200, 2_400, 4_800, 9_000] {
            contact(&mut heartbeats, 9_500);
            assert_eq!(contact(&mut heartbeats, 200), timeout_ms);
        }
        for timeout_ms in [4_800, 2_400, 1_200, 1_200] {
            let calm = (0..CALM_MS / 200).map(|_| contact(&mut heartbeats, 200));
            assert_eq!(calm.last(), Some(timeout_ms));
        }
    }

    #[test]
    fn a_broker_whose_process_is_gone_is_lost_after_the_grace() {
        let mut heartbeats = heartbeats(9_000);
        heartbeats.on_contact(1, 5, 0);
        heartbeats.on_process_gone(1, 4, 10);
        assert_eq!(heartbeats.next_expiry_ms(|_| true), Some(9_000));
        heartbeats.on_process_gone(1, 5, 20);
        heartbeats.on_process_gone(1, 5, 90);
        assert!(heartbeats.has_valid_session(1, 5, 119));
        assert_eq!(heartbeats.first_expired(120, |_| true), Some((1, 5)));
    }

    #[test]
    fn evidence_against_a_broker_that_is_heard_from_counts_no_more() {
        let mut heartbeats = heartbeats(9_000);
        heartbeats.on_contact(1, 5, 0);
        heartbeats.on_process_gone(1, 5, 20);
        heartbeats.on_contact(1, 5, 1_000);
        heartbeats.on_process_gone(1, 5, 1_100);
        assert_eq!(heartbeats.next_expiry_ms(|_| true), Some(10_000));
        // The next incarnation starts without false alarms.
        heartbeats.on_contact(1, 6, 2_000);
        heartbeats.on_process_gone(1, 6, 2_000);
        assert_eq!(heartbeats.next_expiry_ms(|_| true), Some(2_100));
    }

    #[test]
    fn a_session_lasts_for_the_timeout_after_the_last_contact() {
        let mut heartbeats = heartbeats(9_000);
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
        let mut heartbeats = heartbeats(10);
        heartbeats.on_contact(1, 5, 3);
        heartbeats.on_contact(2, 6, 2);
        assert_eq!(heartbeats.first_expired(20, |_| true), Some((2, 6)));
    }

    #[test]
    fn brokers_that_shut_down_do_not_hold_the_lowest_offset_back() {
        let mut heartbeats = heartbeats(10);
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
        let mut heartbeats = heartbeats(10);
        heartbeats.on_contact(1, 5, 0);
        heartbeats.on_metadata_offset(1, 7);
        heartbeats.on_controlled_shutdown(1, 9);
        heartbeats.on_contact(1, 6, 1);
        assert_eq!(heartbeats.controlled_shutdown_offset(1), None);
        assert_eq!(heartbeats.lowest_offset(|_| true), -1);
    }
}
