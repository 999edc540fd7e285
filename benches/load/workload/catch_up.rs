//! A reader far behind that reads a log from its start, again and again, out of the page cache.

use std::time::{Duration, Instant};

use klamm_protocol::compression::Compression;

use super::consumer::{Check, Consumer};
use super::producer::{Limit, Producer};
use super::{Session, WARM_UP_LIMIT, scaled};
use crate::broker::Broker;
use crate::measurement::{Meter, Sample, Work};
use crate::payload::Payload;
use crate::topic::{Topic, index};

const RUN_LIMIT: Duration = Duration::from_secs(60);
const FILL_WINDOW: usize = 5;

/// The shape of the load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CatchUpLoad {
    pub(crate) partitions: usize,
    pub(crate) value_len: usize,
    pub(crate) batch_len: usize,
    /// Batches in each partition at scale 1.
    pub(crate) batches: u64,
    /// How often a run reads all of it.
    pub(crate) rounds: usize,
}

impl CatchUpLoad {
    pub(super) fn prepare(self, broker: &Broker, name: &str, scale: f64) -> CatchUpSession {
        let mut topic = Topic::create(broker, name, self.partitions);
        let partitions: Vec<i32> = (0..).take(self.partitions).collect();
        let payload = Payload::new(self.value_len, self.batch_len, Compression::None);
        let mut producer = Producer::new(broker, &topic, &partitions, &payload, 1);
        let limit = Limit {
            requests: scaled(self.batches, scale, 1) * producer.round(),
            deadline: Instant::now() + RUN_LIMIT,
        };
        let produced = producer.run(FILL_WINDOW, limit, topic.ends.clone());
        for (partition, end) in produced.ends {
            topic.ends[index(partition)] = end;
        }
        topic.check_ends(broker);
        let session = CatchUpSession { rounds: self.rounds, topic };
        session.read_all(broker, 1, RUN_LIMIT, Check::OffsetsAndChecksums);
        session.read_all(broker, usize::MAX, WARM_UP_LIMIT, Check::Offsets);
        session
    }
}

pub(super) struct CatchUpSession {
    rounds: usize,
    topic: Topic,
}

impl CatchUpSession {
    fn read_all(&self, broker: &Broker, rounds: usize, limit: Duration, check: Check) -> Work {
        let ends = &self.topic.ends;
        let mut consumer = Consumer::new(broker, self.topic.id(), vec![0; ends.len()]);
        let deadline = Instant::now() + limit;
        let mut work = Work::default();
        for _ in 0..rounds {
            consumer.positions.fill(0);
            while consumer.positions != *ends {
                if Instant::now() > deadline {
                    return work;
                }
                work.add(consumer.fetch(ends, check, |_| ()));
            }
        }
        work
    }
}

impl Session for CatchUpSession {
    fn run(&mut self, broker: &Broker) -> Sample {
        let meter = Meter::start(broker);
        let work = self.read_all(broker, self.rounds, RUN_LIMIT, Check::Offsets);
        meter.stop(work)
    }

    fn finish(self: Box<Self>, broker: &Broker) {
        self.topic.delete(broker);
    }
}
