//! Which topics are created, and the answers for the others.

use klamm_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopicConfig,
};

use super::*;
use crate::controller::testing::Testbed;

fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic { name: name.into(), num_partitions, replication_factor, ..Default::default() }
}

fn with_config(name: &str, key: &str, value: Option<&str>) -> CreatableTopic {
    let config = CreatableTopicConfig { name: key.into(), value: value.map(ByteString::from) };
    CreatableTopic { configs: vec![config], ..topic(name, 1, 1) }
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = assignments.iter().map(|(partition_index, ids)| CreatableReplicaAssignment {
        partition_index: *partition_index,
        broker_ids: ids.to_vec(),
    });
    CreatableTopic { assignments: assignments.collect(), ..topic(name, -1, -1) }
}

fn create(testbed: &mut Testbed, topics: Vec<CreatableTopic>) -> Vec<CreatableTopicResult> {
    let request = CreateTopicsRequest { topics, ..Default::default() };
    let outcome =
        testbed.controller.on_create_topics(&request, CreateTopicsAccess::ALL, &mut testbed.random);
    assert!(outcome.atomic || outcome.records.is_empty());
    testbed.apply(outcome).topics
}

/// Creates one topic that is refused; returns the code and the text.
fn refused(testbed: &mut Testbed, topic: CreatableTopic) -> (ErrorCode, String) {
    let before = testbed.log.len();
    let result = create(testbed, vec![topic]).remove(0);
    assert_eq!(testbed.log.len(), before, "a refused topic leaves nothing in the log");
    assert!(result.topic_id.is_zero());
    (ErrorCode::from_code(result.error_code).unwrap(), result.error_message.unwrap().to_string())
}

#[test]
fn a_created_topic_is_in_the_image_with_its_partitions_and_configs() {
    let mut testbed = Testbed::with_brokers(1..=3);
    let mut wanted = with_config("t", "retention.ms", Some("5"));
    (wanted.num_partitions, wanted.replication_factor) = (4, 2);
    wanted
        .configs
        .push(CreatableTopicConfig { name: "retention.ms".into(), value: Some("6".into()) });
    let result = create(&mut testbed, vec![wanted]).remove(0);
    assert_eq!((result.error_code, result.error_message), (0, None));
    assert_eq!((result.num_partitions, result.replication_factor), (4, 2));
    let configs = result.configs.unwrap();
    let retention = configs.iter().find(|config| config.name == "retention.ms").unwrap();
    assert_eq!((retention.value.as_deref(), retention.config_source), (Some("6"), 1));
    let policy = configs.iter().find(|config| config.name == "cleanup.policy").unwrap();
    assert_eq!((policy.value.as_deref(), policy.config_source), (Some("delete"), 5));
    let image = testbed.controller.image();
    let topic = image.topics.by_name("t").unwrap();
    assert_eq!((topic.id, topic.partition_count()), (result.topic_id, 4));
    for (_, partition) in topic.partitions() {
        assert_eq!(partition.isr, partition.replicas);
        assert_eq!(partition.leader, Some(partition.replicas[0]));
        assert_eq!((partition.leader_epoch, partition.partition_epoch), (0, 0));
        let directories: Vec<_> = partition
            .replicas
            .iter()
            .map(|id| crate::controller::testing::directory(*id))
            .collect();
        assert_eq!(partition.directories, directories);
    }
    assert_eq!(image.configs.of_topic("t").get("retention.ms").map(|v| &**v), Some("6"));
}

#[test]
fn records_come_as_topic_then_configs_then_partitions() {
    let mut testbed = Testbed::with_brokers([1]);
    let before = testbed.log.len();
    create(&mut testbed, vec![with_config("t", "min.insync.replicas", Some("1"))]);
    let kinds: Vec<i16> = testbed.log[before..].iter().map(MetadataRecord::api_key).collect();
    assert_eq!(kinds, [2, 4, 28, 3], "topic, config, clear ELR, partition");
}

#[test]
fn defaults_come_from_the_configuration() {
    let configs = [("num.partitions", "3"), ("default.replication.factor", "2")];
    let mut testbed = Testbed::with_configs(&[], &configs);
    testbed.add_broker(1);
    testbed.add_broker(2);
    let result = create(&mut testbed, vec![topic("t", -1, -1)]).remove(0);
    assert_eq!((result.num_partitions, result.replication_factor), (3, 2));
}

