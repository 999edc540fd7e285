//! Converts changes of the voter set to and from Kafka's messages: AddRaftVoter (80), RemoveRaftVoter (81),
//! UpdateRaftVoter (82), and the ApiVersions response of a new voter.

use super::super::message::{
    AddVoterRequest, ApiVersionsResponse, Inbound, QuorumEpochResponse, RemoveVoterRequest,
    Request, Response, UpdateVoterRequest, VoterChangeResponse,
};
use super::super::voters::{Address, Endpoints, KRaftVersionRange, ReplicaKey};
use super::outbound::error_code;
use super::{leader_address, leader_info};
use bytestring::ByteString;
use klamm_protocol::ids::or_minus_one;
use klamm_protocol::messages::{
    add_raft_voter_request as add, add_raft_voter_response as added,
    api_versions_response as api_versions, remove_raft_voter_request as remove,
    remove_raft_voter_response as removed, update_raft_voter_request as update,
    update_raft_voter_response as updated,
};

/// The feature whose range is read from a new voter's ApiVersions.
const KRAFT_VERSION: &str = "kraft.version";

pub fn add_raft_voter_request(message: add::AddRaftVoterRequest) -> Inbound {
    let request = Request::AddVoter(AddVoterRequest {
        timeout_ms: message.timeout_ms,
        voter: ReplicaKey::new(message.voter_id, message.voter_directory_id),
        endpoints: listeners!(message.listeners),
        ack_when_committed: message.ack_when_committed,
    });
    Inbound { cluster_id: message.cluster_id, request }
}

pub fn remove_raft_voter_request(message: remove::RemoveRaftVoterRequest) -> Inbound {
    let voter = ReplicaKey::new(message.voter_id, message.voter_directory_id);
    let request = Request::RemoveVoter(RemoveVoterRequest { voter });
    Inbound { cluster_id: message.cluster_id, request }
}

pub fn update_raft_voter_request(message: update::UpdateRaftVoterRequest) -> Inbound {
    let range = message.k_raft_version_feature;
    let request = Request::UpdateVoter(UpdateVoterRequest {
        leader_epoch: message.current_leader_epoch,
        voter: ReplicaKey::new(message.voter_id, message.voter_directory_id),
        endpoints: listeners!(message.listeners),
        supported_kraft_version: KRaftVersionRange {
            min: range.min_supported_version,
            max: range.max_supported_version,
        },
    });
    Inbound { cluster_id: message.cluster_id, request }
}

pub fn add_raft_voter_response(reply: &VoterChangeResponse) -> added::AddRaftVoterResponse {
    added::AddRaftVoterResponse {
        error_code: reply.error.code(),
        error_message: reply.message.as_deref().map(ByteString::from),
        ..Default::default()
    }
}

pub fn remove_raft_voter_response(reply: &VoterChangeResponse) -> removed::RemoveRaftVoterResponse {
    removed::RemoveRaftVoterResponse {
        error_code: reply.error.code(),
        error_message: reply.message.as_deref().map(ByteString::from),
        ..Default::default()
    }
}

/// `listener` is the listener of the request.
pub fn update_raft_voter_response(
    reply: &QuorumEpochResponse,
    listener: &ByteString,
) -> updated::UpdateRaftVoterResponse {
    let mut current_leader = updated::CurrentLeader {
        leader_id: or_minus_one(reply.leader.leader_id),
        leader_epoch: reply.leader.epoch,
        ..Default::default()
    };
    if let Some((_, address)) = leader_address(&reply.leader, listener, true) {
        current_leader.host = address.host;
        current_leader.port = address.port.into();
    }
    updated::UpdateRaftVoterResponse {
        error_code: reply.error.code(),
        current_leader,
        ..Default::default()
    }
}

pub(super) fn add_message(
    request: AddVoterRequest,
    cluster_id: Option<ByteString>,
) -> add::AddRaftVoterRequest {
    let listener = |(name, address): (&ByteString, &Address)| add::Listener {
        name: name.clone(),
        host: address.host.clone(),
        port: address.port,
    };
    add::AddRaftVoterRequest {
        cluster_id,
        timeout_ms: request.timeout_ms,
        voter_id: request.voter.id,
        voter_directory_id: request.voter.directory_id_or_zero(),
        listeners: request.endpoints.iter().map(listener).collect(),
        ack_when_committed: request.ack_when_committed,
    }
}

pub(super) fn remove_message(
    request: &RemoveVoterRequest,
    cluster_id: Option<ByteString>,
) -> remove::RemoveRaftVoterRequest {
    remove::RemoveRaftVoterRequest {
        cluster_id,
        voter_id: request.voter.id,
        voter_directory_id: request.voter.directory_id_or_zero(),
    }
}

pub(super) fn update_message(
    request: &UpdateVoterRequest,
    cluster_id: Option<ByteString>,
) -> update::UpdateRaftVoterRequest {
    let listener = |(name, address): (&ByteString, &Address)| update::Listener {
        name: name.clone(),
        host: address.host.clone(),
        port: address.port,
    };
    update::UpdateRaftVoterRequest {
        cluster_id,
        current_leader_epoch: request.leader_epoch,
        voter_id: request.voter.id,
        voter_directory_id: request.voter.directory_id_or_zero(),
        listeners: request.endpoints.iter().map(listener).collect(),
        k_raft_version_feature: update::KRaftVersionFeature {
            min_supported_version: request.supported_kraft_version.min,
            max_supported_version: request.supported_kraft_version.max,
        },
    }
}

pub fn read_add_raft_voter_response(message: added::AddRaftVoterResponse) -> Response {
    Response::AddVoter(VoterChangeResponse {
        error: error_code(message.error_code),
        message: message.error_message.map(|text| text.to_string()),
    })
}

pub fn read_remove_raft_voter_response(message: removed::RemoveRaftVoterResponse) -> Response {
    Response::RemoveVoter(VoterChangeResponse {
        error: error_code(message.error_code),
        message: message.error_message.map(|text| text.to_string()),
    })
}

/// `listener` is the quorum's listener.
pub fn read_update_raft_voter_response(
    message: updated::UpdateRaftVoterResponse,
    listener: &ByteString,
) -> Response {
    let updated::CurrentLeader { leader_id, leader_epoch, host, port } = message.current_leader;
    let port = u16::try_from(port).ok().filter(|_| !host.is_empty());
    let node = port.map(|port| (leader_id, Address { host, port }));
    Response::UpdateVoter(QuorumEpochResponse {
        error: error_code(message.error_code),
        leader: leader_info(leader_id, leader_epoch, listener, node),
    })
}

/// The supported range of kraft.version in a new voter's ApiVersions response.
pub fn read_api_versions_response(message: &api_versions::ApiVersionsResponse) -> Response {
    let feature = message.supported_features.iter().find(|feature| feature.name == KRAFT_VERSION);
    Response::ApiVersions(ApiVersionsResponse {
        error: error_code(message.error_code),
        kraft_version: feature.map(|feature| KRaftVersionRange {
            min: feature.min_version,
            max: feature.max_version,
        }),
    })
}
