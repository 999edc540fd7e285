//! What a cluster's clients see while its nodes fail: a load that writes down its history, the checks that a history has
//! to pass, and the meter of stalls. Shared by `tests/cluster` and `benches/failover`.
//!
//! Invariants: checks and meter are pure functions of a history; nothing here knows which program a node runs.

mod anomaly;
mod checks;
mod consumer_group;
mod history;
mod load;
mod power;
mod recording;
mod scene;
mod stall;

pub use anomaly::Anomaly;
pub use consumer_group::ConsumerGroup;
pub use history::{Acknowledged, History, NotARecordId, Polled, RecordId, Stored};
pub use load::{Client, Load, LoadSetup};
pub use power::{lose_power, on_disks};
pub use scene::Scene;
pub use stall::{Stalls, longest_stall};
