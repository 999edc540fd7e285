//! What a panic costs. There is one policy (ARCHITECTURE.md, "Panics").
//!
//! A panic in a connection's task costs that connection. A panic of an owner stops the node: an owner is a task, a thread or
//! the holder of a lock that changes state on which others rely, and what it leaves half-changed must not be served. The
//! stop leaves no mark of a clean shutdown on what was half-changed; the next start recovers it from the disk.

use std::borrow::Cow;

use tokio_util::sync::CancellationToken;
use tracing::error;

/// Stops the node if a panic drops it.
#[derive(Debug)]
pub(crate) struct OwnerGuard {
    what: Cow<'static, str>,
    failed: CancellationToken,
}

impl OwnerGuard {
    /// `what` names the owner in the log; `failed` is the node's `failed` of the node's `BrokerSession`.
    pub(crate) fn of(what: impl Into<Cow<'static, str>>, failed: &CancellationToken) -> Self {
        Self { what: what.into(), failed: failed.clone() }
    }

    /// Runs a task that owns something.
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

/// An owner has panicked.
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
