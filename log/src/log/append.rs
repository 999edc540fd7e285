//! How records get into the log, and when a new segment begins.

use super::Log;
use crate::error::AppendError;
use crate::file_name::FileKind;
use crate::offset_index::OffsetIndex;
use crate::producer_state::{
    AppendOrigin, BatchMetadata, Check, EndTxnMarker, PendingUpdates, VerificationGuard,
};
use crate::segment::{RollCheck, Segment, as_u64};
use crate::txn_index::AbortedTxn;
use bytes::Bytes;
use klamm_protocol::batch::{BatchHeader, Batches, HEADER_LEN, RecordBatch};
use klamm_protocol::control_record::ControlRecord;
use klamm_protocol::ids::{LeaderEpoch, Offset};
use klamm_protocol::produce_validation::Validated;
use std::io::IoSlice;
use std::sync::Arc;

/// Circumstances of a leader's append.
#[derive(Debug, Clone, Copy)]
pub struct LeaderAppend {
    pub leader_epoch: LeaderEpoch,
    pub origin: AppendOrigin,
    /// From [`crate::producer_state::ProducerState::start_verification`].
    pub guard: Option<VerificationGuard>,
    /// Of the transaction markers among the records (WriteTxnMarkers v2); 0 when not known.
    pub transaction_version: i16,
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendInfo {
    pub first_offset: Offset,
    /// First offset less one when nothing was appended.
    pub last_offset: Offset,
    /// The timestamp for the answer: that of a LogAppendTime topic, or of the batch that this one
    /// repeats; -1 otherwise.
    pub log_append_time_ms: i64,
    pub log_start: Offset,
    /// The batch had been appended before, at these offsets; nothing was written.
    pub duplicate: bool,
}

/// Batches with their final headers, ready to be written.
struct Prepared {
    headers: Vec<BatchHeader>,
    bodies: Vec<Bytes>,
    pending: PendingUpdates,
    bytes: u64,
}

impl Log {
    /// Appends records as the partition's leader: assigns their offsets and `leader_epoch`.
    ///
    /// All or nothing. A repeated batch of an idempotent producer is answered with its first offsets.
    pub fn append_as_leader(
        &mut self,
        batches: &[Validated],
        how: LeaderAppend,
        now_ms: i64,
    ) -> Result<AppendInfo, AppendError> {
        self.check()?;
        if how.origin == AppendOrigin::Client
            && let Some(duplicate) =
                batches.iter().find_map(|b| self.producers.duplicate_of(&b.header))
        {
            return Ok(self.repeated(&duplicate));
        }
        let prepared = self.prepare_as_leader(batches, how)?;
        let log_append_time_ms = batches.first().and_then(|batch| batch.log_append_time_ms);
        let outcome = self.write(&prepared, now_ms);
        let info = Arc::clone(&self.health).observe(outcome)?;
        Ok(AppendInfo { log_append_time_ms: log_append_time_ms.unwrap_or(-1), ..info })
    }

    /// Appends what the leader sent: batches with their offsets and epochs, byte for byte.
    ///
    /// A batch cut short at the end is left out, and so is everything from a batch of a later epoch
    /// than `leader_epoch` on (it comes from a leader that this replica does not know yet). Not all or
    /// nothing: after an error the log may end behind any of the batches.
    pub fn append_as_follower(
        &mut self,
        records: Bytes,
        leader_epoch: LeaderEpoch,
        now_ms: i64,
    ) -> Result<AppendInfo, AppendError> {
        self.check()?;
        let batches = checked_batches(records, leader_epoch)?;
        self.begin_inside_first_batch(&batches, now_ms)?;
        let first_offset = batches.first().map_or(self.log_end, |batch| batch.header.base_offset);
        let mut rest = batches.as_slice();
        while !rest.is_empty() {
            let (batches, later) = rest.split_at(count_for_one_segment(rest));
            let prepared = self.prepare_as_follower(batches)?;
            let outcome = self.write(&prepared, now_ms);
            Arc::clone(&self.health).observe(outcome)?;
            rest = later;
        }
        Ok(self.appended(first_offset))
    }

