//! The history that a crash test runs, and what must be true of the log afterwards.

use bytes::Bytes;
use klamm_log::config::LogConfig;
use klamm_log::disk::{Disk, Fault, MemoryDisk};
use klamm_log::error::{AppendError, LogError, ReadError};
use klamm_log::health::LogDirHealth;
use klamm_log::leader_epoch_cache::LeaderEpochCache;
use klamm_log::log::{FlushTicket, LeaderAppend, Log, LogOptions, LogStorage, OffsetTarget};
use klamm_log::log_reader::FetchSpec;
use klamm_log::open_files::OpenFiles;
use klamm_log::producer_state::{AppendOrigin, ProducerState};
use klamm_log::txn_index::AbortedTxn;
use klamm_protocol::batch::{Batches, RecordBatch};
use klamm_protocol::batch_builder::BatchBuilder;
use klamm_protocol::control_record::{ControlRecord, EndTransaction, end_transaction_batch};
use klamm_protocol::ids::{LeaderEpoch, Offset, ProducerId};
use klamm_protocol::time::Now;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/data/topic-0";
const STEPS: u32 = 40;

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    base: Offset,
    last: Offset,
    bytes: Bytes,
}

/// What the log should hold.
#[derive(Default)]
pub(crate) struct Model {
    entries: Vec<Entry>,
    /// Everything that was ever there, by offset: deleted segments may come back.
    history: BTreeMap<Offset, Vec<Bytes>>,
    log_start: Offset,
    flushed: Offset,
    /// A truncation is under way: the entries before it.
    truncating: Option<(Offset, Vec<Entry>)>,
}

impl Model {
    pub(crate) fn append(&mut self, bytes: Bytes, base: Offset, last: Offset) {
        self.history.entry(base).or_default().push(bytes.clone());
        self.entries.push(Entry { base, last, bytes });
    }

    pub(crate) fn flushed(&mut self, offset: Offset) {
        self.flushed = self.flushed.max(offset);
    }

    /// What an append without room was to add is not there.
    fn take_back(&mut self) {
        self.entries.pop();
    }

    /// A log was opened again that had not been closed in order: it ends in the midst of a truncation, at most.
    fn adopt(&mut self, log_end: Offset) {
        if let Some((_, before)) = self.truncating.take() {
            self.entries = before;
        }
        self.entries.retain(|entry| entry.last < log_end);
    }

    fn begin_truncation(&mut self, offset: Offset) {
        self.truncating = Some((offset, self.entries.clone()));
        self.entries.retain(|entry| entry.last < offset);
        self.flushed = self.flushed.min(offset);
        self.log_start = self.log_start.min(offset);
    }

    /// Checks batches that were read from the begin of a log to its end.
    pub(crate) fn check_records(
        &self,
        found: &[(Offset, Offset, Bytes)],
        start: Offset,
        context: &str,
    ) {
        let current: Vec<&Entry> =
            self.entries.iter().filter(|entry| entry.last >= self.log_start).collect();
        let before: Vec<&Entry> = self
            .truncating
            .iter()
            .flat_map(|(_, entries)| entries)
            .filter(|entry| entry.last >= self.log_start)
            .collect();
        let found_above: Vec<&(Offset, Offset, Bytes)> =
            found.iter().filter(|(_, last, _)| *last >= self.log_start).collect();
        let is_prefix_of = |entries: &[&Entry]| {
            found_above.len() <= entries.len()
                && found_above.iter().zip(entries).all(|(found, entry)| found.2 == entry.bytes)
        };
        assert!(
            is_prefix_of(&current) || is_prefix_of(&before),
            "{context}: not a prefix: {:?} of {:?} or {:?}",
            found_above.iter().map(|f| (f.0, f.1)).collect::<Vec<_>>(),
            current.iter().map(|e| (e.base, e.last)).collect::<Vec<_>>(),
            before.iter().map(|e| (e.base, e.last)).collect::<Vec<_>>(),
        );
        let flushed = current.iter().filter(|entry| entry.last < self.flushed).count();
        assert!(
            found_above.len() >= flushed,
            "{context}: {} batches of {flushed} flushed ones, up to {}",
            found_above.len(),
            self.flushed,
        );
        for (base, _, bytes) in found.iter().filter(|(_, last, _)| *last < self.log_start) {
            let known = self.history.get(base).is_some_and(|known| known.contains(bytes));
            assert!(known, "{context}: batch at {base} below the log start was never written");
        }
        assert!(start <= self.log_start.max(start), "{context}");
    }
}

