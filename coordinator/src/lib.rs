//! Coordinators: consumer groups and their offsets, as pure state machines over a log.
//! Pure: no IO, no clock, no async. Time comes in as a `Now`, randomness as a `Uuid`.

pub mod group;
pub mod runtime;
