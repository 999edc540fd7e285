//! Produce (key 0): appends record batches to partitions led by this broker.
//!
//! Phase one appends in the order of the requests, on the connection's task. With acks=all the answer then waits until
//! every partition's high watermark has passed the appended records, or until the request's timeout; the records stay
//! either way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use indexmap::IndexMap;
use klamm_protocol::batch::BatchHeader;
use klamm_protocol::ids::{PartitionIndex, or_minus_one};
use klamm_protocol::messages::produce_request::{ProduceRequest, TopicProduceData};
use klamm_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    ProduceResponse, TopicProduceResponse,
};
use klamm_protocol::{ErrorCode, Uuid};
use tokio::time::Instant;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::api::request::RequestError;
use crate::api::services::Services;
use crate::api::table::{FirstPhase, Phase};
use crate::clock;
use crate::cluster::internal_topics;
use crate::metadata_cache::PublishedImage;
use crate::net::service::ConnectionInfo;
use crate::replica::delayed::Countdown;
use crate::replica::partition::{AppendFailure, AppendOptions, Appended, Awaited, Partition};
use crate::replica::table::LookupError;

/// The first version that names topics by id (KIP-516).
const FIRST_WITH_TOPIC_IDS: i16 = 13;
/// The first version whose answers name the current leader (KIP-951).
const FIRST_WITH_LEADER_HINTS: i16 = 10;
/// The client id under which Kafka's own admin tools may write to internal topics.
const ADMIN_CLIENT_ID: &str = "__admin_client";

message_replies!(ProduceResponse);

pub(crate) fn handle(
    context: &RequestContext,
    body: ProduceRequest,
) -> FirstPhase<ProduceResponse, impl Future<Output = ProduceResponse> + Send + use<>> {
    let deadline =
        Instant::now() + Duration::from_millis(u64::try_from(body.timeout_ms).unwrap_or_default());
    let acks = body.acks;
    let mut produce = Produce::new(context, &body);
    let countdown = (acks == -1).then(Countdown::new);
    produce.append_all(body, countdown.as_ref());
    if acks == 0 {
        return match produce.first_error() {
            Some(error) => Err(RequestError::UnacknowledgedProduce(error)),
            None => Ok(Phase::Unanswered),
        };
    }
    let Some(countdown) = countdown else { return Ok(Phase::Replied(produce.finish(true))) };
    countdown.seal();
    if countdown.is_over() {
        return Ok(Phase::Replied(produce.finish(true)));
    }
    produce.detach_names();
    // The request's timeout is for the other replicas. The flush of this broker's disk has no timeout: it succeeds or
    // fails, and either ends the countdown.
    let deadline = produce.waits_for_others().then_some(deadline);
    Ok(Phase::Waiting(async move {
        let in_time = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, countdown.over()).await.is_ok(),
            None => {
                countdown.over().await;
                true
            }
        };
        produce.finish(in_time)
    }))
}

/// The position of a result in the answer: topic by name or id, and partition.
type Key = (ByteString, Uuid, PartitionIndex);

/// One partition's result so far.
enum Outcome {
    Done(PartitionProduceResponse),
    /// Appended; acknowledged when the high watermark has passed the records.
    Appended {
        partition: Arc<Partition>,
        awaited: Awaited,
        response: PartitionProduceResponse,
    },
}

/// A request in progress.
struct Produce {
    services: Arc<Services>,
    connection: Arc<ConnectionInfo>,
    image: Arc<PublishedImage>,
    version: i16,
    acks: i16,
    refuses_transactional: bool,
    internal_topics_allowed: bool,
    outcomes: IndexMap<Key, Outcome>,
}

impl Produce {
    fn new(context: &RequestContext, body: &ProduceRequest) -> Self {
        Self {
            services: Arc::clone(&context.services),
            connection: Arc::clone(&context.connection),
            image: context.services.metadata_cache.image(),
            version: context.version(),
            acks: body.acks,
            refuses_transactional: body.transactional_id.is_none(),
            internal_topics_allowed: context.client_id() == ADMIN_CLIENT_ID,
            outcomes: IndexMap::new(),
        }
    }

