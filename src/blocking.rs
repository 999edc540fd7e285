//! Work that blocks, off the runtime's own threads.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs `work` on the blocking pool and waits for it. A panic in it continues in the caller, with the effect of a panic
/// of the caller.
pub(crate) async fn run<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// Runs `work`, which may block, on this thread. If the thread is a worker of the runtime, its other tasks move to another thread
/// first.
#[expect(clippy::disallowed_methods, reason = "the one place that others use instead")]
pub(crate) fn in_place<R>(work: impl FnOnce() -> R) -> R {
    // A runtime of one thread has nowhere to move them, and only tests run one.
    let has_workers = |runtime: Handle| runtime.runtime_flavor() == RuntimeFlavor::MultiThread;
    if Handle::try_current().is_ok_and(has_workers) {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}
