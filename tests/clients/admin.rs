//! Administration through librdkafka.

use klamm_testbed::{Broker, unique};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use crate::rdkafka_client::{LIMIT, config, reader, send_values};

fn admin() -> AdminClient<DefaultClientContext> {
    config(Broker::shared(), &[]).create().unwrap()
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT))
}

fn partition_count(topic: &str) -> usize {
    let consumer: BaseConsumer = config(Broker::shared(), &[]).create().unwrap();
    let metadata = consumer.fetch_metadata(None, LIMIT).unwrap();
    metadata
        .topics()
        .iter()
        .find(|known| known.name() == topic)
        .map_or(0, |known| known.partitions().len())
}

#[tokio::test]
async fn topics_are_created_grown_and_deleted() {
    let (admin, topic) = (admin(), unique("rust-admin"));
    let new = || NewTopic::new(&topic, 2, TopicReplication::Fixed(1)).set("retention.ms", "9999");
    let known = Err((topic.clone(), RDKafkaErrorCode::TopicAlreadyExists));
    assert_eq!(admin.create_topics(&[new()], &options()).await.unwrap(), [Ok(topic.clone())]);
    assert_eq!(admin.create_topics(&[new()], &options()).await.unwrap(), [known]);
    assert_eq!(partition_count(&topic), 2);

    let grow = |count| [NewPartitions::new(&topic, count)];
    let refused = Err((topic.clone(), RDKafkaErrorCode::InvalidPartitions));
    assert_eq!(admin.create_partitions(&grow(5), &options()).await.unwrap(), [Ok(topic.clone())]);
    assert_eq!(admin.create_partitions(&grow(3), &options()).await.unwrap(), [refused]);
    assert_eq!(partition_count(&topic), 5);

    let unknown = Err((topic.clone(), RDKafkaErrorCode::UnknownTopicOrPartition));
    assert_eq!(admin.delete_topics(&[&topic], &options()).await.unwrap(), [Ok(topic.clone())]);
    assert_eq!(admin.delete_topics(&[&topic], &options()).await.unwrap(), [unknown]);
    assert_eq!(partition_count(&topic), 0);
}

#[tokio::test]
async fn topics_that_are_deleted_while_being_written_to_do_no_harm() {
    let mut broker = Broker::start();
    let admin: AdminClient<DefaultClientContext> = config(&broker, &[]).create().unwrap();
    let producer: FutureProducer =
        config(&broker, &[("message.timeout.ms", "2000")]).create().unwrap();
    let kept = broker.create_topic("rust-kept", "");
    for _ in 0..60 {
        let topic = unique("rust-brief");
        let new = NewTopic::new(&topic, 3, TopicReplication::Fixed(1));
        admin.create_topics(&[new], &options()).await.unwrap().remove(0).unwrap();
        let records = (0..3).map(|partition| {
            FutureRecord::<[u8], [u8]>::to(&topic).partition(partition).payload(b"v")
        });
        let underway: Vec<_> = records
            .map(|record| producer.send_result(record).map_err(|(error, _)| error).unwrap())
            .collect();
        admin.delete_topics(&[&topic], &options()).await.unwrap().remove(0).unwrap();
        // Stored or refused: both may happen to what is sent to a topic that goes away.
        drop(underway);
    }
    send_values(&broker, &kept, &["v"]).await;
    assert!(broker.is_running());
}

#[tokio::test]
async fn a_validated_creation_creates_nothing() {
    let (admin, topic) = (admin(), unique("rust-validated"));
    let new = NewTopic::new(&topic, 2, TopicReplication::Fixed(1));
    let answer = admin.create_topics(&[new], &options().validate_only(true)).await.unwrap();
    assert_eq!(answer, [Ok(topic.clone())]);
    assert_eq!(partition_count(&topic), 0);
}

#[tokio::test]
async fn topic_configs_are_described_and_altered() {
    let admin = admin();
    let topic = Broker::shared().create_topic("rust-configs", "--config retention.ms=1234");
    let resource = ResourceSpecifier::Topic(&topic);
    let alter = AlterConfig::new(resource).set("max.message.bytes", "4321");
    admin.alter_configs(&[alter], &options()).await.unwrap().remove(0).unwrap();
    let described =
        admin.describe_configs(&[resource], &options()).await.unwrap().remove(0).unwrap();
    let value = |name: &str| described.get(name).unwrap().value.clone().unwrap();
    assert_eq!(value("max.message.bytes"), "4321");
    assert_eq!(
        value("retention.ms"),
        "604800000",
        "AlterConfigs sets all that it does not name to the default"
    );

    let broker = ResourceSpecifier::Broker(1);
    let described = admin.describe_configs(&[broker], &options()).await.unwrap().remove(0).unwrap();
    let node_id = described.get("node.id").unwrap();
    assert_eq!((node_id.value.as_deref(), node_id.is_read_only), (Some("1"), true));
}

#[tokio::test]
async fn records_are_deleted_up_to_an_offset() {
    let broker = Broker::shared();
    let topic = broker.create_topic("rust-delete-records", "");
    send_values(broker, &topic, &["a", "b", "c"]).await;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&topic, 0, Offset::Offset(2)).unwrap();
    let deleted = admin().delete_records(&offsets, &options()).await.unwrap();
    assert_eq!(deleted.find_partition(&topic, 0).unwrap().offset(), Offset::Offset(2));
    let consumer = reader(broker, &topic, Offset::Beginning);
    assert_eq!(consumer.fetch_watermarks(&topic, 0, LIMIT).unwrap(), (2, 3));
}

#[tokio::test]
async fn a_group_is_listed_and_deleted() {
    let (broker, group) = (Broker::shared(), unique("rust-admin-group"));
    let topic = broker.create_topic("rust-admin-group", "");
    let consumer: BaseConsumer = config(broker, &[("group.id", &group)]).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&topic, 0, Offset::Offset(5)).unwrap();
    consumer.commit(&offsets, CommitMode::Sync).unwrap();
    let listed = consumer.fetch_group_list(Some(&group), LIMIT).unwrap();
    let states: Vec<_> =
        listed.groups().iter().map(|group| (group.name(), group.state())).collect();
    assert_eq!(states, [(group.as_str(), "Empty")]);

    let deleted = admin().delete_groups(&[&group], &options()).await.unwrap();
    assert_eq!(deleted, [Ok(group.clone())]);
    let missing = Err((group.clone(), RDKafkaErrorCode::GroupIdNotFound));
    assert_eq!(admin().delete_groups(&[&group], &options()).await.unwrap(), [missing]);
}