/// A history on a disk.
pub(crate) struct Run {
    random: Random,
    disk: MemoryDisk,
    log: Option<Log>,
    model: Model,
    steps_left: u32,
    epoch: LeaderEpoch,
    sequences: BTreeMap<ProducerId, i32>,
    open_transactions: BTreeSet<ProducerId>,
    ticket: Option<FlushTicket>,
    /// What the checkpoint files would say.
    recovery_point: Offset,
    log_start_checkpoint: Offset,
    now_ms: i64,
    /// Something is lacking, or will be: operations may fail and are to be tried again.
    lacking: bool,
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 700,
        index_interval_bytes: 60,
        retention_bytes: 4000,
        file_delete_delay_ms: 50,
        transaction_verification: false,
        ..LogConfig::default()
    }
}

fn open(
    disk: &MemoryDisk,
    recovery_point: Offset,
    log_start: Offset,
    clean_shutdown: bool,
) -> Result<Log, LogError> {
    let storage = LogStorage::new(
        Arc::new(disk.clone()),
        OpenFiles::new(3),
        Arc::new(LogDirHealth::new(Path::new("/data"))),
    );
    let options = LogOptions {
        config: config(),
        recovery_point,
        log_start,
        clean_shutdown,
        topic_id: None,
        now_ms: 0,
    };
    Log::open(&storage, Path::new(DIR), options)
}

impl Run {
    pub(crate) fn new(seed: u64) -> Self {
        let disk = MemoryDisk::with_page_size(64);
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let log = open(&disk, 0, 0, false).unwrap();
        Self {
            random: Random::new(seed),
            disk,
            log: Some(log),
            model: Model::default(),
            steps_left: STEPS,
            epoch: 0,
            sequences: BTreeMap::new(),
            open_transactions: BTreeSet::new(),
            ticket: None,
            recovery_point: 0,
            log_start_checkpoint: 0,
            now_ms: 0,
            lacking: false,
        }
    }

    /// Makes every operation from this one on fail that takes what is lacking.
    pub(crate) fn lack_from(&mut self, operation: u64, fault: Fault) {
        self.lacking = true;
        self.disk.lack_from(self.disk.mutations() + operation - 1, fault);
    }

    /// Nothing is lacking any more: nothing may fail from now on.
    pub(crate) fn give_room(&mut self) {
        self.lacking = false;
        self.disk.give_room();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.steps_left == 0
    }

    pub(crate) fn is_in_use(&mut self) -> bool {
        !self.log().is_offline()
    }

    /// Everything that was accepted is there, and becomes durable.
    pub(crate) fn flush_and_check(&mut self, context: &str) {
        self.flush().unwrap_or_else(|| panic!("{context}: there is room to flush"));
        let log = self.log.as_ref().expect("the log is open");
        assert_eq!((log.flushed_offset(), log.recovery_point()), (log.log_end(), log.log_end()));
        check(log, &self.model, context);
    }

    pub(crate) fn operations(&self) -> u64 {
        self.disk.mutations()
    }

    pub(crate) fn cut_power_at(&self, operation: u64) {
        self.disk.fail_at(self.disk.mutations() + operation - 1, Fault::PowerCut);
    }

    /// Does something random; false when the history is over or the power is gone.
    pub(crate) fn step(&mut self) -> bool {
        if self.steps_left == 0 {
            return false;
        }
        self.steps_left -= 1;
        self.now_ms += 10;
        match self.random.below(21) {
            0..=7 => self.append(),
            8..=9 => self.append_transactional(),
            10..=11 => self.end_transaction(),
            12..=13 => self.flush(),
            14 => self.take_ticket(),
            15 => self.finish_ticket(),
            16 => self.truncate(),
            17 => self.delete(),
            18 => self.retain(),
            19 => self.restart(),
            _ => self.lead_in_next_epoch(),
        }
        .is_some()
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("the log is open")
    }

