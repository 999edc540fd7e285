//! Elections on demand.

use klamm_protocol::messages::elect_leaders_request::TopicPartitions;

use super::*;
use crate::controller::testing::Testbed;

fn elect(
    testbed: &mut Testbed,
    election_type: i8,
    topics: Option<&[(&str, &[i32])]>,
) -> ElectLeadersResponse {
    let topic_partitions = topics.map(|topics| {
        let topics = topics.iter().map(|(topic, partitions)| TopicPartitions {
            topic: (*topic).into(),
            partitions: partitions.to_vec(),
        });
        topics.collect()
    });
    let request = ElectLeadersRequest { election_type, topic_partitions, ..Default::default() };
    let outcome = testbed.controller.on_elect_leaders(&request);
    testbed.apply(outcome)
}

fn only(response: &ElectLeadersResponse) -> (ErrorCode, Option<&str>) {
    let result = &response.replica_election_results[0].partition_result[0];
    (ErrorCode::from_code(result.error_code).unwrap(), result.error_message.as_deref())
}

#[test]
fn refusals_have_kafkas_codes() {
    let mut testbed = Testbed::with_brokers([1, 2]);
    testbed.create("t", &[&[1, 2]], &[]);
    let ask = |testbed: &mut Testbed, type_, topic, partition| {
        only(&elect(testbed, type_, Some(&[(topic, &[partition])]))).0
    };
    assert_eq!(ask(&mut testbed, 0, "t", 0), ErrorCode::ElectionNotNeeded);
    assert_eq!(ask(&mut testbed, 1, "t", 0), ErrorCode::ElectionNotNeeded);
    let response = elect(&mut testbed, 0, Some(&[("t", &[4])]));
    let text = Some("No such partition as t-4");
    assert_eq!(only(&response), (ErrorCode::UnknownTopicOrPartition, text));
    let response = elect(&mut testbed, 0, Some(&[("u", &[0])]));
    let text = Some("No such topic as u");
    assert_eq!(only(&response), (ErrorCode::UnknownTopicOrPartition, text));
    testbed.fence(1);
    assert_eq!(ask(&mut testbed, 0, "t", 0), ErrorCode::PreferredLeaderNotAvailable);
    testbed.fence(2);
    assert_eq!(ask(&mut testbed, 1, "t", 0), ErrorCode::EligibleLeadersNotAvailable);
}

#[test]
fn an_unknown_type_is_refused_at_the_top_and_in_each_partition() {
    let mut testbed = Testbed::with_brokers([1]);
    let response = elect(&mut testbed, 9, Some(&[("t", &[0])]));
    assert_eq!(response.error_code, ErrorCode::InvalidRequest.code());
    assert_eq!(only(&response), (ErrorCode::InvalidRequest, Some("Unknown election type 9")));
}

#[test]
fn without_names_all_are_tried_and_those_that_need_nothing_left_out() {
    let mut testbed = Testbed::with_brokers([1, 2]);
    testbed.create("a", &[&[1, 2]], &[]);
    testbed.create("b", &[&[2, 1]], &[]);
    testbed.fence(1);
    let response = elect(&mut testbed, 0, None);
    let results: Vec<_> = response
        .replica_election_results
        .iter()
        .map(|topic| (&*topic.topic, topic.partition_result.len()))
        .collect();
    assert_eq!(results, [("a", 1), ("b", 0)]);
    assert_eq!(elect(&mut testbed, 0, Some(&[])).replica_election_results, []);
}

#[test]
fn an_unclean_election_brings_a_dead_partition_back() {
    let mut testbed = Testbed::new(&[]);
    [1, 2].into_iter().for_each(|id| testbed.add_broker(id));
    testbed.create("t", &[&[1, 2]], &[]);
    testbed.fence(2);
    testbed.fence(1);
    testbed.heartbeat(2, |_| {});
    let response = elect(&mut testbed, 1, Some(&[("t", &[0])]));
    assert_eq!(only(&response), (ErrorCode::None, None));
    assert_eq!(
        (testbed.partition("t", 0).leader, &*testbed.partition("t", 0).isr),
        (Some(2), &[2][..])
    );
}
