//! Reassignments of partitions.

use klamm_protocol::messages::alter_partition_reassignments_request::ReassignableTopic;
use klamm_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;

use super::*;
use crate::controller::testing::Testbed;

fn alter(
    testbed: &mut Testbed,
    topic: &str,
    partition_index: i32,
    replicas: Option<&[i32]>,
    allow: bool,
) -> (ErrorCode, Option<String>) {
    let replicas = replicas.map(<[i32]>::to_vec);
    let partitions = vec![ReassignablePartition { partition_index, replicas }];
    let request = AlterPartitionReassignmentsRequest {
        allow_replication_factor_change: allow,
        topics: vec![ReassignableTopic { name: topic.into(), partitions }],
        ..Default::default()
    };
    let outcome = testbed.controller.on_alter_partition_reassignments(&request);
    assert!(outcome.atomic);
    let response = testbed.apply(outcome);
    assert_eq!(response.error_message, None);
    let result = response.responses[0].partitions[0].clone();
    let code = ErrorCode::from_code(result.error_code).unwrap();
    (code, result.error_message.map(|text| text.to_string()))
}

fn three_brokers() -> Testbed {
    let mut testbed = Testbed::with_brokers([1, 2, 3]);
    testbed.create("t", &[&[1, 2]], &[]);
    testbed
}

#[test]
fn a_move_is_listed_until_the_new_replica_is_in_sync() {
    let mut testbed = three_brokers();
    assert_eq!(alter(&mut testbed, "t", 0, Some(&[3, 2]), false), (ErrorCode::None, None));
    let moving = testbed.partition("t", 0);
    assert_eq!((&*moving.replicas, moving.leader), (&[3, 2, 1][..], Some(1)));
    let all = ListPartitionReassignmentsRequest { topics: None, ..Default::default() };
    let listed = testbed.controller.image().list_partition_reassignments(&all);
    let ongoing = &listed.topics[0].partitions[0];
    assert_eq!((&*ongoing.adding_replicas, &*ongoing.removing_replicas), (&[3][..], &[1][..]));
    let asked = |name: &str, partition_indexes| {
        let topics =
            vec![ListPartitionReassignmentsTopics { name: name.into(), partition_indexes }];
        ListPartitionReassignmentsRequest { topics: Some(topics), ..Default::default() }
    };
    let count =
        |request| testbed.controller.image().list_partition_reassignments(&request).topics.len();
    assert_eq!(count(asked("t", vec![0, 7])), 1);
    assert_eq!(count(asked("t", vec![7])), 0);
    assert_eq!(count(asked("no", vec![0])), 0);
}

#[test]
fn a_cancelled_move_goes_back_to_the_old_replicas() {
    let mut testbed = three_brokers();
    alter(&mut testbed, "t", 0, Some(&[3, 2]), true);
    assert_eq!(alter(&mut testbed, "t", 0, None, true), (ErrorCode::None, None));
    let back = testbed.partition("t", 0);
    assert_eq!((&*back.replicas, back.leader), (&[2, 1][..], Some(1)));
    assert!(!back.is_reassigning());
    assert_eq!(
        alter(&mut testbed, "t", 0, None, true),
        (ErrorCode::NoReassignmentInProgress, None)
    );
}

#[test]
fn another_move_takes_the_place_of_an_unfinished_one() {
    // Found by the cluster simulation: broker 3 would be added and removed at the same time, for ever.
    let mut testbed = three_brokers();
    alter(&mut testbed, "t", 0, Some(&[3, 2]), false);
    assert_eq!(alter(&mut testbed, "t", 0, Some(&[1, 2]), false), (ErrorCode::None, None));
    let moved = testbed.partition("t", 0);
    assert_eq!((&*moved.replicas, moved.is_reassigning()), (&[1, 2][..], false));
    // And broker 1, which the request has again, would be removed.
    alter(&mut testbed, "t", 0, Some(&[3, 2]), false);
    alter(&mut testbed, "t", 0, Some(&[1, 2, 3]), true);
    let growing = testbed.partition("t", 0);
    assert_eq!((&*growing.replicas, &*growing.removing_replicas), (&[1, 2, 3][..], &[][..]));
}

