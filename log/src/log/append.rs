//! Appends records to the log, and decides when a new segment begins.

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
use klamm_protocol::ids::{LeaderEpoch, Offset, none_if_minus_one, none_if_negative};
use klamm_protocol::produce_validation::Validated;
use std::io::IoSlice;
use std::sync::Arc;

/// The context of a leader's append.
#[derive(Debug, Clone, Copy)]
pub struct LeaderAppend {
    pub leader_epoch: LeaderEpoch,
    pub origin: AppendOrigin,
    /// From [`crate::producer_state::ProducerState::start_verification`].
    pub guard: Option<VerificationGuard>,
    /// For transaction markers among the records (WriteTxnMarkers v2); 0 when not known.
    pub transaction_version: i16,
}

/// The result of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendInfo {
    pub first_offset: Offset,
    /// `first_offset - 1` when nothing was appended.
    pub last_offset: Offset,
    /// The timestamp for the response: the append time of a LogAppendTime topic, or the timestamp of the original of a
    /// duplicate batch.
    pub log_append_time_ms: Option<i64>,
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
    /// All or nothing. For a duplicate batch of an idempotent producer, returns the offsets of the original batch.
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
        Ok(AppendInfo { log_append_time_ms, ..info })
    }

    /// Appends the batches that the leader sent, byte for byte, with their offsets and epochs.
    ///
    /// An incomplete batch at the end is ignored. So are the first batch with a later epoch than `leader_epoch` and all
    /// after it: they come from a leader that this replica does not know yet. Not all or nothing: after an error, some
    /// of the batches may have been appended.
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
            log_append_time_ms: none_if_minus_one(duplicate.timestamp),
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

    /// The first batch for an empty log may contain the log end offset inside it: the leader's log start can be any
    /// offset, but the leader sends only whole batches. Then the log starts at the base offset of that batch.
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

    /// Writes prepared batches with one system call, and updates the epochs, the producer state and the aborted
    /// transactions.
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

    /// Nearly every batch has the latest epoch already: then the shared entries are not copied.
    fn note_epoch(&mut self, header: &BatchHeader) {
        let Some(epoch) = none_if_negative(header.partition_leader_epoch) else { return };
        if self.latest_epoch() != Some(epoch)
            && Arc::make_mut(&mut self.epochs).assign(epoch, header.base_offset)
        {
            self.flush.epochs_changed += 1;
        }
    }

    fn appended(&self, first_offset: Offset) -> AppendInfo {
        AppendInfo {
            first_offset,
            last_offset: self.log_end - 1,
            log_append_time_ms: None,
            log_start: self.log_start,
            duplicate: false,
        }
    }

    /// The segment for the batches: the active one, or a new one that begins with them.
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
        // If the active segment is empty, a new one would be the same.
        if active.base_offset() == first.base_offset || !active.must_roll(&roll) {
            return Ok(active);
        }
        self.roll_at(first.base_offset, now_ms)
    }

    /// Whether an append of `bytes`, with timestamps up to `max_timestamp`, may wait for a sync: a compacted log syncs
    /// the active segment before it begins the next one. May be true for an append that does not sync.
    pub fn may_sync_to_roll(&self, bytes: usize, max_timestamp: i64, now_ms: i64) -> bool {
        if !self.config.cleanup_policy.compact {
            return false;
        }
        let active = self.active();
        active.must_roll(&RollCheck {
            config: &self.config,
            segment_ms: self.config.segment_ms_of(self.jitter_seed, active.base_offset()),
            bytes: as_u64(bytes),
            // More offsets than the batches of one append can have.
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

    /// Begins a new segment. The next flush writes the index files of the old one, and the producer snapshot at
    /// `base_offset`.
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
            // A compacted log has gaps in its offsets, so recovery could not detect that the end of the old segment is
            // lost.
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

    /// The active segment was opened with complete index files. This append makes them incomplete. `.index` says
    /// whether all of them are valid, so its removal must be durable before the append counts as flushed.
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

/// How many of the batches fit into one segment. In a compacted log their offsets may be too far apart for its index.
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

/// Whether the offsets neither run backwards nor overflow.
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
