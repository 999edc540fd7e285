//! Replication as pure state machines: partition leaders and followers, and the KRaft quorum.
//!
//! Pure: no IO, no clock, no async. The caller passes time and events in, carries out what comes
//! back, and reports what became of it. Both machines share one vocabulary: a position in a log
//! ([`OffsetAndEpoch`]), where each leader epoch starts ([`EpochHistory`]), and how two logs are
//! compared ([`divergence`]).

pub mod divergence;
mod epoch_history;
mod offset_and_epoch;
pub mod partition;
pub mod quorum;

pub use epoch_history::{EpochHistory, EpochStart};
pub use offset_and_epoch::OffsetAndEpoch;
