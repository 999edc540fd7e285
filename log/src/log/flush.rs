//! Flushes the log in three steps, so that no sync happens under the owner's lock: the owner creates a [`FlushTicket`],
//! any thread runs it, and the owner applies the result.
//!
//! A ticket covers the records at its creation. It syncs the records first: bytes of segments and names of new files;
//! then the offsets count as flushed, and acknowledgements are sent. Next it writes the derived files: index files and
//! producer snapshots of sealed segments, leader epochs. Only after that the recovery point moves, so that it is never
//! above a missing file. Derived files may have to wait for space, while acknowledged records are safe. The gate
//! prevents a ticket from before a truncation from writing files that the truncation has removed.

use super::Log;
use crate::checkpoint::{self, LEADER_EPOCH};
use crate::disk::DiskFile;
use crate::error::LogError;
use crate::file_name::FileKind;
use crate::health::LogDirHealth;
use crate::producer_snapshot;
use crate::segment::{PartitionHome, Segment};
use bytes::Bytes;
use klamm_protocol::ids::Offset;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts truncations; held while derived files are written or removed.
#[derive(Debug, Default)]
struct Gate(Mutex<u64>);

impl Gate {
    fn lock(&self) -> MutexGuard<'_, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sealed segment without index files, and the producer state at its end.
#[derive(Debug, Clone)]
struct Seal {
    segment: Arc<Segment>,
    snapshot: Option<(Offset, Bytes)>,
}

/// The owner's flush state.
#[derive(Debug)]
pub(super) struct FlushState {
    pub(super) flushed: Offset,
    pub(super) recovery_point: Offset,
    /// The number of name changes in the directory, and how many of them are durable.
    pub(super) dir_changed: u64,
    dir_synced: u64,
    pub(super) epochs_changed: u64,
    epochs_written: u64,
    seals: Vec<Seal>,
    gate: Arc<Gate>,
    generation: u64,
}

impl FlushState {
    pub(super) fn new(flushed: Offset, epochs_changed: bool) -> Self {
        Self {
            flushed,
            recovery_point: flushed,
            dir_changed: 1,
            dir_synced: 0,
            epochs_changed: u64::from(epochs_changed),
            epochs_written: 0,
            seals: Vec::new(),
            gate: Arc::default(),
            generation: 0,
        }
    }

    pub(super) fn seal_later(&mut self, segment: Arc<Segment>, snapshot: Option<(Offset, Bytes)>) {
        self.seals.push(Seal { segment, snapshot });
    }

    /// Waits until a running ticket has written its derived files, then invalidates all existing tickets.
    pub(super) fn void_tickets(&mut self) {
        let mut generation = self.gate.lock();
        *generation += 1;
        self.generation = *generation;
    }

    /// Drops pending index files and snapshots above a new log end.
    pub(super) fn forget_above(&mut self, log_end: Offset) {
        self.seals.retain(|seal| seal.segment.base_offset() < log_end);
        for seal in &mut self.seals {
            seal.snapshot.take_if(|(offset, _)| *offset > log_end);
        }
        self.flushed = self.flushed.min(log_end);
        self.recovery_point = self.recovery_point.min(log_end);
    }

    /// Records below `log_start` are deleted and need no flush.
    pub(super) fn raise_to(&mut self, log_start: Offset) {
        self.flushed = self.flushed.max(log_start);
        self.recovery_point = self.recovery_point.max(log_start);
    }

    /// The segment is active again: drops its pending seal.
    pub(super) fn unseal(&mut self, segment: &Arc<Segment>) {
        self.seals.retain(|seal| !Arc::ptr_eq(&seal.segment, segment));
    }
}

/// The state of the derived files of a flush whose records are durable.
#[derive(Debug)]
pub enum Derived {
    /// They are on disk.
    Complete,
    /// They could not be written for lack of room: another flush is needed.
    Waiting(LogError),
}

/// A segment with unsynced bytes, its current size, and its file.
#[derive(Debug)]
struct UnsyncedFile {
    segment: Arc<Segment>,
    size: u64,
    file: Arc<dyn DiskFile>,
}

/// A flush for a flusher thread. Dropping it is harmless: the next ticket covers the same records.
#[derive(Debug)]
pub struct FlushTicket {
    upto: Offset,
    files: Vec<UnsyncedFile>,
    seals: Vec<Seal>,
    epochs: Option<String>,
    epochs_changed: u64,
    sync_dir: bool,
    dir_changed: u64,
    home: Arc<PartitionHome>,
    health: Arc<LogDirHealth>,
    gate: Arc<Gate>,
    generation: u64,
}

impl FlushTicket {
    /// The end offset of the flush.
    pub fn upto(&self) -> Offset {
        self.upto
    }

    /// Runs the flush. After an error no record counts as flushed: either the log directory is offline, or a new ticket
    /// is needed.
    pub fn run(&self) -> Result<Derived, LogError> {
        self.health.check()?;
        self.health.observe(self.sync_records())?;
        match self.health.observe(self.write_derived()) {
            Ok(()) => Ok(Derived::Complete),
            Err(lacking) if lacking.passes() => Ok(Derived::Waiting(lacking)),
            Err(failure) => Err(failure),
        }
    }

    fn sync_records(&self) -> Result<(), LogError> {
        for unsynced in &self.files {
            unsynced.file.sync_data()?;
        }
        if self.sync_dir {
            let generation = self.gate.lock();
            if *generation == self.generation {
                self.home.sync()?;
            }
        }
        Ok(())
    }

