//! Who may join, and what coming back means for partitions.

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

/// Broker 1 leads "t" alone with 2 eligible nowhere; it comes back naming this epoch.
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
    assert_eq!((partition.leader, &*partition.isr, &*partition.elr), (2, &[2][..], &[1][..]));
}

#[test]
fn after_an_unclean_stop_a_broker_is_not_eligible() {
    let testbed = comes_back(|_| -1);
    let partition = testbed.partition("t", 0);
    assert_eq!((partition.leader, &*partition.isr, &*partition.elr), (2, &[2][..], &[][..]));
}
