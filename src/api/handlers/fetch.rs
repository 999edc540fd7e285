//! Fetch (key 1): records from partitions, at once or when there are enough of them.
//!
//! A fetch that cannot be answered yet registers with its partitions and reads again when one of them has new records,
//! until its max wait is over. It reads ranges of log files.

pub(crate) mod metadata_log;

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use indexmap::IndexMap;
use klamm_metadata::image::ClusterImage;
use klamm_protocol::ids::{BrokerId, none_if_minus_one, none_if_negative, or_minus_one};
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchRequest};
use klamm_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch,
    NodeEndpoint, PartitionData,
};
use klamm_protocol::{ErrorCode, ResponseMessage, Uuid, fetch_response};
use tokio::time::Instant;

use crate::api::context::RequestContext;
use crate::api::fetch_session::{
    FetchContext, FetchKey, FetchTarget, Fetched, SessionRequest, TopicKey,
};
use crate::api::reply::Reply;
use crate::api::request::{RequestError, RequestHead};
use crate::api::services::Services;
use crate::api::table::{FirstPhase, Phase};
use crate::clock;
use crate::metadata_cache::PublishedImage;
use crate::net::response::{Part, Response};
use crate::net::service::ConnectionInfo;
use crate::replica::delayed::FetchWaiter;
use crate::replica::partition::{Partition, ReadOptions, ReadOutcome, Reader};

/// The first version with fetch sessions (KIP-227).
const FIRST_WITH_SESSIONS: i16 = 7;
/// The first version with the consumer's rack and a preferred read replica (KIP-392).
const FIRST_WITH_RACKS: i16 = 11;
/// The value of `replica.selector.class` that selects replicas by rack.
const RACK_AWARE: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
/// The first version that names topics by id (KIP-516).
const FIRST_WITH_TOPIC_IDS: i16 = 13;
/// Versions up to this one have no KAFKA_STORAGE_ERROR.
const LAST_WITHOUT_STORAGE_ERROR: i16 = 5;
/// The first version whose answers name the current leader (KIP-951).
const FIRST_WITH_LEADER_HINTS: i16 = 16;

/// How long a follower's fetch waits for records after the high watermark has moved, before it is answered without any.
/// Answers with records carry the high watermark, so a busy partition needs no such answer; without new records,
/// consumers at followers read this much later than those at the leader.
const WATERMARK_LINGER: Duration = Duration::from_millis(10);

pub(crate) fn handle(
    context: &RequestContext,
    body: FetchRequest,
) -> FirstPhase<FetchReply, impl Future<Output = FetchReply> + Send + use<>> {
    let (services, version) = (&context.services, context.version());
    if !matches!(body.isolation_level, 0 | 1) {
        return Ok(Phase::Replied(unknown_isolation_level(version, body)));
    }
    let from_followers = version >= FIRST_WITH_RACKS;
    let max_bytes = services.config.replication.consumer_fetch_max_bytes;
    let options = Options::of(&body, max_bytes, from_followers);
    let rack = near_rack(context, &body, &options);
    let image = services.metadata_cache.image();
    let name_of = |id| image.topics.by_id(id).map(|topic| topic.name.clone());
    let request = session_request(version, body);
    let session = match services.fetch_sessions.begin(request, name_of, clock::now_ms()) {
        Ok(session) => session,
        Err(code) => {
            let response = FetchResponse { error_code: code.code(), ..Default::default() };
            return Ok(Phase::Replied(FetchReply::without_records(response)));
        }
    };
    let (services, connection) = (Arc::clone(services), Arc::clone(&context.connection));
    let mut fetch = Fetch { services, connection, version, options, rack, session };
    let round = fetch.read(None);
    if round.is_enough(&fetch.options) {
        return Ok(Phase::Replied(fetch.reply(round)));
    }
    // Without a session, a high watermark counts as moved if it differs from the one at the arrival of the fetch.
    for ((_, target), (data, _)) in fetch.session.targets.iter_mut().zip(&round.reads) {
        target.sent_high_watermark.get_or_insert(data.high_watermark);
    }
    Ok(Phase::Waiting(fetch.wait()))
}

/// The answer to a Fetch: the message, and the ranges of log files that go between its parts.
#[derive(Debug)]
pub(crate) struct FetchReply {
    response: FetchResponse,
    /// The size of each partition's records, in the order of the response.
    record_lens: Vec<usize>,
    /// The records of those partitions that have any.
    records: Vec<Vec<Part>>,
}

