//! Coordinators: consumer groups and their offsets, as pure state machines over a log.
//! Pure: no IO, no clock, no async. Time comes in as `now_ms`, randomness as a `Uuid`.

pub mod group;
pub mod outcome;
