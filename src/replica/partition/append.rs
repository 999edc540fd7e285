//! Appends to a partition that this broker leads.
//!
//! The records are validated before the lock is taken; the lock is held for one append. If the append may have to sync
//! a segment of a compacted log, it runs on a thread that may block.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use klamm_log::error::AppendError;
use klamm_log::log::LeaderAppend;
use klamm_log::producer_state::AppendOrigin as LogOrigin;
use klamm_protocol::ErrorCode;
use klamm_protocol::batch::HEADER_LEN;
use klamm_protocol::compression::Workspace;
use klamm_protocol::ids::Offset;
use klamm_protocol::produce_validation::{self, AppendOrigin, InvalidRecords, Rules, Validated};
use klamm_replication::partition::{AppendRefused, Awaited};

use super::lacking::Attempt;
use super::lock::Locked;
use super::{Partition, PartitionConfig, State};
use crate::clock;
use crate::replica::delayed::Countdown;

/// The most bytes to which a compressed batch may decompress, as a multiple of `max.message.bytes`, if it has to be
/// decompressed.
const MAX_DECOMPRESSION_RATIO: usize = 100;

thread_local! {
    /// The buffers for decompression, a few hundred KiB. One for each thread, so that idle connections need none.
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// The origin of an append, and the request that waits for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AppendOptions<'a> {
    origin: AppendOrigin,
    /// acks=all: the append fails while the ISR is smaller than `min.insync.replicas`.
    acks_all: bool,
    /// Counts down when the records are committed.
    countdown: Option<&'a Arc<Countdown>>,
}

impl<'a> AppendOptions<'a> {
    /// For a Produce request of this version.
    pub(crate) fn client(acks: i16, version: i16, countdown: Option<&'a Arc<Countdown>>) -> Self {
        Self { origin: AppendOrigin::Client { version }, acks_all: acks == -1, countdown }
    }
}

impl AppendOptions<'static> {
    /// For a coordinator of this broker, which watches the high watermark itself.
    pub(crate) fn coordinator() -> Self {
        Self { origin: AppendOrigin::Coordinator, acks_all: true, countdown: None }
    }
}

/// The offsets of appended records, and what to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: Offset,
    /// None unless the topic has LogAppendTime or the batch is a duplicate.
    pub(crate) log_append_time_ms: Option<i64>,
    pub(crate) log_start_offset: Offset,
    /// The records that the countdown waits for; `None` without a countdown, or if they are committed already.
    pub(crate) awaited: Option<Awaited>,
}

/// A rejected record, by its index in the batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RecordFailure {
    pub(crate) batch_index: i32,
    pub(crate) message: Option<String>,
}

/// Why nothing was appended, as in the Produce response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AppendFailure {
    pub(crate) code: ErrorCode,
    /// None if the records were rejected before the log was read.
    pub(crate) log_start_offset: Option<Offset>,
    pub(crate) message: Option<String>,
    pub(crate) record_errors: Vec<RecordFailure>,
}

impl AppendFailure {
    fn new(code: ErrorCode, log_start_offset: Option<Offset>) -> Self {
        Self { code, log_start_offset, message: None, record_errors: Vec::new() }
    }

    fn invalid(invalid: &InvalidRecords, log_start: Option<Offset>) -> Self {
        let log_start_offset = log_start.filter(|_| invalid.answers_log_start_offset());
        let mut failure = Self::new(invalid.code(), log_start_offset);
        failure.message = invalid.client_message();
        if let Some(rejected) = invalid.rejected_records() {
            failure.record_errors = rejected
                .record_errors()
                .map(|(batch_index, message)| RecordFailure { batch_index, message: Some(message) })
                .collect();
        }
        failure
    }

    fn not_allowed(refused: &AppendRefused, log_start: Option<Offset>) -> Self {
        let log_start_offset = match refused {
            AppendRefused::NotLeader => None,
            AppendRefused::NotEnoughReplicas(_) => log_start,
        };
        Self::new(refused.code(), log_start_offset)
    }

    /// Kafka omits the log start offset if the log itself failed or the batch was too large for a segment
    /// (`ReplicaManager.appendRecordsToLeader`).
    fn refused(error: &AppendError, log_start: Offset) -> Self {
        let log_start_offset = match error {
            AppendError::Storage(_)
            | AppendError::LargerThanSegment { .. }
            | AppendError::CorruptBatch { .. } => None,
            AppendError::OutOfOrderSequence { .. }
            | AppendError::InvalidProducerEpoch { .. }
            | AppendError::TransactionCoordinatorFenced { .. }
            | AppendError::ExpectedTransactional { .. }
            | AppendError::NotInTransaction { .. }
            | AppendError::UnexpectedOffset { .. }
            | AppendError::OutOfOrderOffsets { .. }
            | AppendError::WrongLeaderEpoch { .. } => Some(log_start),
        };
        Self::new(error.code(), log_start_offset)
    }
}