impl FetchReply {
    fn without_records(response: FetchResponse) -> Self {
        let partitions = response.responses.iter().map(|topic| topic.partitions.len()).sum();
        Self { response, record_lens: vec![0; partitions], records: Vec::new() }
    }
}

impl Reply for FetchReply {
    fn lower(&mut self, _: i16) {}

    fn count_errors(&self, count: &mut dyn FnMut(i16)) {
        self.response.for_each_error_code(count);
    }

    /// Inserts the record sets between the chunks of the response.
    fn encode(self, head: &RequestHead) -> Result<Response, RequestError> {
        let Self { response, record_lens, records } = self;
        let header = head.response_header();
        let chunks = fetch_response::lay_out(&response, head.version, header, &record_lens)?;
        let mut parts = Vec::with_capacity(chunks.len() + 2 * records.len());
        let mut records = records.into_iter();
        for chunk in chunks {
            parts.push(Part::Memory(chunk));
            parts.extend(records.next().into_iter().flatten());
        }
        Ok(Response::parts(parts))
    }
}

/// The parameters of the whole request.
#[derive(Debug, Clone, Copy)]
struct Options {
    reader: Reader,
    min_bytes: usize,
    max_bytes: usize,
    negative_max_bytes: bool,
    deadline: Option<Instant>,
}

impl Options {
    fn of(body: &FetchRequest, broker_max_bytes: i32, from_followers: bool) -> Self {
        let count = |bytes: i32| usize::try_from(bytes).unwrap_or_default();
        let max_bytes = count(body.max_bytes.min(broker_max_bytes));
        let wait = Duration::from_millis(u64::try_from(body.max_wait_ms).unwrap_or_default());
        let sender = match body.replica_id {
            -1 => {
                let epoch = none_if_minus_one(body.replica_state.replica_epoch);
                (body.replica_state.replica_id, epoch)
            }
            id => (id, None),
        };
        Self {
            reader: Reader::of(sender, body.isolation_level == 1, from_followers),
            min_bytes: count(body.min_bytes).min(max_bytes),
            max_bytes,
            negative_max_bytes: body.max_bytes < 0,
            deadline: (!wait.is_zero()).then(|| Instant::now() + wait),
        }
    }
}

/// The rack of a consumer that may be redirected to a replica in its rack.
fn near_rack(
    context: &RequestContext,
    body: &FetchRequest,
    options: &Options,
) -> Option<ByteString> {
    if body.rack_id.is_empty() || !matches!(options.reader, Reader::Consumer { .. }) {
        return None;
    }
    let config = context.services.config.current();
    let selector = config.replication.replica_selector_class.as_deref();
    // A copy: a slice would keep the frame of the request while the fetch waits.
    (selector == Some(RACK_AWARE)).then(|| ByteString::from(&*body.rack_id))
}

fn session_request(version: i16, body: FetchRequest) -> SessionRequest {
    let uses_topic_ids = version >= FIRST_WITH_TOPIC_IDS;
    let key = |topic: &ByteString, id: Uuid| {
        // A copy: a session outlives the request, and a slice would keep its whole frame.
        if uses_topic_ids { TopicKey::Id(id) } else { TopicKey::Name(ByteString::from(&**topic)) }
    };
    let mut targets = IndexMap::new();
    for topic in &body.topics {
        let topic_key = key(&topic.topic, topic.topic_id);
        for partition in &topic.partitions {
            let key = FetchKey { topic: topic_key.clone(), partition: partition.partition };
            targets.insert(key, target(partition));
        }
    }
    let forgotten = body.forgotten_topics_data.iter().flat_map(|topic| {
        let topic_key = key(&topic.topic, topic.topic_id);
        topic
            .partitions
            .iter()
            .map(move |partition| FetchKey { topic: topic_key.clone(), partition: *partition })
    });
    let sessions = version >= FIRST_WITH_SESSIONS;
    SessionRequest {
        session_id: if sessions { body.session_id } else { 0 },
        session_epoch: if sessions { body.session_epoch } else { -1 },
        uses_topic_ids,
        is_follower: body.replica_id >= 0 || body.replica_state.replica_id >= 0,
        forgotten: forgotten.collect(),
        targets,
    }
}

fn target(partition: &FetchPartition) -> FetchTarget {
    FetchTarget {
        fetch_offset: partition.fetch_offset,
        log_start_offset: partition.log_start_offset,
        max_bytes: partition.partition_max_bytes,
        current_leader_epoch: none_if_negative(partition.current_leader_epoch),
        last_fetched_epoch: none_if_negative(partition.last_fetched_epoch),
        resolved_name: None,
        sent_high_watermark: None,
    }
}