    fn append(&mut self) -> Option<()> {
        let count = 1 + self.random.below(4);
        let builder = match self.random.below(3) {
            _ if self.model.truncating.is_some() => BatchBuilder::new(0),
            0 => BatchBuilder::new(0),
            _ => self.producer(1 + i64::try_from(self.random.0 % 2).unwrap(), count),
        };
        self.append_batch(self.filled(builder, count), AppendOrigin::Client)
    }

    fn append_transactional(&mut self) -> Option<()> {
        if self.model.truncating.is_some() {
            // The truncation has to be finished before the log knows what it holds of producers.
            return self.append();
        }
        let id = 10 + i64::try_from(self.random.below(3)).unwrap();
        let builder = self.producer(id, 2).transactional();
        self.open_transactions.insert(id);
        self.append_batch(self.filled(builder, 2), AppendOrigin::Client)
    }

    fn end_transaction(&mut self) -> Option<()> {
        if self.model.truncating.is_some() {
            return self.append();
        }
        let Some(id) = self.open_transactions.pop_first() else { return Some(()) };
        let end = EndTransaction { committed: self.random.below(3) == 0, coordinator_epoch: 0 };
        let marker = end_transaction_batch(id, 0, end, self.now_ms).unwrap();
        self.append_batch(marker, AppendOrigin::Coordinator)
    }

    fn producer(&mut self, id: ProducerId, count: u64) -> BatchBuilder {
        let next = self.sequences.entry(id).or_default();
        let builder = BatchBuilder::new(0).producer(id, 0, *next);
        *next += i32::try_from(count).unwrap();
        builder
    }

    fn filled(&self, mut builder: BatchBuilder, count: u64) -> RecordBatch {
        for n in 0..count {
            let value = format!("{} {n}", self.now_ms);
            builder.append(self.now_ms, None, Some(value.as_bytes()), &[]).unwrap();
        }
        builder.build().unwrap()
    }

    fn append_batch(&mut self, batch: RecordBatch, origin: AppendOrigin) -> Option<()> {
        let (leader_epoch, now_ms) = (self.epoch, self.now_ms);
        let how = LeaderAppend { leader_epoch, origin, guard: None, transaction_version: 0 };
        let base = self.log().log_end();
        let header = batch.header.placed_at(base, leader_epoch);
        let bytes = [&header.write_to()[..], &batch.body()[..]].concat();
        // Before the write: a power cut in its midst may leave it whole.
        self.model.append(bytes.into(), base, header.last_offset());
        match self.log().append_as_leader(&[batch.into()], how, now_ms) {
            Ok(info) => {
                assert_eq!((info.first_offset, info.duplicate), (base, false));
                let end = self.log().log_end();
                assert_eq!(self.log().set_high_watermark(end), end);
                if self.model.truncating.take().is_some() {
                    self.forget_producers();
                }
                Some(())
            }
            Err(AppendError::Storage(_)) => {
                if self.lacking {
                    self.model.take_back();
                    self.forget_producers();
                }
                None
            }
            Err(other) => panic!("the history appends what is acceptable: {other}"),
        }
    }

    fn flush(&mut self) -> Option<()> {
        self.ticket = None;
        self.log().flush().ok()?;
        if self.model.truncating.take().is_some() {
            self.forget_producers();
        }
        let flushed = self.log().flushed_offset();
        assert_eq!(flushed, self.log().log_end());
        self.model.flushed(flushed);
        self.checkpoint();
        Some(())
    }

    fn checkpoint(&mut self) {
        if self.random.below(2) == 0 {
            self.recovery_point = self.log().recovery_point();
        }
        if self.random.below(2) == 0 {
            self.log_start_checkpoint = self.log().log_start();
        }
    }

    fn take_ticket(&mut self) -> Option<()> {
        self.ticket = self.log().flush_ticket().ok()?;
        Some(())
    }

    fn finish_ticket(&mut self) -> Option<()> {
        if let Some(ticket) = self.ticket.take() {
            let derived = ticket.run().ok()?;
            self.log().on_flushed(&ticket, &derived);
            let flushed = self.log().flushed_offset();
            self.model.flushed(flushed);
            self.checkpoint();
        }
        Some(())
    }

