//! What a handler knows of a request besides its body.

use std::net::SocketAddr;
use std::sync::Arc;

use super::services::Services;
use crate::net::service::{ConnectionInfo, ListenerKind};

/// Where a request comes from, and the services that answer it.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) services: Arc<Services>,
    pub(crate) peer: SocketAddr,
    /// The name of the listener that the client came in by.
    pub(crate) listener: Arc<str>,
    pub(crate) kind: ListenerKind,
    /// A broker has checked the request and passes it on for its client.
    pub(crate) is_forwarded: bool,
}

impl Context {
    pub(crate) fn new(services: &Arc<Services>, connection: &ConnectionInfo) -> Self {
        Self {
            services: Arc::clone(services),
            peer: connection.peer,
            listener: Arc::clone(&connection.listener),
            kind: connection.kind,
            is_forwarded: false,
        }
    }
}
