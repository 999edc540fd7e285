//! Requests to other nodes, and their answers.

use super::super::control_batch::fetched_batches;
use super::super::message::{
    BeginQuorumEpochRequest, EndQuorumEpochRequest, FetchBody, FetchRequest, FetchResponse,
    FetchSnapshotRequest, FetchSnapshotResponse, QuorumEpochResponse, Request, Response,
    VoteRequest, VoteResponse,
};
use super::super::voters::Address;
use super::voters::{add_message, remove_message, update_message};
use super::{METADATA_PARTITION, METADATA_TOPIC, leader_info, single};
use crate::OffsetAndEpoch;
use bytestring::ByteString;
use klamm_protocol::ids::{none_if_negative, or_minus_one};
use klamm_protocol::messages::{
    add_raft_voter_request, begin_quorum_epoch_request as begin,
    begin_quorum_epoch_response as begin_response, end_quorum_epoch_request as end,
    end_quorum_epoch_response as end_response, fetch_request as fetch, fetch_response as fetched,
    fetch_snapshot_request as fetch_snapshot, fetch_snapshot_response as fetched_snapshot,
    remove_raft_voter_request, update_raft_voter_request, vote_request as vote,
    vote_response as vote_answer,
};
use klamm_protocol::{ErrorCode, Uuid};

/// The message of a request. Fetch needs version 15 or later, with directory ids 17. Encoding a pre-vote before Vote
/// v2, or before AddRaftVoter v1 one that does not wait for the commit, is an error: answer it with
/// `Response::Failed(UnsupportedVersion)`.
#[derive(Debug, Clone, PartialEq)]
pub enum RequestMessage {
    Vote(vote::VoteRequest),
    BeginQuorumEpoch(begin::BeginQuorumEpochRequest),
    EndQuorumEpoch(end::EndQuorumEpochRequest),
    Fetch(fetch::FetchRequest),
    FetchSnapshot(fetch_snapshot::FetchSnapshotRequest),
    AddRaftVoter(add_raft_voter_request::AddRaftVoterRequest),
    RemoveRaftVoter(remove_raft_voter_request::RemoveRaftVoterRequest),
    UpdateRaftVoter(update_raft_voter_request::UpdateRaftVoterRequest),
    /// The ApiVersions that begins every connection: the shell sets the client software.
    ApiVersions,
}

/// The message of a request to another replica of this cluster.
pub fn request_message(request: Request, cluster_id: &ByteString) -> RequestMessage {
    let cluster_id = Some(cluster_id.clone());
    match request {
        Request::Vote(vote) => RequestMessage::Vote(vote_message(vote, cluster_id)),
        Request::BeginQuorumEpoch(begin) => {
            RequestMessage::BeginQuorumEpoch(begin_message(begin, cluster_id))
        }
        Request::EndQuorumEpoch(end) => {
            RequestMessage::EndQuorumEpoch(end_message(end, cluster_id))
        }
        Request::Fetch(fetch) => RequestMessage::Fetch(fetch_message(fetch, cluster_id)),
        Request::FetchSnapshot(fetch) => {
            RequestMessage::FetchSnapshot(fetch_snapshot_message(fetch, cluster_id))
        }
        Request::AddVoter(add) => RequestMessage::AddRaftVoter(add_message(add, cluster_id)),
        Request::RemoveVoter(remove) => {
            RequestMessage::RemoveRaftVoter(remove_message(&remove, cluster_id))
        }
        Request::UpdateVoter(update) => {
            RequestMessage::UpdateRaftVoter(update_message(&update, cluster_id))
        }
        Request::ApiVersions => RequestMessage::ApiVersions,
    }
}

fn vote_message(request: VoteRequest, cluster_id: Option<ByteString>) -> vote::VoteRequest {
    let partition = vote::PartitionData {
        partition_index: METADATA_PARTITION,
        replica_epoch: request.replica_epoch,
        replica_id: request.replica.id,
        replica_directory_id: request.replica.directory_id_or_zero(),
        voter_directory_id: request.voter.map_or(Uuid::ZERO, |voter| voter.directory_id_or_zero()),
        last_offset_epoch: request.log_end.epoch,
        last_offset: request.log_end.offset,
        pre_vote: request.pre_vote,
    };
    let topic = vote::TopicData { topic_name: METADATA_TOPIC, partitions: vec![partition] };
    let voter_id = or_minus_one(request.voter.map(|voter| voter.id));
    vote::VoteRequest { cluster_id, voter_id, topics: vec![topic] }
}

