//! Klamm: a Kafka-compatible broker. Sockets, tasks, timers, configuration and wiring.
//!
//! The binary is a thin shell around [`Broker`], which tests and other programs can start as well.

pub mod broker;
pub mod cli;
pub mod compatibility;
pub mod config;
pub mod logging;
pub mod server;

mod assembly;
mod authorized_operations;
mod auto_topics;
mod clock;
mod cluster;
mod controller;
mod coordinator;
mod dispatch;
mod dynamic_configs;
mod features;
mod fetch_session;
mod forwarding;

mod handlers;
mod internal_topics;
mod lifecycle;
mod maintenance;
mod net;
mod node;
mod owner;
mod partition;
mod producer_ids;
mod random;
mod signals;
mod state_dump;

pub use broker::{Broker, StartError};
pub use controller::snapshot_file::SnapshotError;
pub use lifecycle::JoinError;
pub use partition::store::{LayoutError, StoreError};
