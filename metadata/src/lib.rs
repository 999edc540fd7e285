//! The cluster image and the controller's decisions, as metadata records.
//! Pure: no IO, no clock, no async.

pub mod alter_configs;
pub mod config_def;
pub mod controller;
pub mod delta;
pub mod directory_id;
pub mod image;
pub mod known_replica;
pub mod loader;
pub mod metadata_version;
pub mod quorum_controller;
pub mod random;
pub mod snapshot;
pub mod topic_name;
