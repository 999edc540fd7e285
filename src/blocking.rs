//! Work that blocks, off the runtime's own threads.

/// Runs `work` on the blocking pool and waits for it. A panic in it continues in the caller, with the effect of a panic
/// of the caller.
pub(crate) async fn run<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}
