//! This node's replica of the metadata quorum, and its controller. One thread owns both.

pub(crate) mod channel;
mod contradictions;
pub(crate) mod driver;
pub(crate) mod handle;
pub(crate) mod metadata_log;
pub(crate) mod process_monitor;
pub(crate) mod publications;
pub(crate) mod quorum_peers;
pub(crate) mod request;
mod room;
pub(crate) mod snapshot_file;
