//! The bounds of what peers can make this process hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Largest frame of a connection that has not sent a valid request yet: what Kafka grants before
/// authentication (`sasl.server.max.receive.size`). Afterwards `socket.request.max.bytes` holds.
pub(crate) const FIRST_FRAME_MAX_BYTES: usize = 512 * 1024;

/// Requests of one connection that may be waiting for their answers before the next is read.
pub(crate) const MAX_PIPELINED_REQUESTS: usize = 128;

/// Bytes of frames that have not arrived whole, of all connections together. A connection that
/// would exceed it is closed: its peer is the one that sends much and finishes nothing.
pub(crate) const MAX_UNFINISHED_FRAME_BYTES: usize = 512 * 1024 * 1024;

/// A part of a shared bound, given back on drop.
#[derive(Debug)]
pub(crate) struct Share {
    used: Arc<AtomicUsize>,
    held: usize,
    limit: usize,
}

/// The shared bound is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} bytes of unfinished requests are held already")]
pub(crate) struct Exhausted {
    limit: usize,
}

impl Share {
    /// A share of nothing of the bound `limit`, whose use by all is counted in `used`.
    pub(crate) fn none(used: &Arc<AtomicUsize>, limit: usize) -> Self {
        Self { used: Arc::clone(used), held: 0, limit }
    }

    /// Changes what is held to `amount`.
    pub(crate) fn set(&mut self, amount: usize) -> Result<(), Exhausted> {
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
        assert_eq!(one.set(60), Ok(()));
        assert_eq!(two.set(50), Err(Exhausted { limit: 100 }));
        assert_eq!(two.set(40), Ok(()));
        assert_eq!(one.set(10), Ok(()));
        assert_eq!(two.set(90), Ok(()));
        drop((one, two));
        assert_eq!(used.load(Ordering::Relaxed), 0);
    }
}
