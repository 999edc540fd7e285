//! The policy for panics (ARCHITECTURE.md, "Panics").
//!
//! A panic in a connection's task closes that connection. A panic of an owner stops the node: an owner is a task, a
//! thread or the holder of a lock that changes state on which others rely, and half-changed state must not be served. A
//! log directory with half-changed state gets no mark of a clean shutdown, and the next start recovers its logs.

use std::borrow::Cow;

use tokio_util::sync::CancellationToken;
use tracing::error;

/// Stops the node if it is dropped by a panic.
#[derive(Debug)]
pub(crate) struct OwnerGuard {
    what: Cow<'static, str>,
    failed: CancellationToken,
}

impl OwnerGuard {
    /// `what` names the owner in the log; `failed` is the `failed` token of the node's `BrokerSession`.
    pub(crate) fn of(what: impl Into<Cow<'static, str>>, failed: &CancellationToken) -> Self {
        Self { what: what.into(), failed: failed.clone() }
    }

    /// Runs the task of an owner.
    pub(crate) async fn run(self, task: impl Future<Output = ()>) {
        task.await;
    }
}

impl Drop for OwnerGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            stop_node(&self.what, &self.failed);
        }
    }
}

/// Stops the node because an owner has panicked.
pub(crate) fn stop_node(what: &str, failed: &CancellationToken) {
    if !failed.is_cancelled() {
        error!("{what} panicked, the node stops; the next start recovers what it has left on disk");
    }
    failed.cancel();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_stops_the_node_and_one_that_ends_or_is_dropped_does_not() {
        let failed = CancellationToken::new();
        let owner = || OwnerGuard::of("a test", &failed);
        tokio::spawn(owner().run(std::future::ready(()))).await.unwrap();
        let waiting = tokio::spawn(owner().run(std::future::pending()));
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert!(!failed.is_cancelled());
        let panicking = owner().run(async { panic!("an invariant is broken") });
        assert!(tokio::spawn(panicking).await.unwrap_err().is_panic());
        assert!(failed.is_cancelled());
    }
}