fn begin_message(
    request: BeginQuorumEpochRequest,
    cluster_id: Option<ByteString>,
) -> begin::BeginQuorumEpochRequest {
    let partition = begin::PartitionData {
        partition_index: METADATA_PARTITION,
        voter_directory_id: request.voter.map_or(Uuid::ZERO, |voter| voter.directory_id_or_zero()),
        leader_id: request.leader_id,
        leader_epoch: request.leader_epoch,
    };
    let endpoint = |(name, address): (&ByteString, &Address)| begin::LeaderEndpoint {
        name: name.clone(),
        host: address.host.clone(),
        port: address.port,
    };
    begin::BeginQuorumEpochRequest {
        cluster_id,
        voter_id: or_minus_one(request.voter.map(|voter| voter.id)),
        topics: vec![begin::TopicData { topic_name: METADATA_TOPIC, partitions: vec![partition] }],
        leader_endpoints: request.leader_endpoints.iter().map(endpoint).collect(),
    }
}

fn end_message(
    request: EndQuorumEpochRequest,
    cluster_id: Option<ByteString>,
) -> end::EndQuorumEpochRequest {
    let candidates = request.preferred_candidates.iter();
    let partition = end::PartitionData {
        partition_index: METADATA_PARTITION,
        leader_id: request.leader_id,
        leader_epoch: request.leader_epoch,
        preferred_successors: candidates.clone().map(|key| key.id).collect(),
        preferred_candidates: candidates
            .map(|key| end::ReplicaInfo {
                candidate_id: key.id,
                candidate_directory_id: key.directory_id_or_zero(),
            })
            .collect(),
    };
    let endpoint = |(name, address): (&ByteString, &Address)| end::LeaderEndpoint {
        name: name.clone(),
        host: address.host.clone(),
        port: address.port,
    };
    end::EndQuorumEpochRequest {
        cluster_id,
        topics: vec![end::TopicData { topic_name: METADATA_TOPIC, partitions: vec![partition] }],
        leader_endpoints: request.leader_endpoints.iter().map(endpoint).collect(),
    }
}

/// With the fields as Kafka's raft client sets them: no session, no minimum, a partition limit of 0.
fn fetch_message(request: FetchRequest, cluster_id: Option<ByteString>) -> fetch::FetchRequest {
    let partition = fetch::FetchPartition {
        partition: METADATA_PARTITION,
        current_leader_epoch: request.current_leader_epoch,
        fetch_offset: request.fetch_offset,
        last_fetched_epoch: request.last_fetched_epoch,
        replica_directory_id: request.replica.directory_id_or_zero(),
        high_watermark: or_minus_one(request.high_watermark),
        ..Default::default()
    };
    let topic = fetch::FetchTopic {
        topic: METADATA_TOPIC,
        topic_id: Uuid::METADATA_TOPIC,
        partitions: vec![partition],
    };
    fetch::FetchRequest {
        cluster_id,
        replica_state: fetch::ReplicaState { replica_id: request.replica.id, ..Default::default() },
        max_wait_ms: request.max_wait_ms,
        max_bytes: request.max_bytes,
        topics: vec![topic],
        ..Default::default()
    }
}

fn fetch_snapshot_message(
    request: FetchSnapshotRequest,
    cluster_id: Option<ByteString>,
) -> fetch_snapshot::FetchSnapshotRequest {
    let partition = fetch_snapshot::PartitionSnapshot {
        partition: METADATA_PARTITION,
        current_leader_epoch: request.current_leader_epoch,
        snapshot_id: fetch_snapshot::SnapshotId {
            end_offset: request.snapshot_id.offset,
            epoch: request.snapshot_id.epoch,
        },
        position: request.position,
        replica_directory_id: request.replica.directory_id_or_zero(),
    };
    let topic = fetch_snapshot::TopicSnapshot { name: METADATA_TOPIC, partitions: vec![partition] };
    fetch_snapshot::FetchSnapshotRequest {
        cluster_id,
        replica_id: request.replica.id,
        max_bytes: request.max_bytes,
        topics: vec![topic],
    }
}

/// An error code of the answer; an unknown one counts as UNKNOWN_SERVER_ERROR.
pub(super) fn error_code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}

fn top_level(code: i16) -> Result<(), ErrorCode> {
    match error_code(code) {
        ErrorCode::None => Ok(()),
        error => Err(error),
    }
}

/// The error for an answer that is not about the metadata log.
const OFF_TOPIC: ErrorCode = ErrorCode::UnknownTopicOrPartition;

fn or_failed(response: Result<Response, ErrorCode>) -> Response {
    response.unwrap_or_else(Response::Failed)
}