    fn append_all(&mut self, body: ProduceRequest, countdown: Option<&Arc<Countdown>>) {
        // Transactional records without a transactional id fail the whole request, as in Kafka.
        let refused = self.refuses_transactional && has_transactional_records(&body);
        let wall_ms = clock::wall_ms();
        // A partition that is named twice is appended to once, with the last records.
        let mut wanted: IndexMap<Key, Option<Bytes>> = IndexMap::new();
        for topic in body.topic_data {
            let TopicProduceData { name, topic_id, partition_data } = topic;
            for data in partition_data {
                wanted.insert((name.clone(), topic_id, data.index), data.records);
            }
        }
        for (key, records) in wanted {
            let outcome = if refused {
                failed(key.2, ErrorCode::TransactionalIdAuthorizationFailed)
            } else {
                self.append(&key, records, countdown, wall_ms)
            };
            self.outcomes.insert(key, outcome);
        }
    }

    fn append(
        &self,
        (name, topic_id, index): &Key,
        records: Option<Bytes>,
        countdown: Option<&Arc<Countdown>>,
        wall_ms: i64,
    ) -> Outcome {
        let topic = if self.version >= FIRST_WITH_TOPIC_IDS {
            self.image.topics.by_id(*topic_id).ok_or(ErrorCode::UnknownTopicId)
        } else {
            self.image.topics.by_name(name).ok_or(ErrorCode::UnknownTopicOrPartition)
        };
        let topic = match topic {
            Ok(topic) => topic,
            Err(code) => return failed(*index, code),
        };
        if topic.partition(*index).is_none() {
            return failed(*index, ErrorCode::UnknownTopicOrPartition);
        }
        if !matches!(self.acks, -1..=1) {
            return failed(*index, ErrorCode::InvalidRequiredAcks);
        }
        if internal_topics::is_internal(&topic.name) && !self.internal_topics_allowed {
            return failed(*index, ErrorCode::InvalidTopicException);
        }
        let partition = match self.services.replicas.partitions.leader(topic.id, *index) {
            Ok(partition) => partition,
            Err(error) => return self.not_here(error, topic.partition(*index), *index),
        };
        if !self.may_lead(&partition) {
            return failed(*index, ErrorCode::NotLeaderOrFollower);
        }
        // Kafka never answers null records; here they get the error of an empty record set.
        let records = records.unwrap_or_default();
        let options = AppendOptions::client(self.acks, self.version, countdown);
        match partition.append(records, &options, wall_ms) {
            Ok(appended) => appended_outcome(partition, *index, &appended),
            Err(failure) => self.not_appended(failure, topic.partition(*index), *index),
        }
    }

    /// Whether this broker may append as the leader that it believes to be.
    ///
    /// If the controller has not answered for a session timeout, another broker may lead by now. With acks=all the
    /// followers' fetches at this epoch confirm the leader: as long as they come, no record is acknowledged that the
    /// next leader lacks.
    /// If neither the controller has answered lately nor a follower got further that is needed for acks=all, the client
    /// may have more luck with another broker: it looks for one after this error.
    fn may_lead(&self, partition: &Partition) -> bool {
        let services = &self.services;
        if self.acks == -1 && !services.session.is_confirmed() && partition.is_stalled() {
            return false;
        }
        services.session.has_valid_lease()
            || !partition.has_followers()
            || self.acks == -1
                && partition.hears_followers_since(services.session.session_start_ms())
    }

    fn not_here(
        &self,
        error: LookupError,
        known: Option<&klamm_metadata::image::partition::Partition>,
        index: PartitionIndex,
    ) -> Outcome {
        let code = error.code();
        Outcome::Done(PartitionProduceResponse {
            current_leader: self.leader_hint(code, known),
            ..refusal(index, code)
        })
    }

    fn not_appended(
        &self,
        failure: AppendFailure,
        known: Option<&klamm_metadata::image::partition::Partition>,
        index: PartitionIndex,
    ) -> Outcome {
        let record_errors = failure.record_errors.into_iter().map(|error| {
            let message = error.message.map(ByteString::from);
            BatchIndexAndErrorMessage {
                batch_index: error.batch_index,
                batch_index_error_message: message,
            }
        });
        Outcome::Done(PartitionProduceResponse {
            log_start_offset: or_minus_one(failure.log_start_offset),
            record_errors: record_errors.collect(),
            error_message: failure.message.map(ByteString::from),
            current_leader: self.leader_hint(failure.code, known),
            ..refusal(index, failure.code)
        })
    }

    fn leader_hint(
        &self,
        code: ErrorCode,
        known: Option<&klamm_metadata::image::partition::Partition>,
    ) -> LeaderIdAndEpoch {
        match known {
            Some(partition)
                if code == ErrorCode::NotLeaderOrFollower
                    && self.version >= FIRST_WITH_LEADER_HINTS =>
            {
                LeaderIdAndEpoch {
                    leader_id: or_minus_one(partition.leader),
                    leader_epoch: partition.leader_epoch,
                }
            }
            _ => LeaderIdAndEpoch::default(),
        }
    }

