//! How the rdkafka tests make clients, send and read.

use std::time::Duration;

use klamm_testbed::{Broker, until};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, OwnedMessage};
use rdkafka::producer::future_producer::Delivery;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A client configuration that names the broker, and more settings.
pub(crate) fn config(broker: &Broker, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap());
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config
}

/// Sends all records at once and returns where each was stored, in order.
pub(crate) async fn send_all(
    producer: &FutureProducer,
    records: Vec<FutureRecord<'_, [u8], [u8]>>,
) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for record in records {
        deliveries.push(producer.send_result(record).map_err(|(error, _)| error).unwrap());
    }
    let mut stored = Vec::new();
    for delivery in deliveries {
        stored.push(delivery.await.unwrap().map_err(|(error, _)| error).unwrap());
    }
    stored
}

/// Sends one value without a key for each of `values` to partition 0.
pub(crate) async fn send_values(broker: &Broker, topic: &str, values: &[&str]) {
    let producer: FutureProducer = config(broker, &[]).create().unwrap();
    let records = values
        .iter()
        .map(|value| FutureRecord::<[u8], [u8]>::to(topic).partition(0).payload(value.as_bytes()));
    send_all(&producer, records.collect()).await;
}

/// A consumer outside of any group that starts at `offset` of partition 0.
pub(crate) fn reader(broker: &Broker, topic: &str, offset: Offset) -> BaseConsumer {
    let consumer: BaseConsumer = config(broker, &[("group.id", "unused")]).create().unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, offset).unwrap();
    consumer.assign(&partitions).unwrap();
    consumer
}

/// The next message of a consumer.
///
/// # Panics
/// When there is none in time, or an error instead.
#[track_caller]
pub(crate) fn next(consumer: &BaseConsumer) -> BorrowedMessage<'_> {
    until("a message", LIMIT, || consumer.poll(POLL)).unwrap()
}

/// The next `count` messages of a consumer.
#[track_caller]
pub(crate) fn read(consumer: &BaseConsumer, count: usize) -> Vec<OwnedMessage> {
    (0..count).map(|_| next(consumer).detach()).collect()
}
