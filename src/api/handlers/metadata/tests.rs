//! The topics of a request, the answer, and its form in old versions.

use klamm_protocol::Message;

use super::*;
use crate::metadata_cache::testing::{LISTENER, broker, fenced_broker, published, topic};

fn id(byte: u8) -> Uuid {
    Uuid::from_bytes([byte; 16])
}

fn asks(topics: Vec<(Option<&str>, Uuid)>) -> MetadataRequest {
    let topics = topics.into_iter().map(|(name, topic_id)| MetadataRequestTopic {
        topic_id,
        name: name.map(ByteString::from),
    });
    MetadataRequest { topics: Some(topics.collect()), ..Default::default() }
}

fn names(names: &[&str]) -> Wanted {
    Wanted::Named(names.iter().map(|name| ByteString::from(*name)).collect())
}

fn answer(image: &PublishedImage, wanted: &Wanted, version: i16) -> MetadataResponse {
    let mut answer = Answer { image, listener: LISTENER }.respond(wanted, 1, "cluster".into());
    lower(&mut answer, version, image, LISTENER);
    answer
}

fn partition_errors(image: &PublishedImage, version: i16) -> Vec<ErrorCode> {
    let answer = answer(image, &Wanted::All, version);
    let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|partition| ErrorCode::from_code(partition.error_code).unwrap()).collect()
}

#[test]
fn an_empty_list_is_everything_in_version_0_and_nothing_later() {
    let nothing = asks(vec![]);
    assert_eq!(Wanted::read(&nothing, 0), Ok(Wanted::All));
    assert_eq!(Wanted::read(&nothing, 1), Ok(names(&[])));
    let everything = MetadataRequest { topics: None, ..Default::default() };
    assert_eq!(Wanted::read(&everything, 13), Ok(Wanted::All));
}

#[test]
fn ids_are_taken_from_version_12_on_and_then_names_do_not_count() {
    let by_id = asks(vec![(None, id(1)), (Some("b"), Uuid::ZERO)]);
    assert_eq!(Wanted::read(&by_id, 11), Err(ErrorCode::InvalidRequest));
    assert_eq!(Wanted::read(&by_id, 12), Ok(Wanted::ById([id(1)].into())));
}

#[test]
fn a_topic_without_name_and_id_is_refused() {
    let unnamed = asks(vec![(None, Uuid::ZERO)]);
    for version in 10..=13 {
        let known_to_kafka = version < FIRST_BY_ID;
        let code =
            if known_to_kafka { ErrorCode::InvalidRequest } else { ErrorCode::UnknownServerError };
        assert_eq!(Wanted::read(&unnamed, version), Err(code));
        refused(&unnamed, code).encoded(version).unwrap();
    }
}

#[test]
fn topics_asked_for_twice_are_answered_once() {
    let twice = asks(vec![(Some("a"), Uuid::ZERO), (Some("a"), Uuid::ZERO)]);
    assert_eq!(Wanted::read(&twice, 9), Ok(names(&["a"])));
}

#[test]
fn what_is_not_there_and_could_be_is_to_be_created() {
    let image = published(topic("a", 1, 1));
    assert_eq!(names(&["a", "b", "c c"]).creatable(&image), ["b"]);
    assert!(Wanted::All.creatable(&image).is_empty());
    assert!(Wanted::ById([id(9)].into()).creatable(&image).is_empty());
}

#[test]
fn topics_that_are_not_there_say_why() {
    let image = published(topic("a", 1, 1));
    let answered = answer(&image, &names(&["a", "b", "c c"]), 12);
    let codes: Vec<_> = answered.topics.iter().map(|topic| topic.error_code).collect();
    let (unknown, invalid) = (ErrorCode::UnknownTopicOrPartition, ErrorCode::InvalidTopicException);
    assert_eq!(codes, [0, unknown.code(), invalid.code()]);
    let answered = answer(&image, &Wanted::ById([id(1), id(9)].into()), 12);
    let named: Vec<_> =
        answered.topics.iter().map(|t| (t.name.as_deref(), t.topic_id, t.error_code)).collect();
    let unknown_id = ErrorCode::UnknownTopicId.code();
    assert_eq!(named, [(Some("a"), id(1), 0), (None, id(9), unknown_id)]);
}

#[test]
fn only_brokers_that_can_be_reached_are_told() {
    let image = published(vec![broker(1), fenced_broker(2)]);
    let answered = answer(&image, &Wanted::All, 13);
    assert_eq!(answered.brokers.iter().map(|b| b.node_id).collect::<Vec<_>>(), [1]);
    assert_eq!(answered.controller_id, 1);
    let elsewhere = Answer { image: &image, listener: "OTHER" };
    assert!(elsewhere.respond(&Wanted::All, 2, "cluster".into()).brokers.is_empty());
}

#[test]
fn version_0_hides_replicas_that_cannot_be_reached() {
    let image = published([vec![broker(1), fenced_broker(2)], topic("a", 1, 1)].concat());
    assert_eq!(partition_errors(&image, 0), [ErrorCode::ReplicaNotAvailable]);
    assert_eq!(partition_errors(&image, 1), [ErrorCode::None]);
    let replicas = |version| {
        let answered = answer(&image, &Wanted::All, version);
        answered.topics[0].partitions[0].replica_nodes.clone()
    };
    assert_eq!((replicas(0), replicas(1)), (vec![1], vec![1, 2]));
}

#[test]
fn a_leader_without_the_listener_has_a_name_since_version_6() {
    let image = published([vec![broker(1)], topic("a", 1, 1)].concat());
    let error = |version| {
        let mut answer =
            Answer { image: &image, listener: "OTHER" }.respond(&Wanted::All, 1, "cluster".into());
        lower(&mut answer, version, &image, "OTHER");
        ErrorCode::from_code(answer.topics[0].partitions[0].error_code)
    };
    assert_eq!(error(5), Some(ErrorCode::LeaderNotAvailable));
    assert_eq!(error(6), Some(ErrorCode::ListenerNotFound));
}

#[test]
fn every_version_carries_the_answer() {
    let image = published([vec![broker(1)], topic("a", 1, 2)].concat());
    for version in MetadataResponse::VERSIONS {
        answer(&image, &names(&["a", "b"]), version).encoded(version).unwrap();
        let body = asks(vec![(Some("a"), Uuid::ZERO)]);
        refused(&body, ErrorCode::InvalidRequest).encoded(version).unwrap();
    }
}