    fn truncate(&mut self) -> Option<()> {
        let (start, end) = (self.log().log_start(), self.log().log_end());
        let width = u64::try_from(end - start).unwrap().min(30);
        let back = self.random.below(width + 1);
        let wanted = end - i64::try_from(back).unwrap();
        // Replication truncates at the begin of a batch.
        let cut = self.model.entries.iter().find(|entry| entry.last >= wanted);
        let offset = cut.map_or(end, |entry| entry.base).max(start);
        self.model.begin_truncation(offset);
        let now_ms = self.now_ms;
        let truncated = self.log().truncate_to(offset, now_ms);
        if truncated.is_err() && self.lacking {
            // Nothing has changed, or nobody sees any more what is to go.
            if self.log().log_end() != offset {
                self.model.adopt(end);
            }
            return None;
        }
        truncated.ok()?;
        self.model.truncating = None;
        // As the caller of a truncation has to.
        self.recovery_point = self.recovery_point.min(self.log().recovery_point());
        // What producers sent is gone: they begin anew, as others.
        self.forget_producers();
        Some(())
    }

    fn forget_producers(&mut self) {
        let producers = self.log.as_ref().expect("the log is open").producers();
        self.sequences =
            producers.producers().map(|p| (p.producer_id, p.last_sequence() + 1)).collect();
        let open = producers.producers().filter(|p| p.txn_first_offset.is_some());
        self.open_transactions = open.map(|p| p.producer_id).collect();
    }

    fn delete(&mut self) -> Option<()> {
        let (start, end) = (self.log().log_start(), self.log().log_end());
        let width = u64::try_from(end - start).unwrap().min(20);
        let offset = start + i64::try_from(self.random.below(width + 1)).unwrap();
        match self.log().delete_records(offset) {
            Ok(log_start) => self.model.log_start = log_start,
            Err(ReadError::Storage(_)) => return None,
            Err(other) => panic!("below the high watermark: {other}"),
        }
        Some(())
    }

    fn retain(&mut self) -> Option<()> {
        let now_ms = self.now_ms;
        // Segments may be gone although an error cut the operation short.
        let outcome = self.log().apply_retention(Now::at(now_ms));
        self.model.log_start = self.model.log_start.max(self.log().log_start());
        outcome.ok().map(|_| ())
    }

    /// A clean shutdown and the next start.
    fn restart(&mut self) -> Option<()> {
        self.ticket = None;
        let log = self.log.take().expect("the log is open");
        let (end, start) = (log.log_end(), log.log_start());
        let closed = log.close();
        if closed.is_err() && self.lacking {
            self.open_again(false);
            return None;
        }
        closed.ok()?;
        self.model.truncating = None;
        self.model.flushed(end);
        (self.recovery_point, self.log_start_checkpoint) = (end, start);
        if self.lacking {
            self.open_again(true);
        } else {
            self.log = Some(open(&self.disk, end, start, true).ok()?);
        }
        assert_eq!((self.log().log_start(), self.log().log_end()), (start, end));
        self.log().set_high_watermark(end);
        self.forget_producers();
        Some(())
    }

    /// Opens the log while something may be lacking, and when that fails, as soon as nothing is.
    fn open_again(&mut self, clean: bool) {
        let (recovery_point, log_start) = (self.recovery_point, self.log_start_checkpoint);
        let opened = open(&self.disk, recovery_point, log_start, clean).or_else(|error| {
            assert!(error.passes(), "{error}");
            self.give_room();
            open(&self.disk, recovery_point, log_start, clean)
        });
        let log = self.log.insert(opened.expect("there is room now"));
        let end = log.log_end();
        log.set_high_watermark(end);
        self.model.adopt(end);
        self.forget_producers();
    }

    fn lead_in_next_epoch(&mut self) -> Option<()> {
        self.epoch += 1;
        let epoch = self.epoch;
        self.log().assign_epoch(epoch);
        Some(())
    }

