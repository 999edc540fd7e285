//! Staying awake for a client that asks its next question as soon as it has its answer.
//!
//! Falling asleep between two requests of such a client and being woken costs more than the
//! request itself, above all on virtual machines, where an idle processor has to be woken as well.
//! So a connection that is alone in being served, and whose last requests came at once, looks for
//! the next one for [`PATIENCE`] before it sleeps. One connection of the process at a time does so, and
//! whatever else there is to do is done in between: the cost is bounded by one processor for [`PATIENCE`] each time
//! that a client stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How long a connection looks out for the next request.
const PATIENCE: Duration = Duration::from_micros(100);
/// Requests that have to come at once, one after the other, before a connection looks out.
const QUICK_REQUESTS: u32 = 16;

/// What the connections of a process share.
#[derive(Debug, Default)]
pub(crate) struct Lookouts {
    connections: AtomicU64,
    /// The connection that was served last.
    served: AtomicU64,
    taken: AtomicBool,
}

/// One connection's part in it.
#[derive(Debug)]
pub(crate) struct Lookout {
    shared: Arc<Lookouts>,
    id: u64,
    quick_requests: u32,
}

/// The permission to stay awake until `until`.
#[derive(Debug)]
pub(crate) struct Turn {
    shared: Arc<Lookouts>,
    pub(crate) until: Instant,
}

impl Lookout {
    pub(crate) fn new(shared: &Arc<Lookouts>) -> Self {
        let id = shared.connections.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(shared), id, quick_requests: 0 }
    }

    /// A request has come, this long after the connection had last done something.
    pub(crate) fn on_request(&mut self, quiet: Duration) {
        let is_alone = self.shared.served.load(Ordering::Relaxed) == self.id;
        if !is_alone {
            self.shared.served.store(self.id, Ordering::Relaxed);
        }
        let is_quick = is_alone && quiet <= PATIENCE;
        self.quick_requests = if is_quick { self.quick_requests.saturating_add(1) } else { 0 };
    }

    /// The permission to look out now, if that is likely to be worth it.
    pub(crate) fn turn(&self, now: Instant) -> Option<Turn> {
        let worth_it = self.quick_requests >= QUICK_REQUESTS
            && self.shared.served.load(Ordering::Relaxed) == self.id;
        if !worth_it || self.shared.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(Turn { shared: Arc::clone(&self.shared), until: now + PATIENCE })
    }

    /// Nothing came: the client is no longer one that asks at once.
    pub(crate) fn on_silence(&mut self) {
        self.quick_requests = 0;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quick(lookout: &mut Lookout) {
        for _ in 0..=QUICK_REQUESTS {
            lookout.on_request(Duration::ZERO);
        }
    }

    #[test]
    fn a_connection_looks_out_after_many_quick_requests() {
        let mut lookout = Lookout::new(&Arc::default());
        assert!(lookout.turn(Instant::now()).is_none());
        quick(&mut lookout);
        assert!(lookout.turn(Instant::now()).is_some());
        lookout.on_request(PATIENCE * 2);
        assert!(lookout.turn(Instant::now()).is_none());
        quick(&mut lookout);
        lookout.on_silence();
        assert!(lookout.turn(Instant::now()).is_none());
    }

    #[test]
    fn nobody_looks_out_while_several_are_served() {
        let shared = Arc::default();
        let (mut one, mut two) = (Lookout::new(&shared), Lookout::new(&shared));
        quick(&mut one);
        two.on_request(Duration::ZERO);
        assert!(one.turn(Instant::now()).is_none());
        for _ in 0..100 {
            one.on_request(Duration::ZERO);
            two.on_request(Duration::ZERO);
        }
        assert!(one.turn(Instant::now()).is_none() && two.turn(Instant::now()).is_none());
    }

    #[test]
    fn one_connection_at_a_time_looks_out() {
        let shared: Arc<Lookouts> = Arc::default();
        let mut lookout = Lookout::new(&shared);
        quick(&mut lookout);
        let turn = lookout.turn(Instant::now());
        assert!(turn.is_some() && lookout.turn(Instant::now()).is_none());
        drop(turn);
        assert!(lookout.turn(Instant::now()).is_some());
    }
}