impl Partition {
    /// Appends one partition's records of a request or of a coordinator. They arrived at `wall_ms`.
    pub(crate) fn append(
        self: &Arc<Self>,
        records: Bytes,
        options: &AppendOptions<'_>,
        wall_ms: i64,
    ) -> Result<Appended, AppendFailure> {
        let config = self.config();
        let rules = self.rules(&config, options, wall_ms);
        let validated = WORKSPACE
            .with_borrow_mut(|workspace| produce_validation::validate(records, &rules, workspace))
            .map_err(|invalid| {
                AppendFailure::invalid(&invalid, self.view().map(|view| view.log_start()))
            })?;
        self.append_validated(&config, validated, options)
    }

    fn rules<'a>(
        &'a self,
        config: &PartitionConfig,
        options: &AppendOptions<'_>,
        wall_ms: i64,
    ) -> Rules<'a> {
        let max_message_size =
            usize::try_from(config.log.max_message_bytes).expect("a usize has at least 32 bits");
        Rules {
            topic: &self.topic,
            partition: self.index,
            max_message_size,
            compacted: config.log.cleanup_policy.compact,
            timestamp_type: config.log.message_timestamp_type,
            timestamp_before_max_ms: config.log.message_timestamp_before_max_ms,
            timestamp_after_max_ms: config.log.message_timestamp_after_max_ms,
            now_ms: wall_ms,
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
    ) -> Result<Appended, AppendFailure> {
        let now_ms = clock::now_ms();
        let (bytes, max_timestamp) =
            (HEADER_LEN + validated.body.len(), validated.header.max_timestamp);
        self.lock_to_append(
            |log| log.may_sync_to_roll(bytes, max_timestamp, now_ms),
            |state| self.append_locked(state, config, validated, options, now_ms),
        )
    }

    fn append_locked(
        self: &Arc<Self>,
        mut state: Locked<'_, State>,
        config: &PartitionConfig,
        validated: Validated,
        options: &AppendOptions<'_>,
        now_ms: i64,
    ) -> Result<Appended, AppendFailure> {
        let State { log, replica } = &mut *state;
        let Some(log) = log else {
            return Err(AppendFailure::not_allowed(&AppendRefused::NotLeader, None));
        };
        let leader_epoch = replica
            .check_append(options.acks_all)
            .map_err(|refused| AppendFailure::not_allowed(&refused, Some(log.log_start())))?;
        if self.flushing.is_full() {
            return Err(AppendFailure::new(ErrorCode::KafkaStorageError, None));
        }
        let segments = log.segment_count();
        let how = LeaderAppend {
            leader_epoch,
            origin: match options.origin {
                AppendOrigin::Client { .. } => LogOrigin::Client,
                AppendOrigin::Coordinator => LogOrigin::Coordinator,
            },
            guard: None,
            transaction_version: 0,
        };
        let info = match log.append_as_leader(std::slice::from_ref(&validated), how, now_ms) {
            Ok(info) => info,
            Err(error) => {
                let log_start = log.log_start();
                drop(state);
                return Err(self.append_error(&error, log_start));
            }
        };
        self.on_room(Attempt::Write);
        let flushes = config.flushes_before_ack()
            || log.segment_count() != segments
            || log.log_end() - log.flushed_offset() >= config.log.flush_messages;
        replica.on_appended(log.log_end(), now_ms);
        let required_offset = info.last_offset + 1;
        let waits = replica.high_watermark() < required_offset;
        let awaited = options.countdown.filter(|_| waits).map(|countdown| {
            replica.await_committed(required_offset, countdown.ticket());
            // For a duplicate batch, the epoch is that of the original records.
            Awaited { required_offset, epoch: log.leader_epochs().epoch_of(info.last_offset) }
        });
        drop(state);
        if flushes {
            self.request_flush();
        }
        Ok(Appended {
            base_offset: info.first_offset,
            log_append_time_ms: info.log_append_time_ms,
            log_start_offset: info.log_start,
            awaited,
        })
    }

    fn append_error(&self, error: &AppendError, log_start: Offset) -> AppendFailure {
        if let AppendError::Storage(storage) = error {
            self.on_storage_error(Attempt::Write, storage);
        }
        AppendFailure::refused(error, log_start)
    }

    /// Whether all replicas that must have the records have them (they are committed).
    pub(crate) fn acknowledged(&self, awaited: &Awaited) -> Result<bool, ErrorCode> {
        if self.is_offline() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let state = self.lock();
        let epoch = state.led_log()?.leader_epochs().epoch_of(awaited.last_offset());
        state.replica.acknowledged(awaited, epoch)
    }
}
