//! What the active controller is asked, and its answer: each kind is one call of the real controller.

use crate::batch::{DATA_TOPIC, OFFSETS_TOPIC, PARTITIONS, PartitionId};
use crate::message::{ControllerAnswer, ControllerRequest};
use crate::metadata_driver::NodeStep;
use crate::plant::Plant;
use klamm_metadata::controller::Controller;
use klamm_metadata::controller::create_topics::CreateTopicsAccess;
use klamm_metadata::controller::outcome::Outcome;
use klamm_metadata::random::Random;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, Offset};
use klamm_protocol::messages::alter_partition_reassignments_request::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use klamm_protocol::messages::alter_partition_request::AlterPartitionRequest;
use klamm_protocol::messages::alter_partition_response::AlterPartitionResponse;
use klamm_protocol::messages::broker_registration_change_record::BrokerRegistrationChangeRecord;
use klamm_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreateTopicsRequest,
};
use klamm_protocol::messages::elect_leaders_request::ElectLeadersRequest;
use klamm_protocol::metadata_record::MetadataRecord;

/// Has the controller decide.
pub(crate) fn decide(
    controller: &mut Controller,
    request: ControllerRequest,
    next_offset: Offset,
    step: &mut NodeStep<'_>,
) -> Outcome<ControllerAnswer> {
    let now_ms = step.now_ms;
    match request {
        ControllerRequest::Register(request) => {
            let outcome = controller.on_broker_registration(&request, true, next_offset, now_ms);
            outcome.map(|response| {
                let epoch = response.map(|response| response.broker_epoch);
                ControllerAnswer::Registered(epoch.map_err(|error| error.code()))
            })
        }
        ControllerRequest::Heartbeat(request) => {
            let outcome = controller.on_broker_heartbeat(&request, now_ms);
            outcome.map(ControllerAnswer::Heartbeat)
        }
        ControllerRequest::AlterPartition(request) => {
            let outcome = match step.plant {
                Plant::FencedReplicaJoinsIsr => as_if_none_were_fenced(controller, &request),
                _ => controller.on_alter_partition(&request),
            };
            outcome.map(ControllerAnswer::AlterPartition)
        }
        ControllerRequest::AssignDirectories(request) => {
            let outcome = controller.on_assign_replicas_to_dirs(&request);
            outcome.map(|_| ControllerAnswer::Done(Ok(())))
        }
        ControllerRequest::CreateTopics { replicas } => create_topics(controller, &replicas, step),
        ControllerRequest::Reassign { partition, replicas } => {
            let request = reassignment(partition, replicas);
            let outcome = controller.on_alter_partition_reassignments(&request);
            outcome.map(|_| ControllerAnswer::Done(Ok(())))
        }
        ControllerRequest::ElectPreferred => {
            let request = ElectLeadersRequest { election_type: 0, ..Default::default() };
            let outcome = controller.on_elect_leaders(&request);
            outcome.map(|_| ControllerAnswer::Done(Ok(())))
        }
    }
}

/// A controller with a mistake: it decides by metadata in which every broker is unfenced.
fn as_if_none_were_fenced(
    controller: &mut Controller,
    request: &AlterPartitionRequest,
) -> Outcome<AlterPartitionResponse> {
    let loader = controller.loader().clone();
    let mut unfenced = loader.clone();
    for broker in loader.newest().brokers.iter().filter(|broker| broker.fenced) {
        let record = MetadataRecord::BrokerRegistrationChange(BrokerRegistrationChangeRecord {
            broker_id: broker.id,
            broker_epoch: broker.epoch,
            fenced: -1,
            ..Default::default()
        });
        let replayed = unfenced.replay(&record, unfenced.end_offset());
        replayed.expect("a registered broker can be unfenced");
    }
    controller.reset(unfenced);
    let outcome = controller.on_alter_partition(request);
    controller.reset(loader);
    outcome
}

fn create_topics(
    controller: &mut Controller,
    replicas: &[Vec<BrokerId>],
    step: &mut NodeStep<'_>,
) -> Outcome<ControllerAnswer> {
    let topic = |name: &str| {
        let wanted = PARTITIONS.iter().zip(replicas).filter(|((topic, _), _)| *topic == name);
        let assignments = wanted.map(|((_, index), brokers)| CreatableReplicaAssignment {
            partition_index: *index,
            broker_ids: brokers.clone(),
        });
        CreatableTopic {
            name: name.into(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: assignments.collect(),
            configs: Vec::new(),
        }
    };
    let topics = vec![topic(DATA_TOPIC), topic(OFFSETS_TOPIC)];
    let request = CreateTopicsRequest { topics, ..Default::default() };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&step.random.next().to_be_bytes());
    let mut random = Random::from_seed(seed);
    let outcome = controller.on_create_topics(&request, CreateTopicsAccess::ALL, &mut random);
    outcome.map(|response| {
        let there = [ErrorCode::None.code(), ErrorCode::TopicAlreadyExists.code()];
        let failed = response.topics.iter().find(|topic| !there.contains(&topic.error_code));
        let code = failed.and_then(|topic| ErrorCode::from_code(topic.error_code));
        ControllerAnswer::Done(code.map_or(Ok(()), Err))
    })
}

fn reassignment(
    partition: PartitionId,
    replicas: Vec<BrokerId>,
) -> AlterPartitionReassignmentsRequest {
    let (topic, partition_index) = PARTITIONS[partition];
    let partition = ReassignablePartition { partition_index, replicas: Some(replicas) };
    AlterPartitionReassignmentsRequest {
        topics: vec![ReassignableTopic { name: topic.into(), partitions: vec![partition] }],
        ..Default::default()
    }
}
