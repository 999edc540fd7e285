//! Requests of other nodes, and the answers to them.

use super::super::message::{
    BeginQuorumEpochRequest, EndQuorumEpochRequest, FetchReply, FetchReplyBody, FetchRequest,
    FetchSnapshotReply, FetchSnapshotRequest, Inbound, QuorumEpochResponse, Request, VoteRequest,
    VoteResponse,
};
use super::super::voters::{Address, Endpoints, ReplicaKey};
use super::{METADATA_PARTITION, METADATA_TOPIC, leader_address, single};
use crate::OffsetAndEpoch;
use bytes::Bytes;
use bytestring::ByteString;
use klamm_protocol::ids::{BrokerId, PartitionIndex, none_if_negative, or_minus_one};
use klamm_protocol::messages::{
    begin_quorum_epoch_request as begin, begin_quorum_epoch_response as begin_response,
    end_quorum_epoch_request as end, end_quorum_epoch_response as end_response,
    fetch_request as fetch, fetch_response as fetched, fetch_snapshot_request as fetch_snapshot,
    fetch_snapshot_response as fetched_snapshot, vote_request as vote,
    vote_response as vote_answer,
};
use klamm_protocol::{ErrorCode, Uuid};

/// The first version of Vote, BeginQuorumEpoch, EndQuorumEpoch and FetchSnapshot whose answer has the leader's
/// endpoint.
const FIRST_WITH_ENDPOINTS: i16 = 1;
/// The same of Fetch, on the metadata log.
const FIRST_FETCH_WITH_ENDPOINTS: i16 = 17;

fn is_metadata_log(topic: &ByteString, partition: PartitionIndex) -> bool {
    *topic == METADATA_TOPIC && partition == METADATA_PARTITION
}

fn voter_key(id: BrokerId, directory_id: Uuid) -> Option<ReplicaKey> {
    none_if_negative(id).map(|id| ReplicaKey::new(id, directory_id))
}

pub fn vote_request(message: vote::VoteRequest) -> Result<Inbound, ErrorCode> {
    let topic = single(message.topics).ok_or(ErrorCode::InvalidRequest)?;
    let vote = single(topic.partitions).ok_or(ErrorCode::InvalidRequest)?;
    if !is_metadata_log(&topic.topic_name, vote.partition_index) {
        return Err(ErrorCode::InvalidRequest);
    }
    let request = Request::Vote(VoteRequest {
        replica: ReplicaKey::new(vote.replica_id, vote.replica_directory_id),
        replica_epoch: vote.replica_epoch,
        voter: voter_key(message.voter_id, vote.voter_directory_id),
        log_end: OffsetAndEpoch::new(vote.last_offset, vote.last_offset_epoch),
        pre_vote: vote.pre_vote,
    });
    Ok(Inbound { cluster_id: message.cluster_id, request })
}

pub fn begin_quorum_epoch_request(
    message: begin::BeginQuorumEpochRequest,
) -> Result<Inbound, ErrorCode> {
    let topic = single(message.topics).ok_or(ErrorCode::InvalidRequest)?;
    let begin = single(topic.partitions).ok_or(ErrorCode::InvalidRequest)?;
    if !is_metadata_log(&topic.topic_name, begin.partition_index) {
        return Err(ErrorCode::InvalidRequest);
    }
    let request = Request::BeginQuorumEpoch(BeginQuorumEpochRequest {
        leader_id: begin.leader_id,
        leader_epoch: begin.leader_epoch,
        voter: voter_key(message.voter_id, begin.voter_directory_id),
        leader_endpoints: listeners!(message.leader_endpoints),
    });
    Ok(Inbound { cluster_id: message.cluster_id, request })
}

pub fn end_quorum_epoch_request(message: end::EndQuorumEpochRequest) -> Result<Inbound, ErrorCode> {
    let topic = single(message.topics).ok_or(ErrorCode::InvalidRequest)?;
    let end = single(topic.partitions).ok_or(ErrorCode::InvalidRequest)?;
    if !is_metadata_log(&topic.topic_name, end.partition_index) {
        return Err(ErrorCode::InvalidRequest);
    }
    // Version 0 names successors by id only.
    let by_id = end.preferred_successors.iter().map(|&id| ReplicaKey { id, directory_id: None });
    let by_key = end.preferred_candidates.iter();
    let by_key = by_key.map(|key| ReplicaKey::new(key.candidate_id, key.candidate_directory_id));
    let preferred_candidates = match end.preferred_candidates.is_empty() {
        true => by_id.collect(),
        false => by_key.collect(),
    };
    let request = Request::EndQuorumEpoch(EndQuorumEpochRequest {
        leader_id: end.leader_id,
        leader_epoch: end.leader_epoch,
        preferred_candidates,
        leader_endpoints: listeners!(message.leader_endpoints),
    });
    Ok(Inbound { cluster_id: message.cluster_id, request })
}