    fn repeated(&self, duplicate: &BatchMetadata) -> AppendInfo {
        AppendInfo {
            first_offset: duplicate.first_offset(),
            last_offset: duplicate.last_offset,
            log_append_time_ms: duplicate.timestamp,
            log_start: self.log_start,
            duplicate: true,
        }
    }

    fn prepare_as_leader(
        &self,
        batches: &[Validated],
        how: LeaderAppend,
    ) -> Result<Prepared, AppendError> {
        let verify_transactions = self.config.transaction_verification;
        let check = Check { origin: how.origin, guard: how.guard, verify_transactions };
        let mut prepared = Prepared::with_capacity(batches.len());
        let mut next_offset = self.log_end;
        for batch in batches {
            let given = batch.header;
            if how.origin == AppendOrigin::RaftLeader {
                check_raft_batch(&given, next_offset, how.leader_epoch)?;
            }
            let header = given.placed_at(next_offset, how.leader_epoch);
            next_offset = header.next_offset();
            let marker = marker_of(&header, &batch.body).map(|marker| EndTxnMarker {
                transaction_version: how.transaction_version,
                ..marker
            });
            self.producers.prepare(&mut prepared.pending, &header, marker, check)?;
            prepared.push(header, batch.body.clone());
        }
        self.check_segment_size(prepared)
    }

    fn prepare_as_follower(&self, batches: &[RecordBatch]) -> Result<Prepared, AppendError> {
        let mut prepared = Prepared::with_capacity(batches.len());
        let mut next_offset = self.log_end;
        for batch in batches {
            let header = batch.header;
            if header.base_offset < next_offset {
                let (found, expected) = (header.base_offset, next_offset);
                return Err(AppendError::UnexpectedOffset { found, expected });
            }
            next_offset = header.next_offset();
            let body = batch.body();
            let marker = marker_of(&header, &body);
            let pending = &mut prepared.pending;
            self.producers.prepare(pending, &header, marker, Check::REPLICATION)?;
            prepared.push(header, body);
        }
        Ok(prepared)
    }

    fn check_segment_size(&self, prepared: Prepared) -> Result<Prepared, AppendError> {
        let limit = self.config.segment_bytes;
        if prepared.bytes > u64::from(limit) {
            return Err(AppendError::LargerThanSegment { size: prepared.bytes, limit });
        }
        Ok(prepared)
    }

    /// An empty log may have to begin inside a batch: the leader's log start moves to any offset, but
    /// it can send whole batches only. Then the log begins with that batch.
    fn begin_inside_first_batch(
        &mut self,
        batches: &[RecordBatch],
        now_ms: i64,
    ) -> Result<(), AppendError> {
        let Some(first) = batches.first().map(|batch| batch.header) else { return Ok(()) };
        let holds_end = (first.base_offset + 1..=first.last_offset()).contains(&self.log_end);
        if self.log_start == self.log_end && holds_end {
            self.truncate_fully_and_start_at(first.base_offset, now_ms)?;
        }
        Ok(())
    }

    /// Writes prepared batches with one system call and updates everything that follows from them.
    fn write(&mut self, prepared: &Prepared, now_ms: i64) -> Result<AppendInfo, AppendError> {
        let Some((first, last)) = prepared.headers.first().zip(prepared.headers.last()) else {
            return Ok(self.appended(self.log_end));
        };
        self.remove_stale_index_files()?;
        let segment = self.segment_for(prepared, first, last, now_ms)?;
        let heads = prepared.headers.iter().map(BatchHeader::write_to).collect::<Vec<_>>();
        let mut slices = Vec::with_capacity(2 * heads.len());
        for (head, body) in heads.iter().zip(&prepared.bodies) {
            slices.push(IoSlice::new(head));
            slices.push(IoSlice::new(body));
        }
        segment.append(&mut slices, &prepared.headers, self.config.index_interval_bytes)?;
        let first_offset = first.base_offset;
        self.log_end = last.next_offset();
        self.after_write(prepared, &segment);
        Ok(self.appended(first_offset))
    }

