//! The wall clock, read at the edge and passed inwards.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock of a machine that runs Klamm is past 1970");
    i64::try_from(elapsed.as_millis()).expect("milliseconds fit into an i64 for 292 million years")
}
