//! Converts the quorum's requests and responses to and from Kafka's messages. Only this part of the quorum knows
//! versions.
//!
//! A request about another partition than `__cluster_metadata-0` is refused as a whole; an answer about another one
//! counts as a failed request.

/// The node endpoints of an answer: those of the leader, or empty. The messages have the same fields in different
/// types.
macro_rules! node_endpoints {
    ($module:ident, $node:expr) => {
        $node
            .map(|(node_id, address)| $module::NodeEndpoint {
                node_id,
                host: address.host,
                port: address.port,
            })
            .into_iter()
            .collect()
    };
}

/// The node endpoints of an answer, by node id.
macro_rules! addresses {
    ($endpoints:expr) => {
        $endpoints
            .into_iter()
            .map(|node| (node.node_id, Address { host: node.host, port: node.port }))
    };
}

/// The leader endpoints of a request, by listener.
macro_rules! listeners {
    ($endpoints:expr) => {
        Endpoints::new(
            $endpoints.into_iter().map(|endpoint| {
                (endpoint.name, Address { host: endpoint.host, port: endpoint.port })
            }),
        )
    };
}

mod inbound;
mod outbound;
mod voters;

pub use inbound::{
    SnapshotPiece, begin_quorum_epoch_request, begin_quorum_epoch_response,
    end_quorum_epoch_request, end_quorum_epoch_response, fetch_request, fetch_response,
    fetch_snapshot_request, fetch_snapshot_response, vote_request, vote_response,
};
pub use outbound::{
    RequestMessage, read_begin_quorum_epoch_response, read_end_quorum_epoch_response,
    read_fetch_response, read_fetch_snapshot_response, read_vote_response, request_message,
};
pub use voters::{
    add_raft_voter_request, add_raft_voter_response, read_add_raft_voter_response,
    read_api_versions_response, read_remove_raft_voter_response, read_update_raft_voter_response,
    remove_raft_voter_request, remove_raft_voter_response, update_raft_voter_request,
    update_raft_voter_response,
};

use super::message::LeaderInfo;
use super::voters::{Address, Endpoints};
use bytestring::ByteString;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, PartitionIndex, none_if_negative};

/// The topic of the metadata log; its id is `Uuid::METADATA_TOPIC`.
pub const METADATA_TOPIC: ByteString = ByteString::from_static("__cluster_metadata");
/// Its only partition.
pub const METADATA_PARTITION: PartitionIndex = 0;

/// The only element of a list that must have exactly one.
fn single<T>(list: Vec<T>) -> Option<T> {
    let [element] = <[T; 1]>::try_from(list).ok()?;
    Some(element)
}

/// The leader's address on the listener of the request, in versions that have the field.
fn leader_address(
    leader: &LeaderInfo,
    listener: &ByteString,
    says_where: bool,
) -> Option<(BrokerId, Address)> {
    let id = leader.leader_id.filter(|_| says_where)?;
    Some((id, leader.endpoints.address(listener)?.clone()))
}

/// The leader and epoch of an answer; `nodes` are its node endpoints.
fn leader_info(
    leader_id: BrokerId,
    epoch: LeaderEpoch,
    listener: &ByteString,
    nodes: impl IntoIterator<Item = (BrokerId, Address)>,
) -> LeaderInfo {
    let leader_id = none_if_negative(leader_id);
    let address = nodes.into_iter().find(|(id, _)| Some(*id) == leader_id);
    let endpoints = address.map_or_else(Endpoints::default, |(_, address)| {
        Endpoints::single(listener.clone(), address)
    });
    LeaderInfo { epoch, leader_id, endpoints }
}

#[cfg(test)]
mod tests;
