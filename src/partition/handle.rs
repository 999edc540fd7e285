//! One partition as its users see it: append, read, wait.
//!
//! The log and the leader's state have one owner, whoever holds the short lock of [`Partition`]; it is
//! never held across an await or a sync. Everything read-only goes through a [`LogView`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use bytestring::ByteString;
use klamm_log::config::LogConfig;
use klamm_log::error::{AppendError, LogError, ReadError};
use klamm_log::log::{LeaderAppend, Log};
use klamm_log::log_reader::{FetchSpec, LogView};
use klamm_log::producer_state::AppendOrigin as LogOrigin;
use klamm_log::txn_index::AbortedTxn;
use klamm_protocol::compression::Codec;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset, PartitionIndex};
use klamm_protocol::produce_validation::{self, AppendOrigin, InvalidRecords, Rules, Validated};
use klamm_protocol::{ErrorCode, Uuid};
use klamm_replication::OffsetAndEpoch;
use klamm_replication::partition::{
    FetchPosition, LeaderConfig, LeaderState, LogEnds, NotEnoughReplicas, Registration,
    check_leader_epoch, check_position,
};
use tokio::sync::watch;

use super::flusher::Flusher;
use super::waiting::{Countdown, FetchWaiter, FetchWaiters, ProduceWaiters};
use crate::clock;
use crate::net::response::Part;

/// The fetch of a consumer (`FetchRequest.CONSUMER_REPLICA_ID`).
const CONSUMER: BrokerId = -1;
/// A fetch that may read up to the log's end (`FetchRequest.DEBUGGING_CONSUMER_ID`).
const DEBUGGING_CONSUMER: BrokerId = -2;
/// The most bytes a compressed batch of this topic may decompress to where it has to be decompressed,
/// as a multiple of `max.message.bytes`.
const MAX_DECOMPRESSION_RATIO: usize = 100;

/// What the topic's configuration asks of this partition.
#[derive(Debug, Clone)]
pub(crate) struct PartitionConfig {
    pub(crate) log: LogConfig,
    /// `compression.type` with its level; `None` keeps the producer's.
    pub(crate) compression: Option<Codec>,
    /// `min.insync.replicas`
    pub(crate) min_insync_replicas: usize,
    /// `replica.lag.time.max.ms` of the broker
    pub(crate) replica_lag_time_max_ms: i64,
    /// `compressed.record.validation=full`
    pub(crate) validate_compressed: bool,
}

impl PartitionConfig {
    /// Whether an append has to be synced before it counts: asked for by name, or by Kafka's own
    /// `flush.messages=1`.
    fn flushes_before_ack(&self) -> bool {
        self.log.flush_before_ack || self.log.flush_messages <= 1
    }

    fn leader_config(&self, broker_id: BrokerId) -> LeaderConfig {
        LeaderConfig {
            broker_id,
            min_insync_replicas: self.min_insync_replicas,
            replica_lag_time_max_ms: self.replica_lag_time_max_ms,
            flush_before_ack: self.flushes_before_ack(),
        }
    }
}

/// Who appends, and who waits for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AppendOptions<'a> {
    origin: AppendOrigin,
    /// acks=all: refused while there are too few replicas.
    acks_all: bool,
    /// To be told when the high watermark has passed the records.
    countdown: Option<&'a Arc<Countdown>>,
}

impl<'a> AppendOptions<'a> {
    /// A Produce request of this version.
    pub(crate) fn client(
        acks: i16,
        version: i16,
        countdown: Option<&'a Arc<Countdown>>,
    ) -> Self {
        Self { origin: AppendOrigin::Client { version }, acks_all: acks == -1, countdown }
    }
}

impl AppendOptions<'static> {
    /// A coordinator of this broker, which watches the high watermark by itself.
    pub(crate) fn coordinator() -> Self {
        Self { origin: AppendOrigin::Coordinator, acks_all: true, countdown: None }
    }
}

/// Where records went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: Offset,
    /// -1 unless the topic has LogAppendTime, or the batch is a repetition.
    pub(crate) log_append_time_ms: i64,
    pub(crate) log_start_offset: Offset,
    /// acks=all holds when the high watermark has reached this offset.
    pub(crate) required_offset: Offset,
}

/// A record that was refused, by its place in the batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RecordFailure {
    pub(crate) batch_index: i32,
    pub(crate) message: Option<String>,
}

/// Why nothing was appended, as the producer is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AppendFailure {
    pub(crate) code: ErrorCode,
    /// -1 when the records were refused before the log was looked at.
    pub(crate) log_start_offset: Offset,
    pub(crate) message: Option<String>,
    pub(crate) record_errors: Vec<RecordFailure>,
}

