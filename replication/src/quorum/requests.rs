//! Outbound requests: at most one in flight to a node, a pause after a failure, and an answer is
//! accepted only while its request is the one in flight (Kafka's `RequestManager`).
//!
//! Every change of role drops all requests, so an accepted answer always belongs to the current role.

use super::effect::CorrelationId;
use klamm_protocol::ids::BrokerId;
use std::collections::BTreeMap;

/// The pause after an answer that contradicts this node's state.
const CONTRADICTION_BACKOFF_MS: i64 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    AwaitingResponse {
        correlation_id: CorrelationId,
        deadline_ms: i64,
    },
    BackingOff {
        until_ms: i64,
    },
    /// After an answer that contradicts this node's state. The bootstrap servers are not asked for the leader
    /// meanwhile.
    Paused {
        until_ms: i64,
    },
}

/// Requests by destination.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    connections: BTreeMap<BrokerId, Connection>,
    next_correlation_id: u64,
    request_timeout_ms: i64,
    retry_backoff_ms: i64,
}

impl Requests {
    pub(super) fn new(request_timeout_ms: i64, retry_backoff_ms: i64) -> Self {
        Self {
            connections: BTreeMap::new(),
            next_correlation_id: 0,
            request_timeout_ms,
            retry_backoff_ms,
        }
    }

    /// Drops requests without an answer in time and pauses that are over. Returns the nodes whose requests timed out.
    pub(super) fn expire(&mut self, now_ms: i64) -> Vec<BrokerId> {
        let mut timed_out = Vec::new();
        self.connections.retain(|id, connection| match *connection {
            Connection::AwaitingResponse { deadline_ms, .. } if deadline_ms <= now_ms => {
                timed_out.push(*id);
                false
            }
            Connection::BackingOff { until_ms } | Connection::Paused { until_ms } => {
                until_ms > now_ms
            }
            Connection::AwaitingResponse { .. } => true,
        });
        timed_out
    }

    pub(super) fn is_ready(&self, id: BrokerId) -> bool {
        !self.connections.contains_key(&id)
    }

    pub(super) fn is_backing_off(&self, id: BrokerId) -> bool {
        matches!(self.connections.get(&id), Some(Connection::BackingOff { .. }))
    }

    pub(super) fn any_in_flight(&self) -> bool {
        self.connections
            .values()
            .any(|connection| matches!(connection, Connection::AwaitingResponse { .. }))
    }

    pub(super) fn sent(&mut self, id: BrokerId, now_ms: i64) -> CorrelationId {
        let correlation_id = CorrelationId(self.next_correlation_id);
        self.next_correlation_id += 1;
        let deadline_ms = now_ms.saturating_add(self.request_timeout_ms);
        let awaiting = Connection::AwaitingResponse { correlation_id, deadline_ms };
        self.connections.insert(id, awaiting);
        correlation_id
    }

    /// The node whose request in flight this answers; None if the request is no longer in flight.
    pub(super) fn answered(&mut self, correlation_id: CorrelationId) -> Option<BrokerId> {
        let id = self.connections.iter().find_map(|(id, connection)| match connection {
            Connection::AwaitingResponse { correlation_id: awaited, .. }
                if *awaited == correlation_id =>
            {
                Some(*id)
            }
            _ => None,
        })?;
        self.connections.remove(&id);
        Some(id)
    }

    pub(super) fn back_off(&mut self, id: BrokerId, now_ms: i64) {
        let until_ms = now_ms.saturating_add(self.retry_backoff_ms);
        self.connections.insert(id, Connection::BackingOff { until_ms });
    }

    /// Pauses after an answer that contradicts this node's state.
    pub(super) fn pause(&mut self, id: BrokerId, now_ms: i64) {
        let until_ms = now_ms.saturating_add(CONTRADICTION_BACKOFF_MS);
        self.connections.insert(id, Connection::Paused { until_ms });
    }

    pub(super) fn is_paused(&self, id: BrokerId) -> bool {
        matches!(self.connections.get(&id), Some(Connection::Paused { .. }))
    }

    pub(super) fn reset_all(&mut self) {
        self.connections.clear();
    }

    /// The time at which the next request times out or the next pause ends.
    pub(super) fn next_deadline_ms(&self) -> Option<i64> {
        self.connections
            .values()
            .map(|connection| match *connection {
                Connection::AwaitingResponse { deadline_ms, .. } => deadline_ms,
                Connection::BackingOff { until_ms } | Connection::Paused { until_ms } => until_ms,
            })
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_once_and_only_while_its_request_is_in_flight() {
        let mut requests = Requests::new(1000, 20);
        let first = requests.sent(1, 0);
        assert!(!requests.is_ready(1) && requests.is_ready(2));
        assert_eq!(requests.answered(first), Some(1));
        assert_eq!(requests.answered(first), None);

        let late = requests.sent(1, 0);
        assert!(requests.expire(999).is_empty());
        assert_eq!(requests.expire(1000), [1]);
        assert_eq!(requests.answered(late), None);
        let reset = requests.sent(1, 0);
        requests.reset_all();
        assert_eq!(requests.answered(reset), None);
    }

    #[test]
    fn a_failure_makes_the_node_wait() {
        let mut requests = Requests::new(1000, 20);
        requests.back_off(1, 100);
        assert!(requests.is_backing_off(1) && !requests.any_in_flight());
        assert_eq!(requests.next_deadline_ms(), Some(120));
        requests.expire(120);
        assert!(requests.is_ready(1));
        requests.pause(1, 200);
        assert_eq!(requests.next_deadline_ms(), Some(1_200));
    }
}