    fn after_write(&mut self, prepared: &Prepared, segment: &Segment) {
        for header in &prepared.headers {
            self.note_epoch(header);
        }
        self.producers.apply(&prepared.pending);
        for txn in &prepared.pending.completed {
            if txn.aborted {
                segment.append_aborted(AbortedTxn {
                    producer_id: txn.producer_id,
                    first_offset: txn.first_offset,
                    last_offset: txn.last_offset,
                    last_stable_offset: self.producers.last_stable_offset_after(txn),
                });
            }
            self.producers.complete(txn);
        }
        self.producers.set_end_offset(self.log_end);
    }

    /// Nearly every batch has the epoch of the one before: the entries are not copied for it.
    fn note_epoch(&mut self, header: &BatchHeader) {
        let epoch = header.partition_leader_epoch;
        if epoch >= 0
            && self.latest_epoch() != Some(epoch)
            && Arc::make_mut(&mut self.epochs).assign(epoch, header.base_offset)
        {
            self.flush.epochs_changed += 1;
        }
    }

    fn appended(&self, first_offset: Offset) -> AppendInfo {
        AppendInfo {
            first_offset,
            last_offset: self.log_end - 1,
            log_append_time_ms: -1,
            log_start: self.log_start,
            duplicate: false,
        }
    }

    /// The segment that takes the batches: the active one, or a new one that begins with them.
    fn segment_for(
        &mut self,
        prepared: &Prepared,
        first: &BatchHeader,
        last: &BatchHeader,
        now_ms: i64,
    ) -> Result<Arc<Segment>, AppendError> {
        let active = Arc::clone(self.active());
        let max_timestamp = prepared.headers.iter().map(|h| h.max_timestamp).max().unwrap_or(-1);
        let roll = RollCheck {
            config: &self.config,
            segment_ms: self.config.segment_ms_of(self.jitter_seed, active.base_offset()),
            bytes: prepared.bytes,
            last_offset: last.last_offset(),
            max_timestamp,
            now_ms,
        };
        // A new segment at the same offset would be no different.
        if active.base_offset() == first.base_offset || !active.must_roll(&roll) {
            return Ok(active);
        }
        self.roll_at(first.base_offset, now_ms)
    }

    /// Whether an append of `bytes`, up to `max_timestamp`, may wait for a sync: a compacted log syncs a segment before it begins
    /// the next one. True for some appends that do not.
    pub fn may_sync_to_roll(&self, bytes: usize, max_timestamp: i64, now_ms: i64) -> bool {
        if !self.config.cleanup_policy.compact {
            return false;
        }
        let active = self.active();
        active.must_roll(&RollCheck {
            config: &self.config,
            segment_ms: self.config.segment_ms_of(self.jitter_seed, active.base_offset()),
            bytes: as_u64(bytes),
            // More than the batches of one append span.
            last_offset: self.log_end + Offset::from(i32::MAX / 2),
            max_timestamp,
            now_ms,
        })
    }

    /// Begins a new segment at the log end, unless the active one is empty.
    pub fn roll(&mut self, now_ms: i64) -> Result<(), AppendError> {
        self.check()?;
        if self.active().size() > 0 {
            let outcome = self.roll_at(self.log_end, now_ms);
            Arc::clone(&self.health).observe(outcome)?;
        }
        Ok(())
    }

    /// The old segment gets its index files, and the state at the new one's begin its snapshot, with
    /// the next flush.
    pub(super) fn roll_at(
        &mut self,
        base_offset: Offset,
        now_ms: i64,
    ) -> Result<Arc<Segment>, AppendError> {
        for kind in FileKind::INDEXES {
            self.home.disk.remove_file_if_exists(&self.home.file(&kind.name(base_offset)))?;
        }
        self.active().settle_excess()?;
        if self.config.cleanup_policy.compact {
            // Offsets have gaps here, so recovery could not tell a lost end of the old segment.
            self.active().file()?.sync_data()?;
            self.home.sync()?;
        }
        let segment = Segment::create(&self.home, base_offset, now_ms)?;
        self.active().seal();
        self.producers.set_end_offset(base_offset);
        let snapshot = self.new_snapshot();
        self.flush.seal_later(Arc::clone(self.active()), snapshot);
        Arc::make_mut(&mut self.segments).push(Arc::clone(&segment));
        self.flush.dir_changed += 1;
        Ok(segment)
    }

