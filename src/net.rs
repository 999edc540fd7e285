//! Listeners, connections, frames: everything between a socket and a decoded request.
//!
//! A broken or hostile peer costs its own connection and nothing else. Every amount that a peer can
//! drive has a limit with a name ([`limits`]).

pub(crate) mod busy_poll;
pub(crate) mod connection;
pub(crate) mod connection_quotas;
pub(crate) mod descriptors;
mod frame;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod peer;
pub(crate) mod response;
mod sendfile;
pub(crate) mod service;
mod write;
