//! When partitions are added to a topic.

use klamm_protocol::messages::create_partitions_request::CreatePartitionsAssignment;

use super::*;
use crate::controller::testing::Testbed;

fn more(name: &str, count: i32, assignments: Option<&[&[i32]]>) -> CreatePartitionsTopic {
    let assignments = assignments.map(|lists| {
        lists.iter().map(|ids| CreatePartitionsAssignment { broker_ids: ids.to_vec() }).collect()
    });
    CreatePartitionsTopic { name: name.into(), count, assignments }
}

fn grow(
    testbed: &mut Testbed,
    topics: Vec<CreatePartitionsTopic>,
) -> Vec<CreatePartitionsTopicResult> {
    let request = CreatePartitionsRequest { topics, ..Default::default() };
    let outcome = testbed.controller.on_create_partitions(
        &request,
        &|name| name != "secret",
        &mut testbed.random,
    );
    testbed.apply(outcome).results
}

#[test]
fn new_partitions_follow_the_old_ones() {
    let mut testbed = Testbed::with_brokers([1, 2]);
    testbed.create("t", &[&[1, 2]], &[]);
    assert_eq!(grow(&mut testbed, vec![more("t", 3, None)])[0].error_code, 0);
    let topic = testbed.controller.image().topics.by_name("t").unwrap();
    assert_eq!(topic.partitions().map(|(index, _)| index).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(topic.partition(2).unwrap().replicas.len(), 2);
    grow(&mut testbed, vec![more("t", 4, Some(&[&[2, 1]]))]);
    assert_eq!(testbed.partition("t", 3).replicas, [2, 1]);
}

#[test]
fn every_reason_to_refuse_has_its_code() {
    let mut testbed = Testbed::with_brokers([1, 2, 3]);
    testbed.create("t", &[&[1], &[1]], &[]);
    testbed.create("secret", &[&[1]], &[]);
    testbed.fence(3);
    for (topic, code, text) in [
        (more("no", 2, None), ErrorCode::UnknownTopicOrPartition, None),
        (more("secret", 2, None), ErrorCode::TopicAuthorizationFailed, None),
        (
            more("t", 2, None),
            ErrorCode::InvalidPartitions,
            Some("Topic already has 2 partition(s)."),
        ),
        (
            more("t", 1, None),
            ErrorCode::InvalidPartitions,
            Some("The topic t currently has 2 partition(s); 1 would not be an increase."),
        ),
        (
            more("t", -1, None),
            ErrorCode::InvalidPartitions,
            Some("The topic t currently has 2 partition(s); -1 would not be an increase."),
        ),
        (
            more("t", 4, Some(&[&[1]])),
            ErrorCode::InvalidReplicaAssignment,
            Some(
                "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.",
            ),
        ),
        (
            more("t", 3, Some(&[&[3]])),
            ErrorCode::InvalidReplicaAssignment,
            Some(
                "All brokers specified in the manual partition assignment for partition 2 are fenced or in controlled shutdown.",
            ),
        ),
        (
            more("t", 3, Some(&[&[1, 2]])),
            ErrorCode::InvalidReplicaAssignment,
            Some(
                "The manual partition assignment includes a partition with 2 replica(s), but this is not consistent with previous partitions, which have 1 replica(s).",
            ),
        ),
        (
            more("t", i32::MAX, None),
            ErrorCode::PolicyViolation,
            Some("Excessively large number of partitions per request."),
        ),
    ] {
        let results = grow(&mut testbed, vec![topic]);
        assert_eq!(ErrorCode::from_code(results[0].error_code), Some(code));
        assert_eq!(results[0].error_message.as_deref(), text);
    }
    testbed.fence(1);
    testbed.fence(2);
    let results = grow(&mut testbed, vec![more("t", 3, None)]);
    assert_eq!(results[0].error_code, ErrorCode::InvalidReplicationFactor.code());
}

#[test]
fn a_topic_twice_in_a_request_stays_and_the_others_grow() {
    let mut testbed = Testbed::with_brokers([1]);
    testbed.create("t", &[&[1]], &[]);
    testbed.create("u", &[&[1]], &[]);
    let results =
        grow(&mut testbed, vec![more("t", 2, None), more("u", 2, None), more("t", 3, None)]);
    assert_eq!(results.len(), 2);
    assert_eq!(results[0].error_message.as_deref(), Some("Duplicate topic name."));
    assert_eq!(results[1].error_code, 0);
}

#[test]
fn validate_only_leaves_nothing_behind() {
    let mut testbed = Testbed::with_brokers([1]);
    testbed.create("t", &[&[1]], &[]);
    let request = CreatePartitionsRequest {
        topics: vec![more("t", 2, None)],
        validate_only: true,
        ..Default::default()
    };
    let outcome = testbed.controller.on_create_partitions(&request, &|_| true, &mut testbed.random);
    assert_eq!(outcome.records, []);
    assert_eq!(outcome.response.results[0].error_code, 0);
}
