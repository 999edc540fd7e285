//! The bounds of the memory that peers can make this process use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Largest frame of a connection that has not sent a valid request yet: Kafka's limit before authentication
/// (`sasl.server.max.receive.size`). Afterwards `socket.request.max.bytes` holds.
pub(crate) const FIRST_FRAME_MAX_BYTES: usize = 512 * 1024;

/// Requests of one connection that may wait for answers; the next is not read before one is answered.
pub(crate) const MAX_PIPELINED_REQUESTS: usize = 128;

/// Bytes of requests of one connection that may wait for answers; the next request is not read before one is answered.
/// One more request may be as large as `socket.request.max.bytes` allows.
pub(crate) const MAX_PIPELINED_BYTES: usize = 16 * 1024 * 1024;

/// How long a connection may begin received requests before other connections get the thread.
pub(crate) const TURN: Duration = Duration::from_millis(2);

/// Bytes of queued answers at which they are sent before the next request begins.
pub(crate) const MAX_QUEUED_ANSWER_BYTES: usize = 256 * 1024;

/// Bytes of incomplete and unanswered requests of all connections together. The first bytes of each connection do not
/// count, so that small requests are always served. A connection that would exceed the bound waits for its own answers;
/// if it has none to wait for it is closed, because its peer has sent much of a request without completing it.
pub(crate) const MAX_HELD_REQUEST_BYTES: usize = 512 * 1024 * 1024;

/// Request bytes of a connection that do not count: about one buffer.
const UNCOUNTED_REQUEST_BYTES: usize = 64 * 1024;

/// A part of a shared bound, released on drop.
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
    /// An empty share of the bound `limit`. `used` counts the use by all connections.
    pub(crate) fn none(used: &Arc<AtomicUsize>, limit: usize) -> Self {
        Self { used: Arc::clone(used), held: 0, limit }
    }

    /// Changes the held bytes to `amount`, which includes the uncounted ones.
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