#[test]
fn bad_names_are_refused() {
    let mut testbed = Testbed::with_brokers([1]);
    let (code, text) = refused(&mut testbed, topic("a b", 1, 1));
    assert_eq!(code, ErrorCode::InvalidTopicException);
    assert!(text.starts_with("Topic name is invalid: 'a b' contains"), "{text}");
    create(&mut testbed, vec![topic("a.b", 1, 1)]);
    assert_eq!(
        refused(&mut testbed, topic("a_b", 1, 1)),
        (
            ErrorCode::InvalidTopicException,
            "Topic 'a_b' collides with existing topic: a.b".to_owned()
        )
    );
    assert_eq!(
        refused(&mut testbed, topic("a.b", 1, 1)),
        (ErrorCode::TopicAlreadyExists, "Topic 'a.b' already exists.".to_owned())
    );
    assert_eq!(
        refused(&mut testbed, topic("__cluster_metadata", 1, 1)),
        (
            ErrorCode::InvalidRequest,
            "Creation of internal topic __cluster_metadata is prohibited.".to_owned()
        )
    );
}

#[test]
fn names_that_collide_within_one_request_are_both_created() {
    let mut testbed = Testbed::with_brokers([1]);
    let results = create(&mut testbed, vec![topic("a.b", 1, 1), topic("a_b", 1, 1)]);
    assert!(results.iter().all(|result| result.error_code == 0));
}

#[test]
fn a_name_twice_in_a_request_is_answered_once_and_the_others_are_created() {
    let mut testbed = Testbed::with_brokers([1]);
    let results = create(&mut testbed, vec![topic("t", 1, 1), topic("t", 2, 1), topic("u", 1, 1)]);
    assert_eq!(results.len(), 2);
    assert_eq!((&*results[0].name, results[0].error_code), ("u", 0));
    assert_eq!(results[1].error_code, ErrorCode::InvalidRequest.code());
    assert_eq!(results[1].error_message.as_deref(), Some("Duplicate topic name."));
    assert!(testbed.controller.image().topics.by_name("t").is_none());
}

#[test]
fn counts_must_be_possible() {
    let mut testbed = Testbed::with_brokers([1]);
    for (partitions, factor, code) in [
        (1, 0, ErrorCode::InvalidReplicationFactor),
        (1, -2, ErrorCode::InvalidReplicationFactor),
        (0, 1, ErrorCode::InvalidPartitions),
        (-2, 1, ErrorCode::InvalidPartitions),
        (1, 2, ErrorCode::InvalidReplicationFactor),
        (10_001, 1, ErrorCode::PolicyViolation),
        (i32::MAX, 1, ErrorCode::PolicyViolation),
        (10_000, 1, ErrorCode::PolicyViolation),
    ] {
        let (actual, _) = refused(&mut testbed, topic("t", partitions, factor));
        assert_eq!(actual, code, "{partitions} partitions, {factor} replicas");
    }
    assert_eq!(
        refused(&mut testbed, topic("t", 1, 2)).1,
        "Unable to replicate the partition 2 time(s): The target replication factor of 2 cannot be reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned."
    );
}

#[test]
fn too_many_partitions_in_all_refuse_every_topic() {
    let mut testbed = Testbed::with_brokers([1]);
    let results = create(&mut testbed, vec![topic("t", 5_001, 1), topic("u", 5_000, 1)]);
    let violation = ErrorCode::PolicyViolation.code();
    assert!(results.iter().all(|result| result.error_code == violation));
    assert!(testbed.controller.image().topics.is_empty());
    let results =
        create(&mut testbed, vec![topic("t", 9_000, 1), topic("u", 5_000, 1), topic("u", 1, 1)]);
    assert_eq!(results[0].error_code, 0, "what is refused beforehand does not count");
}

#[test]
fn configs_must_be_valid() {
    let mut testbed = Testbed::with_brokers([1]);
    assert_eq!(
        refused(&mut testbed, with_config("t", "retention.ms", None)),
        (
            ErrorCode::InvalidConfig,
            "Null value not supported for topic configs: retention.ms".to_owned()
        )
    );
    let (code, text) = refused(&mut testbed, with_config("t", "no.such", Some("1")));
    assert_eq!((code, &*text), (ErrorCode::InvalidConfig, "Unknown topic config name: no.such"));
    let (code, _) = refused(&mut testbed, with_config("t", "retention.ms", Some("abc")));
    assert_eq!(code, ErrorCode::InvalidConfig);
    let long = "x".repeat(32_768);
    let (code, text) = refused(&mut testbed, with_config("t", "cleanup.policy", Some(&long)));
    assert_eq!(code, ErrorCode::InvalidConfig);
    assert!(text.contains("maximum value size of 32767 bytes"), "{text}");
}

