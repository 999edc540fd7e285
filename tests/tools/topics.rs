//! kafka-topics.

use klamm_testbed::{Broker, unique};

use crate::table::rows;

#[test]
fn a_created_topic_is_listed_and_described_as_asked_for() {
    let broker = Broker::shared();
    let topic = broker.create_topic(
        "described",
        "--partitions 3 --replication-factor 1 --config retention.ms=1000000000 --config cleanup.policy=compact",
    );
    let listed = broker.tool("kafka-topics --list").ok();
    assert!(listed.lines().any(|line| line == topic), "{listed}");

    let described = broker.tool(&format!("kafka-topics --describe --topic {topic}")).ok();
    let rows: Vec<String> = rows(&described).iter().map(|row| row.join(" ")).collect();
    let head = format!("Topic: {topic} TopicId: ");
    let (id, rest) = rows[0].strip_prefix(&head).and_then(|row| row.split_once(' ')).unwrap();
    assert_eq!(id.len(), 22, "a topic id is sixteen bytes in base64url: {id}");
    let (counts, configs) = rest.split_once("Configs: ").unwrap();
    assert_eq!(counts, "PartitionCount: 3 ReplicationFactor: 1 ");
    let mut configs: Vec<&str> = configs.split(',').collect();
    configs.sort_unstable();
    assert_eq!(
        configs,
        ["cleanup.policy=compact", "min.insync.replicas=1", "retention.ms=1000000000"]
    );
    let partitions = [0, 1, 2].map(|partition| {
        format!(
            "Topic: {topic} Partition: {partition} Leader: 1 Replicas: 1 Isr: 1 Elr: LastKnownElr:"
        )
    });
    assert_eq!(rows[1..], partitions);
}

#[test]
fn a_topic_gets_more_partitions_but_never_fewer() {
    let broker = Broker::shared();
    let topic = broker.create_topic("grown", "--partitions 2");
    broker.tool(&format!("kafka-topics --alter --topic {topic} --partitions 5")).ok();
    let described = broker.tool(&format!("kafka-topics --describe --topic {topic}")).ok();
    assert!(described.contains("PartitionCount: 5"), "{described}");
    assert_eq!(described.matches("Leader: 1").count(), 5, "{described}");

    let refused = broker
        .tool(&format!("kafka-topics --alter --topic {topic} --partitions 4"))
        .run()
        .failure();
    assert!(
        refused.contains(&format!(
            "The topic {topic} currently has 5 partition(s); 4 would not be an increase."
        )),
        "{refused}"
    );
}

#[test]
fn a_deleted_topic_is_gone_and_its_name_is_free() {
    let broker = Broker::shared();
    let topic = broker.create_topic("deleted", "");
    broker.produce_lines(&topic, &["one", "two"]);
    broker.tool(&format!("kafka-topics --delete --topic {topic}")).ok();
    let listed = broker.tool("kafka-topics --list").ok();
    assert!(!listed.lines().any(|line| line == topic), "{listed}");

    broker.tool(&format!("kafka-topics --create --topic {topic}")).ok();
    let offsets = broker.tool(&format!("kafka-get-offsets --topic {topic}")).ok();
    assert_eq!(offsets, format!("{topic}:0:0\n"), "the new topic has none of the old records");
}

#[test]
fn topics_are_refused_with_the_messages_of_kafka() {
    let broker = Broker::shared();
    let topic = broker.create_topic("refused", "");
    let missing = unique("missing");
    for (command, message) in [
        (format!("--create --topic {topic}"), format!("Topic '{topic}' already exists.")),
        (
            format!("--create --topic {missing} --replication-factor 2"),
            "Unable to replicate the partition 2 time(s): The target replication factor of 2 cannot be reached \
             because only 1 broker(s) are registered or some brokers have all their log directories cordoned."
                .to_owned(),
        ),
        (
            format!("--create --topic {missing} --partitions 0"),
            "The partitions must be greater than 0".to_owned(),
        ),
        (
            format!("--create --topic {missing} --config retention.ms=soon"),
            "Invalid value soon for configuration retention.ms: Not a number of type LONG".to_owned(),
        ),
        (
            format!("--create --topic {missing}/x"),
            format!("Topic name is invalid: '{missing}/x' contains one or more characters other than ASCII alphanumerics"),
        ),
        (
            format!("--describe --topic {missing}"),
            format!("Topic '{missing}' does not exist as expected"),
        ),
        (
            format!("--delete --topic {missing}"),
            format!("Topic '{missing}' does not exist as expected"),
        ),
    ] {
        let refused = broker.tool(&format!("kafka-topics {command}")).run().failure();
        assert!(refused.contains(&message), "{command}: expected {message}\n{refused}");
    }
    let listed = broker.tool("kafka-topics --list").ok();
    assert!(!listed.contains(&missing), "what was refused left nothing: {listed}");
}

#[test]
fn create_if_not_exists_leaves_an_existing_topic_alone() {
    let broker = Broker::shared();
    let topic = broker.create_topic("kept", "--partitions 2");
    broker
        .tool(&format!("kafka-topics --create --if-not-exists --topic {topic} --partitions 7"))
        .ok();
    let described = broker.tool(&format!("kafka-topics --describe --topic {topic}")).ok();
    assert!(described.contains("PartitionCount: 2"), "{described}");
}

#[test]
fn replicas_can_be_assigned_by_hand() {
    let broker = Broker::shared();
    let topic = broker.create_topic("assigned", "--replica-assignment 1,1,1");
    let described = broker.tool(&format!("kafka-topics --describe --topic {topic}")).ok();
    assert!(described.contains("PartitionCount: 3"), "{described}");
}
