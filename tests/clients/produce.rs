//! Producing: codecs, acknowledgements, idempotence, refusals.

use klamm_testbed::{Broker, unique};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, Timestamp};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::Offset;
use rdkafka::types::RDKafkaErrorCode;

use crate::rdkafka_client::{LIMIT, config, read, reader, send_all};

const RECORDS: usize = 200;
const FIRST_TIMESTAMP_MS: i64 = 1_700_000_000_000;

#[tokio::test]
async fn every_codec_with_every_acks_setting_keeps_records_whole() {
    let broker = Broker::shared();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        for acks in ["0", "1", "all"] {
            let topic = broker.create_topic("rust-codec", "");
            let settings = [("compression.codec", codec), ("acks", acks), ("linger.ms", "50")];
            keeps_records_whole(broker, &topic, &settings).await;
        }
    }
}

async fn keeps_records_whole(broker: &Broker, topic: &str, settings: &[(&str, &str)]) {
    let producer: FutureProducer = config(broker, settings).create().unwrap();
    let values: Vec<String> = (0..RECORDS).map(|n| format!("value {n} ").repeat(n % 50)).collect();
    let headers = || {
        let one = Header { key: "twice", value: Some("1") };
        let two = Header { key: "twice", value: None::<&str> };
        OwnedHeaders::new().insert(one).insert(two)
    };
    let records = values.iter().enumerate().map(|(n, value)| {
        let record = FutureRecord::<[u8], [u8]>::to(topic).payload(value.as_bytes());
        let record = record.timestamp(FIRST_TIMESTAMP_MS + i64::try_from(n).unwrap());
        record.headers(headers()).key(b"key")
    });
    send_all(&producer, records.collect()).await;
    for (n, message) in read(&reader(broker, topic, Offset::Beginning), RECORDS).iter().enumerate()
    {
        let at = i64::try_from(n).unwrap();
        assert_eq!(message.offset(), at, "{settings:?}");
        assert_eq!(message.key(), Some(&b"key"[..]));
        assert_eq!(message.payload(), Some(values[n].as_bytes()));
        assert_eq!(message.timestamp(), Timestamp::CreateTime(FIRST_TIMESTAMP_MS + at));
        let headers = message.headers().unwrap();
        assert_eq!(headers.count(), 2);
        assert_eq!(headers.get(0), Header { key: "twice", value: Some(&b"1"[..]) });
        assert_eq!(headers.get(1), Header { key: "twice", value: None });
    }
}

#[tokio::test]
async fn an_idempotent_producer_stores_every_record_once_and_in_order() {
    let broker = Broker::shared();
    let topic = broker.create_topic("rust-idempotent", "");
    let settings = [("enable.idempotence", "true"), ("batch.num.messages", "10")];
    let producer: FutureProducer = config(broker, &settings).create().unwrap();
    let values: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
    let records = values
        .iter()
        .map(|value| FutureRecord::<[u8], [u8]>::to(&topic).partition(0).payload(value.as_bytes()));
    let stored = send_all(&producer, records.collect()).await;
    for (offset, delivery) in (0..).zip(&stored) {
        assert_eq!((delivery.partition, delivery.offset), (0, offset));
    }
    let messages = read(&reader(broker, &topic, Offset::Beginning), values.len());
    let found = messages.iter().map(|message| message.payload().unwrap());
    assert!(found.eq(values.iter().map(String::as_bytes)));
}

#[tokio::test]
async fn a_record_that_cannot_be_stored_is_answered_with_the_reason() {
    let broker = Broker::shared();
    let small = broker.create_topic("rust-small", "--config max.message.bytes=1000");
    let compacted = broker.create_topic("rust-compacted", "--config cleanup.policy=compact");
    let producer: FutureProducer = config(broker, &[]).create().unwrap();
    let large = [0; 2_000];
    for (topic, key, payload, code) in [
        (&small, Some(&b"k"[..]), &large[..], RDKafkaErrorCode::MessageSizeTooLarge),
        (&compacted, None, b"v", RDKafkaErrorCode::InvalidRecord),
    ] {
        let mut record = FutureRecord::<[u8], [u8]>::to(topic).payload(payload);
        record.key = key;
        let (error, _) = producer.send(record, LIMIT).await.unwrap_err();
        assert_eq!(error, KafkaError::MessageProduction(code), "{topic}");
    }
    let fits = FutureRecord::<[u8], [u8]>::to(&compacted).key(b"k").payload(b"v");
    assert_eq!(producer.send(fits, LIMIT).await.unwrap().offset, 0);
}

#[tokio::test]
async fn a_partition_that_does_not_exist_is_refused() {
    let broker = Broker::shared();
    let topic = broker.create_topic("rust-partition", "--partitions 2");
    let producer: FutureProducer = config(broker, &[]).create().unwrap();
    let record = FutureRecord::<[u8], [u8]>::to(&topic).partition(2).payload(b"v");
    let (error, _) = producer.send(record, LIMIT).await.unwrap_err();
    assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition));
}

#[tokio::test]
async fn a_topic_is_made_by_the_first_record_sent_to_it() {
    let broker = Broker::shared();
    let topic = unique("rust-auto");
    let producer: FutureProducer = config(broker, &[]).create().unwrap();
    let record = FutureRecord::<[u8], [u8]>::to(&topic).payload(b"first");
    let stored = producer.send(record, LIMIT).await.unwrap();
    assert_eq!((stored.partition, stored.offset), (0, 0));
}
