//! The load of a librdkafka producer, in a thread of this process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, TryRecvError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig,
};
use rdkafka::util::Timeout;
use rdkafka::{ClientContext, producer::NoCustomPartitioner};

use super::{LoadSetup, MAX_UNACKNOWLEDGED};
use crate::recording::Recording;

/// Between looks at the clock and at what has come back.
const POLL: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) struct Driver {
    /// Takes how long the last records may take. Without it nobody asks what became of them.
    end: Option<mpsc::Sender<Duration>>,
    sender: Option<JoinHandle<()>>,
}

struct Deliveries(Arc<Recording>);

impl ClientContext for Deliveries {
    // Shown with a test that fails: some of them end a producer for good.
    fn error(&self, error: KafkaError, reason: &str) {
        eprintln!("librdkafka at {:?}: {error}: {reason}", self.0.elapsed());
    }
}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let (Ok(message) | Err((_, message))) = result;
        let value = std::str::from_utf8(message.payload().unwrap_or_default());
        let id = value.ok().and_then(|value| value.parse().ok()).expect("we sent it");
        match result {
            Ok(message) => {
                // librdkafka says -1 when it hears of a record only as a duplicate.
                self.0.acknowledge(id, Some(message.offset()).filter(|offset| *offset >= 0));
            }
            Err((error, _)) => self.0.fail(id, error.to_string()),
        }
    }
}

impl Driver {
    pub(super) fn start(
        bootstrap: &str,
        topic: &str,
        setup: LoadSetup,
        recording: &Arc<Recording>,
    ) -> Self {
        let timeout_ms = setup.request_timeout.as_millis().to_string();
        let producer: BaseProducer<Deliveries> = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("retry.backoff.ms", "20")
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "100")
            .set("topic.metadata.refresh.fast.interval.ms", "50")
            .set("socket.timeout.ms", &timeout_ms)
            .set("request.timeout.ms", &timeout_ms)
            .set("log_level", "3")
            .create_with_context(Deliveries(Arc::clone(recording)))
            .expect("librdkafka knows these settings");
        let (end, ended) = mpsc::channel();
        let sender = Sender {
            producer,
            topic: topic.to_owned(),
            setup,
            recording: Arc::clone(recording),
            ended,
        };
        let sender = Some(std::thread::spawn(move || sender.run()));
        Self { end: Some(end), sender }
    }

    /// Sends no more and waits until every record is acknowledged or given up, which happens to what is left after `limit`.
    pub(super) fn finish(&mut self, limit: Duration) {
        if let Some(end) = self.end.take() {
            // It fails if the sender has panicked, which joining it tells.
            let _sent = end.send(limit);
        }
        self.join();
    }

    fn join(&mut self) {
        if let Some(sender) = self.sender.take()
            && sender.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the load could not go on");
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.end = None;
        self.join();
    }
}

struct Sender {
    producer: BaseProducer<Deliveries>,
    topic: String,
    setup: LoadSetup,
    recording: Arc<Recording>,
    ended: mpsc::Receiver<Duration>,
}

impl Sender {
    fn run(&self) {
        let limit = loop {
            match self.ended.try_recv() {
                Ok(limit) => break limit,
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {}
            }
            self.producer.poll(POLL);
            for partition in 0..self.setup.partitions {
                self.send_what_is_due(partition);
            }
        };
        if self.producer.flush(Timeout::After(limit)).is_err() {
            self.producer.purge(PurgeConfig::default().queue().inflight());
            let given_up = self.producer.flush(Timeout::After(limit));
            given_up.expect("what is purged is given up at once");
        }
    }

    fn send_what_is_due(&self, partition: i32) {
        let (sent, done) = {
            let written = self.recording.written();
            let count = |counts: &BTreeMap<i32, u64>| counts.get(&partition).copied().unwrap_or(0);
            (count(&written.sent), count(&written.counts))
        };
        let elapsed_ms = u64::try_from(self.recording.elapsed().as_millis())
            .expect("a test does not last for ages");
        let due = elapsed_ms * self.setup.records_per_second_and_partition / 1_000;
        let room = MAX_UNACKNOWLEDGED.saturating_sub(sent - done);
        for _ in 0..due.saturating_sub(sent).min(room) {
            self.send(partition);
        }
    }

    fn send(&self, partition: i32) {
        let id = self.recording.next(partition);
        let value = id.to_string();
        let record = BaseRecord::<[u8], [u8]>::to(&self.topic)
            .partition(partition)
            .payload(value.as_bytes());
        // A full queue, or a producer that has been told that what it was promised is gone.
        if let Err((error, _)) = self.producer.send(record) {
            self.recording.fail(id, error.to_string());
        }
    }
}
