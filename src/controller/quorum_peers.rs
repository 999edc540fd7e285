//! Sends the requests of the metadata quorum to other nodes: one task and one connection for each node, one request at
//! a time (the quorum waits for one response of a node before it sends the next request).

use std::collections::HashMap;
use std::time::Duration;

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;
use klamm_replication::quorum::message::{Request, Response};
use klamm_replication::quorum::wire::{self, RequestMessage};
use klamm_replication::quorum::{Address, CorrelationId, Destination};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tracing::debug;

use super::handle::ControllerHandle;
use crate::net::peer::{Peer, PeerAddress, PeerError};

/// The most requests that wait for one node: the task may still wait for a response that the quorum no longer expects.
const MAX_QUEUED_REQUESTS: usize = 4;
/// How much longer a fetch may take than other requests: the leader holds it until it has records.
const FETCH_GRACE: Duration = Duration::from_secs(1);

type Queued = (CorrelationId, Request);

/// The queues to the other nodes of the quorum.
pub(crate) struct QuorumPeers {
    runtime: Handle,
    client: QuorumClient,
    queues: HashMap<BrokerId, (Address, mpsc::Sender<Queued>)>,
}

/// What every task needs to send requests.
#[derive(Clone)]
pub(crate) struct QuorumClient {
    pub(crate) controller: ControllerHandle,
    pub(crate) client_id: ByteString,
    pub(crate) cluster_id: ByteString,
    /// The controller listener.
    pub(crate) listener: ByteString,
    /// `controller.quorum.request.timeout.ms`
    pub(crate) request_timeout: Duration,
}

impl QuorumPeers {
    /// The tasks will run on `runtime`.
    pub(crate) fn new(runtime: Handle, client: QuorumClient) -> Self {
        Self { runtime, client, queues: HashMap::new() }
    }

    /// The controller listener.
    pub(crate) fn listener(&self) -> &ByteString {
        &self.client.listener
    }

    /// Queues a request. Its response, or failure, comes back as a command.
    pub(crate) fn send(&mut self, id: CorrelationId, to: Destination, request: Request) {
        let is_known = self.queues.get(&to.id).is_some_and(|(address, _)| *address == to.address);
        if !is_known {
            // The task for an earlier address ends when its queue is dropped.
            let (queue, requests) = mpsc::channel(MAX_QUEUED_REQUESTS);
            let address = PeerAddress { host: to.address.host.clone(), port: to.address.port };
            self.runtime.spawn(run(self.client.clone(), (to.id, address), requests));
            self.queues.insert(to.id, (to.address, queue));
        }
        let (_, queue) = &self.queues[&to.id];
        if queue.try_send((id, request)).is_err() {
            let failed = Response::Failed(ErrorCode::BrokerNotAvailable);
            self.client.controller.responded(id, failed);
        }
    }
}

async fn run(
    client: QuorumClient,
    (node_id, address): (BrokerId, PeerAddress),
    mut requests: mpsc::Receiver<Queued>,
) {
    let mut connection = None;
    while let Some((id, request)) = requests.recv().await {
        let response = match exchange(&client, &address, &mut connection, request).await {
            Ok(response) => response,
            Err(error) => {
                debug!("{} to {address}: {error}", client.client_id);
                if error.is_refused() {
                    client.controller.process_gone(node_id);
                }
                Response::Failed(match error {
                    PeerError::Encode(_) | PeerError::UnsupportedVersion { .. } => {
                        ErrorCode::UnsupportedVersion
                    }
                    _ => ErrorCode::BrokerNotAvailable,
                })
            }
        };
        client.controller.responded(id, response);
    }
}

/// Sends a request and waits for the response. The connection is kept only if that succeeds.
async fn exchange(
    client: &QuorumClient,
    address: &PeerAddress,
    connection: &mut Option<Peer>,
    request: Request,
) -> Result<Response, PeerError> {
    let limit = client.request_timeout;
    let mut peer = match connection.take() {
        Some(peer) => peer,
        None => Peer::connect(address, client.client_id.clone(), limit).await?,
    };
    let listener = &client.listener;
    let response = match wire::request_message(request, &client.cluster_id) {
        RequestMessage::Vote(vote) => {
            wire::read_vote_response(peer.send(&vote, limit).await?, listener)
        }
        RequestMessage::BeginQuorumEpoch(begin) => {
            wire::read_begin_quorum_epoch_response(peer.send(&begin, limit).await?, listener)
        }
        RequestMessage::EndQuorumEpoch(end) => {
            wire::read_end_quorum_epoch_response(peer.send(&end, limit).await?, listener)
        }
        RequestMessage::Fetch(fetch) => {
            let limit = limit + FETCH_GRACE;
            wire::read_fetch_response(peer.send(&fetch, limit).await?, listener)
        }
        RequestMessage::FetchSnapshot(fetch) => {
            wire::read_fetch_snapshot_response(peer.send(&fetch, limit).await?, listener)
        }
        RequestMessage::AddRaftVoter(add) => {
            wire::read_add_raft_voter_response(peer.send(&add, limit).await?)
        }
        RequestMessage::RemoveRaftVoter(remove) => {
            wire::read_remove_raft_voter_response(peer.send(&remove, limit).await?)
        }
        RequestMessage::UpdateRaftVoter(update) => {
            wire::read_update_raft_voter_response(peer.send(&update, limit).await?, listener)
        }
        RequestMessage::ApiVersions => {
            wire::read_api_versions_response(&peer.api_versions(limit).await?)
        }
    };
    *connection = Some(peer);
    Ok(response)
}
