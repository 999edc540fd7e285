//! The placement of replicas while brokers are fenced, in controlled shutdown, or cordoned.

use klamm_protocol::messages::alter_partition_reassignments_request::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use klamm_protocol::messages::alter_partition_request::{
    AlterPartitionRequest, BrokerState, PartitionData, TopicData,
};
use klamm_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use klamm_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};

use super::*;
use crate::controller::create_topics::CreateTopicsAccess;
use crate::controller::testing::{Testbed, directory, registration};

/// Three brokers, of which broker 1 leads a partition.
fn three_brokers() -> Testbed {
    let mut testbed = Testbed::with_brokers([1, 2, 3]);
    testbed.create("led", &[&[1, 2, 3]], &[]);
    testbed
}

fn wants_to_stop(testbed: &mut Testbed, id: BrokerId) -> bool {
    testbed.heartbeat(id, |heartbeat| heartbeat.want_shut_down = true).should_shut_down
}

/// Begins a controlled shutdown of a broker, which waits until the others have the metadata.
fn begins_to_stop(testbed: &mut Testbed, id: BrokerId) {
    assert!(!wants_to_stop(testbed, id), "broker {id} has leaderships to hand over");
}

fn stops_cleanly(testbed: &mut Testbed, id: BrokerId) {
    begins_to_stop(testbed, id);
    for other in [1, 2, 3].into_iter().filter(|other| *other != id) {
        testbed.heartbeat(other, |_| {});
    }
    assert!(wants_to_stop(testbed, id), "broker {id} has handed everything over");
    let broker = testbed.controller.image().brokers.get(id).unwrap();
    assert!(broker.fenced && broker.in_controlled_shutdown, "both stay until it is back");
}