    fn write_derived(&self) -> Result<(), LogError> {
        if self.epochs.is_none() && self.seals.is_empty() {
            return Ok(());
        }
        let generation = self.gate.lock();
        if *generation != self.generation {
            return Ok(());
        }
        if let Some(epochs) = &self.epochs {
            let path = self.home.file(LEADER_EPOCH);
            self.home.disk.write_atomically(&path, epochs.as_bytes())?;
        }
        for seal in self.seals.iter().filter(|seal| !seal.segment.is_deleted()) {
            if let Some((offset, contents)) = &seal.snapshot {
                let path = self.home.file(&FileKind::ProducerSnapshot.name(*offset));
                self.home.disk.write_synced(&path, contents)?;
            }
            seal.segment.write_index_files()?;
        }
        drop(generation);
        Ok(())
    }
}

impl Log {
    /// Creates a ticket; `None` if everything is flushed.
    pub fn flush_ticket(&mut self) -> Result<Option<FlushTicket>, LogError> {
        self.check()?;
        let flush = &self.flush;
        let sync_dir = flush.dir_changed > flush.dir_synced;
        let write_epochs = flush.epochs_changed > flush.epochs_written;
        let is_clean = flush.flushed == self.log_end && flush.seals.is_empty();
        if is_clean && !sync_dir && !write_epochs {
            return Ok(None);
        }
        Ok(Some(FlushTicket {
            upto: self.log_end,
            files: self.unsynced_files()?,
            seals: flush.seals.clone(),
            epochs: write_epochs.then(|| checkpoint::encode_epochs(self.epochs.entries())),
            epochs_changed: flush.epochs_changed,
            sync_dir,
            dir_changed: flush.dir_changed,
            home: Arc::clone(&self.home),
            health: Arc::clone(&self.health),
            gate: Arc::clone(&flush.gate),
            generation: flush.generation,
        }))
    }

    fn unsynced_files(&self) -> Result<Vec<UnsyncedFile>, LogError> {
        let mut files = Vec::new();
        for segment in self.segments.iter().rev() {
            if segment.is_unsynced() {
                let (size, file) = (segment.size(), segment.file()?);
                files.push(UnsyncedFile { segment: Arc::clone(segment), size, file });
            }
            if segment.base_offset() < self.flush.flushed {
                break;
            }
        }
        files.reverse();
        Ok(files)
    }

    /// Whether the ticket is of this log, which may have replaced another one since.
    pub fn has_given(&self, ticket: &FlushTicket) -> bool {
        Arc::ptr_eq(&ticket.gate, &self.flush.gate)
    }

    /// Applies a finished ticket: its records are durable. A ticket from before a truncation, or of another log, is
    /// ignored.
    pub fn on_flushed(&mut self, ticket: &FlushTicket, derived: &Derived) {
        let is_own = self.has_given(ticket);
        let flush = &mut self.flush;
        if !is_own || ticket.generation != flush.generation {
            return;
        }
        flush.flushed = flush.flushed.max(ticket.upto);
        flush.dir_synced = flush.dir_synced.max(ticket.dir_changed);
        for UnsyncedFile { segment, size, .. } in &ticket.files {
            if segment.size() == *size {
                segment.set_synced();
            }
        }
        if matches!(derived, Derived::Waiting(_)) {
            return;
        }
        flush.recovery_point = flush.recovery_point.max(ticket.upto);
        if ticket.epochs.is_some() {
            flush.epochs_written = flush.epochs_written.max(ticket.epochs_changed);
        }
        for seal in &ticket.seals {
            seal.segment.on_index_files_written();
            flush.unseal(&seal.segment);
        }
        if !ticket.seals.is_empty() {
            self.home.files.trim();
        }
    }

    /// Flushes on this thread, for callers without a flusher. The records are durable then; derived files may have to
    /// wait for the next flush.
    pub fn flush(&mut self) -> Result<(), LogError> {
        self.flush_now().map(drop)
    }

    fn flush_now(&mut self) -> Result<Derived, LogError> {
        let Some(ticket) = self.flush_ticket()? else { return Ok(Derived::Complete) };
        let derived = ticket.run()?;
        self.on_flushed(&ticket, &derived);
        Ok(derived)
    }

    /// Closes the log cleanly: all records are synced and the index files and the producer snapshot are complete, so
    /// that the next start needs no recovery.
    pub fn close(mut self) -> Result<(), LogError> {
        self.check()?;
        Arc::clone(&self.health).observe(self.active().settle_excess().map_err(LogError::from))?;
        self.active().seal();
        let snapshot = self.new_snapshot();
        // Index files that remain from the last start are complete.
        if !self.stale_index_files || snapshot.is_some() {
            self.flush.seal_later(Arc::clone(self.active()), snapshot);
        }
        match self.flush_now()? {
            Derived::Complete => Ok(()),
            Derived::Waiting(lacking) => Err(lacking),
        }
    }

    /// A producer snapshot at the end offset of the producer state, unless there is one.
    pub(super) fn new_snapshot(&mut self) -> Option<(Offset, Bytes)> {
        let offset = self.producers.end_offset();
        let is_new = offset > self.log_start && self.snapshots.insert(offset);
        is_new.then(|| (offset, producer_snapshot::encode(&self.producers).into()))
    }
}
