//! Which changes of the ISR leaders may make.

use klamm_protocol::messages::alter_partition_request::TopicData as AskedTopic;

use super::*;
use crate::controller::testing::{Testbed, directory, uuid};
use crate::directory_id;

fn proposal(isr: &[i32]) -> PartitionData {
    let state = |id: &i32| BrokerState { broker_id: *id, broker_epoch: -1 };
    PartitionData {
        partition_index: 0,
        leader_epoch: 0,
        partition_epoch: 0,
        new_isr_with_epochs: isr.iter().map(state).collect(),
        ..Default::default()
    }
}

fn propose(
    testbed: &mut Testbed,
    broker_id: i32,
    data: PartitionData,
) -> alter_partition_response::PartitionData {
    let topic_id = testbed.controller.image().topics.by_name("t").unwrap().id;
    let request = AlterPartitionRequest {
        broker_id,
        broker_epoch: testbed.controller.image().brokers.get(broker_id).unwrap().epoch,
        topics: vec![AskedTopic { topic_id, partitions: vec![data] }],
    };
    let outcome = testbed.controller.on_alter_partition(&request);
    testbed.apply(outcome).topics[0].partitions[0].clone()
}

fn three_brokers() -> Testbed {
    let mut testbed = Testbed::with_brokers([1, 2, 3]);
    testbed.create("t", &[&[1, 2, 3]], &[("min.insync.replicas", "2")]);
    testbed
}

#[test]
fn a_leader_shrinks_and_grows_its_isr() {
    let mut testbed = three_brokers();
    let shrunk = propose(&mut testbed, 1, proposal(&[1]));
    assert_eq!((shrunk.error_code, shrunk.partition_epoch, shrunk.leader_epoch), (0, 1, 0));
    assert_eq!((&*shrunk.isr, shrunk.leader_id), (&[1][..], 1));
    assert_eq!(testbed.partition("t", 0).elr, [2, 3]);
    let grown = propose(&mut testbed, 1, PartitionData { partition_epoch: 1, ..proposal(&[1, 3]) });
    assert_eq!((&*grown.isr, grown.partition_epoch), (&[1, 3][..], 2));
    assert_eq!(testbed.partition("t", 0).elr, []);
}

#[test]
fn an_isr_that_stays_is_answered_without_a_record() {
    let mut testbed = three_brokers();
    let before = testbed.log.len();
    let same = propose(&mut testbed, 1, proposal(&[1, 2, 3]));
    assert_eq!((same.error_code, same.partition_epoch), (0, 0));
    assert_eq!(testbed.log.len(), before);
}

#[test]
fn refusals_have_kafkas_codes() {
    let mut testbed = three_brokers();
    testbed.fence(3);
    let epoch = testbed.partition("t", 0).partition_epoch;
    let good = |isr: &[i32]| PartitionData { partition_epoch: epoch, ..proposal(isr) };
    for (broker, data, code) in [
        (1, PartitionData { partition_index: 9, ..good(&[1]) }, ErrorCode::UnknownTopicOrPartition),
        (1, PartitionData { leader_epoch: 1, ..good(&[1]) }, ErrorCode::NotController),
        (1, PartitionData { partition_epoch: epoch + 1, ..good(&[1]) }, ErrorCode::NotController),
        (1, PartitionData { leader_epoch: -1, ..good(&[1]) }, ErrorCode::FencedLeaderEpoch),
        (2, good(&[1, 2]), ErrorCode::InvalidRequest),
        (
            1,
            PartitionData { partition_epoch: epoch - 1, ..good(&[1]) },
            ErrorCode::InvalidUpdateVersion,
        ),
        (1, good(&[]), ErrorCode::InvalidRequest),
        (1, good(&[1, 9]), ErrorCode::InvalidRequest),
        (1, good(&[1, 1]), ErrorCode::InvalidRequest),
        (1, good(&[2]), ErrorCode::InvalidRequest),
        (1, PartitionData { leader_recovery_state: 7, ..good(&[1]) }, ErrorCode::InvalidRequest),
        (1, PartitionData { leader_recovery_state: 1, ..good(&[1]) }, ErrorCode::InvalidRequest),
        (1, good(&[1, 2, 3]), ErrorCode::IneligibleReplica),
    ] {
        let answer = propose(&mut testbed, broker, data.clone());
        assert_eq!(ErrorCode::from_code(answer.error_code), Some(code), "{data:?}");
    }
}

#[test]
fn a_replica_of_another_life_is_not_eligible() {
    let mut testbed = three_brokers();
    let mut data = proposal(&[1, 2]);
    data.new_isr_with_epochs[1].broker_epoch = 1;
    let answer = propose(&mut testbed, 1, data);
    assert_eq!(answer.error_code, ErrorCode::IneligibleReplica.code());
}

#[test]
fn a_replica_that_has_lost_its_directory_does_not_join_the_isr_again() {
    let mut testbed = three_brokers();
    assert_eq!(propose(&mut testbed, 1, proposal(&[1, 2])).error_code, ErrorCode::None.code());
    let topic_id = testbed.controller.image().topics.by_name("t").unwrap().id;
    testbed.assign_directory(2, topic_id, 0, directory_id::LOST);
    assert_eq!(testbed.partition("t", 0).isr, [1]);
    let partition = testbed.partition("t", 0);
    let again = PartitionData {
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        ..proposal(&[1, 2])
    };
    let refused = ErrorCode::IneligibleReplica.code();
    assert_eq!(propose(&mut testbed, 1, again).error_code, refused);
    testbed.assign_directory(2, topic_id, 0, directory(2));
    let partition = testbed.partition("t", 0);
    let found = PartitionData {
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        ..proposal(&[1, 2])
    };
    assert_eq!(propose(&mut testbed, 1, found).error_code, ErrorCode::None.code());
}

#[test]
fn unknown_topics_and_stale_brokers_are_refused() {
    let mut testbed = three_brokers();
    let epoch = testbed.controller.image().brokers.get(1).unwrap().epoch;
    let mut request = AlterPartitionRequest {
        broker_id: 1,
        broker_epoch: epoch,
        topics: vec![AskedTopic { topic_id: uuid(88), partitions: vec![proposal(&[1])] }],
    };
    let outcome = testbed.controller.on_alter_partition(&request);
    let answer = testbed.apply(outcome);
    let unknown = ErrorCode::UnknownTopicId.code();
    assert_eq!(answer.topics[0].partitions[0].error_code, unknown);
    request.broker_epoch = epoch + 1;
    let outcome = testbed.controller.on_alter_partition(&request);
    assert_eq!(testbed.apply(outcome).error_code, ErrorCode::StaleBrokerEpoch.code());
}

#[test]
fn a_leader_that_ends_its_own_reassignment_is_told_of_the_new_leader() {
    let mut testbed = three_brokers();
    let topic = testbed.controller.image().topics.by_name("t").unwrap();
    let partition = topic.partition(0).unwrap();
    let record = testbed.controller.changed_by_request(topic, 0, partition, |change| {
        change.isr = vec![1, 2];
        change.replicas = vec![3, 2, 1];
        (change.adding, change.removing) = (vec![3], vec![1]);
    });
    testbed.apply(Outcome::spread(record.into_iter().collect(), ()));
    let data = PartitionData { partition_epoch: 1, ..proposal(&[1, 2, 3]) };
    let answer = propose(&mut testbed, 1, data);
    assert_eq!(answer.error_code, ErrorCode::NewLeaderElected.code());
    let moved = testbed.partition("t", 0);
    assert_eq!((&*moved.replicas, &*moved.isr, moved.leader), (&[3, 2][..], &[2, 3][..], Some(3)));
}