/// Creates a topic of one partition; returns the code and the text.
fn create(testbed: &mut Testbed, replication_factor: i16) -> (ErrorCode, Option<String>) {
    let topic = CreatableTopic {
        name: "new".into(),
        num_partitions: 3,
        replication_factor,
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    let random = &mut testbed.random;
    let outcome = testbed.controller.on_create_topics(&request, CreateTopicsAccess::ALL, random);
    let result = testbed.apply(outcome).topics.remove(0);
    let code = ErrorCode::from_code(result.error_code).unwrap();
    (code, result.error_message.map(|text| text.to_string()))
}

fn grow(testbed: &mut Testbed, count: i32, replicas: Option<&[BrokerId]>) -> ErrorCode {
    let assignments =
        replicas.map(|ids| vec![CreatePartitionsAssignment { broker_ids: ids.to_vec() }]);
    let topic = CreatePartitionsTopic { name: "led".into(), count, assignments };
    let request = CreatePartitionsRequest { topics: vec![topic], ..Default::default() };
    let random = &mut testbed.random;
    let outcome = testbed.controller.on_create_partitions(&request, &|_| true, random);
    ErrorCode::from_code(testbed.apply(outcome).results[0].error_code).unwrap()
}

fn reassign(testbed: &mut Testbed, replicas: &[BrokerId]) -> ErrorCode {
    let partition = ReassignablePartition { partition_index: 0, replicas: Some(replicas.to_vec()) };
    let topic = ReassignableTopic { name: "led".into(), partitions: vec![partition] };
    let request = AlterPartitionReassignmentsRequest {
        allow_replication_factor_change: true,
        topics: vec![topic],
        ..Default::default()
    };
    let outcome = testbed.controller.on_alter_partition_reassignments(&request);
    let answer = testbed.apply(outcome).responses.remove(0).partitions.remove(0);
    ErrorCode::from_code(answer.error_code).unwrap()
}

/// The answer to the current leader of a partition that proposes this ISR.
fn propose(testbed: &mut Testbed, topic: &str, isr: &[BrokerId]) -> ErrorCode {
    let image = testbed.controller.image();
    let topic = image.topics.by_name(topic).unwrap();
    let partition = topic.partition(0).unwrap();
    let state = |id: &BrokerId| BrokerState { broker_id: *id, broker_epoch: -1 };
    let data = PartitionData {
        partition_index: 0,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        new_isr_with_epochs: isr.iter().map(state).collect(),
        ..Default::default()
    };
    let leader = partition.leader.unwrap();
    let request = AlterPartitionRequest {
        broker_id: leader,
        broker_epoch: image.brokers.get(leader).unwrap().epoch,
        topics: vec![TopicData { topic_id: topic.id, partitions: vec![data] }],
    };
    let outcome = testbed.controller.on_alter_partition(&request);
    let answer = testbed.apply(outcome).topics.remove(0).partitions.remove(0);
    ErrorCode::from_code(answer.error_code).unwrap()
}

/// All partitions of the topic have three replicas, `id` last, and in sync are the two others.
#[track_caller]
fn assert_outside_of_isr(testbed: &Testbed, topic: &str, first: i32, id: BrokerId) {
    let topic = testbed.controller.image().topics.by_name(topic).unwrap();
    for (index, partition) in topic.partitions().filter(|(index, _)| *index >= first) {
        assert_eq!(partition.replicas.len(), 3, "partition {index}");
        assert_eq!(partition.replicas[2], id, "partition {index}");
        assert_eq!(partition.isr, partition.replicas[..2], "partition {index}");
        assert_eq!(partition.leader, Some(partition.replicas[0]), "partition {index}");
        assert_eq!(partition.directory(id), Some(directory(id)), "partition {index}");
    }
}

#[test]
fn a_broker_that_was_stopped_cleanly_gets_replicas_outside_of_the_isr() {
    let mut testbed = three_brokers();
    stops_cleanly(&mut testbed, 1);
    assert_eq!(create(&mut testbed, 3), (ErrorCode::None, None));
    assert_outside_of_isr(&testbed, "new", 0, 1);
    assert_eq!(grow(&mut testbed, 4, None), ErrorCode::None);
    assert_outside_of_isr(&testbed, "led", 1, 1);
}

#[test]
fn a_broker_that_was_lost_gets_replicas_outside_of_the_isr() {
    let mut testbed = three_brokers();
    testbed.fence(2);
    assert_eq!(create(&mut testbed, 3), (ErrorCode::None, None));
    assert_outside_of_isr(&testbed, "new", 0, 2);
    assert_eq!(grow(&mut testbed, 4, None), ErrorCode::None);
    assert_outside_of_isr(&testbed, "led", 1, 2);
}

#[test]
fn a_broker_that_is_about_to_stop_gets_replicas_outside_of_the_isr() {
    let mut testbed = three_brokers();
    begins_to_stop(&mut testbed, 1);
    assert_eq!(create(&mut testbed, 3), (ErrorCode::None, None));
    assert_outside_of_isr(&testbed, "new", 0, 1);
    assert_eq!(grow(&mut testbed, 4, None), ErrorCode::None);
    assert_outside_of_isr(&testbed, "led", 1, 1);
    for other in [2, 3] {
        testbed.heartbeat(other, |_| {});
    }
    assert!(wants_to_stop(&mut testbed, 1), "new replicas do not hold it back");
}

#[test]
fn a_broker_that_is_down_or_about_to_be_is_used_last() {
    for stop in [begins_to_stop, stops_cleanly] {
        let mut testbed = three_brokers();
        stop(&mut testbed, 1);
        assert_eq!(create(&mut testbed, 2), (ErrorCode::None, None));
        let topic = testbed.controller.image().topics.by_name("new").unwrap();
        for (_, partition) in topic.partitions() {
            assert!(!partition.replicas.contains(&1), "{partition:?}");
        }
    }
}

#[test]
fn a_broker_that_is_back_joins_the_isr_of_what_was_created_meanwhile() {
    let mut testbed = three_brokers();
    stops_cleanly(&mut testbed, 1);
    create(&mut testbed, 3);
    let isr = testbed.partition("new", 0).isr.clone();
    let whole = [&isr[..], &[1]].concat();
    assert_eq!(propose(&mut testbed, "new", &whole), ErrorCode::IneligibleReplica, "it is down");
    let mut back = registration(1);
    back.incarnation_id = crate::controller::testing::uuid(200);
    back.previous_broker_epoch = testbed.controller.image().brokers.get(1).unwrap().epoch;
    testbed.now_ms += 60_000;
    testbed.register(back);
    assert_eq!(propose(&mut testbed, "new", &whole), ErrorCode::IneligibleReplica, "it is fenced");
    testbed.heartbeat(1, |_| {});
    assert_eq!(propose(&mut testbed, "new", &whole), ErrorCode::None);
    assert_eq!(testbed.partition("new", 0).isr.len(), 3);
}

#[test]
fn a_broker_that_is_about_to_stop_is_not_eligible_for_an_isr() {
    let mut testbed = three_brokers();
    begins_to_stop(&mut testbed, 1);
    assert_eq!(propose(&mut testbed, "led", &[2, 3, 1]), ErrorCode::IneligibleReplica);
    assert_eq!(propose(&mut testbed, "led", &[2]), ErrorCode::None);
}

#[test]
fn nobody_is_left_to_lead_once_the_last_broker_is_about_to_stop() {
    let mut testbed = Testbed::with_brokers([1]);
    testbed.create("led", &[&[1]], &[]);
    begins_to_stop(&mut testbed, 1);
    let text = "Unable to replicate the partition 1 time(s): All brokers are currently fenced, or have all their log directories cordoned.";
    let refused = (ErrorCode::InvalidReplicationFactor, Some(text.to_owned()));
    assert_eq!(create(&mut testbed, 1), refused);
    assert_eq!(grow(&mut testbed, 2, None), ErrorCode::InvalidReplicationFactor);
}

#[test]
fn replicas_chosen_by_hand_need_one_that_could_lead() {
    for stop in [begins_to_stop, stops_cleanly] {
        let mut testbed = three_brokers();
        stop(&mut testbed, 1);
        assert_eq!(grow(&mut testbed, 2, Some(&[1, 3, 2])), ErrorCode::None);
        let partition = testbed.partition("led", 1);
        assert_eq!((&*partition.replicas, &*partition.isr), (&[1, 3, 2][..], &[3, 2][..]));
        assert_eq!(partition.leader, Some(3));
        testbed.fence(2);
        testbed.fence(3);
        let nobody = grow(&mut testbed, 3, Some(&[1, 2, 3]));
        assert_eq!(nobody, ErrorCode::InvalidReplicaAssignment);
    }
}

#[test]
fn partitions_are_moved_onto_brokers_that_are_down() {
    for stop in [begins_to_stop, stops_cleanly] {
        let mut testbed = three_brokers();
        stop(&mut testbed, 1);
        assert_eq!(reassign(&mut testbed, &[2, 3]), ErrorCode::None);
        assert_eq!(testbed.partition("led", 0).replicas, [2, 3], "nothing had to be fetched");
        assert_eq!(reassign(&mut testbed, &[2, 3, 1]), ErrorCode::None);
        let moving = testbed.partition("led", 0);
        assert_eq!((&*moving.replicas, &*moving.adding_replicas), (&[2, 3, 1][..], &[1][..]));
        assert_eq!(moving.isr, [2, 3], "the move ends when the broker is back and has caught up");
    }
}

fn cordon(testbed: &mut Testbed, id: BrokerId, directories: &[klamm_protocol::Uuid]) {
    let directories = directories.to_vec();
    testbed.heartbeat(id, |heartbeat| heartbeat.cordoned_log_dirs = Some(directories));
}

#[test]
fn a_broker_whose_directories_are_all_cordoned_gets_replicas_only_by_hand() {
    let mut testbed = three_brokers();
    cordon(&mut testbed, 3, &[directory(3)]);
    let text = "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 2 broker(s) are registered or some brokers have all their log directories cordoned.";
    let refused = (ErrorCode::InvalidReplicationFactor, Some(text.to_owned()));
    assert_eq!(create(&mut testbed, 3), refused);
    assert_eq!(grow(&mut testbed, 2, None), ErrorCode::InvalidReplicationFactor);
    assert_eq!(grow(&mut testbed, 2, Some(&[3, 1, 2])), ErrorCode::None);
    let by_hand = testbed.partition("led", 1);
    assert_eq!((by_hand.leader, by_hand.directory(3)), (Some(3), Some(directory(3))));
    assert_eq!(reassign(&mut testbed, &[3, 2]), ErrorCode::None);
    assert_eq!(create(&mut testbed, 2), (ErrorCode::None, None));
    assert!(!testbed.partition("new", 0).replicas.contains(&3));
    cordon(&mut testbed, 3, &[]);
    assert_eq!(grow(&mut testbed, 3, None), ErrorCode::None, "it takes replicas again");
}

#[test]
fn cordoned_directories_count_from_their_metadata_version_on() {
    let mut testbed = three_brokers();
    testbed.finalize("metadata.version", 29);
    cordon(&mut testbed, 3, &[directory(3)]);
    assert_eq!(testbed.controller.image().brokers.get(3).unwrap().cordoned_directories, None);
    assert_eq!(create(&mut testbed, 3), (ErrorCode::None, None));
    testbed.finalize("metadata.version", 30);
    cordon(&mut testbed, 3, &[directory(3)]);
    assert_eq!(grow(&mut testbed, 2, None), ErrorCode::InvalidReplicationFactor);
}

#[test]
fn no_broker_without_cordoned_directories_means_no_topic() {
    let mut testbed = three_brokers();
    for id in 1..=3 {
        cordon(&mut testbed, id, &[directory(id)]);
    }
    let (code, text) = create(&mut testbed, 1);
    assert_eq!(code, ErrorCode::InvalidReplicationFactor);
    let text = text.unwrap();
    assert!(text.ends_with("have all their log directories cordoned."), "{text}");
}

#[test]
fn a_broker_with_one_directory_left_uncordoned_is_as_good_as_any() {
    let mut testbed = Testbed::with_brokers([]);
    let (first, second) = (directory(1), crate::controller::testing::uuid(77));
    let mut request = registration(1);
    request.log_dirs = vec![first, second];
    testbed.register(request);
    testbed.heartbeat(1, |_| {});
    cordon(&mut testbed, 1, &[first]);
    assert_eq!(create(&mut testbed, 1), (ErrorCode::None, None));
    let unassigned = crate::directory_id::UNASSIGNED;
    assert_eq!(testbed.partition("new", 0).directory(1), Some(unassigned), "the broker chooses");
    // No replica is placed in a failed directory.
    testbed.heartbeat(1, |heartbeat| {
        heartbeat.offline_log_dirs = vec![second];
        heartbeat.cordoned_log_dirs = Some(vec![first]);
    });
    assert_eq!(grow_new(&mut testbed), ErrorCode::InvalidReplicationFactor);
}

fn grow_new(testbed: &mut Testbed) -> ErrorCode {
    let topic = CreatePartitionsTopic { name: "new".into(), count: 4, assignments: None };
    let request = CreatePartitionsRequest { topics: vec![topic], ..Default::default() };
    let random = &mut testbed.random;
    let outcome = testbed.controller.on_create_partitions(&request, &|_| true, random);
    ErrorCode::from_code(testbed.apply(outcome).results[0].error_code).unwrap()
}
