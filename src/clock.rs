//! Time, read at the edge and passed inwards.
//!
//! Two clocks. The wall clock stamps records and is held against their timestamps. The steady clock
//! is for everything that waits: sessions, timeouts, elections. It begins at the wall clock and
//! follows it, but when somebody sets that clock the steady one only runs a little faster or slower
//! until both agree: it never goes back, and no session of ten seconds ends after eight.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The steady clock makes up for a wall clock that was set with one part in this many of the time
/// that passes.
const SLEW: i64 = 10;

/// The last reading of the steady clock.
static STEADY: Mutex<Option<Steady>> = Mutex::new(None);

#[derive(Debug, Clone, Copy)]
struct Steady {
    read_at: Instant,
    micros: i64,
}

/// Milliseconds since the Unix epoch by the wall clock, which may be set at any time: for the
/// timestamps of records.
pub(crate) fn wall_ms() -> i64 {
    wall_micros() / 1_000
}

/// Milliseconds since the Unix epoch by the steady clock: for whatever waits.
pub(crate) fn now_ms() -> i64 {
    let mut last = STEADY.lock().unwrap_or_else(PoisonError::into_inner);
    let (read_at, wall) = (Instant::now(), wall_micros());
    let micros = last.map_or(wall, |last| {
        advanced(last.micros, in_micros(read_at.saturating_duration_since(last.read_at)), wall)
    });
    *last = Some(Steady { read_at, micros });
    micros / 1_000
}

/// The steady clock `elapsed` after it read `last`, when the wall clock reads `wall`.
fn advanced(last: i64, elapsed: i64, wall: i64) -> i64 {
    let unset = last + elapsed;
    let most = elapsed / SLEW;
    unset + (wall - unset).clamp(-most, most)
}

fn wall_micros() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock of a machine that runs Klamm is past 1970");
    in_micros(elapsed)
}

fn in_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros())
        .expect("microseconds fit into an i64 for 292 thousand years")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn the_steady_clock_follows_a_wall_clock_that_nobody_sets() {
        assert_eq!(advanced(5 * SECOND, SECOND, 6 * SECOND), 6 * SECOND);
        assert_eq!(advanced(5 * SECOND, SECOND, 6 * SECOND + 40), 6 * SECOND + 40);
    }

    #[test]
    fn a_wall_clock_that_is_set_is_approached_slowly() {
        let hour = 3_600 * SECOND;
        assert_eq!(advanced(0, SECOND, hour), SECOND + SECOND / 10);
        assert_eq!(advanced(hour, SECOND, 0), hour + SECOND - SECOND / 10, "and never goes back");
        assert_eq!(advanced(hour, 0, 0), hour);
    }

    #[test]
    fn readings_rise() {
        let first = now_ms();
        assert!(now_ms() >= first);
        assert!((wall_ms() - first).abs() < 60_000);
    }
}
