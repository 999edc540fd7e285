//! Sockets, frames, limits and the order of answers: what any peer may do to a broker, and what it gets back.
//!
//! Requests go over plain sockets, so that they can be cut, held back and malformed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod frames;
mod host;
mod hostile;
mod lifecycle;
mod limits;
mod pipelining;
mod process;
mod records;
mod signals;

use std::time::Duration;

/// How long anything may take that is expected to happen.
const LIMIT: Duration = Duration::from_secs(30);
