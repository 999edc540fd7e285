//! Adaptive busy polling of a connection's socket, for a client that sends its next request as soon as it has the
//! answer.
//!
//! Sleeping between two requests of such a client and waking up costs more than the request itself, above all on
//! virtual machines, where an idle processor has to be woken as well. So a connection that is the only active one, and
//! whose last requests came at once, polls for the next one for [`POLL_LIMIT`] before it sleeps. One connection of the
//! process at a time does so, and other tasks run in between: the cost is bounded by one processor for [`POLL_LIMIT`]
//! each time that a client pauses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How long a connection polls for the next request.
const POLL_LIMIT: Duration = Duration::from_micros(100);
/// The number of consecutive requests that must come at once before a connection polls.
const QUICK_REQUESTS: u32 = 16;

/// The state that all connections share.
#[derive(Debug, Default)]
pub(crate) struct SharedBusyPoll {
    connections: AtomicU64,
    /// The connection that was served last.
    served: AtomicU64,
    taken: AtomicBool,
}

/// The busy-polling state of one connection.
#[derive(Debug)]
pub(crate) struct BusyPoll {
    shared: Arc<SharedBusyPoll>,
    id: u64,
    quick_requests: u32,
}

/// The permission to poll until `until`. One connection has it at a time.
#[derive(Debug)]
pub(crate) struct PollPermit {
    shared: Arc<SharedBusyPoll>,
    pub(crate) until: Instant,
}

impl BusyPoll {
    pub(crate) fn new(shared: &Arc<SharedBusyPoll>) -> Self {
        let id = shared.connections.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(shared), id, quick_requests: 0 }
    }

    /// A request has come, this long after the connection's last activity.
    pub(crate) fn on_request(&mut self, quiet: Duration) {
        let is_alone = self.shared.served.load(Ordering::Relaxed) == self.id;
        if !is_alone {
            self.shared.served.store(self.id, Ordering::Relaxed);
        }
        let is_quick = is_alone && quiet <= POLL_LIMIT;
        self.quick_requests = if is_quick { self.quick_requests.saturating_add(1) } else { 0 };
    }

    /// Returns the permission to poll now, if a request is likely to come soon.
    pub(crate) fn permit(&self, now: Instant) -> Option<PollPermit> {
        let worth_it = self.quick_requests >= QUICK_REQUESTS
            && self.shared.served.load(Ordering::Relaxed) == self.id;
        if !worth_it || self.shared.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(PollPermit { shared: Arc::clone(&self.shared), until: now + POLL_LIMIT })
    }

    /// No request came in time: the client does not send its requests at once any more.
    pub(crate) fn on_timeout(&mut self) {
        self.quick_requests = 0;
    }
}

impl Drop for PollPermit {
    fn drop(&mut self) {
        self.shared.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quick(busy_poll: &mut BusyPoll) {
        for _ in 0..=QUICK_REQUESTS {
            busy_poll.on_request(Duration::ZERO);
        }
    }

    #[test]
    fn a_connection_polls_after_many_quick_requests() {
        let mut busy_poll = BusyPoll::new(&Arc::default());
        assert!(busy_poll.permit(Instant::now()).is_none());
        quick(&mut busy_poll);
        assert!(busy_poll.permit(Instant::now()).is_some());
        busy_poll.on_request(POLL_LIMIT * 2);
        assert!(busy_poll.permit(Instant::now()).is_none());
        quick(&mut busy_poll);
        busy_poll.on_timeout();
        assert!(busy_poll.permit(Instant::now()).is_none());
    }

    #[test]
    fn no_connection_polls_while_several_are_served() {
        let shared = Arc::default();
        let (mut one, mut two) = (BusyPoll::new(&shared), BusyPoll::new(&shared));
        quick(&mut one);
        two.on_request(Duration::ZERO);
        assert!(one.permit(Instant::now()).is_none());
        for _ in 0..100 {
            one.on_request(Duration::ZERO);
            two.on_request(Duration::ZERO);
        }
        assert!(one.permit(Instant::now()).is_none() && two.permit(Instant::now()).is_none());
    }

    #[test]
    fn one_connection_at_a_time_polls() {
        let shared: Arc<SharedBusyPoll> = Arc::default();
        let mut busy_poll = BusyPoll::new(&shared);
        quick(&mut busy_poll);
        let permit = busy_poll.permit(Instant::now());
        assert!(permit.is_some() && busy_poll.permit(Instant::now()).is_none());
        drop(permit);
        assert!(busy_poll.permit(Instant::now()).is_some());
    }
}
