//! One connection that reads partitions from where it stands and checks that nothing is missing or out of order.

use std::time::Instant;

use klamm_protocol::batch::{BatchHeader, RecordBatch};
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use klamm_protocol::messages::fetch_response::{FetchResponse, PartitionData};
use klamm_protocol::{ErrorCode, Uuid};

use crate::broker::Broker;
use crate::connection::{Connection, RequestFrame};
use crate::measurement::Work;
use crate::topic::index;

const FETCH_VERSION: i16 = 17;
/// Kafka's consumer's defaults.
const PARTITION_MAX_BYTES: i32 = 1024 * 1024;
const MAX_BYTES: i32 = 50 * 1024 * 1024;
const MAX_WAIT_MS: i32 = 500;
const NO_SESSION: i32 = 0;
const NO_SESSION_EPOCH: i32 = -1;

/// A batch that came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) partition: i32,
    pub(super) base_offset: i64,
}

/// Whether the checksums of what comes are computed too: once is enough, since the generator shares the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    Offsets,
    OffsetsAndChecksums,
}

#[derive(Debug)]
pub(super) struct Consumer {
    connection: Connection,
    topic: Uuid,
    /// By partition: the next offset to read.
    pub(super) positions: Vec<i64>,
}

impl Consumer {
    pub(super) fn new(broker: &Broker, topic: Uuid, positions: Vec<i64>) -> Self {
        let connection = Connection::open(broker.address()).expect("the broker takes connections");
        Self { connection, topic, positions }
    }

    /// Fetches from the partitions that have not reached `ends`, and tells `seen` of each batch.
    pub(super) fn fetch(&mut self, ends: &[i64], check: Check, mut seen: impl FnMut(Seen)) -> Work {
        let mut frame = RequestFrame::encode(&self.request(ends), FETCH_VERSION);
        let sent = Instant::now();
        self.connection.requests.send(&mut frame);
        let positions = &mut self.positions;
        let mut work = self.connection.answers.next_with(FETCH_VERSION, |answer: FetchResponse| {
            assert_eq!(answer.error_code, 0, "the fetch failed");
            let mut work = Work { requests: 1, ..Work::default() };
            for data in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
                let position = &mut positions[index(data.partition_index)];
                work.add(read_partition(data, position, check, &mut seen));
            }
            work
        });
        work.latencies.push(sent.elapsed());
        work
    }

    fn request(&self, ends: &[i64]) -> FetchRequest {
        let behind = (0..).zip(self.positions.iter().zip(ends)).filter(|(_, (at, end))| at < end);
        let partitions = behind.map(|(partition, (at, _))| FetchPartition {
            partition,
            current_leader_epoch: -1,
            fetch_offset: *at,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: PARTITION_MAX_BYTES,
            ..Default::default()
        });
        FetchRequest {
            replica_id: -1,
            max_wait_ms: MAX_WAIT_MS,
            min_bytes: 1,
            max_bytes: MAX_BYTES,
            session_id: NO_SESSION,
            session_epoch: NO_SESSION_EPOCH,
            topics: vec![FetchTopic {
                topic_id: self.topic,
                partitions: partitions.collect(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }
}

/// Walks the batches of an answer. The last one may be cut short, and is then left to the next fetch.
fn read_partition(
    data: PartitionData,
    position: &mut i64,
    check: Check,
    mut seen: impl FnMut(Seen),
) -> Work {
    let partition = data.partition_index;
    let code = ErrorCode::from_code(data.error_code);
    assert_eq!(code, Some(ErrorCode::None), "partition {partition}");
    let records = data.records.unwrap_or_default();
    let mut work =
        Work { bytes: u64::try_from(records.len()).expect("usize fits"), ..Work::default() };
    let mut rest = records;
    while let Ok(header) = BatchHeader::parse(&rest) {
        let size = header.size();
        if rest.len() < size {
            break;
        }
        assert_eq!(header.base_offset, *position, "partition {partition} has a gap");
        let batch = rest.split_to(size);
        if check == Check::OffsetsAndChecksums {
            let batch = RecordBatch::parse(&batch).expect("the batch is whole");
            batch.check_crc().expect("the batch is the one that was sent");
        }
        *position = header.next_offset();
        work.records += u64::try_from(header.record_count).expect("a count of records");
        seen(Seen { partition, base_offset: header.base_offset });
    }
    work
}