/// Kafka fails such a request as a whole, each of its partitions included.
fn unknown_isolation_level(version: i16, body: FetchRequest) -> FetchReply {
    let code = ErrorCode::UnknownServerError;
    let responses = body.topics.into_iter().map(|topic| FetchableTopicResponse {
        partitions: topic.partitions.iter().map(|p| refusal(p.partition, code)).collect(),
        topic: topic.topic,
        topic_id: topic.topic_id,
    });
    FetchReply::without_records(FetchResponse {
        error_code: if version >= FIRST_WITH_SESSIONS { code.code() } else { 0 },
        responses: responses.collect(),
        ..Default::default()
    })
}

/// The answer for a partition whose log was not read.
fn refusal(index: i32, code: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index: index,
        error_code: code.code(),
        high_watermark: -1,
        records: Some(bytes::Bytes::new()),
        ..Default::default()
    }
}

/// The current id of the topic to read, looked up by its name; for a requested id, by the name that it had at first.
fn known_topic(
    image: &ClusterImage,
    key: &FetchKey,
    target: &FetchTarget,
) -> Result<Uuid, ErrorCode> {
    let name = match &key.topic {
        TopicKey::Name(name) => name,
        TopicKey::Id(_) => target.resolved_name.as_ref().ok_or(ErrorCode::UnknownTopicId)?,
    };
    let topic = image.topics.by_name(name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    topic.partition(key.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok(topic.id)
}

/// A fetch in progress.
struct Fetch {
    services: Arc<Services>,
    connection: Arc<ConnectionInfo>,
    version: i16,
    options: Options,
    /// The rack of a consumer that may be redirected to a replica in its rack.
    rack: Option<ByteString>,
    session: FetchContext,
}

/// One read of all partitions.
struct Round {
    image: Arc<PublishedImage>,
    reads: Vec<(PartitionData, Vec<Part>)>,
    bytes: usize,
    /// The bytes of throttled partitions (KIP-73); `None` if none is throttled.
    throttled_bytes: Option<usize>,
    /// A partition has a result that must not wait: an error or a diverging epoch.
    urgent: bool,
    /// The high watermark of a partition differs from the last one that the follower was sent.
    watermark_moved: bool,
    /// The number of partitions whose logs were read. If there are none, the fetch does not wait.
    logs: usize,
    /// Whether the fetch is already waiting.
    waits: bool,
}

impl Round {
    fn is_enough(&self, options: &Options) -> bool {
        options.deadline.is_none_or(|deadline| deadline <= Instant::now())
            || self.logs == 0
            || self.urgent
            || self.bytes >= options.min_bytes
    }
}

impl Fetch {
    async fn wait(self) -> FetchReply {
        let deadline = self.options.deadline.expect("a fetch without time is answered at once");
        let waiter = FetchWaiter::new();
        let mut until = deadline;
        loop {
            // The fetch registers before it reads, so that it misses no later append.
            let round = self.read(Some(&waiter));
            if round.is_enough(&self.options) {
                return self.reply(round);
            }
            if round.watermark_moved {
                until = until.min(Instant::now() + WATERMARK_LINGER);
            }
            let is_consumer = !self.options.reader.is_follower();
            tokio::select! {
                moved = tokio::time::timeout_at(until, waiter.moved()) => {
                    if moved.is_err() {
                        return self.reply(round);
                    }
                }
                () = waiter.watermark_moved(), if until == deadline && !is_consumer => {}
            }
        }
    }

    fn read(&self, waiter: Option<&Arc<FetchWaiter>>) -> Round {
        let mut round = Round {
            image: self.services.metadata_cache.image(),
            reads: Vec::with_capacity(self.session.targets.len()),
            bytes: 0,
            throttled_bytes: None,
            urgent: false,
            watermark_moved: false,
            logs: 0,
            waits: waiter.is_some(),
        };
        for (key, target) in &self.session.targets {
            let read = match known_topic(&round.image, key, target) {
                Ok(topic) => self.read_topic(&mut round, topic, (key, target), waiter),
                Err(code) => (refusal(key.partition, code), Vec::new()),
            };
            round.reads.push(read);
        }
        round
    }

    fn read_topic(
        &self,
        round: &mut Round,
        topic_id: Uuid,
        (key, target): (&FetchKey, &FetchTarget),
        waiter: Option<&Arc<FetchWaiter>>,
    ) -> (PartitionData, Vec<Part>) {
        round.logs += 1;
        if matches!(key.topic, TopicKey::Id(wanted) if wanted != topic_id) {
            return self.failure(round, topic_id, key.partition, ErrorCode::InconsistentTopicId);
        }
        let partitions = &self.services.replicas.partitions;
        match partitions.replica(topic_id, key.partition) {
            Ok(partition) => self.read_partition(round, &partition, target, waiter),
            Err(error) => self.failure(round, topic_id, key.partition, error.code()),
        }
    }

    fn read_partition(
        &self,
        round: &mut Round,
        partition: &Arc<Partition>,
        target: &FetchTarget,
        waiter: Option<&Arc<FetchWaiter>>,
    ) -> (PartitionData, Vec<Part>) {
        let left = self.options.max_bytes - round.bytes.min(self.options.max_bytes);
        let options = ReadOptions {
            fetch_offset: target.fetch_offset,
            max_bytes: usize::try_from(target.max_bytes).unwrap_or_default().min(left),
            // The first batch of an answer is sent even if it exceeds the limit, or a large one could never be read.
            min_one_batch: round.bytes == 0,
            reader: self.options.reader,
            log_start_offset: target.log_start_offset,
            current_leader_epoch: target.current_leader_epoch,
            last_fetched_epoch: target.last_fetched_epoch,
        };
        let index = partition.index();
        let near = self.preferred_replica(&round.image, partition, target);
        let is_throttled = options.reader.is_follower() && partition.is_leader_throttled();
        let options = match near.is_some() || (is_throttled && self.must_wait(partition)) {
            true => ReadOptions { max_bytes: 0, min_one_batch: false, ..options },
            false => options,
        };
        match partition.read(&options, waiter) {
            // Kafka's log fails for a negative max bytes, once there are records to read.
            Ok(read)
                if self.wants_less_than_nothing(target)
                    && read.high_watermark > target.fetch_offset =>
            {
                self.failure(round, partition.key().topic_id, index, ErrorCode::UnknownServerError)
            }
            Ok(read) => {
                round.bytes += read.len();
                round.urgent |= read.diverging_epoch.is_some() || near.is_some();
                let sent = target.sent_high_watermark.unwrap_or(read.high_watermark);
                round.watermark_moved |=
                    options.reader.is_follower() && sent != read.high_watermark;
                let data = PartitionData {
                    preferred_read_replica: or_minus_one(near),
                    ..answer(index, &read)
                };
                if is_throttled {
                    *round.throttled_bytes.get_or_insert_default() += read.len();
                }
                if let Some(proposal) = read.proposal {
                    self.services.replicas.propose(partition, proposal);
                }
                (data, read.parts)
            }
            Err(code) => self.failure(round, partition.key().topic_id, index, code),
        }
    }

    /// Whether the leader's throttle lets this out-of-sync follower wait (KIP-73).
    fn must_wait(&self, partition: &Partition) -> bool {
        let Reader::Follower { id, .. } = self.options.reader else { return false };
        let services = &self.services;
        !partition.is_in_sync(id) && {
            let rate = services.config.current().replication.leader_throttled_rate;
            services.replicas.leader_quota.is_exceeded(rate, clock::now_ms())
        }
    }

    /// The replica that the consumer should read this partition from.
    fn preferred_replica(
        &self,
        image: &ClusterImage,
        partition: &Partition,
        target: &FetchTarget,
    ) -> Option<BrokerId> {
        let rack_of = |id| image.brokers.get(id)?.rack.as_deref();
        partition.preferred_read_replica(self.rack.as_deref()?, target.fetch_offset, rack_of)
    }

    fn wants_less_than_nothing(&self, target: &FetchTarget) -> bool {
        target.max_bytes < 0 || self.options.negative_max_bytes
    }

    /// The answer for a partition whose log could not be read. The fetch does not wait for the others.
    fn failure(
        &self,
        round: &mut Round,
        topic_id: Uuid,
        index: i32,
        code: ErrorCode,
    ) -> (PartitionData, Vec<Part>) {
        round.urgent = true;
        let gone = || self.services.replicas.partitions.get(topic_id, index).is_none();
        let code = match code {
            // A deletion wakes a waiting fetch before the published image shows it.
            ErrorCode::NotLeaderOrFollower if round.waits && gone() => {
                ErrorCode::UnknownTopicOrPartition
            }
            ErrorCode::KafkaStorageError if self.version <= LAST_WITHOUT_STORAGE_ERROR => {
                ErrorCode::NotLeaderOrFollower
            }
            code => code,
        };
        let current_leader = self.leader_hint(&round.image, topic_id, index, code);
        let refusal = refusal(index, code);
        (PartitionData { aborted_transactions: None, current_leader, ..refusal }, Vec::new())
    }

    fn leader_hint(
        &self,
        image: &ClusterImage,
        topic_id: Uuid,
        index: i32,
        code: ErrorCode,
    ) -> LeaderIdAndEpoch {
        let wanted = matches!(code, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch);
        if self.version < FIRST_WITH_LEADER_HINTS || !wanted {
            return LeaderIdAndEpoch::default();
        }
        match image.topics.by_id(topic_id).and_then(|topic| topic.partition(index)) {
            Some(known) => LeaderIdAndEpoch {
                leader_id: or_minus_one(known.leader),
                leader_epoch: known.leader_epoch,
            },
            None => LeaderIdAndEpoch::default(),
        }
    }

    fn reply(self, round: Round) -> FetchReply {
        let Self { services, connection, session, options, .. } = self;
        // Only consumers get node endpoints: a follower has them from the metadata.
        let is_follower = options.reader.is_follower();
        if let Some(bytes) = round.throttled_bytes {
            services.replicas.leader_quota.record(bytes, clock::now_ms());
        }
        let mut parts = IndexMap::with_capacity(round.reads.len());
        let mut fetched = Vec::with_capacity(round.reads.len());
        let keys = session.targets.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        for (key, (data, records)) in keys.into_iter().zip(round.reads) {
            let records_len = records.iter().map(Part::len).sum();
            fetched.push(Fetched { key: key.clone(), data, records_len });
            parts.insert(key, records);
        }
        let answer = services.fetch_sessions.answer(session, fetched, clock::now_ms());
        let mut responses: Vec<FetchableTopicResponse> = Vec::new();
        let mut lens = Vec::with_capacity(answer.fetched.len());
        let mut records = Vec::new();
        let mut last_topic = None;
        let mut leaders = Vec::new();
        for Fetched { key, data, records_len } in answer.fetched {
            lens.push(records_len);
            if !is_follower {
                leaders.push(data.current_leader.leader_id);
            }
            if records_len > 0 {
                records.push(parts.swap_remove(&key).expect("every target was read once"));
            }
            // Consecutive partitions of one topic share its entry.
            if last_topic.as_ref() != Some(&key.topic) {
                let (topic, topic_id) = match &key.topic {
                    TopicKey::Name(name) => (name.clone(), Uuid::ZERO),
                    TopicKey::Id(id) => (ByteString::new(), *id),
                };
                last_topic = Some(key.topic);
                responses.push(FetchableTopicResponse { topic, topic_id, ..Default::default() });
            }
            responses.last_mut().expect("an entry was just made").partitions.push(data);
        }
        let endpoints = round.image.brokers.on(&connection.listener);
        let endpoints = endpoints.filter(|(broker, _)| leaders.contains(&broker.id));
        let response = FetchResponse {
            error_code: answer.error.code(),
            session_id: answer.session_id,
            responses,
            node_endpoints: endpoints
                .map(|(broker, endpoint)| NodeEndpoint {
                    node_id: broker.id,
                    host: endpoint.host.clone(),
                    port: i32::from(endpoint.port),
                    rack: broker.rack.clone(),
                })
                .collect(),
            ..Default::default()
        };
        FetchReply { response, record_lens: lens, records }
    }
}

fn answer(index: i32, read: &ReadOutcome) -> PartitionData {
    let aborted = read.aborted_transactions.as_ref().map(|aborted| {
        let aborted = aborted.iter().map(|transaction| AbortedTransaction {
            producer_id: transaction.producer_id,
            first_offset: transaction.first_offset,
        });
        aborted.collect()
    });
    let diverging_epoch = read.diverging_epoch.map_or_else(EpochEndOffset::default, |diverging| {
        EpochEndOffset { epoch: diverging.epoch, end_offset: diverging.offset }
    });
    PartitionData {
        partition_index: index,
        high_watermark: read.high_watermark,
        last_stable_offset: read.last_stable_offset,
        log_start_offset: read.log_start_offset,
        diverging_epoch,
        aborted_transactions: aborted,
        records: Some(bytes::Bytes::new()),
        ..Default::default()
    }
}