impl AppendFailure {
    fn new(code: ErrorCode, log_start_offset: Offset) -> Self {
        Self { code, log_start_offset, message: None, record_errors: Vec::new() }
    }

    fn invalid(invalid: &InvalidRecords, log_start: Offset) -> Self {
        let log_start_offset = if invalid.answers_log_start_offset() { log_start } else { -1 };
        let mut failure = Self::new(invalid.code(), log_start_offset);
        // Kafka gives a message for single records only.
        if let Some(rejected) = invalid.rejected_records() {
            failure.message = Some(rejected.to_string());
            failure.record_errors = rejected
                .record_errors()
                .map(|(batch_index, message)| RecordFailure {
                    batch_index,
                    message: Some(message),
                })
                .collect();
        }
        failure
    }

    fn not_enough_replicas(error: &NotEnoughReplicas, log_start: Offset) -> Self {
        Self::new(error.code(), log_start)
    }

    fn refused(error: &AppendError, log_start: Offset) -> Self {
        Self::new(error.code(), log_start)
    }
}

/// What a fetch asks of one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadOptions {
    pub(crate) fetch_offset: Offset,
    pub(crate) max_bytes: usize,
    pub(crate) min_one_batch: bool,
    pub(crate) replica_id: BrokerId,
    pub(crate) read_committed: bool,
    pub(crate) current_leader_epoch: LeaderEpoch,
    pub(crate) last_fetched_epoch: LeaderEpoch,
}

/// How far a listing of offsets may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListIsolation {
    /// Up to the log's end: replicas and debuggers.
    None,
    ReadUncommitted,
    ReadCommitted,
}

/// What a fetch finds.
#[derive(Debug)]
pub(crate) struct ReadOutcome {
    pub(crate) high_watermark: Offset,
    pub(crate) last_stable_offset: Offset,
    pub(crate) log_start_offset: Offset,
    /// For readers of committed transactions only.
    pub(crate) aborted_transactions: Option<Vec<AbortedTxn>>,
    pub(crate) diverging_epoch: Option<OffsetAndEpoch>,
    pub(crate) parts: Vec<Part>,
}

impl ReadOutcome {
    /// Bytes of records.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(Part::len).sum()
    }
}

/// What the lock of a partition guards.
#[derive(Debug)]
struct State {
    /// `None` once the log has been closed or deleted.
    log: Option<Log>,
    leader: Option<LeaderState>,
    producers: ProduceWaiters,
    fetches: FetchWaiters,
}

