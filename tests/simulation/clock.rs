//! A node's clock: it starts anywhere and runs a little too fast or too slow.

use crate::random::Random;

/// Clocks run at most this much too fast or too slow, in thousandths.
const MAX_DRIFT: i64 = 50;
/// Clocks are set apart by at most this much.
const MAX_OFFSET_MS: i64 = 3_600_000;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    offset_ms: i64,
    /// Local milliseconds in 1,000 of the world's.
    rate: i64,
}

impl Clock {
    pub(crate) fn random(random: &mut Random) -> Self {
        Self {
            offset_ms: MAX_OFFSET_MS + random.between(-MAX_OFFSET_MS, MAX_OFFSET_MS),
            rate: 1_000 + random.between(-MAX_DRIFT, MAX_DRIFT),
        }
    }

    /// What the clock shows when the world's time is `world_ms`.
    pub(crate) fn local_ms(self, world_ms: i64) -> i64 {
        self.offset_ms + world_ms * self.rate / 1_000
    }

    /// The world's time at which the clock shows `local_ms` for sure.
    pub(crate) fn world_ms(self, local_ms: i64) -> i64 {
        let since_start = local_ms.saturating_sub(self.offset_ms);
        since_start.saturating_mul(1_000) / self.rate + 1
    }
}
