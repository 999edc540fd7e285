//! The way of a broker to the active controller, wherever that is (Kafka's
//! `NodeToControllerChannelManager`).
//!
//! If this node is the active controller the request is decided in this process, otherwise it goes over a connection of
//! the channel's own. One channel carries one request at a time: what must not wait for each other, as heartbeats
//! and topic creations, has channels of its own. A request is given up as soon as another controller
//! is elected: whoever asked decides again what to ask for.

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
    /// It is this node, and it decides: everything before its epoch is committed.
    pub(crate) is_active_here: bool,
}

/// What became of a request that is for the active controller.
#[derive(Debug)]
pub(crate) enum Passed<R> {
    Answered(R),
    /// This node is the active controller.
    Here,
}

/// Why there is no answer of a controller. Whether the request was carried out is not known.
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
    #[error("a request that cannot be written: {0}")]
    Encode(#[from] EncodeError),
    #[error("the controller does not take what a broker passes on: {0}")]
    Envelope(ErrorCode),
    #[error("the controller's answer cannot be read: {0}")]
    Answer(#[from] DecodeError),
}

impl ChannelError {
    /// What a client whose request needed the controller is told.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Local(error) => error.code(),
            Self::NoController | Self::Superseded => ErrorCode::NotController,
            Self::Remote { .. } | Self::Timeout(_) => ErrorCode::RequestTimedOut,
            Self::Encode(_) | Self::Envelope(_) | Self::Answer(_) => ErrorCode::UnknownServerError,
        }
    }

    /// Whether asking again cannot help.
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
    /// How long an answer may take: `controller.socket.timeout.ms`.
    request_timeout: Duration,
    /// The connection in use and whom it leads to.
    connection: Mutex<Option<(PeerAddress, Peer)>>,
}

impl ControllerChannel {
    /// A channel of this node, of its own for each purpose: one must not wait for the other. The purpose is part of the client id,
    /// which the controller's log shows.
    pub(crate) fn new(config: &BrokerConfig, controller: &ControllerHandle, purpose: &str) -> Self {
        Self {
            node_id: config.node_id,
            client_id: format!("broker-{}-{purpose}", config.node_id).into(),
            controller: controller.clone(),
            request_timeout: config.lifecycle.controller_socket_timeout,
            connection: Mutex::new(None),
        }
    }

    /// Asks until a controller answers, for `limit` at most.
    pub(crate) async fn ask_within<Q: ControllerRequest>(
        &self,
        request: &Q,
        limit: Duration,
    ) -> Result<Q::Response, ChannelError> {
        let mut attempts = Attempts::new(&self.controller, limit);
        loop {
            let asked = timeout_at(attempts.deadline, self.ask(request)).await;
            match asked.unwrap_or(Err(ChannelError::Timeout(limit))) {
                Ok(response) => return Ok(response),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    /// Asks the controller of this moment, once.
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

    /// Sends a request to the active controller, wherever that is, for `limit` at most; `refuses` says of an answer
    /// that it comes from a node that is not the controller (any more).
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

    /// A request that is dropped half way takes its connection along.
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

/// Asking until somebody answers or time is up.
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

    /// Pauses after a failure that another attempt may mend. A change of leader ends the pause.
    async fn after(&mut self, error: ChannelError) -> Result<(), ChannelError> {
        if error.is_final() {
            return Err(error);
        }
        tracing::debug!("another attempt to reach the controller follows: {error}");
        if Instant::now() >= self.deadline {
            return Err(ChannelError::Timeout(self.limit));
        }
        // That there will be no leader any more does not matter here.
        drop(tokio::time::timeout(RETRY_BACKOFF, self.leader.changed()).await);
        Ok(())
    }
}

/// Waits until another leader is known, or none.
async fn superseded(watched: &mut watch::Receiver<QuorumLeader>, leader: &QuorumLeader) {
    // The watch ends with the controller's thread: then the node stops, and nobody is elected.
    if watched.wait_for(|now| now != leader).await.is_err() {
        std::future::pending::<()>().await;
    }
}