impl State {
    fn log_and_leader(&mut self) -> Result<(&mut Log, &mut LeaderState), ErrorCode> {
        match (&mut self.log, &mut self.leader) {
            (Some(log), Some(leader)) => Ok((log, leader)),
            _ => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// The high watermark has moved: everyone who waits for it goes on.
    fn on_high_watermark(&mut self, high_watermark: Option<Offset>) -> Option<Offset> {
        let high_watermark = high_watermark?;
        let log = self.log.as_mut()?;
        log.set_high_watermark(high_watermark);
        self.producers.on_high_watermark(high_watermark);
        self.fetches.wake();
        Some(high_watermark)
    }
}

/// A replica on this broker.
#[derive(Debug)]
pub(crate) struct Partition {
    topic: ByteString,
    topic_id: Uuid,
    index: PartitionIndex,
    broker_id: BrokerId,
    config: RwLock<Arc<PartitionConfig>>,
    state: Mutex<State>,
    flusher: Arc<Flusher>,
    flush_queued: AtomicBool,
    leads: AtomicBool,
    offline: AtomicBool,
    high_watermark: watch::Sender<Offset>,
}

impl Partition {
    pub(crate) fn new(
        (topic, topic_id, index): (ByteString, Uuid, PartitionIndex),
        broker_id: BrokerId,
        config: PartitionConfig,
        log: Log,
        flusher: Arc<Flusher>,
    ) -> Arc<Self> {
        let high_watermark = watch::Sender::new(log.high_watermark());
        let state = State {
            log: Some(log),
            leader: None,
            producers: ProduceWaiters::default(),
            fetches: FetchWaiters::default(),
        };
        Arc::new(Self {
            topic,
            topic_id,
            index,
            broker_id,
            config: RwLock::new(Arc::new(config)),
            state: Mutex::new(state),
            flusher,
            flush_queued: AtomicBool::new(false),
            leads: AtomicBool::new(false),
            offline: AtomicBool::new(false),
            high_watermark,
        })
    }

    pub(crate) fn topic(&self) -> &ByteString {
        &self.topic
    }

    pub(crate) fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    pub(crate) fn index(&self) -> PartitionIndex {
        self.index
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }

    /// Its log directory has failed.
    pub(crate) fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn config(&self) -> Arc<PartitionConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes effect with the next append, read or check.
    pub(crate) fn set_config(self: &Arc<Self>, config: PartitionConfig) {
        let leader_config = config.leader_config(self.broker_id);
        let log_config = config.log.clone();
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        let mut state = self.lock();
        if let Some(log) = &mut state.log {
            log.set_config(log_config);
        }
        if let Some(leader) = &mut state.leader {
            let moved = leader.on_config(leader_config, clock::now_ms());
            let moved = state.on_high_watermark(moved);
            self.announce(moved);
        }
    }

    /// The cluster metadata says that this broker leads the partition.
    pub(crate) fn lead(self: &Arc<Self>, registration: &Registration) {
        let now_ms = clock::now_ms();
        let config = self.config().leader_config(self.broker_id);
        let statuses = BTreeMap::new();
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(log) = &mut state.log else { return };
        let is_new_epoch = match &mut state.leader {
            Some(leader) => leader.on_registration(registration, &statuses, now_ms).is_some(),
            none => {
                let ends = LogEnds {
                    log_end_offset: log.log_end(),
                    flushed_offset: log.flushed_offset(),
                };
                let known = log.high_watermark();
                *none = Some(LeaderState::new(config, registration, ends, known, &statuses, now_ms));
                true
            }
        };
        if is_new_epoch {
            log.assign_epoch(registration.leader_epoch);
        }
        let moved = state.leader.as_ref().map(LeaderState::high_watermark);
        let moved = state.on_high_watermark(moved);
        drop(guard);
        self.announce(moved);
        self.leads.store(true, Ordering::Release);
        // The start of the epoch has to be on disk before long.
        self.request_flush();
    }

    /// The cluster metadata says that this broker does not lead the partition (any longer).
    pub(crate) fn follow(&self) {
        self.leads.store(false, Ordering::Release);
        let mut state = self.lock();
        state.leader = None;
        state.producers.give_up();
        state.fetches.wake();
    }

    /// Appends one partition's records of a request, or a coordinator's.
    pub(crate) fn append(
        self: &Arc<Self>,
        records: Bytes,
        options: &AppendOptions<'_>,
        now_ms: i64,
    ) -> Result<Appended, AppendFailure> {
        let config = self.config();
        let validated = produce_validation::validate(records, &self.rules(&config, options, now_ms))
            .map_err(|invalid| {
                AppendFailure::invalid(&invalid, self.view().map_or(-1, |view| view.log_start()))
            })?;
        self.append_validated(&config, validated, options, now_ms)
    }

    fn rules<'a>(
        &'a self,
        config: &PartitionConfig,
        options: &AppendOptions<'_>,
        now_ms: i64,
    ) -> Rules<'a> {
        let max_message_size = usize::try_from(config.log.max_message_bytes)
            .expect("a usize has at least 32 bits");
        Rules {
            topic: &self.topic,
            partition: self.index,
            max_message_size,
            compacted: config.log.cleanup_policy.compact,
            timestamp_type: config.log.message_timestamp_type,
            timestamp_before_max_ms: config.log.message_timestamp_before_max_ms,
            timestamp_after_max_ms: config.log.message_timestamp_after_max_ms,
            now_ms,
            target: config.compression,
            origin: options.origin,
            validate_compressed: config.validate_compressed,
            max_decompressed_size: max_message_size.saturating_mul(MAX_DECOMPRESSION_RATIO),
        }
    }

