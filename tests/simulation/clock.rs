//! A node's clocks. The steady one runs a little too fast or too slow; the wall clock is set at any time, in either
//! direction; and how far the wall clock is trusted to judge what is old is the shipped code's to say.
//!
//! As in `src/clock.rs` the steady clock begins at the wall clock when a process starts, and makes up for a wall clock
//! that is set with a tenth of the time that passes.

#[path = "../../src/clock/trusted.rs"]
mod trusted;

use crate::random::Random;
use klamm_protocol::time::Now;
use trusted::Trusted;

/// Clocks run at most this much too fast or too slow, in thousandths.
const MAX_DRIFT: i64 = 50;
/// What the steady clock makes up with, in thousandths.
const SLEW: i64 = 100;
/// Clocks are set apart by at most this much, as long as nobody sets them.
const MAX_OFFSET_MS: i64 = 3_600_000;
/// The right time at which the world begins.
const EPOCH_MS: i64 = 100 * DAY_MS;
pub(crate) const DAY_MS: i64 = 86_400_000;
/// A wall clock is behind by at most this much when something is stored: less than offsets are kept for.
const MAX_BEHIND_MS: i64 = 5 * DAY_MS;
/// A machine without a battery starts this far behind, or is set this far ahead by mistake.
const MAX_ERROR_MS: i64 = 10 * DAY_MS;

/// The right time.
pub(crate) fn right_ms(world_ms: i64) -> i64 {
    EPOCH_MS + world_ms
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// A moment of the world, and what the steady clock showed then.
    since_world_ms: i64,
    since_steady_ms: i64,
    /// Steady milliseconds in 1,000 of the world's, when the wall clock is not being caught up with.
    rate: i64,
    slew: i64,
    /// How far the wall clock is ahead of the right time.
    error_ms: i64,
    trusted: Trusted,
    read_at_ms: i64,
    /// The trusted time that the node has last written down.
    last_seen_ms: Option<i64>,
}

impl Clock {
    pub(crate) fn random(random: &mut Random) -> Self {
        let mut clock = Self {
            since_world_ms: 0,
            since_steady_ms: 0,
            rate: 1_000 + random.between(-MAX_DRIFT, MAX_DRIFT),
            slew: 0,
            error_ms: random.between(-MAX_OFFSET_MS, MAX_OFFSET_MS),
            trusted: Trusted::new(0, None),
            read_at_ms: 0,
            last_seen_ms: None,
        };
        clock.restart(0);
        // Formatting has written files.
        clock.write_down(clock.wall_ms(0));
        clock
    }

    fn wall_ms(&self, world_ms: i64) -> i64 {
        right_ms(world_ms) + self.error_ms
    }

    /// What the steady clock shows when the world's time is `world_ms`.
    fn steady_ms(&self, world_ms: i64) -> i64 {
        let elapsed_ms = world_ms - self.since_world_ms;
        self.since_steady_ms + elapsed_ms * (self.rate + self.slew) / 1_000
    }

    /// The world's time at which the steady clock shows `steady_ms` for sure.
    pub(crate) fn world_ms(&self, steady_ms: i64) -> i64 {
        let since_ms = steady_ms.saturating_sub(self.since_steady_ms);
        self.since_world_ms + since_ms.saturating_mul(1_000) / (self.rate + self.slew) + 1
    }

    /// The world's time at which the wall clock shows `wall_ms`, unless somebody sets it.
    pub(crate) fn world_ms_by_wall(&self, wall_ms: i64) -> i64 {
        wall_ms.saturating_sub(self.error_ms + EPOCH_MS)
    }

    /// Reads all clocks.
    pub(crate) fn now(&mut self, world_ms: i64) -> Now {
        let (steady_ms, wall_ms) = (self.steady_ms(world_ms), self.wall_ms(world_ms));
        self.trusted.on_reading((steady_ms - self.read_at_ms) * 1_000, wall_ms * 1_000);
        self.read_at_ms = steady_ms;
        Now { steady_ms, wall_ms, retention_ms: self.trusted.micros() / 1_000 }
    }

    /// A process starts.
    pub(crate) fn restart(&mut self, world_ms: i64) {
        let wall_ms = self.wall_ms(world_ms);
        (self.since_world_ms, self.since_steady_ms) = (world_ms, wall_ms);
        (self.slew, self.read_at_ms) = (0, wall_ms);
        self.trusted = Trusted::new(wall_ms * 1_000, self.last_seen_ms.map(|ms| ms * 1_000));
    }

    /// The node writes down how late it is.
    pub(crate) fn write_down(&mut self, seen_ms: i64) {
        self.last_seen_ms = Some(seen_ms);
    }

    /// Before anything is stored: the machine does not know the time yet.
    pub(crate) fn start_behind(&mut self, random: &mut Random) {
        self.error_ms = -random.between(8 * DAY_MS, MAX_ERROR_MS);
        self.restart(0);
    }

    /// Somebody sets the wall clock. Returns whether it is ahead of before.
    pub(crate) fn set(&mut self, world_ms: i64, random: &mut Random) -> bool {
        let before_ms = self.now(world_ms).wall_ms;
        self.error_ms = match random.below(4) {
            0 => random.between(-MAX_BEHIND_MS, MAX_ERROR_MS),
            1 => random.between(DAY_MS, MAX_ERROR_MS),
            2 => -random.between(60_000, MAX_BEHIND_MS),
            _ => random.between(-MAX_OFFSET_MS, MAX_OFFSET_MS),
        };
        self.follow(world_ms) > before_ms
    }

    /// The wall clock is set right, more or less.
    pub(crate) fn set_right(&mut self, world_ms: i64) {
        self.error_ms = 0;
        self.follow(world_ms);
    }

    fn follow(&mut self, world_ms: i64) -> i64 {
        let now = self.now(world_ms);
        (self.since_world_ms, self.since_steady_ms) = (world_ms, now.steady_ms);
        self.slew = SLEW * (now.wall_ms - now.steady_ms).signum();
        now.wall_ms
    }
}
