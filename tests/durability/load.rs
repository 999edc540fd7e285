//! A producer that keeps sending, through any number of restarts, and remembers what was acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use klamm_testbed::{Broker, until_true};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, util::Timeout};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
/// More would only lengthen the catching up after a restart.
const IN_FLIGHT: i32 = 200;

/// Offset and value of every record that the broker acknowledged; offset -1 stands for an acknowledgement without one.
type Acknowledged = BTreeMap<i64, String>;

#[derive(Default)]
struct Deliveries {
    acknowledged: Mutex<Acknowledged>,
    failed: Mutex<Vec<KafkaError>>,
    count: AtomicUsize,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => {
                let value = String::from_utf8(message.payload().unwrap_or_default().to_vec());
                let mut acknowledged =
                    self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                acknowledged.insert(message.offset(), value.unwrap());
                self.count.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(error.clone());
            }
        }
    }
}

/// A running load on one partition.
pub(crate) struct Load {
    topic: String,
    producer: Arc<BaseProducer<Deliveries>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Load {
    /// Starts sending `0`, `1`, `2`, ... to partition 0 of a new topic with acks=all.
    pub(crate) fn start(broker: &Broker, idempotent: bool) -> Self {
        let topic = broker.create_topic("load", "");
        let producer: BaseProducer<Deliveries> = ClientConfig::new()
            .set("bootstrap.servers", broker.bootstrap())
            .set("enable.idempotence", idempotent.to_string())
            .set("acks", "all")
            .set("reconnect.backoff.max.ms", "100")
            .set("retry.backoff.ms", "20")
            .create_with_context(Deliveries::default())
            .unwrap();
        let (producer, stop) = (Arc::new(producer), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (topic, producer, stop) = (topic.clone(), Arc::clone(&producer), Arc::clone(&stop));
            std::thread::spawn(move || send_until(&stop, &producer, &topic))
        };
        Self { topic, producer, stop, thread }
    }

    /// The topic it sends to.
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// Waits until so many more records were acknowledged than now.
    #[track_caller]
    pub(crate) fn until_acknowledged(&self, more: usize) {
        let count = || self.producer.context().count.load(Ordering::Relaxed);
        let goal = count() + more;
        until_true("acknowledgements", LIMIT, || count() >= goal);
    }

    /// Ends the load and checks that every acknowledged record is where it was acknowledged to be. Returns the values of the
    /// whole partition.
    #[track_caller]
    pub(crate) fn finish(self, broker: &Broker) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.thread.join().unwrap();
        self.producer.flush(Timeout::After(LIMIT)).unwrap();
        let deliveries = self.producer.context();
        let failed = deliveries.failed.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(failed.is_empty(), "{} of {sent} records failed: {:?}", failed.len(), failed[0]);
        let acknowledged = deliveries.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(deliveries.count.load(Ordering::Relaxed), sent);

        let stored = partition(broker, &self.topic);
        for (&offset, value) in &*acknowledged {
            // librdkafka learns no offset when it hears of a record only as a duplicate.
            if let Ok(at) = usize::try_from(offset) {
                assert_eq!(stored.get(at), Some(value), "offset {offset}");
            }
        }
        stored
    }
}

fn send_until(stop: &AtomicBool, producer: &BaseProducer<Deliveries>, topic: &str) -> usize {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        producer.poll(POLL);
        while producer.in_flight_count() < IN_FLIGHT {
            let value = sent.to_string();
            let record = BaseRecord::<[u8], [u8]>::to(topic).partition(0).payload(value.as_bytes());
            match producer.send(record) {
                Ok(()) => sent += 1,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => break,
                Err((error, _)) => panic!("{error}"),
            }
        }
    }
    sent
}

/// The values of partition 0 from its beginning to its end, whose offsets have no gaps.
#[track_caller]
pub(crate) fn partition(broker: &Broker, topic: &str) -> Vec<String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("group.id", "unused")
        .create()
        .unwrap();
    let (first, end) = consumer.fetch_watermarks(topic, 0, LIMIT).unwrap();
    assert_eq!(first, 0);
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&partitions).unwrap();
    let mut values = Vec::new();
    until_true("the end of the partition", LIMIT, || {
        while let Some(message) = consumer.poll(POLL) {
            let message = message.unwrap();
            assert_eq!(usize::try_from(message.offset()), Ok(values.len()));
            values.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap());
        }
        i64::try_from(values.len()).unwrap() >= end
    });
    values
}
