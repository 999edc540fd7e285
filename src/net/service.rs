//! The interface between a connection and the service that answers its frames. A connection knows no API.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::response::Response;

/// Who uses a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListenerKind {
    /// Clients and other brokers.
    Broker,
    /// Controllers, and brokers that talk to the active one.
    Controller,
}

/// The origin of a connection's requests.
#[derive(Debug)]
pub(crate) struct ConnectionInfo {
    pub(crate) peer: SocketAddr,
    /// The name of the listener that accepted the connection.
    pub(crate) listener: Arc<str>,
    pub(crate) kind: ListenerKind,
    /// The client software's name and version, after the client's ApiVersions request (KIP-511).
    pub(crate) software: OnceLock<String>,
}

/// Why a connection is closed without an answer. Logged once, when it is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("{0}")]
    Frame(#[from] super::frame::FrameError),
    #[error("{0}")]
    Exhausted(#[from] super::limits::Exhausted),
    #[error("{0}")]
    Service(Box<dyn std::error::Error + Send + Sync>),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// An answer that is not ready yet.
pub(crate) type FutureResponse =
    Pin<Box<dyn Future<Output = Result<Response, ConnectionError>> + Send>>;

/// The state of a request after its first phase.
pub(crate) enum Begun {
    Answered(Response),
    /// There is no answer (Produce with acks=0).
    Unanswered,
    Waiting {
        response: FutureResponse,
        /// The connection's next request does not begin before this one is answered.
        holds_up: bool,
    },
}

/// Answers the requests of connections.
pub(crate) trait Service: Send + Sync {
    /// Begins the request in `frame`, at once and in the order of the calls.
    ///
    /// # Errors
    /// A request that has no answer: the connection is closed.
    fn begin(
        &self,
        connection: &Arc<ConnectionInfo>,
        frame: Bytes,
    ) -> Result<Begun, ConnectionError>;

    /// Descriptors are scarce: closes files that are not needed.
    fn release_descriptors(&self);
}
