//! How a broker sends requests to the active controller, on this node or another one (Kafka's
//! `NodeToControllerChannelManager`).
//!
//! If this node is the active controller, it decides the request in this process. Otherwise the request goes over the
//! channel's own connection. A channel carries one request at a time, so requests that must not wait for each other, as
//! heartbeats and topic creations, use different channels. When another controller is elected, the channel fails a
//! request in flight with `Superseded`; the methods with a time limit then send it again.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use klamm_protocol::decode::DecodeError;
use klamm_protocol::ids::{BrokerId, LeaderEpoch};
use klamm_protocol::{ApiMessage, EncodeError, ErrorCode, Message};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout_at};

use super::handle::{ControllerError, ControllerHandle};
use super::request::{ControllerRequest, DecisionError, RequestOrigin};
use crate::config::BrokerConfig;
use crate::net::peer::{Peer, PeerAddress, PeerError};

/// How long connecting to a controller may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before a failed request is sent again. It ends early when another controller is elected.
const RETRY_BACKOFF: Duration = Duration::from_millis(50);

/// Who leads the metadata quorum, as far as this node knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct QuorumLeader {
    pub(crate) epoch: LeaderEpoch,
    /// `None` while an election is open.
    pub(crate) id: Option<BrokerId>,
    /// Its endpoint on the controller listener; `None` until known.
    pub(crate) address: Option<PeerAddress>,
    /// This node is the active controller: it leads, and all records of earlier epochs are committed.
    pub(crate) is_active_here: bool,
}

/// The result of sending a request to the active controller.
#[derive(Debug)]
pub(crate) enum Passed<R> {
    Answered(R),
    /// This node is the active controller.
    Here,
}

