//! Topics, record batches and the requests that carry them, as short as tests want them.

use bytes::Bytes;
use bytestring::ByteString;
use klamm_protocol::batch_builder::BatchBuilder;
use klamm_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use klamm_protocol::messages::create_topics_response::CreateTopicsResponse;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use klamm_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use klamm_protocol::messages::list_offsets_response::ListOffsetsResponse;
use klamm_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use klamm_protocol::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};

use crate::client::Client;

pub(crate) const CREATE_TOPICS_VERSION: i16 = 7;
pub(crate) const METADATA_VERSION: i16 = 9;
pub(crate) const PRODUCE_VERSION: i16 = 9;
pub(crate) const FETCH_VERSION: i16 = 11;
const LIST_OFFSETS_VERSION: i16 = 7;

pub(crate) fn create_topics(name: &str, partitions: i32) -> CreateTopicsRequest {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: 1,
        ..Default::default()
    };
    CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() }
}

/// Makes a topic of one partition.
pub(crate) fn create_topic(client: &mut Client, name: &str) {
    let answer: CreateTopicsResponse = client.call(&create_topics(name, 1), CREATE_TOPICS_VERSION);
    assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
}

pub(crate) fn metadata_of(name: &str) -> MetadataRequest {
    let topic = MetadataRequestTopic { name: Some(ByteString::from(name)), ..Default::default() };
    MetadataRequest {
        topics: Some(vec![topic]),
        allow_auto_topic_creation: false,
        ..Default::default()
    }
}

/// A batch of one record.
fn batch(value: &[u8]) -> Bytes {
    let mut batch = BatchBuilder::new(0);
    batch.append(1_000, None, Some(value), &[]).unwrap();
    batch.build().unwrap().bytes
}

/// One record for partition 0.
pub(crate) fn produce(topic: &str, value: &[u8], acks: i16) -> ProduceRequest {
    let data = PartitionProduceData { index: 0, records: Some(batch(value)) };
    let topic =
        TopicProduceData { name: topic.into(), partition_data: vec![data], ..Default::default() };
    ProduceRequest { acks, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() }
}

/// A fetch from partition 0 that waits for a byte.
pub(crate) fn fetch(topic: &str, offset: i64, max_wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition {
        partition: 0,
        fetch_offset: offset,
        partition_max_bytes: 1024 * 1024,
        ..Default::default()
    };
    let topic =
        FetchTopic { topic: topic.into(), partitions: vec![partition], ..Default::default() };
    FetchRequest { max_wait_ms, min_bytes: 1, topics: vec![topic], ..Default::default() }
}

/// The offset that partition 0's next record gets.
pub(crate) fn end_offset(client: &mut Client, topic: &str) -> i64 {
    let partition = ListOffsetsPartition { timestamp: -1, ..Default::default() };
    let topic = ListOffsetsTopic { name: topic.into(), partitions: vec![partition] };
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
    let answer: ListOffsetsResponse = client.call(&request, LIST_OFFSETS_VERSION);
    answer.topics[0].partitions[0].offset
}
