//! One fetcher: fetches for the replicas of this broker whose leaders are on the same broker (Kafka's
//! `AbstractFetcherThread`, `ReplicaFetcherThread`).
//!
//! The cycle is fetch, append, sync: the next fetch acknowledges the records below its offset. If a partition fails, it
//! is left out and the others continue. An [`Assignment`] lists what to fetch; when it changes, the fetcher soon gives
//! up waiting for the leader's response.

mod session;

use klamm_protocol::ids::TopicIdPartition;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use klamm_log::error::Severity;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset, or_minus_one};
use klamm_protocol::messages::fetch_request::{FetchRequest, ReplicaState};
use klamm_protocol::messages::fetch_response::{FetchResponse, PartitionData};
use klamm_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use klamm_protocol::messages::list_offsets_response::ListOffsetsResponse;
use klamm_replication::OffsetAndEpoch;
use klamm_replication::partition::{
    FetchOutcome, FetchSchedule, FetchedPartition, NextFetch, Patience,
};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info};

use self::session::{Session, Wanted};
use super::delayed::Countdown;
use super::partition::{Cut, Partition, Progress};
use super::replica_manager::ReplicaManager;
use crate::clock;
use crate::config::ReplicationConfig;
use crate::net::peer::{Peer, PeerAddress, PeerError};

/// The first version that names topics by id (KIP-516). Every broker of a KRaft cluster supports it.
const FIRST_WITH_TOPIC_IDS: i16 = 13;
/// The first version that has the broker epoch of its sender (KIP-903).
const FIRST_WITH_REPLICA_STATE: i16 = 15;
/// How long the fetcher still waits for a response when the assignment changes.
const CHANGE_GRACE: Duration = Duration::from_millis(20);
/// How long a throttled replica is not fetched for.
const THROTTLE_PAUSE_MS: i64 = 100;
/// The first pause after a failure; it doubles up to `replica.fetch.backoff.ms`. Leader and follower learn of an
/// election at different times; a pause of a second would make producers wait for a second.
const FIRST_BACKOFF_MS: i64 = 20;
/// How long connecting to the leader may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the leader may be silent at first beyond `replica.fetch.wait.max.ms`. Without this limit, a fetch whose
/// answer was lost would wait for `replica.socket.timeout.ms`.
const SILENCE_MS: i64 = 1_000;
/// `ListOffsetsRequest.LATEST_TIMESTAMP` and `EARLIEST_TIMESTAMP`.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// The replicas that a fetcher fetches for.
#[derive(Debug, Clone, Default)]
pub(super) struct Assignment {
    /// The address of the leaders' broker; `None` while it is not known.
    pub(super) address: Option<PeerAddress>,
    /// The replicas, each with the leader epoch in which it follows.
    pub(super) partitions: BTreeMap<TopicIdPartition, (Arc<Partition>, LeaderEpoch)>,
}

/// The fixed settings of a fetcher.
pub(super) struct FetcherOptions {
    pub(super) leader_id: BrokerId,
    pub(super) client_id: ByteString,
    pub(super) config: ReplicationConfig,
    /// `replica.socket.timeout.ms`
    pub(super) request_timeout: Duration,
}

/// One replica in the current fetch.
struct Due {
    partition: Arc<Partition>,
    fetch: NextFetch,
}

/// A fetcher, see the module.
pub(super) struct Fetcher {
    replicas: Arc<ReplicaManager>,
    options: FetcherOptions,
    assignments: watch::Receiver<Arc<Assignment>>,
    assigned: Arc<Assignment>,
    connection: Option<Peer>,
    session: Session,
    schedule: FetchSchedule<TopicIdPartition>,
    /// When [`Self::due`] last ran.
    looked_ms: i64,
}

impl Fetcher {
    pub(super) fn new(
        replicas: Arc<ReplicaManager>,
        options: FetcherOptions,
        assignments: watch::Receiver<Arc<Assignment>>,
    ) -> Self {
        let socket_timeout_ms = options.request_timeout.as_millis();
        let patience = Patience::new(
            i64::from(options.config.fetch_wait_max_ms).saturating_add(SILENCE_MS),
            i64::try_from(socket_timeout_ms).unwrap_or(i64::MAX),
        );
        let longest_backoff_ms = options.config.fetch_backoff.as_millis();
        let longest_backoff_ms = i64::try_from(longest_backoff_ms).unwrap_or(i64::MAX);
        Self {
            replicas,
            options,
            assignments,
            assigned: Arc::default(),
            connection: None,
            session: Session::default(),
            schedule: FetchSchedule::new(FIRST_BACKOFF_MS, longest_backoff_ms, patience),
            looked_ms: clock::now_ms(),
        }
    }

