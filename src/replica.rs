//! The partitions that this broker holds: their logs, who leads them, who follows whom, and who waits for
//! them.

pub(crate) mod alter_log_dirs;
pub(crate) mod alter_partition;
pub(crate) mod delayed;
pub(crate) mod directories;
pub(crate) mod fetcher;
pub(crate) mod flusher;
pub(crate) mod held_back;
pub(crate) mod log_manager;
pub(crate) mod partition;
pub(crate) mod repair;
pub(crate) mod replica_manager;
pub(crate) mod room;
pub(crate) mod settings;
pub(crate) mod table;
pub(crate) mod throttle;