/// A Fetch of the metadata log. Before version 13 it names the topic, since then the topic id.
pub fn fetch_request(message: fetch::FetchRequest) -> Result<Inbound, ErrorCode> {
    let topic = single(message.topics).ok_or(ErrorCode::InvalidRequest)?;
    let partition = single(topic.partitions).ok_or(ErrorCode::InvalidRequest)?;
    // Versions with a topic name have no id, and are refused as in Kafka.
    if topic.topic_id != Uuid::METADATA_TOPIC || partition.partition != METADATA_PARTITION {
        return Err(ErrorCode::InvalidRequest);
    }
    let replica_id = message.replica_state.replica_id.max(message.replica_id);
    let request = Request::Fetch(FetchRequest {
        replica: ReplicaKey::new(replica_id, partition.replica_directory_id),
        current_leader_epoch: partition.current_leader_epoch,
        fetch_offset: partition.fetch_offset,
        last_fetched_epoch: partition.last_fetched_epoch,
        high_watermark: none_if_negative(partition.high_watermark),
        max_wait_ms: message.max_wait_ms,
        max_bytes: message.max_bytes,
    });
    Ok(Inbound { cluster_id: message.cluster_id, request })
}

pub fn fetch_snapshot_request(
    message: fetch_snapshot::FetchSnapshotRequest,
) -> Result<Inbound, ErrorCode> {
    let topic = single(message.topics).ok_or(ErrorCode::InvalidRequest)?;
    let partition = single(topic.partitions).ok_or(ErrorCode::InvalidRequest)?;
    if !is_metadata_log(&topic.name, partition.partition) {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    let id = partition.snapshot_id;
    let request = Request::FetchSnapshot(FetchSnapshotRequest {
        replica: ReplicaKey::new(message.replica_id, partition.replica_directory_id),
        current_leader_epoch: partition.current_leader_epoch,
        snapshot_id: OffsetAndEpoch::new(id.end_offset, id.epoch),
        position: partition.position,
        max_bytes: message.max_bytes,
    });
    Ok(Inbound { cluster_id: message.cluster_id, request })
}

pub fn vote_response(
    reply: &VoteResponse,
    version: i16,
    listener: &ByteString,
) -> vote_answer::VoteResponse {
    let says_where = version >= FIRST_WITH_ENDPOINTS;
    let node = leader_address(&reply.leader, listener, says_where);
    let partition = vote_answer::PartitionData {
        partition_index: METADATA_PARTITION,
        error_code: reply.error.code(),
        leader_id: or_minus_one(reply.leader.leader_id),
        leader_epoch: reply.leader.epoch,
        vote_granted: reply.vote_granted,
    };
    let topic = vote_answer::TopicData { topic_name: METADATA_TOPIC, partitions: vec![partition] };
    vote_answer::VoteResponse {
        topics: vec![topic],
        node_endpoints: node_endpoints!(vote_answer, node),
        ..Default::default()
    }
}

pub fn begin_quorum_epoch_response(
    reply: &QuorumEpochResponse,
    version: i16,
    listener: &ByteString,
) -> begin_response::BeginQuorumEpochResponse {
    let says_where = version >= FIRST_WITH_ENDPOINTS;
    let node = leader_address(&reply.leader, listener, says_where);
    let partition = begin_response::PartitionData {
        partition_index: METADATA_PARTITION,
        error_code: reply.error.code(),
        leader_id: or_minus_one(reply.leader.leader_id),
        leader_epoch: reply.leader.epoch,
    };
    let topic =
        begin_response::TopicData { topic_name: METADATA_TOPIC, partitions: vec![partition] };
    begin_response::BeginQuorumEpochResponse {
        topics: vec![topic],
        node_endpoints: node_endpoints!(begin_response, node),
        ..Default::default()
    }
}

pub fn end_quorum_epoch_response(
    reply: &QuorumEpochResponse,
    version: i16,
    listener: &ByteString,
) -> end_response::EndQuorumEpochResponse {
    let says_where = version >= FIRST_WITH_ENDPOINTS;
    let node = leader_address(&reply.leader, listener, says_where);
    let partition = end_response::PartitionData {
        partition_index: METADATA_PARTITION,
        error_code: reply.error.code(),
        leader_id: or_minus_one(reply.leader.leader_id),
        leader_epoch: reply.leader.epoch,
    };
    let topic = end_response::TopicData { topic_name: METADATA_TOPIC, partitions: vec![partition] };
    end_response::EndQuorumEpochResponse {
        topics: vec![topic],
        node_endpoints: node_endpoints!(end_response, node),
        ..Default::default()
    }
}

/// The answer to a Fetch of the metadata log; `records` are the batches that the shell has read for
/// [`FetchReplyBody::Records`].
pub fn fetch_response(
    reply: &FetchReply,
    records: Bytes,
    version: i16,
    listener: &ByteString,
) -> fetched::FetchResponse {
    let says_where = version >= FIRST_FETCH_WITH_ENDPOINTS;
    let node = leader_address(&reply.leader, listener, says_where);
    let mut partition = fetched::PartitionData {
        partition_index: METADATA_PARTITION,
        error_code: reply.error.code(),
        high_watermark: or_minus_one(reply.high_watermark),
        log_start_offset: reply.log_start_offset,
        records: Some(records),
        current_leader: fetched::LeaderIdAndEpoch {
            leader_id: or_minus_one(reply.leader.leader_id),
            leader_epoch: reply.leader.epoch,
        },
        ..Default::default()
    };
    match reply.body {
        FetchReplyBody::Empty | FetchReplyBody::Records { .. } => {}
        FetchReplyBody::Diverging(end) => {
            partition.diverging_epoch =
                fetched::EpochEndOffset { epoch: end.epoch, end_offset: end.offset };
        }
        FetchReplyBody::Snapshot(id) => {
            partition.snapshot_id = fetched::SnapshotId { epoch: id.epoch, end_offset: id.offset };
        }
    }
    let topic = fetched::FetchableTopicResponse {
        topic: METADATA_TOPIC,
        topic_id: Uuid::METADATA_TOPIC,
        partitions: vec![partition],
    };
    let endpoint = |(node_id, address): (_, Address)| fetched::NodeEndpoint {
        node_id,
        host: address.host,
        port: address.port.into(),
        rack: None,
    };
    fetched::FetchResponse {
        responses: vec![topic],
        node_endpoints: node.map(endpoint).into_iter().collect(),
        ..Default::default()
    }
}

/// A chunk of a snapshot that the shell has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPiece {
    /// The size of the whole snapshot in bytes.
    pub size: i64,
    pub bytes: Bytes,
}

