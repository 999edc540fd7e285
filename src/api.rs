//! The APIs: the table, one handler file for each, and the forwarding of requests to the active controller.

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
