//! An idempotent producer with acks=all, as Java's: up to five batches in flight for a partition, sent
//! again until they are acknowledged, and while one has to be sent again nothing behind it is.
//!
//! The first batch of all goes alone: a leader accepts any first sequence of a producer that it does not
//! know, so the order of the first batches is the client's to keep.

use crate::batch::{DATA_PARTITIONS, PartitionId, Value};
use crate::client::{ClientStep, ClientTimer, Leaders};
use crate::message::{Address, CallId, Message, ProducedBatch};
use crate::observation::Observation;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{LeaderEpoch, Offset};
use std::collections::VecDeque;

/// `max.in.flight.requests.per.connection`
const MAX_IN_FLIGHT: usize = 5;
/// `request.timeout.ms`
const TIMEOUT_MS: i64 = 400;
const RETRY_BACK_OFF_MS: i64 = 25;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// Never sent.
    New,
    InFlight(CallId),
    /// Sent, but refused or not answered.
    Again,
    Acknowledged,
}

#[derive(Debug)]
struct Batch {
    values: Vec<Value>,
    sending: Sending,
    /// The epoch of the leader that it was last sent to, if all before it were acknowledged.
    next_in: Option<LeaderEpoch>,
}

#[derive(Debug, Default)]
struct Queue {
    window: VecDeque<Batch>,
    next_sequence: i32,
    ever_acknowledged: bool,
}

#[derive(Debug)]
pub(crate) struct Producer {
    id: i64,
    queues: Vec<Queue>,
    next_call: CallId,
    /// How many batches were acknowledged.
    pub(crate) acknowledged: u64,
}

impl Producer {
    pub(crate) fn new(id: i64) -> Self {
        let queues = (0..DATA_PARTITIONS).map(|_| Queue::default()).collect();
        Self { id, queues, next_call: 0, acknowledged: 0 }
    }

    /// Time for another batch.
    pub(crate) fn on_produce(&mut self, leaders: &Leaders, step: &mut ClientStep<'_>) {
        let delay_ms = step.random.between(10, 90);
        step.after(delay_ms, ClientTimer::Produce);
        let partitions = u64::try_from(DATA_PARTITIONS).expect("few");
        let partition = usize::try_from(step.random.below(partitions)).expect("an index");
        let count = usize::try_from(step.random.between(1, 3)).expect("few");
        let queue = &mut self.queues[partition];
        if queue.window.len() < MAX_IN_FLIGHT {
            let producer = self.id;
            let values = (queue.next_sequence..)
                .take(count)
                .map(|sequence| Value { producer, sequence })
                .collect();
            queue.next_sequence += i32::try_from(count).expect("few");
            queue.window.push_back(Batch { values, sending: Sending::New, next_in: None });
        }
        self.send(partition, leaders, step);
    }

    /// Tries again what was refused or not answered.
    pub(crate) fn on_retry(
        &mut self,
        partition: PartitionId,
        leaders: &Leaders,
        step: &mut ClientStep<'_>,
    ) {
        self.send(partition, leaders, step);
    }

    fn send(&mut self, partition: PartitionId, leaders: &Leaders, step: &mut ClientStep<'_>) {
        let Some(leader) = leaders.of(partition) else {
            return step.after(RETRY_BACK_OFF_MS, ClientTimer::Retry(partition));
        };
        let Queue { window, ever_acknowledged, .. } = &mut self.queues[partition];
        let repeats = window.iter().any(|batch| batch.sending == Sending::Again);
        let at_once = if repeats || !*ever_acknowledged { 1 } else { MAX_IN_FLIGHT };
        for (place, batch) in window.iter_mut().take(at_once).enumerate() {
            if !matches!(batch.sending, Sending::New | Sending::Again) {
                continue;
            }
            self.next_call += 1;
            let call = self.next_call;
            batch.sending = Sending::InFlight(call);
            batch.next_in = leaders.epoch_of(partition).filter(|_| place == 0);
            step.after(TIMEOUT_MS, ClientTimer::ProduceTimeout { partition, call });
            let batch = ProducedBatch {
                partition,
                values: batch.values.clone(),
                timestamp_ms: step.now.wall_ms,
            };
            step.ask(Address::Node(leader), Message::Produce { call, batch });
        }
    }

    pub(crate) fn on_timeout(
        &mut self,
        partition: PartitionId,
        call: CallId,
        leaders: &Leaders,
        step: &mut ClientStep<'_>,
    ) {
        if let Some(batch) = self.in_flight(partition, call) {
            batch.sending = Sending::Again;
            self.send(partition, leaders, step);
        }
    }

    pub(crate) fn on_answer(
        &mut self,
        call: CallId,
        answer: Result<Offset, ErrorCode>,
        leaders: &Leaders,
        step: &mut ClientStep<'_>,
    ) {
        let asked = |queue: &Queue| {
            queue.window.iter().position(|batch| batch.sending == Sending::InFlight(call))
        };
        let mut queues = self.queues.iter().enumerate();
        let found = queues.find_map(|(partition, queue)| Some((partition, asked(queue)?)));
        let Some((partition, place)) = found else { return };
        let queue = &mut self.queues[partition];
        match answer {
            Ok(_) => {
                queue.window[place].sending = Sending::Acknowledged;
                queue.ever_acknowledged = true;
                self.acknowledged += 1;
                let is_done = |batch: &mut Batch| batch.sending == Sending::Acknowledged;
                while queue.window.pop_front_if(is_done).is_some() {}
                self.send(partition, leaders, step);
            }
            Err(error) => {
                queue.window[place].sending = Sending::Again;
                let batch = &queue.window[place];
                if error == ErrorCode::OutOfOrderSequenceNumber
                    && let Some(epoch) = batch.next_in
                {
                    let value = batch.values[0];
                    step.observe(Observation::SequenceRefused { partition, epoch, value });
                }
                step.after(RETRY_BACK_OFF_MS, ClientTimer::Retry(partition));
            }
        }
    }

    fn in_flight(&mut self, partition: PartitionId, call: CallId) -> Option<&mut Batch> {
        let mut window = self.queues[partition].window.iter_mut();
        window.find(|batch| batch.sending == Sending::InFlight(call))
    }
}