#[test]
fn going_back_after_a_second_move_is_going_back_to_before_the_first() {
    let mut testbed = three_brokers();
    testbed.add_broker(4);
    alter(&mut testbed, "t", 0, Some(&[3, 2]), false);
    alter(&mut testbed, "t", 0, Some(&[4, 2]), false);
    let moving = testbed.partition("t", 0);
    assert_eq!((&*moving.replicas, &*moving.adding_replicas), (&[4, 2, 1, 3][..], &[3, 4][..]));
    assert_eq!(alter(&mut testbed, "t", 0, None, true), (ErrorCode::None, None));
    assert_eq!(testbed.partition("t", 0).replicas, [2, 1]);
}

#[test]
fn another_order_is_applied_at_once() {
    let mut testbed = three_brokers();
    alter(&mut testbed, "t", 0, Some(&[2, 1]), true);
    let turned = testbed.partition("t", 0);
    assert_eq!((&*turned.replicas, turned.leader, turned.leader_epoch), (&[2, 1][..], Some(1), 0));
    assert!(!turned.is_reassigning());
    let before = testbed.log.len();
    alter(&mut testbed, "t", 0, Some(&[2, 1]), true);
    assert_eq!(testbed.log.len(), before, "nothing to do");
}

#[test]
fn refusals_have_kafkas_codes_and_texts() {
    let mut testbed = three_brokers();
    for (topic, index, replicas, code, text) in [
        ("no", 0, None, ErrorCode::UnknownTopicOrPartition, "Unable to find a topic named no."),
        ("t", 5, None, ErrorCode::UnknownTopicOrPartition, "Unable to find partition t:5."),
        (
            "t",
            0,
            Some(&[][..]),
            ErrorCode::InvalidReplicaAssignment,
            "The manual partition assignment includes an empty replica list.",
        ),
        (
            "t",
            0,
            Some(&[99][..]),
            ErrorCode::InvalidReplicaAssignment,
            "The manual partition assignment includes broker 99, but no such broker is registered.",
        ),
        (
            "t",
            0,
            Some(&[1, 2, 3][..]),
            ErrorCode::InvalidReplicationFactor,
            "The replication factor is changed from 2 to 3",
        ),
    ] {
        let answer = alter(&mut testbed, topic, index, replicas, false);
        assert_eq!(answer, (code, Some(text.to_owned())));
    }
    assert_eq!(alter(&mut testbed, "t", 0, Some(&[1, 2, 3]), true).0, ErrorCode::None);
}

#[test]
fn going_back_without_an_old_replica_in_sync_needs_permission() {
    let mut testbed = three_brokers();
    alter(&mut testbed, "t", 0, Some(&[3]), true);
    // Only the new replica is in sync; the brokers of the old ones are fenced.
    let topic = testbed.controller.image().topics.by_name("t").unwrap();
    let partition = topic.partition(0).unwrap();
    let record = klamm_protocol::messages::partition_change_record::PartitionChangeRecord {
        topic_id: topic.id,
        partition_id: 0,
        isr: Some(vec![3]),
        leader: 3,
        ..Default::default()
    };
    assert!(partition.is_reassigning());
    let record = MetadataRecord::PartitionChange(record);
    testbed.apply(Outcome::spread(vec![record], ()));
    let (code, text) = alter(&mut testbed, "t", 0, None, true);
    assert_eq!(code, ErrorCode::InvalidReplicaAssignment);
    assert!(text.unwrap().contains("would require an unclean leader election"));
    testbed.set_config("t", "unclean.leader.election.enable", "true");
    assert_eq!(alter(&mut testbed, "t", 0, None, true).0, ErrorCode::None);
    assert_eq!(testbed.partition("t", 0).replicas, [1, 2]);
}