/// `listener` is the quorum's listener.
pub fn read_vote_response(message: vote_answer::VoteResponse, listener: &ByteString) -> Response {
    let read = || {
        top_level(message.error_code)?;
        let topic = single(message.topics).ok_or(OFF_TOPIC)?;
        let vote = single(topic.partitions).ok_or(OFF_TOPIC)?;
        let nodes = addresses!(message.node_endpoints);
        Ok(Response::Vote(VoteResponse {
            error: error_code(vote.error_code),
            leader: leader_info(vote.leader_id, vote.leader_epoch, listener, nodes),
            vote_granted: vote.vote_granted,
        }))
    };
    or_failed(read())
}

pub fn read_begin_quorum_epoch_response(
    message: begin_response::BeginQuorumEpochResponse,
    listener: &ByteString,
) -> Response {
    let read = || {
        top_level(message.error_code)?;
        let topic = single(message.topics).ok_or(OFF_TOPIC)?;
        let begin = single(topic.partitions).ok_or(OFF_TOPIC)?;
        let nodes = addresses!(message.node_endpoints);
        Ok(Response::BeginQuorumEpoch(QuorumEpochResponse {
            error: error_code(begin.error_code),
            leader: leader_info(begin.leader_id, begin.leader_epoch, listener, nodes),
        }))
    };
    or_failed(read())
}

pub fn read_end_quorum_epoch_response(
    message: end_response::EndQuorumEpochResponse,
    listener: &ByteString,
) -> Response {
    let read = || {
        top_level(message.error_code)?;
        let topic = single(message.topics).ok_or(OFF_TOPIC)?;
        let end = single(topic.partitions).ok_or(OFF_TOPIC)?;
        let nodes = addresses!(message.node_endpoints);
        Ok(Response::EndQuorumEpoch(QuorumEpochResponse {
            error: error_code(end.error_code),
            leader: leader_info(end.leader_id, end.leader_epoch, listener, nodes),
        }))
    };
    or_failed(read())
}

/// If the first batch of the records is invalid, the answer counts as failed.
pub fn read_fetch_response(message: fetched::FetchResponse, listener: &ByteString) -> Response {
    let read = || {
        top_level(message.error_code)?;
        let topic = single(message.responses).ok_or(OFF_TOPIC)?;
        let partition = single(topic.partitions).ok_or(OFF_TOPIC)?;
        let nodes = message.node_endpoints.into_iter().filter_map(|node| {
            let port = u16::try_from(node.port).ok()?;
            Some((node.node_id, Address { host: node.host, port }))
        });
        let current = &partition.current_leader;
        Ok(Response::Fetch(FetchResponse {
            error: error_code(partition.error_code),
            leader: leader_info(current.leader_id, current.leader_epoch, listener, nodes),
            high_watermark: none_if_negative(partition.high_watermark),
            log_start_offset: partition.log_start_offset,
            body: fetch_body(partition)?,
        }))
    };
    or_failed(read())
}

fn fetch_body(partition: fetched::PartitionData) -> Result<FetchBody, ErrorCode> {
    let diverging = partition.diverging_epoch;
    if diverging.epoch >= 0 {
        return Ok(FetchBody::Diverging(OffsetAndEpoch::new(
            diverging.end_offset,
            diverging.epoch,
        )));
    }
    let id = partition.snapshot_id;
    if id.epoch >= 0 || id.end_offset >= 0 {
        return Ok(FetchBody::Snapshot(OffsetAndEpoch::new(id.end_offset, id.epoch)));
    }
    let records = partition.records.unwrap_or_default();
    let batches = fetched_batches(records).map_err(|_| ErrorCode::CorruptMessage)?;
    Ok(FetchBody::Records(batches))
}

pub fn read_fetch_snapshot_response(
    message: fetched_snapshot::FetchSnapshotResponse,
    listener: &ByteString,
) -> Response {
    let read = || {
        top_level(message.error_code)?;
        let topic = single(message.topics).ok_or(OFF_TOPIC)?;
        let partition = single(topic.partitions).ok_or(OFF_TOPIC)?;
        let nodes = addresses!(message.node_endpoints);
        let current = &partition.current_leader;
        let id = &partition.snapshot_id;
        Ok(Response::FetchSnapshot(FetchSnapshotResponse {
            error: error_code(partition.error_code),
            leader: leader_info(current.leader_id, current.leader_epoch, listener, nodes),
            snapshot_id: OffsetAndEpoch::new(id.end_offset, id.epoch),
            size: partition.size,
            position: partition.position,
            bytes: partition.unaligned_records.unwrap_or_default(),
        }))
    };
    or_failed(read())
}
