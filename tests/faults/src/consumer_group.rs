//! A consumer group that reads a topic while its cluster fails, and the complete read at the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use klamm_testbed::until_true;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::history::{Polled, Stored};

const POLL: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(60);

/// A group of consumers at work, each in a thread of its own.
#[derive(Debug)]
pub struct ConsumerGroup {
    polled: Arc<Mutex<Vec<Polled>>>,
    stop: Arc<AtomicBool>,
    members: Vec<JoinHandle<()>>,
}

/// Counts a member's assignments.
#[derive(Default)]
struct Sessions(AtomicUsize);

impl ClientContext for Sessions {
    // Reports of lost connections are no news here.
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Sessions {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl ConsumerGroup {
    /// Starts members that subscribe to a topic.
    ///
    /// # Panics
    /// When the client refuses its configuration.
    pub fn start(bootstrap: &str, topic: &str, members: usize) -> Self {
        let polled = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let members = (0..members).map(|member| {
            let consumer = member_of(&format!("readers of {topic}"), bootstrap);
            consumer.subscribe(&[topic]).expect("the topic has a name");
            let (polled, stop) = (Arc::clone(&polled), Arc::clone(&stop));
            std::thread::spawn(move || read_until(&stop, member, &consumer, &polled))
        });
        let members = members.collect();
        Self { polled, stop, members }
    }

    /// How many records were read, repetitions included.
    pub fn count(&self) -> usize {
        self.polled.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Ends the members once the group has got the last record of every partition, and returns all that they got.
    ///
    /// # Panics
    /// When the group does not get there in time.
    pub(crate) fn finish(mut self, stored: &BTreeMap<i32, Vec<Stored>>) -> Vec<Polled> {
        let ends: BTreeMap<i32, i64> = stored
            .iter()
            .filter_map(|(partition, records)| Some((*partition, records.last()?.offset)))
            .collect();
        until_true("the group to read to the end", LIMIT, || {
            let polled = self.polled.lock().unwrap_or_else(PoisonError::into_inner);
            let mut reached: BTreeMap<i32, i64> = BTreeMap::new();
            for polled in &*polled {
                let last = reached.entry(polled.partition).or_insert(polled.offset);
                *last = polled.offset.max(*last);
            }
            ends.iter().all(|(partition, end)| reached.get(partition) >= Some(end))
        });
        self.stop.store(true, Ordering::Relaxed);
        for member in self.members.drain(..) {
            member.join().expect("a member reads without panicking");
        }
        std::mem::take(&mut *self.polled.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for ConsumerGroup {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn member_of(group: &str, bootstrap: &str) -> BaseConsumer<Sessions> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("auto.commit.interval.ms", "500")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "500")
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "100")
        .set("topic.metadata.refresh.fast.interval.ms", "50")
        .set("fetch.wait.max.ms", "100")
        .set("socket.timeout.ms", "3000")
        .set("log_level", "3")
        .create_with_context(Sessions::default())
        .expect("librdkafka knows these settings")
}

fn read_until(
    stop: &AtomicBool,
    member: usize,
    consumer: &BaseConsumer<Sessions>,
    polled: &Mutex<Vec<Polled>>,
) {
    while !stop.load(Ordering::Relaxed) {
        // An error is a broker that is away or a coordinator that moves: the client goes on by itself.
        let Some(Ok(message)) = consumer.poll(POLL) else { continue };
        let session = (member, consumer.context().0.load(Ordering::Relaxed));
        let Stored { offset, value } = stored(&message);
        let partition = message.partition();
        let mut polled = polled.lock().unwrap_or_else(PoisonError::into_inner);
        polled.push(Polled { session, partition, offset, value });
    }
}

fn stored(message: &BorrowedMessage<'_>) -> Stored {
    let value = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
    Stored { offset: message.offset(), value }
}

/// Every record of partitions `0..partitions`, in order.
///
/// # Panics
/// When they cannot be read to their ends in time.
pub(crate) fn read_all(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
) -> BTreeMap<i32, Vec<Stored>> {
    let consumer = member_of("unused", bootstrap);
    let mut list = TopicPartitionList::new();
    let mut ends = BTreeMap::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("it is no offset");
        let (first, end) = klamm_testbed::until("the end of a partition", LIMIT, || {
            consumer.fetch_watermarks(topic, partition, POLL * 50).ok()
        });
        if end > first {
            ends.insert(partition, end);
        }
    }
    consumer.assign(&list).expect("a consumer takes partitions");
    let mut found: BTreeMap<i32, Vec<Stored>> = BTreeMap::new();
    until_true("the complete read", LIMIT, || {
        while let Some(message) = consumer.poll(POLL) {
            if let Ok(message) = message {
                found.entry(message.partition()).or_default().push(stored(&message));
            }
        }
        // The last offsets of a partition may be control records, which no consumer sees; the producers here write none.
        ends.iter().all(|(partition, end)| {
            found
                .get(partition)
                .and_then(|records| records.last())
                .is_some_and(|last| last.offset + 1 >= *end)
        })
    });
    found
}
