//! A producer at a steady rate and one reader at the end of the log. The latency is that from sending a batch to having it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use klamm_protocol::compression::Compression;

use super::consumer::{Check, Consumer, Seen};
use super::producer::ProduceTo;
use super::{Session, scaled};
use crate::broker::Broker;
use crate::connection::{Answers, Connection, Requests};
use crate::measurement::{Meter, Sample, Work};
use crate::payload::Payload;
use crate::topic::{Topic, index};

const RUN_LIMIT: Duration = Duration::from_secs(120);
/// Batches that are due are sent together, this often.
const TICK: Duration = Duration::from_millis(1);
/// Of the batches of a run at scale 1, before the first.
const WARM_UP_SHARE: u64 = 5;

/// The shape of the load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TailLoad {
    pub(crate) partitions: usize,
    pub(crate) value_len: usize,
    pub(crate) batch_len: usize,
    pub(crate) bytes_per_second: u64,
    /// Batches in a run at scale 1, one to a request.
    pub(crate) batches: u64,
}

impl TailLoad {
    pub(super) fn prepare(self, broker: &Broker, name: &str, scale: f64) -> TailSession {
        let payload = Payload::new(self.value_len, self.batch_len, Compression::None);
        let topic = Topic::create(broker, name, self.partitions);
        let partitions = (0..).take(self.partitions);
        let requests = partitions.map(|partition| ProduceTo::new(&topic, &[partition], &payload));
        let mut session = TailSession {
            requests: requests.collect(),
            interval: Duration::from_secs(1)
                .mul_f64(real(payload.len()) / real(self.bytes_per_second)),
            batches: scaled(self.batches, scale, 1),
            records: payload.records,
            topic,
        };
        session.tail(broker, self.batches / WARM_UP_SHARE, Check::OffsetsAndChecksums);
        session
    }
}

fn real(count: u64) -> f64 {
    count as f64
}

pub(super) struct TailSession {
    topic: Topic,
    /// One for each partition.
    requests: Vec<ProduceTo>,
    /// Between two batches.
    interval: Duration,
    batches: u64,
    records: u32,
}

/// When the batches of a run were sent, in ns since its start, shared by the one who sends and the one who reads.
struct SentTimes {
    started: Instant,
    nanos: Vec<AtomicU64>,
}

impl SentTimes {
    fn record(&self, batch: usize) {
        self.nanos[batch].store(self.now(), Ordering::Release);
    }

    fn since(&self, batch: usize) -> Duration {
        Duration::from_nanos(self.now() - self.nanos[batch].load(Ordering::Acquire))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).expect("a run is shorter than 500 years")
    }
}

impl TailSession {
    /// What the reader got. All that is produced is read.
    fn tail(&mut self, broker: &Broker, batches: u64, check: Check) -> Work {
        let batches = usize::try_from(batches).expect("a count of batches");
        let sent = SentTimes {
            started: Instant::now(),
            nanos: std::iter::repeat_with(AtomicU64::default).take(batches).collect(),
        };
        let Connection { requests, mut answers } =
            Connection::open(broker.address()).expect("the broker takes connections");
        let before = self.topic.ends.clone();
        let ends = self.ends_after(batches);
        let mut frames = self.requests.clone();
        let interval = self.interval;
        let (work, acknowledged) = thread::scope(|scope| {
            let sender = scope.spawn(|| send(requests, &mut frames, interval, &sent));
            let receiver = scope.spawn(|| self.receive_all(&mut answers, batches));
            let work = self.read(broker, &before, &ends, check, &sent);
            sender.join().expect("the broker takes requests");
            (work, receiver.join().expect("no answer was wrong"))
        });
        assert_eq!(acknowledged, ends, "what was read was acknowledged");
        self.topic.ends = ends;
        work
    }

    fn ends_after(&self, batches: usize) -> Vec<i64> {
        let mut ends = self.topic.ends.clone();
        let partitions = ends.len();
        for batch in 0..batches {
            ends[batch % partitions] += i64::from(self.records);
        }
        ends
    }

    fn receive_all(&self, answers: &mut Answers, batches: usize) -> Vec<i64> {
        let mut ends = self.topic.ends.clone();
        for request in self.requests.iter().cycle().take(batches) {
            request.receive(answers, &mut ends);
        }
        ends
    }

    fn read(
        &self,
        broker: &Broker,
        before: &[i64],
        ends: &[i64],
        check: Check,
        sent: &SentTimes,
    ) -> Work {
        let mut consumer = Consumer::new(broker, self.topic.id(), before.to_vec());
        let deadline = Instant::now() + RUN_LIMIT;
        let mut latencies = Vec::with_capacity(sent.nanos.len());
        let mut work = Work::default();
        while consumer.positions != ends {
            assert!(Instant::now() < deadline, "the reader has not seen all that was produced");
            work.add(consumer.fetch(ends, check, |seen| {
                latencies.push(sent.since(self.batch_of(seen, before)));
            }));
        }
        Work { latencies, ..work }
    }

    /// Which batch of the run it is: they go to the partitions in turn.
    fn batch_of(&self, seen: Seen, before: &[i64]) -> usize {
        let partition = index(seen.partition);
        let round = (seen.base_offset - before[partition]) / i64::from(self.records);
        usize::try_from(round).expect("offsets grow") * before.len() + partition
    }
}

/// Sends each batch when it is due, or as soon after as the broker takes it.
fn send(mut requests: Requests, frames: &mut [ProduceTo], interval: Duration, sent: &SentTimes) {
    let partitions = frames.len();
    let mut due = Duration::ZERO;
    for batch in 0..sent.nanos.len() {
        if sent.started.elapsed() < due {
            pause();
        }
        sent.record(batch);
        requests.send(&mut frames[batch % partitions].frame);
        due += interval;
    }
}

#[expect(clippy::disallowed_methods, reason = "keeps a rate; bounded by the count of batches")]
fn pause() {
    thread::sleep(TICK);
}

impl Session for TailSession {
    fn run(&mut self, broker: &Broker) -> Sample {
        let meter = Meter::start(broker);
        let work = self.tail(broker, self.batches, Check::Offsets);
        let sample = meter.stop(work);
        self.topic.check_ends(broker);
        sample
    }

    fn finish(self: Box<Self>, broker: &Broker) {
        self.topic.delete(broker);
    }
}