    /// Fetches until no replica is assigned and the sender of the assignments is dropped.
    pub(super) async fn run(mut self) {
        loop {
            self.take_assignment();
            self.sync().await;
            let due = self.due();
            if due.is_empty() || self.assigned.address.is_none() {
                if !self.idle(None).await {
                    return;
                }
                continue;
            }
            let began_ms = clock::now_ms();
            match self.fetch(&due).await {
                Ok(Some(response)) => {
                    self.schedule.on_reached(clock::now_ms() - began_ms);
                    self.on_response(due, response).await;
                }
                // The assignment has changed.
                Ok(None) => {}
                Err(failure) => {
                    if !self.on_unreachable(&failure).await {
                        return;
                    }
                }
            }
        }
    }

    fn take_assignment(&mut self) {
        let assigned = Arc::clone(&self.assignments.borrow_and_update());
        if assigned.address != self.assigned.address {
            self.connection = None;
            self.session.reset();
        }
        self.schedule.on_assignment(|key| assigned.partitions.get(key).map(|(_, epoch)| *epoch));
        self.assigned = assigned;
    }

    /// Waits until all appended records are on disk, for the topics that want a sync before the acknowledgement.
    async fn sync(&self) {
        let countdown = Countdown::new();
        for (partition, _) in self.assigned.partitions.values() {
            partition.sync_before_fetch(&countdown);
        }
        countdown.seal();
        countdown.over().await;
    }

    /// The replicas to fetch for now.
    fn due(&mut self) -> BTreeMap<TopicIdPartition, (Due, Wanted)> {
        self.hold_back_throttled();
        let now_ms = clock::now_ms();
        self.looked_ms = now_ms;
        let max_bytes = self.options.config.fetch_max_bytes;
        let partitions = self.assigned.partitions.iter();
        let ready = partitions.filter(|(key, _)| self.schedule.is_due(key, now_ms));
        let due = ready.filter_map(|(key, (partition, _))| {
            let (fetch, log_start_offset) = partition.next_fetch()?;
            let wanted = Wanted {
                fetch_offset: fetch.fetch_offset,
                log_start_offset,
                current_leader_epoch: fetch.current_leader_epoch,
                last_fetched_epoch: fetch.last_fetched_epoch,
                max_bytes,
            };
            Some((*key, (Due { partition: Arc::clone(partition), fetch }, wanted)))
        });
        due.collect()
    }

    /// Leaves out throttled replicas that are not in the ISR, while the quota is exceeded (KIP-73).
    fn hold_back_throttled(&mut self) {
        let now_ms = clock::now_ms();
        let throttled = self.assigned.partitions.iter().filter(|(key, (partition, _))| {
            partition.is_follower_throttled() && self.schedule.is_due(key, now_ms)
        });
        let mut throttled = throttled.map(|(key, _)| *key).peekable();
        if throttled.peek().is_none() {
            return;
        }
        let replicas = &self.replicas;
        let rate = replicas.config.current().replication.follower_throttled_rate;
        if !replicas.follower_quota.is_exceeded(rate, now_ms) {
            return;
        }
        let image = replicas.metadata_cache.image();
        let is_behind =
            |TopicIdPartition { topic_id: topic, partition: index }: &TopicIdPartition| {
                let known = image.topics.by_id(*topic).and_then(|topic| topic.partition(*index));
                known.is_none_or(|known| !known.isr.contains(&replicas.config.node_id))
            };
        let held: Vec<TopicIdPartition> = throttled.filter(is_behind).collect();
        for key in held {
            self.schedule.throttle(key, now_ms + THROTTLE_PAUSE_MS);
        }
    }

    /// Waits for another assignment, or until `limit_ms`, or without a limit until the next pause ends. Returns false
    /// when the fetcher must end.
    async fn idle(&mut self, limit_ms: Option<i64>) -> bool {
        // [`Self::due`] has already considered the pauses that were over at that time.
        let until_ms = limit_ms.or_else(|| self.schedule.next_ms(self.looked_ms));
        tokio::select! {
            changed = self.assignments.changed() => changed.is_ok(),
            () = async {
                match until_ms {
                    Some(until_ms) => sleep(clock::until(until_ms)).await,
                    None => std::future::pending().await,
                }
            } => true,
        }
    }

