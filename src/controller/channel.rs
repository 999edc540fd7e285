//! The way of a broker to the active controller, wherever that is (Kafka's
//! `NodeToControllerChannelManager`).
//!
//! If this node is the active controller the request is decided in this process, otherwise it goes over a connection of
//! the channel's own. One channel carries one request at a time: what must not wait for each other, as heartbeats
//! and topic creations, has channels of its own. A request is given up as soon as another controller
//! is elected: whoever asked decides again what to ask for.

use std::time::Duration;

use bytestring::ByteString;
use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_protocol::ids::{BrokerId, LeaderEpoch};
use klamm_protocol::{ApiMessage, ErrorCode, Message};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout_at};

use super::handle::{ControllerError, ControllerHandle, DecisionContext};
use crate::net::peer::{Peer, PeerAddress, PeerError};

/// How long a connection to a controller may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before a controller that has failed to answer is asked again, if no other is elected.
const RETRY_BACKOFF: Duration = Duration::from_millis(50);

/// Who leads the metadata quorum, as far as this node knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct QuorumLeader {
    pub(crate) epoch: LeaderEpoch,
    /// `None` while an election is open.
    pub(crate) id: Option<BrokerId>,
    /// Where it is reached over the controller listener; `None` until known.
    pub(crate) address: Option<PeerAddress>,
}

/// A request that the active controller decides.
pub(crate) trait ControllerRequest: ApiMessage + Clone + Send + Sync + 'static {
    type Response: Message + Send + 'static;

    /// Decides it, as a request of this version.
    fn decide(
        &self,
        version: i16,
        controller: &mut Controller,
        context: &DecisionContext,
    ) -> Outcome<Self::Response>;

    /// The answer where nothing was decided.
    fn refused(&self, error: ErrorCode) -> Self::Response;

    /// The error of the answer as a whole.
    fn error_of(response: &Self::Response) -> ErrorCode;
}

/// Why there is no answer of a controller. Whether the request was carried out is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    #[error("there is no active controller at the moment")]
    NoController,
    #[error("another controller has been elected meanwhile")]
    Superseded,
    #[error(transparent)]
    Local(#[from] ControllerError),
    #[error("controller {id} at {address}: {source}")]
    Remote { id: BrokerId, address: PeerAddress, source: PeerError },
    #[error("no controller answered within {} ms", .0.as_millis())]
    Timeout(Duration),
}

impl ChannelError {
    /// What a client whose request needed the controller is told.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Local(error) => error.code(),
            Self::NoController | Self::Superseded => ErrorCode::NotController,
            Self::Remote { .. } | Self::Timeout(_) => ErrorCode::RequestTimedOut,
        }
    }

    /// Whether asking again cannot help.
    fn is_final(&self) -> bool {
        match self {
            Self::Local(ControllerError::Stopping) | Self::Timeout(_) => true,
            Self::Remote { source, .. } => {
                matches!(source, PeerError::Encode(_) | PeerError::UnsupportedVersion { .. })
            }
            Self::Local(_) | Self::NoController | Self::Superseded => false,
        }
    }
}

/// A channel to the active controller.
#[derive(Debug)]
pub(crate) struct ControllerChannel {
    node_id: BrokerId,
    client_id: ByteString,
    controller: ControllerHandle,
    /// How long an answer may take: `controller.socket.timeout.ms`.
    request_timeout: Duration,
    /// The connection in use and whom it leads to.
    connection: Mutex<Option<(PeerAddress, Peer)>>,
}

impl ControllerChannel {
    /// A channel of this node; `client_id` tells the controller's log what it is for.
    pub(crate) fn new(
        node_id: BrokerId,
        client_id: ByteString,
        controller: ControllerHandle,
        request_timeout: Duration,
    ) -> Self {
        Self { node_id, client_id, controller, request_timeout, connection: Mutex::new(None) }
    }

    /// Asks until a controller answers, for `limit` at most.
    pub(crate) async fn ask_within<Q: ControllerRequest>(
        &self,
        request: &Q,
        limit: Duration,
    ) -> Result<Q::Response, ChannelError> {
        let deadline = Instant::now() + limit;
        let mut leader = self.controller.leader();
        loop {
            leader.mark_unchanged();
            let asked = timeout_at(deadline, self.ask(request)).await;
            match asked.map_err(|_| ChannelError::Timeout(limit))? {
                Ok(response) => return Ok(response),
                Err(error) if error.is_final() => return Err(error),
                Err(error) => tracing::debug!("{}: {error}", self.client_id),
            }
            if Instant::now() >= deadline {
                return Err(ChannelError::Timeout(limit));
            }
            // A change of leader ends the pause; that there will be none any more does not matter.
            drop(tokio::time::timeout(RETRY_BACKOFF, leader.changed()).await);
        }
    }

    /// Asks the controller of this moment, once.
    pub(crate) async fn ask<Q: ControllerRequest>(
        &self,
        request: &Q,
    ) -> Result<Q::Response, ChannelError> {
        let mut watched = self.controller.leader();
        let leader = watched.borrow_and_update().clone();
        let id = leader.id.ok_or(ChannelError::NoController)?;
        let response = if id == self.node_id {
            let (request, version) = (request.clone(), *Q::VERSIONS.end());
            self.controller
                .decide(move |controller, context| request.decide(version, controller, context))
                .await?
        } else {
            let address = leader.address.clone().ok_or(ChannelError::NoController)?;
            tokio::select! {
                answer = self.ask_remote(&address, request) => {
                    answer.map_err(|source| ChannelError::Remote { id, address, source })?
                }
                () = superseded(&mut watched, &leader) => {
                    return Err(ChannelError::Superseded);
                }
            }
        };
        match Q::error_of(&response) {
            ErrorCode::NotController => Err(ChannelError::NoController),
            _ => Ok(response),
        }
    }

    /// A request that is dropped half way takes its connection along.
    async fn ask_remote<Q: ControllerRequest>(
        &self,
        address: &PeerAddress,
        request: &Q,
    ) -> Result<Q::Response, PeerError> {
        let mut connection = self.connection.lock().await;
        let mut peer = match connection.take() {
            Some((known, peer)) if known == *address => peer,
            _ => Peer::connect(address, self.client_id.clone(), CONNECT_TIMEOUT).await?,
        };
        let response = peer.send(request, self.request_timeout).await?;
        *connection = Some((address.clone(), peer));
        Ok(response)
    }
}

/// Waits until another leader is known, or none.
async fn superseded(watched: &mut watch::Receiver<QuorumLeader>, leader: &QuorumLeader) {
    // The watch ends with the controller's thread: then the node stops, and nobody is elected.
    if watched.wait_for(|now| now != leader).await.is_err() {
        std::future::pending::<()>().await;
    }
}