#[test]
fn assignments_must_be_possible() {
    let mut testbed = Testbed::with_brokers(1..=3);
    testbed.fence(3);
    let mut with_partitions = assigned("t", &[(0, &[1])]);
    with_partitions.num_partitions = 1;
    let mut with_factor = assigned("t", &[(0, &[1])]);
    with_factor.replication_factor = 1;
    for (topic, code, text) in [
        (with_partitions, ErrorCode::InvalidRequest, "numPartitions was not set to -1."),
        (with_factor, ErrorCode::InvalidRequest, "replication factor was not set to -1."),
        (
            assigned("t", &[(0, &[1]), (0, &[2])]),
            ErrorCode::InvalidReplicaAssignment,
            "Found multiple manual partition assignments for partition 0",
        ),
        (assigned("t", &[(0, &[])]), ErrorCode::InvalidReplicaAssignment, "empty replica list."),
        (assigned("t", &[(0, &[9])]), ErrorCode::InvalidReplicaAssignment, "includes broker 9,"),
        (assigned("t", &[(0, &[-1])]), ErrorCode::InvalidReplicaAssignment, "includes broker -1,"),
        (assigned("t", &[(0, &[1, 1])]), ErrorCode::InvalidReplicaAssignment, "broker 1 more than"),
        (
            assigned("t", &[(0, &[1, 2]), (1, &[1])]),
            ErrorCode::InvalidReplicaAssignment,
            "with 1 replica(s), but this is not consistent",
        ),
        (assigned("t", &[(0, &[3])]), ErrorCode::InvalidReplicaAssignment, "fenced or in"),
        (assigned("t", &[(1, &[1])]), ErrorCode::InvalidReplicaAssignment, "0-based integer"),
    ] {
        let (actual, message) = refused(&mut testbed, topic);
        assert_eq!(actual, code, "{message}");
        assert!(message.contains(text), "{message} lacks {text}");
    }
    let results = create(&mut testbed, vec![assigned("t", &[(1, &[2, 3]), (0, &[3, 1])])]);
    assert_eq!(results[0].error_code, 0);
    let first = testbed.partition("t", 0);
    assert_eq!((&*first.replicas, &*first.isr, first.leader), (&[3, 1][..], &[1][..], Some(1)));
}

#[test]
fn no_broker_alive_means_no_topic() {
    let mut testbed = Testbed::with_brokers([1]);
    testbed.fence(1);
    let (code, text) = refused(&mut testbed, topic("t", 1, 1));
    assert_eq!(code, ErrorCode::InvalidReplicationFactor);
    assert_eq!(
        text,
        "Unable to replicate the partition 1 time(s): All brokers are currently fenced, or have all their log directories cordoned."
    );
}

#[test]
fn validate_only_answers_the_same_and_leaves_nothing_behind() {
    let mut testbed = Testbed::with_brokers([1]);
    let request = CreateTopicsRequest {
        topics: vec![topic("t", 1, 1)],
        validate_only: true,
        ..Default::default()
    };
    let outcome =
        testbed.controller.on_create_topics(&request, CreateTopicsAccess::ALL, &mut testbed.random);
    assert_eq!(outcome.records, []);
    assert_eq!(outcome.response.topics[0].error_code, 0);
}

#[test]
fn access_is_checked_by_name() {
    let mut testbed = Testbed::with_brokers([1]);
    let access = CreateTopicsAccess {
        may_create: &|name| name != "secret",
        may_describe_configs: &|name| name != "hidden",
    };
    let request = CreateTopicsRequest {
        topics: vec![topic("secret", 1, 1), topic("hidden", 1, 1)],
        ..Default::default()
    };
    let outcome = testbed.controller.on_create_topics(&request, access, &mut testbed.random);
    let [hidden, secret] = &testbed.apply(outcome).topics[..] else { panic!("two answers") };
    assert_eq!(secret.error_code, ErrorCode::TopicAuthorizationFailed.code());
    assert_eq!(hidden.error_code, 0);
    assert_eq!(hidden.topic_config_error_code, ErrorCode::TopicAuthorizationFailed.code());
    assert_eq!((hidden.num_partitions, hidden.replication_factor), (-1, -1));
}