/// The answer to FetchSnapshot. If the reply has no error, `piece` is the chunk that the shell has read, or the error
/// why it could not (SNAPSHOT_NOT_FOUND, POSITION_OUT_OF_RANGE).
pub fn fetch_snapshot_response(
    reply: &FetchSnapshotReply,
    piece: Result<SnapshotPiece, ErrorCode>,
    version: i16,
    listener: &ByteString,
) -> fetched_snapshot::FetchSnapshotResponse {
    let says_where = version >= FIRST_WITH_ENDPOINTS;
    let node = leader_address(&reply.leader, listener, says_where);
    let mut partition = fetched_snapshot::PartitionSnapshot {
        index: METADATA_PARTITION,
        current_leader: fetched_snapshot::LeaderIdAndEpoch {
            leader_id: or_minus_one(reply.leader.leader_id),
            leader_epoch: reply.leader.epoch,
        },
        unaligned_records: Some(Bytes::new()),
        ..Default::default()
    };
    match (reply.error, piece) {
        (ErrorCode::None, Ok(piece)) => {
            partition.snapshot_id = fetched_snapshot::SnapshotId {
                end_offset: reply.snapshot_id.offset,
                epoch: reply.snapshot_id.epoch,
            };
            partition.size = piece.size;
            partition.position = reply.position;
            partition.unaligned_records = Some(piece.bytes);
        }
        (ErrorCode::None, Err(error)) | (error, _) => partition.error_code = error.code(),
    }
    let topic =
        fetched_snapshot::TopicSnapshot { name: METADATA_TOPIC, partitions: vec![partition] };
    fetched_snapshot::FetchSnapshotResponse {
        topics: vec![topic],
        node_endpoints: node_endpoints!(fetched_snapshot, node),
        ..Default::default()
    }
}
