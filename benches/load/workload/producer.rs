//! One connection that produces the same batches again and again, with several requests in flight.
//!
//! Invariants: no other connection writes to its partitions, so that each base offset is known before it is answered; every
//! partition of every answer is checked.

use std::collections::VecDeque;
use std::time::Instant;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use klamm_protocol::messages::produce_response::ProduceResponse;

use crate::broker::Broker;
use crate::connection::{Answers, Connection, RequestFrame};
use crate::measurement::Work;
use crate::payload::Payload;
use crate::topic::{Topic, index};

pub(super) const PRODUCE_VERSION: i16 = 13;
const ALL_REPLICAS: i16 = -1;
const TIMEOUT_MS: i32 = 30_000;

/// When to stop: after so many requests, and in any case then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) requests: u64,
    pub(super) deadline: Instant,
}

/// A connection, and the requests that it sends in turn.
#[derive(Debug)]
pub(super) struct Producer {
    connection: Connection,
    requests: Vec<ProduceTo>,
    next: usize,
}

/// A request with a batch for each of some partitions.
#[derive(Debug, Clone)]
pub(super) struct ProduceTo {
    pub(super) frame: RequestFrame,
    partitions: Vec<i32>,
    payload_len: u64,
    records: u32,
}

impl ProduceTo {
    pub(super) fn new(topic: &Topic, partitions: &[i32], payload: &Payload) -> Self {
        let data = partitions.iter().map(|partition| PartitionProduceData {
            index: *partition,
            records: Some(payload.batch.clone()),
        });
        let topic_data = TopicProduceData {
            topic_id: topic.id(),
            partition_data: data.collect(),
            ..Default::default()
        };
        let request = ProduceRequest {
            transactional_id: None,
            acks: ALL_REPLICAS,
            timeout_ms: TIMEOUT_MS,
            topic_data: vec![topic_data],
        };
        Self {
            frame: RequestFrame::encode(&request, PRODUCE_VERSION),
            partitions: partitions.to_vec(),
            payload_len: payload.len(),
            records: payload.records,
        }
    }

    /// Reads the answer, checks all of it, and moves the partitions' ends in `ends` behind what was appended.
    pub(super) fn receive(&self, answers: &mut Answers, ends: &mut [i64]) -> Work {
        answers.next_with(PRODUCE_VERSION, |answer| self.check(&answer, ends));
        let batches = u64::try_from(self.partitions.len()).expect("usize fits");
        Work {
            bytes: batches * self.payload_len,
            records: batches * u64::from(self.records),
            requests: 1,
            latencies: Vec::new(),
        }
    }

    fn check(&self, answer: &ProduceResponse, ends: &mut [i64]) {
        let mut answered = 0;
        for partition in answer.responses.iter().flat_map(|topic| &topic.partition_responses) {
            assert!(self.partitions.contains(&partition.index), "not asked for: {partition:?}");
            let code = ErrorCode::from_code(partition.error_code);
            assert_eq!(code, Some(ErrorCode::None), "{partition:?}");
            let end = &mut ends[index(partition.index)];
            assert_eq!(partition.base_offset, *end, "{partition:?}");
            *end += i64::from(self.records);
            answered += 1;
        }
        assert_eq!(answered, self.partitions.len(), "a partition has no answer: {answer:?}");
    }
}

impl Producer {
    pub(super) fn new(
        broker: &Broker,
        topic: &Topic,
        partitions: &[i32],
        payload: &Payload,
        batches_per_request: usize,
    ) -> Self {
        let requests = partitions.chunks(batches_per_request);
        Self {
            connection: Connection::open(broker.address()).expect("the broker takes connections"),
            requests: requests.map(|chunk| ProduceTo::new(topic, chunk, payload)).collect(),
            next: 0,
        }
    }

    /// How many requests it takes to reach each of its partitions once.
    pub(super) fn round(&self) -> u64 {
        u64::try_from(self.requests.len()).expect("usize fits")
    }

    /// Keeps `window` requests in flight until the limit, and returns what was done and where its partitions end. `ends`
    /// are those of all partitions before.
    pub(super) fn run(&mut self, window: usize, limit: Limit, mut ends: Vec<i64>) -> Produced {
        let mut work = Work::default();
        let mut in_flight = VecDeque::with_capacity(window);
        let mut left = limit.requests;
        loop {
            while left > 0 && in_flight.len() < window {
                let at = self.next;
                self.next = (at + 1) % self.requests.len();
                in_flight.push_back((at, Instant::now()));
                self.connection.requests.send(&mut self.requests[at].frame);
                left -= 1;
            }
            let Some((at, sent)) = in_flight.pop_front() else { break };
            work.add(self.requests[at].receive(&mut self.connection.answers, &mut ends));
            let now = Instant::now();
            work.latencies.push(now - sent);
            if now > limit.deadline {
                left = 0;
            }
        }
        Produced { work, ends: self.own(&ends) }
    }

    fn own(&self, ends: &[i64]) -> Vec<(i32, i64)> {
        let partitions = self.requests.iter().flat_map(|request| &request.partitions);
        partitions.map(|partition| (*partition, ends[index(*partition)])).collect()
    }
}

/// What one connection did.
#[derive(Debug)]
pub(super) struct Produced {
    pub(super) work: Work,
    /// The new ends of its partitions.
    pub(super) ends: Vec<(i32, i64)>,
}
