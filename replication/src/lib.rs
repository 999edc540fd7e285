//! Replication as pure state machines: partition leaders and followers, and the KRaft quorum.
//!
//! Pure: no IO, no clock, no async. The caller passes time and events in, carries out the returned effects, and reports
//! their results. Both machines share a position in a log ([`OffsetAndEpoch`]), the starts of leader epochs
//! ([`EpochHistory`]), and the comparison of two logs ([`divergence`]).

pub mod divergence;
mod epoch_history;
mod offset_and_epoch;
pub mod partition;
pub mod quorum;

pub use epoch_history::{EpochHistory, EpochStart};
pub use offset_and_epoch::OffsetAndEpoch;
