//! Runs blocking work so that it does not hold up the tasks of the runtime.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs `work` on the blocking pool and waits for it. A panic of `work` continues as a panic of the caller.
pub(crate) async fn run<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// Runs `work`, which may block, on this thread. If the thread is a worker of the runtime, its other tasks move to
/// another thread first.
#[expect(clippy::disallowed_methods, reason = "the one place that may call it")]
pub(crate) fn in_place<R>(work: impl FnOnce() -> R) -> R {
    // A current-thread runtime cannot move its tasks to another thread. Only tests use one.
    let has_workers = |runtime: Handle| runtime.runtime_flavor() == RuntimeFlavor::MultiThread;
    if Handle::try_current().is_ok_and(has_workers) {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}