    async fn on_unreachable(&mut self, failure: &PeerError) -> bool {
        self.connection = None;
        self.session.reset();
        let leader = self.options.leader_id;
        let (until_ms, was_reached) = self.schedule.on_unreachable(clock::now_ms());
        if was_reached {
            info!("broker {leader} cannot be reached to fetch from its leaders: {failure}");
        } else {
            debug!("broker {leader} cannot be reached to fetch from its leaders: {failure}");
        }
        self.idle(Some(until_ms)).await
    }

    /// Sends the fetch request and returns the response; `None` when the assignment has changed first.
    async fn fetch(
        &mut self,
        due: &BTreeMap<TopicIdPartition, (Due, Wanted)>,
    ) -> Result<Option<FetchResponse>, PeerError> {
        let mut peer = self.connected().await?;
        peer.limit_silence(Duration::from_millis(self.schedule.patience_ms().unsigned_abs()));
        let version = peer.version::<FetchRequest>()?;
        if version < FIRST_WITH_TOPIC_IDS {
            return Err(PeerError::UnsupportedVersion { api: "Fetch" });
        }
        let wanted = due.iter().map(|(key, (_, wanted))| (*key, *wanted)).collect();
        let request = self.request(version, wanted);
        let answered = {
            let sending = peer.send_in(&request, version, self.options.request_timeout);
            tokio::pin!(sending);
            tokio::select! {
                answered = &mut sending => Some(answered?),
                changed = self.assignments.changed() => match changed {
                    Ok(()) => timeout(CHANGE_GRACE, sending).await.ok().transpose()?,
                    Err(_) => None,
                },
            }
        };
        match &answered {
            Some(_) => self.connection = Some(peer),
            // The response may still arrive on this connection, so the connection cannot be used again.
            None => self.session.reset(),
        }
        Ok(answered)
    }

    async fn connected(&mut self) -> Result<Peer, PeerError> {
        if let Some(peer) = self.connection.take() {
            return Ok(peer);
        }
        let address = self.assigned.address.clone();
        let address = address.expect("run fetches only if the assignment has an address");
        let limit = CONNECT_TIMEOUT.min(self.options.request_timeout);
        Peer::connect(&address, self.options.client_id.clone(), limit).await
    }

    fn request(
        &mut self,
        version: i16,
        wanted: BTreeMap<TopicIdPartition, Wanted>,
    ) -> FetchRequest {
        let config = &self.options.config;
        let id = self.replicas.config.node_id;
        let named_in_state = version >= FIRST_WITH_REPLICA_STATE;
        let epoch = self.replicas.session.broker_epoch();
        let in_session = self.session.request(wanted);
        FetchRequest {
            replica_id: if named_in_state { -1 } else { id },
            replica_state: if named_in_state {
                ReplicaState { replica_id: id, replica_epoch: or_minus_one(epoch) }
            } else {
                ReplicaState::default()
            },
            max_wait_ms: config.fetch_wait_max_ms,
            min_bytes: config.fetch_min_bytes,
            max_bytes: config.fetch_response_max_bytes,
            session_id: in_session.id,
            session_epoch: in_session.epoch,
            topics: in_session.topics,
            forgotten_topics_data: in_session.forgotten,
            ..Default::default()
        }
    }

    async fn on_response(
        &mut self,
        mut due: BTreeMap<TopicIdPartition, (Due, Wanted)>,
        response: FetchResponse,
    ) {
        let error = error_of(response.error_code);
        self.session.on_answer(error, response.session_id);
        if error != ErrorCode::None {
            debug!("broker {} refuses a fetch: {error}", self.options.leader_id);
            if !Session::is_about_session(error) {
                self.idle(Some(self.schedule.retry_ms(clock::now_ms()))).await;
            }
            return;
        }
        for topic in response.responses {
            for data in topic.partitions {
                let key = TopicIdPartition::new(topic.topic_id, data.partition_index);
                let Some((due, _)) = due.remove(&key) else { continue };
                self.on_partition(key, &due, data).await;
            }
        }
    }