    fn first_error(&self) -> Option<ErrorCode> {
        self.outcomes.values().find_map(|outcome| match outcome {
            Outcome::Done(response) => {
                ErrorCode::from_code(response.error_code).filter(|code| !code.is_none())
            }
            Outcome::Appended { .. } => None,
        })
    }

    /// Copies the topics' names: slices would keep the received frame while the answer waits.
    fn detach_names(&mut self) {
        let outcomes = std::mem::take(&mut self.outcomes).into_iter();
        self.outcomes = outcomes
            .map(|((name, id, index), outcome)| ((ByteString::from(&*name), id, index), outcome))
            .collect();
    }

    fn waits_for_others(&self) -> bool {
        self.outcomes.values().any(|outcome| match outcome {
            Outcome::Done(_) => false,
            Outcome::Appended { partition, .. } => partition.has_followers(),
        })
    }

    /// The wait is over: because the high watermarks have moved, or a leadership has ended (possibly before the request
    /// began to wait), or after the timeout. Partitions that are not committed get the error.
    fn finish(mut self, in_time: bool) -> ProduceResponse {
        for outcome in self.outcomes.values_mut() {
            let Outcome::Appended { partition, awaited, response } = outcome else { continue };
            let error = match partition.acknowledged(awaited) {
                Ok(true) => continue,
                Ok(false) if in_time => ErrorCode::NotLeaderOrFollower,
                // With this code, unlike with a timeout, clients refresh their metadata and look for another leader.
                Ok(false) if !self.services.session.is_confirmed() => {
                    ErrorCode::NotLeaderOrFollower
                }
                Ok(false) => ErrorCode::RequestTimedOut,
                Err(code) => code,
            };
            response.error_code = error.code();
        }
        self.reply()
    }

    fn reply(self) -> ProduceResponse {
        let mut topics: IndexMap<(ByteString, Uuid), Vec<PartitionProduceResponse>> =
            IndexMap::new();
        for ((name, id, _), outcome) in self.outcomes {
            let response = match outcome {
                Outcome::Done(response) | Outcome::Appended { response, .. } => response,
            };
            topics.entry((name, id)).or_default().push(response);
        }
        let leaders = topics.values().flatten().map(|partition| partition.current_leader.leader_id);
        let named = self.image.brokers.on(&self.connection.listener);
        let named = named.filter(|(broker, _)| leaders.clone().any(|leader| leader == broker.id));
        let node_endpoints = named.map(|(broker, endpoint)| NodeEndpoint {
            node_id: broker.id,
            host: endpoint.host.clone(),
            port: i32::from(endpoint.port),
            rack: broker.rack.clone(),
        });
        let node_endpoints = node_endpoints.collect();
        let responses = topics.into_iter().map(|((name, topic_id), partition_responses)| {
            let named = self.version < FIRST_WITH_TOPIC_IDS;
            TopicProduceResponse {
                name: if named { name } else { ByteString::new() },
                topic_id: if named { Uuid::ZERO } else { topic_id },
                partition_responses,
            }
        });
        ProduceResponse { responses: responses.collect(), node_endpoints, ..Default::default() }
    }
}

fn appended_outcome(
    partition: Arc<Partition>,
    index: PartitionIndex,
    appended: &Appended,
) -> Outcome {
    let response = PartitionProduceResponse {
        index,
        base_offset: appended.base_offset,
        log_append_time_ms: or_minus_one(appended.log_append_time_ms),
        log_start_offset: appended.log_start_offset,
        ..Default::default()
    };
    match appended.awaited {
        Some(awaited) => Outcome::Appended { partition, awaited, response },
        None => Outcome::Done(response),
    }
}

fn failed(index: PartitionIndex, code: ErrorCode) -> Outcome {
    Outcome::Done(refusal(index, code))
}

fn refusal(index: PartitionIndex, code: ErrorCode) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code: code.code(),
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
        ..Default::default()
    }
}

/// Whether the first batch of any partition is transactional (`RequestUtils`).
fn has_transactional_records(body: &ProduceRequest) -> bool {
    let records = body.topic_data.iter().flat_map(|topic| &topic.partition_data);
    records
        .filter_map(|data| data.records.as_deref())
        .any(|records| BatchHeader::parse(records).is_ok_and(|header| header.is_transactional()))
}
