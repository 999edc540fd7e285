//! What a connection knows of the service behind it: it begins to answer frames. Which APIs there are is the service's.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::response::Response;

/// Who a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListenerKind {
    /// Clients and other brokers.
    Broker,
    /// Controllers, and brokers that talk to the active one.
    Controller,
}

/// Where the requests of a connection come from.
#[derive(Debug)]
pub(crate) struct ConnectionInfo {
    pub(crate) peer: SocketAddr,
    /// The name of the listener that the peer came in by.
    pub(crate) listener: Arc<str>,
    pub(crate) kind: ListenerKind,
    /// What the peer has said that it runs, once it has (ApiVersions, KIP-511): name and version.
    pub(crate) software: OnceLock<String>,
}

/// Why a connection is closed without an answer. Logged once, where it is closed.
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

/// An answer that takes its time.
pub(crate) type FutureResponse =
    Pin<Box<dyn Future<Output = Result<Response, ConnectionError>> + Send>>;

/// What became of a request after its first phase.
pub(crate) enum Begun {
    Answered(Response),
    /// There is no answer (Produce with acks=0).
    Unanswered,
    Waiting {
        response: FutureResponse,
        /// The connection's next request is not looked at before this one is answered.
        holds_up: bool,
    },
}

/// Answers the requests of connections.
pub(crate) trait Service: Send + Sync {
    /// Begins to answer the request in `frame`, at once and in the order of the calls.
    ///
    /// # Errors
    /// A request that has no answer: the connection is closed.
    fn begin(
        &self,
        connection: &Arc<ConnectionInfo>,
        frame: Bytes,
    ) -> Result<Begun, ConnectionError>;

    /// Descriptors are scarce: gives back those that are not needed.
    fn release_descriptors(&self);
}
