//! Clusters of real processes whose nodes are killed, frozen and restarted under load: what clients see, and for how long
//! they wait.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;
mod directories;
mod disks;
mod failover;
mod guide;
mod limits;
mod logs;
mod mixed_quorum;
mod moves;
mod network;
mod peers;
mod stage;
mod table;
mod throttle;
mod tools;
