//! Klamm: a Kafka-compatible broker. Sockets, tasks, timers, configuration and wiring.
//!
//! The binary is a thin shell around [`Broker`], which tests and other programs can start as well.
//!
//! The modules are rooms, and arrows between them point down this list only: `server`, `cli`, `api`, `coordinator`,
//! `cluster`, `replica`, `controller`, `metadata_cache`, `security`, `net`, `broker_session`, `logging`, `config`,
//! `owner`, `blocking`, and those that all may use (`clock`, `random`). `tests/tidy.rs` checks this.

mod api;
mod blocking;
mod broker_session;
pub mod cli;
mod clock;
mod cluster;
pub mod config;
mod controller;
mod coordinator;
pub mod logging;
mod metadata_cache;
mod net;
mod owner;
mod random;
mod replica;
mod security;
pub mod server;

pub use api::compatibility;
pub use cluster::broker_lifecycle::JoinError;
pub use controller::snapshot_file::SnapshotError;
pub use replica::log_manager::{LayoutError, StoreError};
pub use server::broker::{Broker, StartError};
