//! What a cluster says of itself, in the words that tests wait for.

use std::collections::BTreeSet;
use std::io;

use klamm_protocol::batch::{BatchHeader, Batches};
use klamm_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use klamm_protocol::messages::create_topics_response::CreateTopicsResponse;
use klamm_protocol::messages::describe_quorum_request::{
    DescribeQuorumRequest, PartitionData, TopicData,
};
use klamm_protocol::messages::describe_quorum_response::DescribeQuorumResponse;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use klamm_protocol::messages::fetch_response::FetchResponse;
use klamm_protocol::messages::metadata_request::MetadataRequest;
use klamm_protocol::messages::metadata_response::MetadataResponse;

use crate::ask::ask;

const CREATE_TOPICS_VERSION: i16 = 7;
const DESCRIBE_QUORUM_VERSION: i16 = 1;
const METADATA_VERSION: i16 = 9;
/// The last one that names topics.
const FETCH_VERSION: i16 = 12;
const FETCH_BYTES: i32 = 64 * 1024;
/// The replica id of a consumer.
const CONSUMER: i32 = -1;
const CREATE_TIMEOUT_MS: i32 = 10_000;

/// One partition as a broker's metadata shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionState {
    /// Topic.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// The leader's node id; -1 without one.
    pub leader: i32,
    /// Its epoch.
    pub leader_epoch: i32,
    /// Assigned replicas, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub isr: BTreeSet<i32>,
}

impl PartitionState {
    /// Whether it is led and every assigned replica is in sync.
    pub fn is_whole(&self) -> bool {
        self.leader >= 0 && self.isr == self.replicas.iter().copied().collect()
    }
}

/// The controllers' quorum as its leader describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumState {
    /// The active controller.
    pub leader: i32,
    /// Its epoch.
    pub epoch: i32,
    /// Offset below which the metadata log is committed.
    pub high_watermark: i64,
    /// The voters' ids.
    pub voters: BTreeSet<i32>,
    /// Ids of brokers and controllers that follow without a vote.
    pub observers: BTreeSet<i32>,
}

/// The ids of the unfenced brokers and all partitions, as the node at `address` knows them.
pub(super) fn metadata(address: &str) -> io::Result<(BTreeSet<i32>, Vec<PartitionState>)> {
    let request = MetadataRequest {
        topics: None,
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    let answer: MetadataResponse = ask(address, &request, METADATA_VERSION)?;
    let brokers = answer.brokers.iter().map(|broker| broker.node_id).collect();
    let mut partitions = Vec::new();
    for topic in answer.topics {
        let name = topic.name.unwrap_or_default().to_string();
        partitions.extend(topic.partitions.into_iter().map(|partition| PartitionState {
            topic: name.clone(),
            partition: partition.partition_index,
            leader: partition.leader_id,
            leader_epoch: partition.leader_epoch,
            replicas: partition.replica_nodes,
            isr: partition.isr_nodes.into_iter().collect(),
        }));
    }
    partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Ok((brokers, partitions))
}

/// The quorum, by way of the node at `address`.
pub(super) fn quorum(address: &str) -> io::Result<QuorumState> {
    let partition = PartitionData { partition_index: 0 };
    let topic = TopicData { topic_name: "__cluster_metadata".into(), partitions: vec![partition] };
    let request = DescribeQuorumRequest { topics: vec![topic] };
    let answer: DescribeQuorumResponse = ask(address, &request, DESCRIBE_QUORUM_VERSION)?;
    let described = answer.topics.first().and_then(|topic| topic.partitions.first());
    match described {
        Some(partition) if answer.error_code == 0 && partition.error_code == 0 => {
            let ids = |replicas: &[_]| replicas.iter().map(replica_id).collect();
            Ok(QuorumState {
                leader: partition.leader_id,
                epoch: partition.leader_epoch,
                high_watermark: partition.high_watermark,
                voters: ids(&partition.current_voters),
                observers: ids(&partition.observers),
            })
        }
        _ => Err(io::Error::other(format!("{answer:?}"))),
    }
}

fn replica_id(replica: &klamm_protocol::messages::describe_quorum_response::ReplicaState) -> i32 {
    replica.replica_id
}

/// Creates a topic whose partitions have the given replicas, by way of the node at `address`.
pub(super) fn create_topic(
    address: &str,
    name: &str,
    assignment: &[Vec<i32>],
    configs: &[(&str, &str)],
) -> io::Result<()> {
    let assignments = (0..).zip(assignment).map(|(partition_index, broker_ids)| {
        CreatableReplicaAssignment { partition_index, broker_ids: broker_ids.clone() }
    });
    let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
        name: (*name).into(),
        value: Some((*value).into()),
    });
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: -1,
        replication_factor: -1,
        assignments: assignments.collect(),
        configs: configs.collect(),
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: CREATE_TIMEOUT_MS,
        validate_only: false,
    };
    let answer: CreateTopicsResponse = ask(address, &request, CREATE_TOPICS_VERSION)?;
    match answer.topics.first() {
        Some(topic) if topic.error_code == 0 => Ok(()),
        _ => Err(io::Error::other(format!("{answer:?}"))),
    }
}

/// The header of the batch that holds an offset, from the leader at `address`.
pub(super) fn batch_at(
    address: &str,
    topic: &str,
    partition: i32,
    offset: i64,
) -> io::Result<BatchHeader> {
    let wanted = FetchPartition {
        partition,
        fetch_offset: offset,
        partition_max_bytes: FETCH_BYTES,
        ..FetchPartition::default()
    };
    let wanted = FetchTopic { topic: topic.into(), partitions: vec![wanted], ..Default::default() };
    let request = FetchRequest {
        replica_id: CONSUMER,
        max_bytes: FETCH_BYTES,
        topics: vec![wanted],
        ..FetchRequest::default()
    };
    let answer: FetchResponse = ask(address, &request, FETCH_VERSION)?;
    let found = answer.responses.first().and_then(|topic| topic.partitions.first());
    let records = found.and_then(|partition| partition.records.clone()).unwrap_or_default();
    let mut batches = Batches::new(records).filter_map(Result::ok).map(|batch| batch.header);
    let holds_it =
        |batch: &BatchHeader| (batch.base_offset..=batch.last_offset()).contains(&offset);
    batches.find(holds_it).ok_or_else(|| io::Error::other(format!("no offset {offset}: {found:?}")))
}
