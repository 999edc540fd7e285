//! The APIs: the table of what is served, a file for each, and how a request reaches the node that answers it.

pub(crate) mod authorized_operations;
pub mod compatibility;
pub(crate) mod context;
pub(crate) mod fetch_session;
pub(crate) mod forwarding;
pub(crate) mod handlers;
pub(crate) mod quorum;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod request_metrics;
pub(crate) mod services;
pub(crate) mod table;
