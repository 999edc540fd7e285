//! The clocks, as the pure crates are told of them.
//!
//! Kafka has one clock, which everybody may set. Here every use says which of three readings it means.

/// What the clocks read at an event, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The steady clock, for whatever waits: sessions, timeouts, delays. It never goes back, and setting
    /// the wall clock moves it by little. Nothing that is stored is stamped with it or held against it.
    pub steady_ms: i64,
    /// The wall clock, for the timestamps of what is stored or sent. It may be set at any time, in
    /// either direction.
    pub wall_ms: i64,
    /// The wall clock as far as it is trusted, for judging the age of what is stored before it is
    /// deleted. It follows the wall clock, but believes that days have passed only after a while.
    pub retention_ms: i64,
}

impl Now {
    /// A moment at which all clocks agree.
    pub const fn at(ms: i64) -> Self {
        Self { steady_ms: ms, wall_ms: ms, retention_ms: ms }
    }
}
