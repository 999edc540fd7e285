//! Which brokers may register, and the effect of a new registration on partitions.

use klamm_protocol::messages::broker_registration_request::Feature;

use super::*;
use crate::controller::testing::{Testbed, directory, registration, uuid};

fn refused(
    testbed: &mut Testbed,
    change: impl FnOnce(&mut BrokerRegistrationRequest),
) -> RegistrationError {
    let mut request = registration(1);
    change(&mut request);
    let next_offset = testbed.next_offset();
    let now_ms = testbed.now_ms;
    let outcome = testbed.controller.on_broker_registration(&request, true, next_offset, now_ms);
    assert_eq!(outcome.records, []);
    outcome.response.unwrap_err()
}

#[test]
fn the_epoch_is_the_offset_of_the_registration() {
    let mut testbed = Testbed::with_brokers([]);
    let offset = testbed.next_offset();
    testbed.register(registration(1));
    let broker = testbed.controller.image().brokers.get(1).unwrap();
    assert_eq!(broker.epoch, offset);
    assert!(broker.fenced && broker.cordoned_directories.is_none());
    assert_eq!(testbed.controller.loader().registration_offset(1), Some(offset));
    assert_eq!(broker.listeners["PLAINTEXT"].port, 9092);
}

type Change<'a> = &'a dyn Fn(&mut BrokerRegistrationRequest);