    /// The segment was opened with complete index files. They are incomplete after this append,
    /// and `.index`, which vouches for the others, must be gone for good before it counts as flushed.
    fn remove_stale_index_files(&mut self) -> Result<(), AppendError> {
        if self.stale_index_files {
            let name = FileKind::OffsetIndex.name(self.active().base_offset());
            self.home.disk.remove_file_if_exists(&self.home.file(&name))?;
            self.stale_index_files = false;
            self.flush.dir_changed += 1;
        }
        Ok(())
    }
}

impl Prepared {
    fn with_capacity(count: usize) -> Self {
        Self {
            headers: Vec::with_capacity(count),
            bodies: Vec::with_capacity(count),
            pending: PendingUpdates::default(),
            bytes: 0,
        }
    }

    fn push(&mut self, header: BatchHeader, body: Bytes) {
        debug_assert_eq!(header.size(), HEADER_LEN + body.len());
        self.bytes += as_u64(header.size());
        self.headers.push(header);
        self.bodies.push(body);
    }
}

/// How many batches one segment can hold: in a compacted log their offsets may be far apart.
fn count_for_one_segment(batches: &[RecordBatch]) -> usize {
    let base_offset = batches.first().map_or(0, |first| first.header.base_offset);
    let fits = |batch: &RecordBatch| OffsetIndex::can_hold(base_offset, batch.header.last_offset());
    batches.partition_point(fits).max(1)
}

fn checked_batches(
    records: Bytes,
    leader_epoch: LeaderEpoch,
) -> Result<Vec<RecordBatch>, AppendError> {
    let mut batches = Vec::new();
    let mut position = 0;
    for batch in Batches::new(records) {
        let corrupt = AppendError::CorruptBatch { position };
        let Ok(batch) = batch else { return Err(corrupt) };
        if batch.header.partition_leader_epoch > leader_epoch {
            break;
        }
        if batch.check_crc().is_err() || !has_sane_offsets(&batch.header) {
            return Err(corrupt);
        }
        position += batch.bytes.len();
        batches.push(batch);
    }
    Ok(batches)
}

/// Offsets that neither run backwards nor overflow.
pub(crate) fn has_sane_offsets(header: &BatchHeader) -> bool {
    header.base_offset >= 0
        && header.last_offset_delta >= 0
        && header.base_offset < Offset::MAX - Offset::from(i32::MAX)
}

fn check_raft_batch(
    header: &BatchHeader,
    next_offset: Offset,
    leader_epoch: LeaderEpoch,
) -> Result<(), AppendError> {
    let (found, expected) = (header.partition_leader_epoch, leader_epoch);
    if found != expected {
        return Err(AppendError::WrongLeaderEpoch { found, expected });
    }
    let (found, expected) = (header.base_offset, next_offset);
    if found != expected {
        return Err(AppendError::UnexpectedOffset { found, expected });
    }
    Ok(())
}

/// The transaction marker in a control batch of a producer.
pub(crate) fn marker_of(header: &BatchHeader, body: &Bytes) -> Option<EndTxnMarker> {
    if !header.is_control() || !header.has_producer_id() {
        return None;
    }
    let bytes = [&header.write_to()[..], body].concat().into();
    let record = RecordBatch { header: *header, bytes }.records(body.len()).ok()?.next()?.ok()?;
    match ControlRecord::read(&record) {
        Ok(Some(ControlRecord::EndTransaction(end))) => Some(EndTxnMarker {
            committed: end.committed,
            coordinator_epoch: end.coordinator_epoch,
            transaction_version: 0,
        }),
        _ => None,
    }
}
