//! Which topics are deleted, and the answers for the others.

use klamm_protocol::messages::delete_topics_request::DeleteTopicState;

use super::*;
use crate::controller::testing::{Testbed, uuid};

fn by_name(name: &str) -> DeleteTopicState {
    DeleteTopicState { name: Some(name.into()), topic_id: Uuid::ZERO }
}

fn by_id(topic_id: Uuid) -> DeleteTopicState {
    DeleteTopicState { name: None, topic_id }
}

fn delete(testbed: &mut Testbed, topics: Vec<DeleteTopicState>) -> Vec<DeletableTopicResult> {
    let request = DeleteTopicsRequest { topics, ..Default::default() };
    let outcome = testbed.controller.on_delete_topics(&request, DeleteTopicsAccess::ALL);
    testbed.apply(outcome).responses
}

fn codes(results: &[DeletableTopicResult]) -> Vec<ErrorCode> {
    results.iter().map(|result| ErrorCode::from_code(result.error_code).unwrap()).collect()
}

#[test]
fn topics_go_by_name_and_by_id_with_their_configs() {
    let mut testbed = Testbed::with_brokers([1]);
    testbed.create("a", &[&[1]], &[("retention.ms", "5")]);
    let id = testbed.create("b_c", &[&[1]], &[]);
    let results = delete(&mut testbed, vec![by_name("a"), by_id(id)]);
    assert_eq!(codes(&results), [ErrorCode::None, ErrorCode::None]);
    let names: BTreeSet<_> = results.iter().map(|r| r.name.as_deref().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["a", "b_c"]));
    let image = testbed.controller.image();
    assert!(image.topics.is_empty() && image.configs.of_topic("a").is_empty());
    assert_eq!(image.topics.colliding_with("b.c"), None);
}

#[test]
fn old_versions_name_topics_in_their_own_field() {
    let mut testbed = Testbed::with_brokers([1]);
    testbed.create("a", &[&[1]], &[]);
    let request = DeleteTopicsRequest { topic_names: vec!["a".into()], ..Default::default() };
    let outcome = testbed.controller.on_delete_topics(&request, DeleteTopicsAccess::ALL);
    assert_eq!(codes(&testbed.apply(outcome).responses), [ErrorCode::None]);
}

#[test]
fn unknown_and_malformed_topics_are_refused() {
    let mut testbed = Testbed::with_brokers([1]);
    for (topics, code, text) in [
        (vec![by_name("no")], ErrorCode::UnknownTopicOrPartition, None),
        (vec![by_name("")], ErrorCode::UnknownTopicOrPartition, None),
        (vec![by_id(uuid(77))], ErrorCode::UnknownTopicId, None),
        (
            vec![by_id(Uuid::ZERO)],
            ErrorCode::InvalidRequest,
            Some("Neither topic name nor id were specified."),
        ),
        (
            vec![DeleteTopicState { name: Some("no".into()), topic_id: uuid(77) }],
            ErrorCode::InvalidRequest,
            Some("You may not specify both topic name and topic id."),
        ),
        (
            vec![by_name("no"), by_name("no"), by_name("no")],
            ErrorCode::InvalidRequest,
            Some("Duplicate topic name."),
        ),
        (
            vec![by_id(uuid(7)), by_id(uuid(7))],
            ErrorCode::InvalidRequest,
            Some("Duplicate topic id."),
        ),
    ] {
        let results = delete(&mut testbed, topics);
        assert_eq!(codes(&results), [code]);
        if let Some(text) = text {
            assert_eq!(results[0].error_message.as_deref(), Some(text));
        }
    }
}

#[test]
fn a_topic_by_name_and_by_id_at_once_stays() {
    let mut testbed = Testbed::with_brokers([1]);
    let id = testbed.create("a", &[&[1]], &[]);
    let results = delete(&mut testbed, vec![by_name("a"), by_id(id)]);
    assert_eq!(codes(&results), [ErrorCode::InvalidRequest]);
    assert_eq!((results[0].name.as_deref(), results[0].topic_id), (Some("a"), id));
    let results = delete(&mut testbed, vec![by_name("a"), by_id(id), by_id(id)]);
    assert_eq!(codes(&results), [ErrorCode::InvalidRequest; 2]);
    assert!(testbed.controller.image().topics.by_name("a").is_some());
}

#[test]
fn who_may_not_describe_a_topic_is_not_told_whether_it_exists() {
    let mut testbed = Testbed::with_brokers([1]);
    let id = testbed.create("a", &[&[1]], &[]);
    let access =
        DeleteTopicsAccess { may_describe: &|name| name == "seen", may_delete: &|_| false };
    let seen = testbed.create("seen", &[&[1]], &[]);
    let topics = vec![by_id(id), by_id(seen), by_name("seen"), by_name("none")];
    let request = DeleteTopicsRequest { topics, ..Default::default() };
    let outcome = testbed.controller.on_delete_topics(&request, access);
    let results = testbed.apply(outcome).responses;
    assert_eq!(codes(&results), [ErrorCode::TopicAuthorizationFailed; 4]);
    let of = |id: Uuid| results.iter().find(|result| result.topic_id == id).unwrap();
    assert_eq!((of(id).name.as_deref(), of(seen).name.as_deref()), (None, Some("seen")));
}

#[test]
fn deletion_can_be_switched_off() {
    let mut testbed = Testbed::with_configs(&[], &[("delete.topic.enable", "false")]);
    testbed.add_broker(1);
    testbed.create("a", &[&[1]], &[]);
    let results = delete(&mut testbed, vec![by_name("a")]);
    assert_eq!(codes(&results), [ErrorCode::TopicDeletionDisabled]);
}