    async fn on_partition(&mut self, key: TopicIdPartition, due: &Due, data: PartitionData) {
        let diverging = data.diverging_epoch;
        let diverging = (diverging.epoch >= 0 || diverging.end_offset >= 0)
            .then(|| OffsetAndEpoch::new(diverging.end_offset, diverging.epoch));
        let answer = FetchedPartition {
            error: error_of(data.error_code),
            number: due.fetch.number,
            current_leader_epoch: due.fetch.current_leader_epoch,
            fetch_offset: due.fetch.fetch_offset,
            diverging,
            high_watermark: data.high_watermark,
            log_start_offset: data.log_start_offset,
        };
        let partition = &due.partition;
        if answer.error != ErrorCode::None {
            let (topic, index) = (partition.topic(), partition.index());
            debug!(%topic, partition = index, "{topic}-{index} of broker {}: {}", self.options.leader_id, answer.error);
        }
        let records = data.records.unwrap_or_default();
        if partition.is_follower_throttled() {
            self.replicas.follower_quota.record(records.len(), clock::now_ms());
        }
        let mut progress = partition.on_fetched(&answer, records);
        if progress == Progress::FindLeaderRange {
            progress = match self.leader_range(partition, &due.fetch).await {
                Ok(range) => partition.on_leader_range(due.fetch.current_leader_epoch, range),
                Err(()) => Progress::BackOff,
            };
        }
        if let Progress::Cut(cut) = progress {
            progress = self.cut(partition, due.fetch.current_leader_epoch, cut).await;
        }
        let outcome = match progress {
            Progress::Again => FetchOutcome::Progressed,
            Progress::Stuck => FetchOutcome::AwaitMetadata,
            Progress::BackOff | Progress::FindLeaderRange | Progress::Cut(_) => {
                FetchOutcome::BackOff
            }
        };
        let (epoch, now_ms) = (due.fetch.current_leader_epoch, clock::now_ms());
        self.schedule.on_outcome(key, epoch, outcome, now_ms);
    }

    async fn cut(&self, partition: &Arc<Partition>, epoch: LeaderEpoch, cut: Cut) -> Progress {
        let (replicas, partition) = (Arc::clone(&self.replicas), Arc::clone(partition));
        let blocking = tokio::task::spawn_blocking(move || {
            let done = replicas.log_manager.cut(&replicas.partitions.all(), &partition, epoch, cut);
            let Err(failure) = done else { return Progress::Again };
            let (topic, index) = (partition.topic(), partition.index());
            error!(%topic, partition = index, "{topic}-{index} cannot be truncated: {failure}");
            match failure.severity() {
                Severity::Directory => {
                    partition.fail();
                    Progress::Stuck
                }
                // The next operation on the log completes the truncation, at the latest this flush.
                Severity::Passes => {
                    partition.request_flush();
                    Progress::BackOff
                }
                Severity::Partition | Severity::Node => Progress::BackOff,
            }
        });
        match blocking.await {
            Ok(progress) => progress,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// The log start and log end offset of the leader.
    async fn leader_range(
        &mut self,
        partition: &Partition,
        fetch: &NextFetch,
    ) -> Result<(Offset, Offset), ()> {
        let mut found = [0; 2];
        for (found, timestamp) in found.iter_mut().zip([EARLIEST, LATEST]) {
            *found = self.list_offset(partition, fetch, timestamp).await.map_err(|failure| {
                let (topic, index) = (partition.topic(), partition.index());
                debug!("the leader's log start and end offset of {topic}-{index} are not known: {failure}");
            })?;
        }
        let [start, end] = found;
        Ok((start, end))
    }

    async fn list_offset(
        &mut self,
        partition: &Partition,
        fetch: &NextFetch,
        timestamp: i64,
    ) -> Result<Offset, ListOffsetError> {
        let wanted = ListOffsetsPartition {
            partition_index: partition.index(),
            current_leader_epoch: fetch.current_leader_epoch,
            timestamp,
        };
        let request = ListOffsetsRequest {
            replica_id: self.replicas.config.node_id,
            topics: vec![ListOffsetsTopic {
                name: partition.topic().clone(),
                partitions: vec![wanted],
            }],
            ..Default::default()
        };
        let mut peer = self.connected().await?;
        let response: ListOffsetsResponse =
            peer.send(&request, self.options.request_timeout).await?;
        self.connection = Some(peer);
        let mut partitions = response.topics.into_iter().flat_map(|topic| topic.partitions);
        let answer = partitions.next().ok_or(ListOffsetError::Empty)?;
        match error_of(answer.error_code) {
            ErrorCode::None => Ok(answer.offset),
            error => Err(ListOffsetError::Refused(error)),
        }
    }
}

/// Why the leader's log start or end offset is not known.
#[derive(Debug, thiserror::Error)]
enum ListOffsetError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("the leader answers {0}")]
    Refused(ErrorCode),
    #[error("the leader's answer is empty")]
    Empty,
}

fn error_of(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}
