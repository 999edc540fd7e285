//! Time, read at the edge and passed inwards.
//!
//! The wall clock is for timestamps that are stored or sent. The steady clock is for everything that waits: sessions,
//! timeouts, elections, delays. It starts at the wall clock and follows it, but after a step of the wall clock it only
//! runs a little faster or slower until both agree: it never goes back, and no session of ten seconds ends after eight.
//! The retention clock is for the age of stored data before its deletion: the wall clock, with a step ahead trusted
//! late ([`trusted`]).

mod trusted;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use klamm_protocol::time::Now;
use tracing::{info, warn};

use self::trusted::{Step, TRUST_AFTER, Trusted};

/// After a step of the wall clock the steady clock runs faster or slower by one part in this many.
const SLEW: i64 = 10;
/// Files that a running node writes every minute, in Klamm and in Apache Kafka.
const WRITTEN_WHILE_RUNNING: [&str; 3] = [
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    "replication-offset-checkpoint",
];

/// The file that formatting writes.
const WRITTEN_BEFORE: &str = "meta.properties";
/// A distrusted step shorter than this is not kept for the next start, which trusts more than that.
const UNTRUSTED_TO_KEEP_MS: i64 = 60_000;

/// The last reading of the steady and the retention clock.
static LAST: Mutex<Option<Reading>> = Mutex::new(None);

#[derive(Debug, Clone, Copy)]
struct Reading {
    read_at: Instant,
    steady_micros: i64,
    trusted: Trusted,
}

/// Milliseconds since the Unix epoch by the wall clock, which may be set at any time: for timestamps that are stored or
/// sent.
pub(crate) fn wall_ms() -> i64 {
    wall_micros() / 1_000
}

/// Milliseconds since the Unix epoch by the steady clock: for everything that waits.
pub(crate) fn now_ms() -> i64 {
    now().steady_ms
}

/// How long it is until a time of the steady clock; nothing for one that is over.
pub(crate) fn until(deadline_ms: i64) -> Duration {
    Duration::from_millis(deadline_ms.saturating_sub(now_ms()).max(0).unsigned_abs())
}

/// All clocks.
pub(crate) fn now() -> Now {
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let (read_at, wall) = (Instant::now(), wall_micros());
    let (reading, step) = match *last {
        None => {
            let trusted = Trusted::new(wall, None);
            (Reading { read_at, steady_micros: wall, trusted }, None)
        }
        Some(last) => {
            let elapsed = in_micros(read_at.saturating_duration_since(last.read_at));
            let mut trusted = last.trusted;
            let step = trusted.on_reading(elapsed, wall);
            let steady_micros = advanced(last.steady_micros, elapsed, wall);
            (Reading { read_at, steady_micros, trusted }, step)
        }
    };
    *last = Some(reading);
    drop(last);
    if let Some(step) = step {
        log_step(step, reading.trusted);
    }
    Now {
        steady_ms: reading.steady_micros / 1_000,
        wall_ms: wall / 1_000,
        retention_ms: reading.trusted.micros() / 1_000,
    }
}

/// Converts a time of the steady clock to the wall clock, for answers that carry it.
pub(crate) fn as_wall_ms(steady_ms: i64) -> i64 {
    let now = now();
    steady_ms.saturating_add(now.wall_ms - now.steady_ms)
}

/// Reads when a node last ran on these directories, before any data is deleted by age: if that is more than an hour
/// ago, the wall clock may have been set wrong since.
pub(crate) fn resume(log_dirs: &[PathBuf]) {
    let (read_at, wall) = (Instant::now(), wall_micros());
    let trusted = Trusted::new(wall, last_seen(log_dirs).map(in_micros));
    let skipped = trusted.untrusted();
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let steady_micros = last.map_or(wall, |last| last.steady_micros);
    *last = Some(Reading { read_at, steady_micros, trusted });
    drop(last);
    if skipped > 0 {
        info!(
            "by its clock this node did not run for {}; if that is not so, set the clock right within \
             {}: nothing that is stored is deleted for its age before",
            span(skipped),
            span(in_micros(TRUST_AFTER))
        );
    }
}

