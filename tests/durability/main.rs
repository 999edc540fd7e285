//! Restarts and kills (SIGKILL) under load: nothing acknowledged is lost, offsets continue, groups resume.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod flush;
mod groups;
mod load;
mod log_start;
mod producers;
