//! A topic of the load generator's own: made for a workload, checked at its end, deleted.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use klamm_protocol::Uuid;
use klamm_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use klamm_protocol::messages::create_topics_response::CreateTopicsResponse;
use klamm_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use klamm_protocol::messages::delete_topics_response::DeleteTopicsResponse;
use klamm_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use klamm_protocol::messages::list_offsets_response::ListOffsetsResponse;
use klamm_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use klamm_protocol::messages::metadata_response::MetadataResponse;
use klamm_testbed::until_true;

use crate::broker::Broker;
use crate::connection::Connection;

const CREATE_TOPICS_VERSION: i16 = 7;
const DELETE_TOPICS_VERSION: i16 = 6;
const LIST_OFFSETS_VERSION: i16 = 7;
const METADATA_VERSION: i16 = 12;
const TIMEOUT_MS: i32 = 60_000;
const READY_LIMIT: Duration = Duration::from_secs(60);
/// ListOffsets: the end of the log.
const LATEST: i64 = -1;

/// A topic and the offsets at which its partitions end.
#[derive(Debug)]
pub(crate) struct Topic {
    name: String,
    id: Uuid,
    /// By partition: the offset of the next record, as the acknowledgements say.
    pub(crate) ends: Vec<i64>,
}

impl Topic {
    /// # Panics
    /// When the broker refuses it or no leader is elected.
    pub(crate) fn create(broker: &Broker, stem: &str, partitions: usize) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{stem}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let topic = CreatableTopic {
            name: name.as_str().into(),
            num_partitions: i32::try_from(partitions).expect("a count of partitions"),
            replication_factor: 1,
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: TIMEOUT_MS,
            ..Default::default()
        };
        let answer: CreateTopicsResponse = open(broker).call(&request, CREATE_TOPICS_VERSION);
        assert_eq!(answer.topics.len(), 1, "one topic was asked for: {answer:?}");
        assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
        let topic = Self { name, id: answer.topics[0].topic_id, ends: vec![0; partitions] };
        let what = format!("leaders of {}", topic.name);
        until_true(&what, READY_LIMIT, || topic.is_ready(broker));
        topic
    }

    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// Whether each partition has a leader that serves it.
    fn is_ready(&self, broker: &Broker) -> bool {
        let topic =
            MetadataRequestTopic { name: Some(self.name.as_str().into()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
        let mut connection = open(broker);
        let answer: MetadataResponse = connection.call(&request, METADATA_VERSION);
        let [topic] = answer.topics.as_slice() else { return false };
        topic.partitions.len() == self.ends.len()
            && topic.partitions.iter().all(|partition| partition.error_code == 0)
            && self.listed_ends(&mut connection).is_ok()
    }

    /// Compares the broker's log end offsets with what it has acknowledged.
    ///
    /// # Panics
    /// When they differ.
    pub(crate) fn check_ends(&self, broker: &Broker) {
        let listed = self.listed_ends(&mut open(broker)).expect("the partitions are there");
        assert_eq!(listed, self.ends, "records are missing, or there are too many");
    }

    /// The ends by partition, or the first error code.
    fn listed_ends(&self, connection: &mut Connection) -> Result<Vec<i64>, i16> {
        let partitions = (0..).take(self.ends.len()).map(|partition_index| ListOffsetsPartition {
            partition_index,
            current_leader_epoch: -1,
            timestamp: LATEST,
        });
        let topic =
            ListOffsetsTopic { name: self.name.as_str().into(), partitions: partitions.collect() };
        let request =
            ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
        let answer: ListOffsetsResponse = connection.call(&request, LIST_OFFSETS_VERSION);
        let mut ends = vec![-1; self.ends.len()];
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            if partition.error_code != 0 {
                return Err(partition.error_code);
            }
            ends[index(partition.partition_index)] = partition.offset;
        }
        Ok(ends)
    }

    /// # Panics
    /// When the broker refuses it.
    pub(crate) fn delete(self, broker: &Broker) {
        let topic = DeleteTopicState { name: Some(self.name.into()), ..Default::default() };
        let request = DeleteTopicsRequest {
            topics: vec![topic],
            timeout_ms: TIMEOUT_MS,
            ..Default::default()
        };
        let answer: DeleteTopicsResponse = open(broker).call(&request, DELETE_TOPICS_VERSION);
        let codes: Vec<i16> = answer.responses.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, [0], "{answer:?}");
    }
}

fn open(broker: &Broker) -> Connection {
    Connection::open(broker.address()).expect("the broker takes connections")
}

/// A partition's number, as an index.
pub(crate) fn index(partition: i32) -> usize {
    usize::try_from(partition).expect("a partition's number is not negative")
}
