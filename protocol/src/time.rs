//! The readings of the clocks that the pure crates get as arguments.
//!
//! Kafka uses one clock, the system's, which may be set. Here every use chooses one of three readings.

/// The clocks at an event, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The steady clock, for everything that waits: sessions, timeouts, delays. It never goes back, and setting the
    /// wall clock changes it only a little. Stored timestamps are never taken from it or compared with it.
    pub steady_ms: i64,
    /// The wall clock, for timestamps that are stored or sent. It may be set at any time, in either direction.
    pub wall_ms: i64,
    /// The retention clock, for the age of stored data before its deletion. It follows the wall clock, but accepts a
    /// large step ahead only after a delay.
    pub retention_ms: i64,
}

impl Now {
    /// All clocks with the same reading.
    pub const fn at(ms: i64) -> Self {
        Self { steady_ms: ms, wall_ms: ms, retention_ms: ms }
    }
}