#[test]
fn every_reason_to_refuse_has_its_code() {
    let mut testbed = Testbed::with_brokers([2]);
    let cases: [(Change<'_>, ErrorCode, &str); 9] = [
        (
            &|r| r.cluster_id = "other".into(),
            ErrorCode::InconsistentClusterId,
            "but got cluster ID other",
        ),
        (&|r| r.is_migrating_zk_broker = true, ErrorCode::BrokerIdNotRegistered, "ZK brokers"),
        (&|r| r.log_dirs.clear(), ErrorCode::InvalidRegistration, "No directories"),
        (
            &|r| r.log_dirs = vec![directory_id::UNASSIGNED],
            ErrorCode::InvalidRegistration,
            "Reserved directory ID",
        ),
        (
            &|r| r.log_dirs = vec![uuid(40), uuid(40)],
            ErrorCode::InvalidRegistration,
            "Duplicate directory ID",
        ),
        (
            &|r| r.log_dirs = vec![directory(2)],
            ErrorCode::InvalidRegistration,
            "Broker 2 is already registered with directory",
        ),
        (
            &|r| r.features.retain(|feature| feature.name != "metadata.version"),
            ErrorCode::InvalidRegistration,
            "do not contain 'metadata.version'",
        ),
        (
            &|r| r.features.retain(|f| f.name != "eligible.leader.replicas.version"),
            ErrorCode::UnsupportedVersion,
            "finalized version 1 of eligible.leader.replicas.version. The broker wants a version between 0 and 0, inclusive.",
        ),
        (
            &|r| r.listeners[0].security_protocol = 9,
            ErrorCode::UnknownServerError,
            "Unknown security protocol 9 in listener PLAINTEXT",
        ),
    ];
    for (change, code, text) in cases {
        let error = refused(&mut testbed, change);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn a_broker_that_cannot_read_the_clusters_metadata_is_refused() {
    let mut testbed = Testbed::with_brokers([]);
    let error = refused(&mut testbed, |request| {
        request.features = vec![Feature {
            name: "metadata.version".into(),
            min_supported_version: 7,
            max_supported_version: 25,
        }];
    });
    assert_eq!(
        error,
        RegistrationError::UnsupportedFeature {
            feature: "metadata.version".into(),
            finalized: 30,
            min: 7,
            max: 25
        }
    );
}

/// A controller that was elected at this time, with broker 1 unfenced.
fn elected(now_ms: i64) -> Testbed {
    let mut testbed = Testbed::with_brokers([1, 2]);
    testbed.controller.on_resigned();
    testbed.now_ms = now_ms;
    let outcome = testbed.controller.on_elected(now_ms);
    testbed.apply(outcome);
    testbed
}

#[test]
fn after_a_failover_who_holds_the_lock_of_a_directory_is_the_only_process_of_its_broker() {
    let mut testbed = elected(50_000);
    let mut request = registration(1);
    request.incarnation_id = uuid(99);
    request.log_dirs.push(uuid(98));
    let next_offset = testbed.next_offset();
    let outcome = testbed.controller.on_broker_registration(&request, true, next_offset, 50_000);
    assert_eq!(outcome.response.unwrap().broker_epoch, next_offset);
}

#[test]
fn after_a_failover_a_process_with_other_directories_waits_for_the_session() {
    let mut testbed = elected(50_000);
    let elsewhere = |request: &mut BrokerRegistrationRequest| {
        (request.incarnation_id, request.log_dirs) = (uuid(99), vec![uuid(98)]);
    };
    assert_eq!(refused(&mut testbed, elsewhere), RegistrationError::DuplicateBroker);
}

#[test]
fn a_process_that_has_been_heard_from_since_is_not_replaced_by_a_copy_of_its_directory() {
    let mut testbed = elected(50_000);
    let epoch = testbed.controller.image().brokers.get(1).unwrap().epoch;
    testbed.controller.heartbeats_mut().on_contact(1, epoch, 50_010);
    let copy = |request: &mut BrokerRegistrationRequest| request.incarnation_id = uuid(99);
    assert_eq!(refused(&mut testbed, copy), RegistrationError::DuplicateBroker);
}

#[test]
fn a_second_process_is_refused_until_the_session_of_the_first_is_over() {
    let mut testbed = Testbed::with_brokers([1]);
    let second = |request: &mut BrokerRegistrationRequest| request.incarnation_id = uuid(99);
    assert_eq!(refused(&mut testbed, second), RegistrationError::DuplicateBroker);
    testbed.now_ms += 9_000;
    let mut request = registration(1);
    second(&mut request);
    testbed.register(request);
    assert_eq!(testbed.controller.image().brokers.get(1).unwrap().incarnation_id, uuid(99));
}

#[test]
fn the_same_process_amends_its_registration_and_keeps_epoch_and_fencing() {
    let mut testbed = Testbed::with_brokers([1]);
    let epoch = testbed.controller.image().brokers.get(1).unwrap().epoch;
    let mut request = registration(1);
    request.rack = Some("r1".into());
    testbed.register(request);
    let broker = testbed.controller.image().brokers.get(1).unwrap();
    assert_eq!((broker.epoch, broker.fenced, broker.rack.as_deref()), (epoch, false, Some("r1")));
    assert!(testbed.controller.loader().registration_offset(1).unwrap() > epoch);
}

/// Broker 1 leads "t" alone, 2 is in no ELR; broker 1 registers again with this previous epoch.
fn comes_back(previous: impl FnOnce(i64) -> i64) -> Testbed {
    let mut testbed = Testbed::with_brokers([1, 2]);
    testbed.create("t", &[&[1, 2]], &[("min.insync.replicas", "2")]);
    testbed.now_ms += 9_000;
    let mut request = registration(1);
    request.incarnation_id = uuid(99);
    request.previous_broker_epoch =
        previous(testbed.controller.image().brokers.get(1).unwrap().epoch);
    testbed.register(request);
    testbed
}

#[test]
fn after_a_clean_stop_a_broker_stays_eligible() {
    let testbed = comes_back(|epoch| epoch);
    let partition = testbed.partition("t", 0);
    assert_eq!((partition.leader, &*partition.isr, &*partition.elr), (Some(2), &[2][..], &[1][..]));
}

#[test]
fn after_an_unclean_stop_a_broker_is_not_eligible() {
    let testbed = comes_back(|_| -1);
    let partition = testbed.partition("t", 0);
    assert_eq!((partition.leader, &*partition.isr, &*partition.elr), (Some(2), &[2][..], &[][..]));
}

/// Broker 1 has a second directory.
fn with_both(request: &mut BrokerRegistrationRequest) {
    request.log_dirs = vec![directory(1), uuid(50)];
}

/// "lone" is on broker 1 only and "shared" also on 2, both in the second directory of 1.
fn in_the_second_directory() -> Testbed {
    let mut testbed = Testbed::with_brokers([2]);
    let mut request = registration(1);
    with_both(&mut request);
    testbed.register(request);
    testbed.heartbeat(1, |_| {});
    for (name, replicas) in [("lone", &[1][..]), ("shared", &[1, 2])] {
        let topic = testbed.create(name, &[replicas], &[]);
        testbed.assign_directory(1, topic, 0, uuid(50));
    }
    testbed
}

/// Registers a new incarnation of broker 1 and unfences it.
fn next_life(testbed: &mut Testbed, incarnation: u8, log_dirs: Vec<Uuid>) {
    testbed.now_ms += 9_000;
    let epoch = testbed.controller.image().brokers.get(1).unwrap().epoch;
    let request = BrokerRegistrationRequest {
        incarnation_id: uuid(incarnation),
        previous_broker_epoch: epoch,
        log_dirs,
        ..registration(1)
    };
    testbed.register(request);
    testbed.heartbeat(1, |_| {});
}

fn leader_and_isr(testbed: &Testbed, topic: &str) -> (Option<BrokerId>, Vec<BrokerId>) {
    let partition = testbed.partition(topic, 0);
    (partition.leader, partition.isr.clone())
}

#[test]
fn a_replica_whose_directory_is_not_registered_does_not_lead_and_stays_the_last_in_sync() {
    let mut testbed = in_the_second_directory();
    next_life(&mut testbed, 99, vec![directory(1)]);
    assert!(!testbed.controller.image().brokers.get(1).unwrap().fenced);
    let lone = testbed.partition("lone", 0);
    // The last in-sync replica stays recorded: in the ISR, the ELR, or as the last known leader.
    let remembered = [&lone.isr, &lone.elr, &lone.last_known_elr];
    assert_eq!(lone.leader, None);
    assert!(remembered.iter().any(|replicas| replicas.contains(&1)), "{lone:?}");
    assert_eq!(leader_and_isr(&testbed, "shared"), (Some(2), vec![2]));
}

#[test]
fn the_next_life_with_the_directory_leads_again() {
    let mut testbed = in_the_second_directory();
    next_life(&mut testbed, 99, vec![directory(1)]);
    next_life(&mut testbed, 98, vec![directory(1), uuid(50)]);
    assert_eq!(leader_and_isr(&testbed, "lone"), (Some(1), vec![1]));
    assert_eq!(leader_and_isr(&testbed, "shared"), (Some(2), vec![2]));
}

#[test]
fn a_directory_that_returns_in_the_same_life_has_its_partitions_led_at_once() {
    let mut testbed = in_the_second_directory();
    next_life(&mut testbed, 99, vec![directory(1)]);
    let before = testbed.controller.image().brokers.get(1).unwrap().epoch;
    let mut request = registration(1);
    request.incarnation_id = uuid(99);
    with_both(&mut request);
    testbed.register(request);
    let broker = testbed.controller.image().brokers.get(1).unwrap();
    assert_eq!((broker.epoch, broker.fenced), (before, false));
    assert_eq!(leader_and_isr(&testbed, "lone"), (Some(1), vec![1]));
}

#[test]
fn a_fenced_broker_leads_nothing_when_a_directory_returns() {
    let mut testbed = in_the_second_directory();
    next_life(&mut testbed, 99, vec![directory(1)]);
    testbed.fence(1);
    let mut request = registration(1);
    request.incarnation_id = uuid(99);
    with_both(&mut request);
    testbed.register(request);
    assert_eq!(leader_and_isr(&testbed, "lone").0, None);
    testbed.heartbeat(1, |_| {});
    assert_eq!(leader_and_isr(&testbed, "lone"), (Some(1), vec![1]));
}

#[test]
fn the_same_life_without_a_directory_that_it_had_leads_nothing_in_it() {
    let mut testbed = in_the_second_directory();
    let mut request = registration(1);
    request.log_dirs = vec![directory(1)];
    testbed.register(request);
    assert_eq!(leader_and_isr(&testbed, "lone").0, None);
    assert_eq!(leader_and_isr(&testbed, "shared"), (Some(2), vec![2]));
}

#[test]
fn only_an_unclean_election_of_another_replica_goes_past_a_directory_that_is_missed() {
    let mut testbed = in_the_second_directory();
    // Broker 2 is fenced, then the directory of broker 1 fails, which has the last in-sync replica.
    testbed.fence(2);
    next_life(&mut testbed, 99, vec![directory(1)]);
    testbed.heartbeat(2, |_| {});
    assert_eq!(testbed.partition("shared", 0).leader, None);
    testbed.set_config("shared", "unclean.leader.election.enable", "true");
    testbed.now_ms += 300_000;
    testbed.heartbeat(1, |_| {});
    testbed.heartbeat(2, |_| {});
    while let Some(outcome) = testbed.controller.on_tick(testbed.now_ms) {
        testbed.apply(outcome);
    }
    assert_eq!(testbed.partition("shared", 0).leader, Some(2));
    assert_eq!(testbed.partition("lone", 0).leader, None);
}