/// The time at which a node last ran on these directories, by its retention clock.
fn last_seen(log_dirs: &[PathBuf]) -> Option<Duration> {
    let newest = |names: &[&str]| {
        let files = log_dirs.iter().flat_map(|dir| names.iter().map(|name| dir.join(name)));
        let modified = files.filter_map(|file| std::fs::metadata(file).ok()?.modified().ok());
        modified.filter_map(|at| at.duration_since(UNIX_EPOCH).ok()).max()
    };
    // A directory without these files was formatted, and no node has run on it for a minute.
    newest(&WRITTEN_WHILE_RUNNING).or_else(|| newest(&[WRITTEN_BEFORE]))
}

/// After the checkpoints of a log directory are written, sets their modification time to the trusted time: otherwise
/// the next start would trust the wall clock that has stamped them.
pub(crate) fn on_checkpoints_written(log_dir: &Path) {
    let now = now();
    let Ok(trusted_ms) = u64::try_from(now.retention_ms) else { return };
    if now.wall_ms - now.retention_ms > UNTRUSTED_TO_KEEP_MS
        && let Err(failure) = stamp(log_dir, Duration::from_millis(trusted_ms))
    {
        warn!(
            "{}: the checkpoints keep the time of a clock that is not trusted ({failure}); set the clock right before the \
             next start",
            log_dir.display()
        );
    }
}

fn stamp(log_dir: &Path, since_epoch: Duration) -> std::io::Result<()> {
    WRITTEN_WHILE_RUNNING.iter().try_for_each(|name| {
        let file = File::options().write(true).open(log_dir.join(name))?;
        file.set_modified(UNIX_EPOCH + since_epoch)
    })
}

/// Logs each step of the wall clock once.
fn log_step(step: Step, trusted: Trusted) {
    match step {
        Step::Set { by } if by < 0 => warn!(
            "the wall clock was set back by {}: timeouts are not affected; what is stored is stamped with \
             the earlier time and is kept for longer",
            span(-by)
        ),
        Step::Set { by } if trusted.untrusted() > 0 => warn!(
            "the wall clock was set ahead by {}: timeouts are not affected; records, offsets and producer \
             ids are not deleted for the days that it skipped until it has stayed so for {}. If the clock \
             is wrong, set it right before",
            span(by),
            span(in_micros(TRUST_AFTER))
        ),
        Step::Set { by } => info!("the wall clock was set ahead by {}, as before", span(by)),
        Step::Accepted { by } => warn!(
            "the wall clock has been ahead by {} for {}: from now on the age of records, offsets and \
             producer ids is judged by it",
            span(by),
            span(in_micros(TRUST_AFTER))
        ),
    }
}

/// A duration in readable units.
fn span(micros: i64) -> String {
    // The clocks are read one after the other, so the duration is rounded to the nearest second.
    let seconds = (micros + 500_000) / 1_000_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {} s", seconds % 60),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// The steady clock, when `elapsed` has passed since it read `last` and the wall clock reads `wall`.
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
    fn a_span_is_told_in_the_units_that_matter() {
        assert_eq!(span(61 * SECOND), "1 min 1 s");
        assert_eq!(span(3_600 * SECOND), "1 h 0 min");
        assert_eq!(span(3_600 * SECOND - 30), "1 h 0 min");
        assert_eq!(span(10 * 86_400 * SECOND + 7_200 * SECOND), "10 d 2 h");
    }

    #[test]
    fn checkpoints_tell_the_next_start_of_the_time_that_was_trusted() {
        let log_dir = std::env::temp_dir().join(format!("klamm-clock-{}", std::process::id()));
        std::fs::create_dir_all(&log_dir).unwrap();
        let log_dirs = [log_dir.clone()];
        assert_eq!(last_seen(&log_dirs), None);
        std::fs::write(log_dir.join(WRITTEN_BEFORE), "").unwrap();
        assert!(last_seen(&log_dirs).is_some(), "since it was formatted");
        let trusted = Duration::from_secs(1_700_000_000);
        assert!(stamp(&log_dir, trusted).is_err(), "nothing is written yet");
        for name in WRITTEN_WHILE_RUNNING {
            std::fs::write(log_dir.join(name), "0").unwrap();
        }
        assert!(last_seen(&log_dirs).unwrap() > trusted, "stamped by the clock of the machine");
        stamp(&log_dir, trusted).unwrap();
        assert_eq!(last_seen(&log_dirs), Some(trusted));
        std::fs::remove_dir_all(&log_dir).unwrap();
    }

    #[test]
    fn readings_rise() {
        let first = now_ms();
        assert!(now_ms() >= first);
        assert!((wall_ms() - first).abs() < 60_000);
    }
}
