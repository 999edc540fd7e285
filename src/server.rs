//! The server: puts the parts of a node together, starts, runs and stops them.

mod assembly;
pub(crate) mod broker;
mod maintenance;
mod process;
mod publisher;
mod signals;
pub(crate) mod state_dump;

pub use process::run;
