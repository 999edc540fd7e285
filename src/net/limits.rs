//! The bounds of what peers can make this process hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Largest frame of a connection that has not sent a valid request yet: what Kafka grants before
/// authentication (`sasl.server.max.receive.size`). Afterwards `socket.request.max.bytes` holds.
pub(crate) const FIRST_FRAME_MAX_BYTES: usize = 512 * 1024;

/// Requests of one connection that may be waiting for their answers before the next is read.
pub(crate) const MAX_PIPELINED_REQUESTS: usize = 128;

/// Bytes of requests of one connection that may be waiting for their answers before the next is
/// read. One request more may be as large as `socket.request.max.bytes` allows.
pub(crate) const MAX_PIPELINED_BYTES: usize = 16 * 1024 * 1024;

/// How long a connection begins the requests that have arrived, before others have their turn.
pub(crate) const TURN: Duration = Duration::from_millis(2);

/// Answers that are queued before they are sent and the next request is begun.
pub(crate) const MAX_QUEUED_ANSWER_BYTES: usize = 256 * 1024;

/// Bytes of requests that have not arrived whole or not been answered, of all connections together.
/// The first bytes of each do not count, so that small requests always come through. A connection that would exceed it waits for its own answers, or is closed when it waits
/// for none: its peer is the one that sends much and finishes nothing.
pub(crate) const MAX_HELD_REQUEST_BYTES: usize = 512 * 1024 * 1024;

/// What a connection may hold of requests before it counts: about one buffer.
const UNCOUNTED_REQUEST_BYTES: usize = 64 * 1024;

/// A part of a shared bound, given back on drop.
#[derive(Debug)]
pub(crate) struct Share {
    used: Arc<AtomicUsize>,
    held: usize,
    limit: usize,
}

/// The shared bound is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all connections together hold {limit} bytes of requests already")]
pub(crate) struct Exhausted {
    limit: usize,
}

impl Share {
    /// A share of nothing of the bound `limit`, whose use by all is counted in `used`.
    pub(crate) fn none(used: &Arc<AtomicUsize>, limit: usize) -> Self {
        Self { used: Arc::clone(used), held: 0, limit }
    }

    /// Changes what is held to `amount`, the uncounted beginning included.
    pub(crate) fn set(&mut self, amount: usize) -> Result<(), Exhausted> {
        let amount = amount.saturating_sub(UNCOUNTED_REQUEST_BYTES);
        if amount == self.held {
            return Ok(());
        }
        if amount <= self.held {
            self.used.fetch_sub(self.held - amount, Ordering::Relaxed);
        } else {
            let more = amount - self.held;
            if self.used.fetch_add(more, Ordering::Relaxed) + more > self.limit {
                self.used.fetch_sub(more, Ordering::Relaxed);
                return Err(Exhausted { limit: self.limit });
            }
        }
        self.held = amount;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_bound_and_are_given_back() {
        let used = Arc::new(AtomicUsize::new(0));
        let mut one = Share::none(&used, 100);
        let mut two = Share::none(&used, 100);
        let counted = |amount| UNCOUNTED_REQUEST_BYTES + amount;
        assert_eq!(one.set(counted(60)), Ok(()));
        assert_eq!(two.set(counted(50)), Err(Exhausted { limit: 100 }));
        assert_eq!(two.set(counted(40)), Ok(()));
        assert_eq!(one.set(counted(10)), Ok(()));
        assert_eq!(two.set(counted(90)), Ok(()));
        drop((one, two));
        assert_eq!(used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn small_requests_come_through_when_the_bound_is_used_up() {
        let used = Arc::new(AtomicUsize::new(100));
        assert_eq!(Share::none(&used, 100).set(UNCOUNTED_REQUEST_BYTES), Ok(()));
    }
}
