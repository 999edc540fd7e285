//! The recorded directories of replicas.

use super::*;
use crate::controller::testing::{Testbed, directory, registration, uuid};

/// Broker 1 with two directories leads "t", which 2 also has.
fn two_directories() -> (Testbed, Uuid) {
    let mut testbed = Testbed::with_brokers([2]);
    let mut request = registration(1);
    request.log_dirs = vec![directory(1), uuid(50)];
    testbed.register(request);
    testbed.heartbeat(1, |_| {});
    let topic = testbed.create("t", &[&[1, 2]], &[]);
    (testbed, topic)
}

fn code(response: &AssignReplicasToDirsResponse) -> Option<ErrorCode> {
    let partition = &response.directories[0].topics[0].partitions[0];
    ErrorCode::from_code(partition.error_code)
}

#[test]
fn a_broker_with_several_directories_says_where_its_replica_is() {
    let (mut testbed, topic) = two_directories();
    assert_eq!(testbed.partition("t", 0).directories[0], crate::directory_id::UNASSIGNED);
    let response = testbed.assign_directory(1, topic, 0, uuid(50));
    assert_eq!(code(&response), Some(ErrorCode::None));
    assert_eq!(testbed.partition("t", 0).directories, [uuid(50), directory(2)]);
    let before = testbed.log.len();
    testbed.assign_directory(1, topic, 0, uuid(50));
    assert_eq!(testbed.log.len(), before, "known already");
}

#[test]
fn a_replica_in_a_failed_directory_stops_to_lead() {
    let (mut testbed, topic) = two_directories();
    testbed.assign_directory(1, topic, 0, uuid(66));
    let partition = testbed.partition("t", 0);
    assert_eq!((partition.leader, &*partition.isr), (Some(2), &[2][..]));
}

/// The heartbeat that unfences the broker also reports the failed directory.
#[test]
fn a_broker_that_is_unfenced_leads_nothing_in_a_directory_that_has_failed() {
    let (mut testbed, topic) = two_directories();
    testbed.assign_directory(1, topic, 0, uuid(50));
    testbed.fence(2);
    testbed.fence(1);
    assert_eq!(testbed.partition("t", 0).leader, None);
    testbed.heartbeat(1, |heartbeat| heartbeat.offline_log_dirs = vec![uuid(50)]);
    assert!(testbed.controller.image().brokers.is_active(1));
    assert_eq!(testbed.partition("t", 0).leader, None);
}

#[test]
fn a_replica_that_cannot_be_opened_leaves_and_comes_back_with_its_directory() {
    let (mut testbed, topic) = two_directories();
    testbed.assign_directory(1, topic, 0, crate::directory_id::LOST);
    let partition = testbed.partition("t", 0);
    assert_eq!((partition.leader, &*partition.isr), (Some(2), &[2][..]));
    assert!(!testbed.controller.image().brokers.has_online_dir(1, partition.directories[0]));
    testbed.assign_directory(1, topic, 0, uuid(50));
    assert_eq!(testbed.partition("t", 0).directories, [uuid(50), directory(2)]);
}

/// After the first report, the election uses the previous directory, as in Apache Kafka.
#[test]
fn a_partition_that_all_replicas_had_left_is_led_once_its_directory_is_told_twice() {
    let (mut testbed, topic) = two_directories();
    testbed.assign_directory(1, topic, 0, crate::directory_id::LOST);
    testbed.assign_directory(2, topic, 0, crate::directory_id::LOST);
    let partition = testbed.partition("t", 0);
    assert_eq!((partition.leader, &*partition.elr), (None, &[2][..]));
    testbed.assign_directory(2, topic, 0, directory(2));
    assert_eq!(testbed.partition("t", 0).leader, None);
    testbed.assign_directory(2, topic, 0, directory(2));
    assert_eq!(testbed.partition("t", 0).leader, Some(2));
}

#[test]
fn refusals_have_kafkas_codes() {
    let (mut testbed, topic) = two_directories();
    testbed.create("other", &[&[2]], &[]);
    let other = testbed.controller.image().topics.by_name("other").unwrap().id;
    let mut ask = |topic, index| code(&testbed.assign_directory(1, topic, index, uuid(50)));
    assert_eq!(ask(uuid(88), 0), Some(ErrorCode::UnknownTopicId));
    assert_eq!(ask(topic, 7), Some(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(ask(other, 0), Some(ErrorCode::NotLeaderOrFollower));
    let stale = AssignReplicasToDirsRequest { broker_id: 1, ..Default::default() };
    let outcome = testbed.controller.on_assign_replicas_to_dirs(&stale);
    assert_eq!(outcome.response.error_code, ErrorCode::StaleBrokerEpoch.code());
    testbed.finalize("metadata.version", 16);
    let outcome = testbed.controller.on_assign_replicas_to_dirs(&stale);
    assert_eq!(outcome.response.error_code, ErrorCode::UnsupportedVersion.code());
}