    fn append_validated(
        self: &Arc<Self>,
        config: &PartitionConfig,
        validated: Validated,
        options: &AppendOptions<'_>,
        now_ms: i64,
    ) -> Result<Appended, AppendFailure> {
        let mut state = self.lock();
        let (log, leader) =
            state.log_and_leader().map_err(|code| AppendFailure::new(code, -1))?;
        if options.acks_all {
            leader
                .check_min_isr()
                .map_err(|error| AppendFailure::not_enough_replicas(&error, log.log_start()))?;
        }
        let segments = log.segment_count();
        let how = LeaderAppend {
            leader_epoch: leader.leader_epoch(),
            origin: match options.origin {
                AppendOrigin::Client { .. } => LogOrigin::Client,
                AppendOrigin::Coordinator => LogOrigin::Coordinator,
            },
            guard: None,
            transaction_version: -1,
        };
        let info = log
            .append_as_leader(std::slice::from_ref(&validated), how, now_ms)
            .map_err(|error| self.append_error(&error, log.log_start()))?;
        let flushes = config.flushes_before_ack()
            || log.segment_count() != segments
            || log.log_end() - log.flushed_offset() >= config.log.flush_messages;
        let moved = leader.on_appended(log.log_end(), now_ms);
        let required_offset = info.last_offset + 1;
        let moved = state.on_high_watermark(moved);
        if let Some(countdown) = options.countdown
            && state.leader.as_ref().is_some_and(|l| l.high_watermark() < required_offset)
        {
            state.producers.add(required_offset, countdown);
        }
        drop(state);
        self.announce(moved);
        if flushes {
            self.request_flush();
        }
        Ok(Appended {
            base_offset: info.first_offset,
            log_append_time_ms: info.log_append_time_ms,
            log_start_offset: info.log_start,
            required_offset,
        })
    }

    fn append_error(&self, error: &AppendError, log_start: Offset) -> AppendFailure {
        if let AppendError::Storage(storage) = error {
            tracing::error!("{}-{} could not be appended to: {storage}", self.topic, self.index);
            if storage.is_disk_failure() {
                self.offline.store(true, Ordering::Release);
            }
        }
        AppendFailure::refused(error, log_start)
    }

    /// Whether records that end at `required` (exclusive) are acknowledged by every replica that
    /// has to.
    pub(crate) fn acknowledged(&self, required: Offset) -> Result<bool, ErrorCode> {
        if self.is_offline() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let state = self.lock();
        let leader = state.leader.as_ref().ok_or(ErrorCode::NotLeaderOrFollower)?;
        Ok(leader.high_watermark() >= required)
    }

    /// Reads for a fetch; with a waiter, the fetch is told when reading again may find more.
    pub(crate) fn read(
        &self,
        options: &ReadOptions,
        waiter: Option<&Arc<FetchWaiter>>,
    ) -> Result<ReadOutcome, ErrorCode> {
        let view = {
            let mut state = self.lock();
            let (log, leader) = state.log_and_leader()?;
            check_leader_epoch(options.current_leader_epoch, leader.leader_epoch())?;
            if options.replica_id >= 0 && leader.followers().all(|(id, _)| id != options.replica_id)
            {
                return Err(ErrorCode::NotLeaderOrFollower);
            }
            let view = log.view();
            if let Some(waiter) = waiter {
                state.fetches.add(waiter);
            }
            view
        };
        let mut outcome = ReadOutcome {
            high_watermark: view.high_watermark(),
            last_stable_offset: view.last_stable_offset(),
            log_start_offset: view.log_start(),
            aborted_transactions: None,
            diverging_epoch: None,
            parts: Vec::new(),
        };
        if let FetchPosition::Diverging(end) = position(&view, options)? {
            outcome.diverging_epoch = Some(end);
            return Ok(outcome);
        }
        self.read_records(&view, options, &mut outcome)?;
        Ok(outcome)
    }

    fn read_records(
        &self,
        view: &LogView,
        options: &ReadOptions,
        outcome: &mut ReadOutcome,
    ) -> Result<(), ErrorCode> {
        let upper_bound = match options.replica_id {
            CONSUMER if options.read_committed => view.last_stable_offset(),
            CONSUMER => view.high_watermark(),
            DEBUGGING_CONSUMER.. => view.log_end(),
            _ => view.high_watermark(),
        };
        let spec = FetchSpec {
            offset: options.fetch_offset,
            max_bytes: options.max_bytes as u64,
            min_one_message: options.min_one_batch,
            upper_bound,
        };
        let fetched = view.read(spec).map_err(|error| self.read_error(&error))?;
        if options.read_committed {
            let bound = fetched.next_offset_bound;
            outcome.aborted_transactions =
                Some(view.aborted_transactions(options.fetch_offset, bound));
        }
        if let Some(slice) = fetched.records
            && !fetched.first_batch_incomplete
        {
            let len = usize::try_from(slice.length).expect("a range is no longer than was asked");
            let part = Part::File { file: slice.file, position: slice.position, len };
            outcome.parts.push(part);
        }
        Ok(())
    }

    fn read_error(&self, error: &ReadError) -> ErrorCode {
        if let ReadError::Storage(storage) = error {
            tracing::error!("{}-{} could not be read: {storage}", self.topic, self.index);
            if storage.is_disk_failure() {
                self.offline.store(true, Ordering::Release);
            }
        }
        error.code()
    }

