//! The partitions that this broker holds: their logs, who leads them, who follows whom, and who waits for
//! them.

pub(crate) mod alter_partition;
pub(crate) mod directories;
pub(crate) mod fetcher;
pub(crate) mod flusher;
pub(crate) mod handle;
pub(crate) mod moves;
pub(crate) mod repair;
pub(crate) mod replicas;
pub(crate) mod settings;
pub(crate) mod store;
pub(crate) mod table;
pub(crate) mod throttle;
pub(crate) mod waiting;
