//! Waiting for an event with a deadline: the only place of the tests that sleeps.

use std::time::{Duration, Instant};

const POLL_INTERVAL_MS: u64 = 20;

/// Asks `probe` until it answers, and returns the answer.
///
/// # Panics
/// When the limit is over; the message names `what` was awaited.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    let in_time = within(limit, || {
        found = probe();
        found.is_some()
    });
    assert!(in_time, "waited {limit:?} in vain for: {what}");
    found.expect("just seen")
}

/// Asks `probe` until it says yes, and tells whether it did: for tests that have more to say about a failure.
pub fn within(limit: Duration, mut probe: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if probe() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        pause();
    }
}

/// Asks `probe` until it says yes.
///
/// # Panics
/// When the limit is over.
#[track_caller]
pub fn until_true(what: &str, limit: Duration, mut probe: impl FnMut() -> bool) {
    until(what, limit, || probe().then_some(()));
}

#[expect(
    clippy::disallowed_methods,
    reason = "polls outside processes, which send no event; bounded by a deadline"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(POLL_INTERVAL_MS));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_until_the_probe_answers() {
        let mut asked = 0;
        let answer = until("the third question", Duration::from_secs(5), || {
            asked += 1;
            (asked == 3).then_some("yes")
        });
        assert_eq!((answer, asked), ("yes", 3));
    }

    #[test]
    #[should_panic(expected = "in vain for: a miracle")]
    fn gives_up_when_the_limit_is_over() {
        until_true("a miracle", Duration::from_millis(1), || false);
    }
}