    /// The log as it is now; `None` when it has been closed.
    pub(crate) fn view(&self) -> Option<LogView> {
        self.lock().log.as_ref().map(Log::view)
    }

    /// The leader's epoch, after comparing it with the one that a request names (-1 for none).
    pub(crate) fn check_epoch(&self, requested: LeaderEpoch) -> Result<LeaderEpoch, ErrorCode> {
        let state = self.lock();
        let leader = state.leader.as_ref().ok_or(ErrorCode::NotLeaderOrFollower)?;
        check_leader_epoch(requested, leader.leader_epoch())?;
        Ok(leader.leader_epoch())
    }

    /// Where a listing of offsets ends for this kind of reader, and the leader's epoch with it.
    ///
    /// A consumer is not told of an end before this epoch has committed something, or offsets could
    /// go backwards after an election (KIP-207).
    pub(crate) fn latest_offset(
        &self,
        isolation: ListIsolation,
    ) -> Result<(Offset, LeaderEpoch), ErrorCode> {
        let mut state = self.lock();
        let (log, leader) = state.log_and_leader()?;
        let offset = match isolation {
            ListIsolation::None => log.log_end(),
            ListIsolation::ReadUncommitted => log.high_watermark(),
            ListIsolation::ReadCommitted => log.last_stable_offset(),
        };
        if isolation != ListIsolation::None {
            leader.check_offsets_available()?;
        }
        Ok((offset, leader.leader_epoch()))
    }

    /// Does something with the log under the partition's lock; what moves in it wakes who waits.
    pub(crate) fn with_log<R>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Log) -> R,
    ) -> Result<R, ErrorCode> {
        let mut state = self.lock();
        let log = state.log.as_mut().ok_or(ErrorCode::NotLeaderOrFollower)?;
        let result = change(log);
        state.fetches.wake();
        drop(state);
        Ok(result)
    }

    /// The high watermark, to be watched.
    pub(crate) fn watch_high_watermark(&self) -> watch::Receiver<Offset> {
        let watched = self.high_watermark.subscribe();
        if let Some(view) = self.view() {
            self.high_watermark.send_replace(view.high_watermark());
        }
        watched
    }

    fn announce(&self, moved: Option<Offset>) {
        if let Some(high_watermark) = moved {
            // Most partitions have no watcher: nothing is locked for them.
            if self.high_watermark.receiver_count() > 0 {
                self.high_watermark.send_replace(high_watermark);
            }
        }
    }

    /// Has the log synced soon. Asking while a request is queued costs nothing.
    pub(crate) fn request_flush(self: &Arc<Self>) {
        if !self.flush_queued.swap(true, Ordering::AcqRel) {
            self.flusher.request(Arc::clone(self));
        }
    }

    /// Syncs the log; on the flusher's thread.
    pub(crate) fn flush(&self) -> Result<(), LogError> {
        // From here on an append asks for another flush.
        self.flush_queued.store(false, Ordering::Release);
        let ticket = match &mut self.lock().log {
            Some(log) => log.flush_ticket()?,
            None => None,
        };
        let Some(ticket) = ticket else { return Ok(()) };
        ticket.run()?;
        let mut state = self.lock();
        let Some(log) = &mut state.log else { return Ok(()) };
        log.on_flushed(&ticket);
        let flushed = log.flushed_offset();
        let now_ms = clock::now_ms();
        let moved =
            state.leader.as_mut().and_then(|leader| leader.on_flushed(flushed, now_ms));
        let moved = state.on_high_watermark(moved);
        drop(state);
        self.announce(moved);
        Ok(())
    }

    /// The log directory has failed: nobody is kept waiting for it.
    pub(crate) fn fail(&self) {
        self.offline.store(true, Ordering::Release);
        let mut state = self.lock();
        state.producers.give_up();
        state.fetches.wake();
    }

    /// Gives the partition up: its log is returned to be closed or deleted.
    pub(crate) fn stop(&self) -> Option<Log> {
        self.leads.store(false, Ordering::Release);
        let mut state = self.lock();
        state.leader = None;
        let log = state.log.take();
        state.producers.give_up();
        state.fetches.wake();
        log
    }
}

/// Compares where the fetcher's log ends with this one (KIP-595).
fn position(view: &LogView, options: &ReadOptions) -> Result<FetchPosition, ErrorCode> {
    let end = view.leader_epochs().end_offset_for(options.last_fetched_epoch, view.log_end());
    let end = end.map(|end| OffsetAndEpoch { offset: end.offset, epoch: end.epoch });
    check_position(options.fetch_offset, options.last_fetched_epoch, end, view.log_start())
}
