//! The log engine: segments, indexes, producer state, recovery, in Apache Kafka's file formats. Blocking std files
//! behind the `Disk` trait; no tokio.

pub mod checkpoint;
pub mod config;
pub mod disk;
pub mod error;
pub mod file_name;
pub mod health;
pub mod leader_epoch_cache;
pub mod log;
pub mod log_dir;
pub mod log_reader;
pub mod meta_properties;
pub mod offset_index;
pub mod open_files;
pub mod partition_dir;
pub mod partition_metadata;
pub mod producer_snapshot;
pub mod producer_state;
mod recovery;
pub mod reserve;
mod segment;
pub mod time_index;
pub mod txn_index;