    pub(crate) fn crash_and_check(mut self, seed: u64, context: &str) {
        self.log = None;
        self.ticket = None;
        self.disk.crash(seed);
        let log = open(&self.disk, self.recovery_point, self.log_start_checkpoint, false);
        let mut log = log.unwrap_or_else(|error| panic!("{context}: {error}"));
        check(&log, &self.model, context);
        // The log goes on: append, shut down cleanly, start again.
        let mut builder = BatchBuilder::new(0);
        builder.append(5, None, Some(b"after"), &[]).unwrap();
        let origin = AppendOrigin::Client;
        let how = LeaderAppend { leader_epoch: 1000, origin, guard: None, transaction_version: 0 };
        log.append_as_leader(&[builder.build().unwrap().into()], how, 0).unwrap();
        let (expected, start) = (records(&log), log.log_start());
        let recovery_point = log.log_end();
        log.close().unwrap();
        let log = open(&self.disk, recovery_point, start, true).unwrap();
        assert_eq!(records(&log), expected, "{context}: after a clean restart");
        assert_eq!(log.report().segments_recovered, 0, "{context}");
        check_derived(&log, self.model.log_start, context);
    }

    pub(crate) fn close_and_check(mut self, context: &str) {
        let log = self.log.take().expect("the log is open");
        let (end, start) = (log.log_end(), log.log_start());
        let expected = records(&log);
        log.close().unwrap();
        // After a clean shutdown nothing may depend on what was not synced.
        self.disk.crash(self.random.next());
        let log = open(&self.disk, end, start, true).unwrap();
        assert_eq!(log.report().segments_recovered, 0, "{context}");
        assert_eq!(records(&log), expected, "{context}");
        assert_eq!((log.log_start(), log.log_end(), log.flushed_offset()), (start, end, end));
        check(&log, &self.model, context);
    }

    /// T1: the state after replaying the records equals the state kept while appending them.
    pub(crate) fn check_rebuilt_producers(&self, context: &str) {
        let log = self.log.as_ref().expect("the log is open");
        check_derived(log, log.log_start(), context);
    }
}

fn records(log: &Log) -> Vec<(Offset, Offset, Bytes)> {
    let mut found = Vec::new();
    let mut offset = log.log_start();
    let upper_bound = log.log_end();
    loop {
        let spec = FetchSpec { offset, max_bytes: u64::MAX, min_one_message: true, upper_bound };
        let Some(slice) = log.view().read(spec).unwrap().records else { return found };
        for batch in Batches::new(slice.read().unwrap()) {
            let batch = batch.unwrap();
            batch.check_crc().unwrap();
            offset = batch.header.next_offset();
            found.push((batch.header.base_offset, batch.header.last_offset(), batch.bytes));
        }
    }
}

fn check(log: &Log, model: &Model, context: &str) {
    let found = records(log);
    model.check_records(&found, log.log_start(), context);
    assert!(log.flushed_offset() <= log.log_end(), "{context}");
    check_derived(log, model.log_start, context);
}

/// Everything that is derived from the records agrees with them. Below `certain`, deleted segments may
/// have come back, whose transactions the producer state no longer knows.
fn check_derived(log: &Log, certain: Offset, context: &str) {
    let found = records(log);
    for (base, last, bytes) in &found {
        for offset in (*base).max(log.log_start())..=*last {
            let upper_bound = log.log_end();
            let spec = FetchSpec { offset, max_bytes: 1, min_one_message: true, upper_bound };
            let slice = log.view().read(spec).unwrap().records.unwrap();
            assert_eq!(slice.read().unwrap(), bytes, "{context}: offset {offset}");
        }
    }
    check_timestamps(log, &found, context);
    check_epochs(log, &found, context);
    check_transactions(log, &found, certain.max(log.log_start()), context);
}

fn check_timestamps(log: &Log, found: &[(Offset, Offset, Bytes)], context: &str) {
    let mut all = Vec::new();
    for (_, _, bytes) in found {
        let batch = RecordBatch::parse(bytes).unwrap();
        all.extend(batch.records(1 << 20).unwrap().map(|record| {
            let record = record.unwrap();
            (record.timestamp, record.offset)
        }));
    }
    all.retain(|(_, offset)| *offset >= log.log_start());
    for timestamp in [0, 5, 50, 115, 200, 333] {
        let expected = all.iter().find(|record| record.0 >= timestamp);
        let expected = expected.map(|(timestamp, offset)| (Some(*timestamp), *offset));
        let target = OffsetTarget::Timestamp(timestamp);
        let found = log.view().offset_for(target).unwrap();
        let found = found.map(|found| (found.timestamp, found.offset));
        assert_eq!(found, expected, "{context}: timestamp {timestamp}");
    }
}