/// Why there is no response from a controller. The controller may have carried out the request all the same.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    #[error("there is no active controller at the moment")]
    NoController,
    #[error("another controller has been elected meanwhile")]
    Superseded,
    #[error(transparent)]
    Local(#[from] DecisionError),
    #[error("controller {id} at {address}: {source}")]
    Remote { id: BrokerId, address: PeerAddress, source: PeerError },
    #[error("no controller answered within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("the request cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    #[error("the controller rejects the Envelope request: {0}")]
    Envelope(ErrorCode),
    #[error("the controller's response cannot be decoded: {0}")]
    Answer(#[from] DecodeError),
}

impl ChannelError {
    /// The error code for a client whose request needed the controller.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Local(error) => error.code(),
            Self::NoController | Self::Superseded => ErrorCode::NotController,
            Self::Remote { .. } | Self::Timeout(_) => ErrorCode::RequestTimedOut,
            Self::Encode(_) | Self::Envelope(_) | Self::Answer(_) => ErrorCode::UnknownServerError,
        }
    }

    /// Whether another attempt would fail too.
    fn is_final(&self) -> bool {
        match self {
            Self::Local(
                DecisionError::TimedOut | DecisionError::Controller(ControllerError::Stopping),
            )
            | Self::Timeout(_)
            | Self::Encode(_)
            | Self::Envelope(_)
            | Self::Answer(_) => true,
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
    /// How long a response may take: `controller.socket.timeout.ms`.
    request_timeout: Duration,
    /// The open connection and its address.
    connection: Mutex<Option<(PeerAddress, Peer)>>,
}

impl ControllerChannel {
    /// A channel for one purpose, which is part of the client id and so shows in the controller's log.
    pub(crate) fn new(config: &BrokerConfig, controller: &ControllerHandle, purpose: &str) -> Self {
        Self {
            node_id: config.node_id,
            client_id: format!("broker-{}-{purpose}", config.node_id).into(),
            controller: controller.clone(),
            request_timeout: config.lifecycle.controller_socket_timeout,
            connection: Mutex::new(None),
        }
    }

    /// Sends the request until a controller answers, for `limit` at most.
    pub(crate) async fn ask_within<Q: ControllerRequest>(
        &self,
        request: &Q,
        limit: Duration,
    ) -> Result<Q::Response, ChannelError> {
        let mut attempts = Attempts::new(&self.controller, limit);
        loop {
            let answered = timeout_at(attempts.deadline, self.ask(request)).await;
            match answered.unwrap_or(Err(ChannelError::Timeout(limit))) {
                Ok(response) => return Ok(response),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    /// Sends the request once, to the controller that is active now.
    pub(crate) async fn ask<Q: ControllerRequest>(
        &self,
        request: &Q,
    ) -> Result<Q::Response, ChannelError> {
        let refuses = |response: &Q::Response| Q::error_of(response) == ErrorCode::NotController;
        match self.pass_on_once(request, refuses).await? {
            Passed::Answered(response) => Ok(response),
            Passed::Here => {
                let origin = RequestOrigin::this_node::<Q>();
                Ok(self.controller.decide_request(Arc::new(request.clone()), origin).await?)
            }
        }
    }

    /// Sends the request to the active controller, for `limit` at most. `refuses` returns whether a response comes from
    /// a node that is not, or no longer, the active controller.
    pub(crate) async fn pass_on<Q: ApiMessage + Sync, R: Message>(
        &self,
        request: &Q,
        limit: Duration,
        refuses: impl Fn(&R) -> bool,
    ) -> Result<Passed<R>, ChannelError> {
        let mut attempts = Attempts::new(&self.controller, limit);
        loop {
            let passed = timeout_at(attempts.deadline, self.pass_on_once(request, &refuses)).await;
            match passed.unwrap_or(Err(ChannelError::Timeout(limit))) {
                Ok(passed) => return Ok(passed),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    async fn pass_on_once<Q: ApiMessage, R: Message>(
        &self,
        request: &Q,
        refuses: impl Fn(&R) -> bool,
    ) -> Result<Passed<R>, ChannelError> {
        let mut watched = self.controller.leader();
        let leader = watched.borrow_and_update().clone();
        if leader.is_active_here {
            return Ok(Passed::Here);
        }
        let id = leader.id.filter(|id| *id != self.node_id).ok_or(ChannelError::NoController)?;
        let address = leader.address.clone().ok_or(ChannelError::NoController)?;
        let response = tokio::select! {
            answer = self.send(&address, request) => {
                answer.map_err(|source| ChannelError::Remote { id, address, source })?
            }
            () = superseded(&mut watched, &leader) => return Err(ChannelError::Superseded),
        };
        if refuses(&response) {
            return Err(ChannelError::NoController);
        }
        Ok(Passed::Answered(response))
    }

    /// If the caller drops this future before the response, the connection closes: the response might still arrive.
    async fn send<Q: ApiMessage, R: Message>(
        &self,
        address: &PeerAddress,
        request: &Q,
    ) -> Result<R, PeerError> {
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

/// The retries of one request, until a controller answers or the limit has passed.
struct Attempts {
    leader: watch::Receiver<QuorumLeader>,
    limit: Duration,
    deadline: Instant,
}

impl Attempts {
    fn new(controller: &ControllerHandle, limit: Duration) -> Self {
        let mut leader = controller.leader();
        leader.mark_unchanged();
        Self { leader, limit, deadline: Instant::now() + limit }
    }

    /// Pauses after a failure, unless it is final. A change of leader ends the pause.
    async fn after(&mut self, error: ChannelError) -> Result<(), ChannelError> {
        if error.is_final() {
            return Err(error);
        }
        tracing::debug!("the request to the controller failed and is sent again: {error}");
        if Instant::now() >= self.deadline {
            return Err(ChannelError::Timeout(self.limit));
        }
        // If the watch has ended, the node is stopping: there is nothing to handle here.
        drop(tokio::time::timeout(RETRY_BACKOFF, self.leader.changed()).await);
        Ok(())
    }
}

/// Waits until the quorum has another leader, or none.
async fn superseded(watched: &mut watch::Receiver<QuorumLeader>, leader: &QuorumLeader) {
    // The watch ends with the controller's thread: the node stops and learns of no other leader.
    if watched.wait_for(|now| now != leader).await.is_err() {
        std::future::pending::<()>().await;
    }
}
