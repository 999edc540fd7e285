//! DescribeQuorum (key 55): the leader's view of the replicas of the metadata log (KIP-836).

use bytestring::ByteString;
use klamm_metadata::topic_name::CLUSTER_METADATA_TOPIC;
use klamm_protocol::ids::or_minus_one;
use klamm_protocol::messages::describe_quorum_request::DescribeQuorumRequest;
use klamm_protocol::messages::describe_quorum_response::{
    DescribeQuorumResponse, Listener, Node as QuorumNode, PartitionData, ReplicaState, TopicData,
};
use klamm_protocol::{ErrorCode, Uuid};
use klamm_replication::quorum::{Address, Progress, QuorumDescription, VoterSet};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::clock;

/// The first version with directory ids and the addresses of the nodes (KIP-853).
const FIRST_WITH_NODES: i16 = 2;

message_replies!(DescribeQuorumResponse, with lower);

pub(crate) async fn handle(
    context: RequestContext,
    body: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    if !is_about_metadata(&body) {
        return unknown_partitions(&body);
    }
    match context.services.controller.describe_quorum().await {
        Ok(quorum) => describe(&quorum),
        Err(code) => metadata_topic(refused(0, code), Vec::new()),
    }
}

/// Whether the request names the metadata partition, once and nothing else.
fn is_about_metadata(body: &DescribeQuorumRequest) -> bool {
    match body.topics.as_slice() {
        [topic] if topic.topic_name == CLUSTER_METADATA_TOPIC => {
            matches!(topic.partitions.as_slice(), [partition] if partition.partition_index == 0)
        }
        _ => false,
    }
}

fn describe(quorum: &QuorumDescription) -> DescribeQuorumResponse {
    let partition = PartitionData {
        partition_index: 0,
        error_code: ErrorCode::None.code(),
        leader_id: quorum.leader_id,
        leader_epoch: quorum.leader_epoch,
        high_watermark: or_minus_one(quorum.high_watermark),
        current_voters: quorum.voters.iter().map(replica).collect(),
        observers: quorum.observers.iter().map(replica).collect(),
        ..Default::default()
    };
    metadata_topic(partition, nodes(&quorum.voter_set))
}

fn replica(progress: &Progress) -> ReplicaState {
    ReplicaState {
        replica_id: progress.key.id,
        replica_directory_id: progress.key.directory_id.unwrap_or_default(),
        log_end_offset: or_minus_one(progress.end_offset),
        last_fetch_timestamp: or_minus_one(progress.last_fetch_ms.map(clock::as_wall_ms)),
        last_caught_up_timestamp: or_minus_one(progress.last_caught_up_ms.map(clock::as_wall_ms)),
    }
}

/// The voters' endpoints, from the voter set in force.
fn nodes(voters: &VoterSet) -> Vec<QuorumNode> {
    let listener = |(name, address): (&ByteString, &Address)| Listener {
        name: name.clone(),
        host: address.host.clone(),
        port: address.port,
    };
    voters
        .iter()
        .map(|voter| QuorumNode {
            node_id: voter.key.id,
            listeners: voter.endpoints.iter().map(listener).collect(),
        })
        .collect()
}

fn metadata_topic(partition: PartitionData, nodes: Vec<QuorumNode>) -> DescribeQuorumResponse {
    let topic = TopicData {
        topic_name: ByteString::from_static(CLUSTER_METADATA_TOPIC),
        partitions: vec![partition],
    };
    DescribeQuorumResponse { topics: vec![topic], nodes, ..Default::default() }
}

fn unknown_partitions(body: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    let topics = body.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let unknown = ErrorCode::UnknownTopicOrPartition;
        TopicData {
            topic_name: topic.topic_name.clone(),
            partitions: partitions.map(|p| refused(p.partition_index, unknown)).collect(),
        }
    });
    DescribeQuorumResponse { topics: topics.collect(), ..Default::default() }
}

fn refused(partition_index: i32, code: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index,
        error_code: code.code(),
        error_message: Some(code.message().into()),
        ..Default::default()
    }
}

fn lower(answer: &mut DescribeQuorumResponse, version: i16) {
    if version >= FIRST_WITH_NODES {
        return;
    }
    answer.nodes.clear();
    for partition in answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        for replica in partition.current_voters.iter_mut().chain(&mut partition.observers) {
            replica.replica_directory_id = Uuid::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;
    use klamm_protocol::messages::describe_quorum_request::{
        PartitionData as Partition, TopicData as Topic,
    };

    use super::*;

    fn asks(topics: &[(&str, &[i32])]) -> DescribeQuorumRequest {
        let topics = topics.iter().map(|(name, partitions)| Topic {
            topic_name: (*name).into(),
            partitions: partitions.iter().map(|p| Partition { partition_index: *p }).collect(),
        });
        DescribeQuorumRequest { topics: topics.collect() }
    }

    #[test]
    fn only_the_metadata_partition_has_a_quorum() {
        assert!(is_about_metadata(&asks(&[("__cluster_metadata", &[0])])));
        for topics in [
            &[][..],
            &[("t", &[0][..])],
            &[("__cluster_metadata", &[1])],
            &[("__cluster_metadata", &[0, 0])],
            &[("__cluster_metadata", &[0]), ("t", &[0])],
        ] {
            assert!(!is_about_metadata(&asks(topics)), "{topics:?}");
        }
        let unknown = unknown_partitions(&asks(&[("t", &[0, 4])]));
        let codes: Vec<_> = unknown.topics[0]
            .partitions
            .iter()
            .map(|partition| (partition.partition_index, partition.error_code))
            .collect();
        assert_eq!(codes, [(0, 3), (4, 3)]);
    }

    #[test]
    fn every_version_carries_the_answer() {
        let quorum = QuorumDescription {
            leader_id: 1,
            leader_epoch: 2,
            high_watermark: None,
            voters: Vec::new(),
            observers: Vec::new(),
            voter_set: VoterSet::from_static(
                &"CONTROLLER".into(),
                [(1, Address { host: "there".into(), port: 9095 })],
            ),
        };
        let directory = Uuid::from_bytes([7; 16]);
        let voter = ReplicaState { replica_directory_id: directory, ..Default::default() };
        for version in DescribeQuorumResponse::VERSIONS {
            let mut answer = describe(&quorum);
            let listener = &answer.nodes[0].listeners[0];
            assert_eq!(
                (&*listener.name, &*listener.host, listener.port),
                ("CONTROLLER", "there", 9095)
            );
            answer.topics[0].partitions[0].current_voters = vec![voter.clone()];
            lower(&mut answer, version);
            answer.encoded(version).unwrap();
            let nodes = usize::from(version >= 2);
            assert_eq!(answer.nodes.len(), nodes);
            assert_eq!(answer.topics[0].partitions[0].high_watermark, -1);
        }
    }
}