fn check_epochs(log: &Log, found: &[(Offset, Offset, Bytes)], context: &str) {
    let mut expected = LeaderEpochCache::default();
    for (base, _, bytes) in found {
        let epoch = RecordBatch::parse(bytes).unwrap().header.partition_leader_epoch;
        if expected.latest().is_none_or(|latest| latest.epoch != epoch) {
            expected.assign(epoch, *base);
        }
    }
    expected.truncate_from_start(log.log_start());
    // Epochs that were begun without a record may be known or not, at the offset that follows.
    let known: Vec<_> = log.leader_epochs().entries().collect();
    for entry in expected.entries() {
        assert!(known.contains(&entry), "{context}: epoch {entry:?} is missing in {known:?}");
    }
    for (_, _, bytes) in found {
        let header = RecordBatch::parse(bytes).unwrap().header;
        let offset = header.base_offset.max(log.log_start());
        let epoch = log.leader_epochs().epoch_of(offset);
        assert_eq!(epoch, Some(header.partition_leader_epoch), "{context}: offset {offset}");
    }
}

/// Producers and aborted transactions, from the records alone.
fn check_transactions(
    log: &Log,
    found: &[(Offset, Offset, Bytes)],
    certain: Offset,
    context: &str,
) {
    let mut open: BTreeMap<ProducerId, Offset> = BTreeMap::new();
    let mut sequences: BTreeMap<ProducerId, i32> = BTreeMap::new();
    let mut aborted = Vec::new();
    let mut incomplete = BTreeSet::new();
    for (base, _, bytes) in found {
        let batch = RecordBatch::parse(bytes).unwrap();
        let id = batch.header.producer_id;
        if !batch.header.has_producer_id() {
            continue;
        }
        if !batch.header.is_control() {
            if batch.header.last_offset() >= certain {
                sequences.insert(id, batch.header.last_sequence());
            }
            if batch.header.is_transactional() {
                open.entry(id).or_insert(*base);
            }
            continue;
        }
        let record = batch.records(100).unwrap().next().unwrap().unwrap();
        let Ok(Some(ControlRecord::EndTransaction(end))) = ControlRecord::read(&record) else {
            panic!("{context}: a marker")
        };
        match open.remove(&id) {
            Some(first) if first < certain => {
                incomplete.insert(*base);
            }
            Some(first) if !end.committed => aborted.push((id, first, *base)),
            Some(_) => {}
            // It began below the log start.
            None => {
                incomplete.insert(*base);
            }
        }
    }
    let view = log.view();
    let known: Vec<AbortedTxn> = view.aborted_transactions(log.log_start(), log.log_end());
    let known: Vec<_> = known
        .iter()
        .filter(|txn| !incomplete.contains(&txn.last_offset))
        .filter(|txn| txn.last_offset >= log.log_start())
        .map(|txn| (txn.producer_id, txn.last_offset))
        .collect();
    let expected: Vec<_> = aborted.iter().map(|(id, _, last)| (*id, *last)).collect();
    assert_eq!(known, expected, "{context}: aborted transactions");
    check_producers(log.producers(), &sequences, &open, certain, context);
}

fn check_producers(
    state: &ProducerState,
    sequences: &BTreeMap<ProducerId, i32>,
    open: &BTreeMap<ProducerId, Offset>,
    certain: Offset,
    context: &str,
) {
    for (id, last_sequence) in sequences {
        let entry = state.producer(*id);
        let entry = entry.unwrap_or_else(|| panic!("{context}: producer {id} is not known"));
        assert_eq!(entry.last_sequence(), *last_sequence, "{context}: producer {id}");
        let expected = open.get(id).copied();
        let known = entry.txn_first_offset;
        let is_older = |offset: Option<Offset>| offset.is_some_and(|first| first < certain);
        let unknown = is_older(known) || is_older(expected);
        assert!(known == expected || unknown, "{context}: producer {id}: {known:?}, {expected:?}");
    }
}
