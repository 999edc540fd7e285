//! Offsets: by time, watermarks, seeking, committed.

use klamm_testbed::{Broker, unique};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::rdkafka_client::{LIMIT, config, next, reader, send_all, send_values};

#[tokio::test]
async fn the_first_offset_at_or_after_a_time_is_found() {
    let broker = Broker::shared();
    let topic = broker.create_topic("rust-times", "");
    let producer: FutureProducer = config(broker, &[]).create().unwrap();
    let records = [1_000, 2_000, 3_000].map(|time| {
        FutureRecord::<[u8], [u8]>::to(&topic).partition(0).payload(b"v").timestamp(time)
    });
    send_all(&producer, records.into()).await;

    let consumer = reader(broker, &topic, Offset::Beginning);
    let found = |time: i64| {
        let mut times = TopicPartitionList::new();
        times.add_partition_offset(&topic, 0, Offset::Offset(time)).unwrap();
        let offsets = consumer.offsets_for_times(times, LIMIT).unwrap();
        offsets.find_partition(&topic, 0).unwrap().offset()
    };
    assert_eq!(found(0), Offset::Offset(0));
    assert_eq!(found(1_000), Offset::Offset(0));
    assert_eq!(found(1_001), Offset::Offset(1));
    assert_eq!(found(3_000), Offset::Offset(2));
    assert_eq!(found(3_001), Offset::End);
}

#[tokio::test]
async fn watermarks_and_seeks_follow_the_log() {
    let broker = Broker::shared();
    let topic = broker.create_topic("rust-seek", "");
    let consumer = reader(broker, &topic, Offset::Beginning);
    assert_eq!(consumer.fetch_watermarks(&topic, 0, LIMIT).unwrap(), (0, 0));
    send_values(broker, &topic, &["a", "b", "c"]).await;
    assert_eq!(consumer.fetch_watermarks(&topic, 0, LIMIT).unwrap(), (0, 3));
    assert_eq!(next(&consumer).payload(), Some(&b"a"[..]));
    consumer.seek(&topic, 0, Offset::Offset(2), LIMIT).unwrap();
    assert_eq!(next(&consumer).payload(), Some(&b"c"[..]));
    consumer.seek(&topic, 0, Offset::Offset(1), LIMIT).unwrap();
    assert_eq!(next(&consumer).payload(), Some(&b"b"[..]));
}

#[tokio::test]
async fn a_reader_behind_the_end_gets_what_comes_later() {
    let broker = Broker::shared();
    let topic = broker.create_topic("rust-tail", "");
    send_values(broker, &topic, &["before"]).await;
    let consumer = reader(broker, &topic, Offset::Offset(1));
    assert!(consumer.poll(std::time::Duration::from_millis(300)).is_none());
    send_values(broker, &topic, &["after"]).await;
    assert_eq!(next(&consumer).payload(), Some(&b"after"[..]));
}

#[tokio::test]
async fn committed_offsets_with_metadata_are_kept_for_the_group() {
    let broker = Broker::shared();
    let topic = broker.create_topic("rust-commit", "--partitions 2");
    let group = unique("rust-commit");
    let consumer = || -> BaseConsumer {
        config(broker, &[("group.id", group.as_str()), ("enable.auto.commit", "false")])
            .create()
            .unwrap()
    };
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&topic, 1, Offset::Offset(42)).unwrap();
    offsets.find_partition(&topic, 1).unwrap().set_metadata("who and why");
    consumer().commit(&offsets, CommitMode::Sync).unwrap();

    let mut asked = TopicPartitionList::new();
    asked.add_partition(&topic, 0);
    asked.add_partition(&topic, 1);
    let committed = consumer().committed_offsets(asked, LIMIT).unwrap();
    assert_eq!(committed.find_partition(&topic, 0).unwrap().offset(), Offset::Invalid);
    let second = committed.find_partition(&topic, 1).unwrap();
    assert_eq!((second.offset(), second.metadata()), (Offset::Offset(42), "who and why"));
}
