//! Producing as fast as the broker answers, with a bounded number of requests in flight on each connection.

use std::thread;
use std::time::{Duration, Instant};

use klamm_protocol::compression::Compression;

use super::producer::{Limit, Producer};
use super::{Session, WARM_UP_LIMIT, scaled};
use crate::broker::Broker;
use crate::measurement::{Meter, Sample, Work};
use crate::payload::Payload;
use crate::topic::{Topic, index};

/// One run, even of a broker that is far too slow.
const RUN_LIMIT: Duration = Duration::from_secs(60);
/// Apache Kafka's first appends to a partition are slow.
const TOUCH_LIMIT: Duration = Duration::from_secs(240);
/// Before it has written to the index of a partition, Apache Kafka has not seen the last of its first costs; that takes more
/// than `index.interval.bytes`.
const TOUCH_ROUNDS: u64 = 4;

/// The shape of the load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProduceLoad {
    pub(crate) connections: usize,
    pub(crate) partitions: usize,
    pub(crate) value_len: usize,
    pub(crate) batch_len: usize,
    /// What the batches are compressed with, by the producer.
    pub(crate) codec: Compression,
    /// Batches in a request, each for another partition.
    pub(crate) batches_per_request: usize,
    /// Requests in flight on each connection.
    pub(crate) window: usize,
    /// Requests in a run at scale 1, on all connections.
    pub(crate) requests: u64,
    /// Whether each run writes to a new topic, so that the page cache of the old one can go before the disk sees it.
    pub(crate) fresh_topic: bool,
}

impl ProduceLoad {
    pub(super) fn prepare(self, broker: &Broker, name: &str, scale: f64) -> ProduceSession {
        let payload = Payload::new(self.value_len, self.batch_len, self.codec);
        let mut session =
            ProduceSession { load: self, name: name.to_owned(), payload, scale, open: None };
        let mut open = session.open_on(broker);
        open.touch();
        let deadline = Instant::now() + WARM_UP_LIMIT;
        open.produce(self.window, Limit { requests: self.requests_per_connection(1.0), deadline });
        session.open = Some(open);
        session
    }

    fn requests_per_connection(&self, scale: f64) -> u64 {
        let connections = u64::try_from(self.connections).expect("usize fits");
        scaled(self.requests, scale, 1).div_ceil(connections)
    }
}

pub(super) struct ProduceSession {
    load: ProduceLoad,
    name: String,
    payload: Payload,
    scale: f64,
    open: Option<Open>,
}

/// A topic and the connections that write to it.
struct Open {
    topic: Topic,
    producers: Vec<Producer>,
}

impl ProduceSession {
    fn open_on(&self, broker: &Broker) -> Open {
        let load = &self.load;
        let topic = Topic::create(broker, &self.name, load.partitions);
        let partitions: Vec<i32> = (0..).take(load.partitions).collect();
        let shares = partitions.chunks(load.partitions.div_ceil(load.connections));
        let producers = shares.map(|share| {
            Producer::new(broker, &topic, share, &self.payload, load.batches_per_request)
        });
        let producers = producers.collect();
        Open { topic, producers }
    }

    /// The topic of the next run.
    fn next_open(&mut self, broker: &Broker) -> Open {
        match self.open.take() {
            Some(open) => open,
            None => {
                let mut open = self.open_on(broker);
                open.touch();
                open
            }
        }
    }
}

impl Open {
    /// Writes to each partition: what the first appends cost is not measured here.
    fn touch(&mut self) {
        let round = self.producers.iter().map(Producer::round).max().unwrap_or_default();
        let deadline = Instant::now() + TOUCH_LIMIT;
        self.produce(1, Limit { requests: round * TOUCH_ROUNDS, deadline });
        assert!(Instant::now() < deadline, "not all partitions were touched");
    }

    fn produce(&mut self, window: usize, limit: Limit) -> Work {
        let ends = &self.topic.ends;
        let produced: Vec<_> = thread::scope(|scope| {
            let running: Vec<_> = self
                .producers
                .iter_mut()
                .map(|producer| scope.spawn(|| producer.run(window, limit, ends.clone())))
                .collect();
            running.into_iter().map(|thread| thread.join().expect("no answer was wrong")).collect()
        });
        let mut work = Work::default();
        for one in produced {
            work.add(one.work);
            for (partition, end) in one.ends {
                self.topic.ends[index(partition)] = end;
            }
        }
        work
    }
}

impl Session for ProduceSession {
    fn run(&mut self, broker: &Broker) -> Sample {
        let mut open = self.next_open(broker);
        let requests = self.load.requests_per_connection(self.scale);
        let meter = Meter::start(broker);
        let limit = Limit { requests, deadline: Instant::now() + RUN_LIMIT };
        let work = open.produce(self.load.window, limit);
        let sample = meter.stop(work);
        open.topic.check_ends(broker);
        if self.load.fresh_topic {
            open.topic.delete(broker);
        } else {
            self.open = Some(open);
        }
        sample
    }

    fn finish(self: Box<Self>, broker: &Broker) {
        if let Some(open) = self.open {
            open.topic.delete(broker);
        }
    }
}
