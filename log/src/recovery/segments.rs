//! Finds the segments of a log, and recovers one: reads all of it, checks it and rebuilds its indexes.

use super::epochs::note_epoch;
use super::replay::apply;
use crate::disk::{DiskFile, OpenMode};
use crate::error::LogError;
use crate::file_name::FileKind;
use crate::leader_epoch_cache::LeaderEpochCache;
use crate::log::has_sane_offsets;
use crate::offset_index::OffsetIndex;
use crate::producer_state::ProducerState;
use crate::segment::{Indexes, PartitionHome, Segment, as_u64, index};
use crate::txn_index::TxnIndex;
use bytes::{Bytes, BytesMut};
use klamm_protocol::batch::{BatchHeader, HEADER_LEN, RecordBatch};
use klamm_protocol::ids::Offset;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The files of a segment.
pub(super) struct SegmentFiles {
    pub(super) base_offset: Offset,
    pub(super) size: u64,
    /// The base offset of the next segment; for the last one its own.
    pub(super) next_base_offset: Offset,
    /// It has no offset index, or its transaction index is damaged.
    pub(super) must_recover: bool,
    pub(super) txns: Option<TxnIndex>,
}

impl SegmentFiles {
    pub(super) fn remove(&self, home: &PartitionHome) -> Result<(), LogError> {
        for kind in FileKind::OF_A_SEGMENT {
            home.disk.remove_file_if_exists(&home.file(&kind.name(self.base_offset)))?;
        }
        Ok(())
    }
}

/// The contents of the directory.
pub(super) struct Found {
    pub(super) segments: Vec<SegmentFiles>,
    pub(super) snapshots: BTreeSet<Offset>,
}

/// Lists the segments in order. Index files without records are removed.
pub(super) fn list(home: &PartitionHome) -> Result<Found, LogError> {
    let mut kinds: BTreeMap<Offset, BTreeSet<FileKind>> = BTreeMap::new();
    let mut snapshots = BTreeSet::new();
    for entry in home.disk.list(&home.path())? {
        match FileKind::parse(&entry.name) {
            Some((FileKind::ProducerSnapshot, offset)) => {
                snapshots.insert(offset);
            }
            Some((kind, offset)) => {
                kinds.entry(offset).or_default().insert(kind);
            }
            None => {}
        }
    }
    let mut segments: Vec<SegmentFiles> = Vec::new();
    for (base_offset, kinds) in kinds {
        if !kinds.contains(&FileKind::Log) {
            for kind in kinds {
                home.disk.remove_file_if_exists(&home.file(&kind.name(base_offset)))?;
            }
            continue;
        }
        if let Some(previous) = segments.last_mut() {
            previous.next_base_offset = base_offset;
        }
        segments.push(look_at(home, base_offset, &kinds)?);
    }
    Ok(Found { segments, snapshots })
}

fn look_at(
    home: &PartitionHome,
    base_offset: Offset,
    kinds: &BTreeSet<FileKind>,
) -> Result<SegmentFiles, LogError> {
    let log = home.disk.open(&home.file(&FileKind::Log.name(base_offset)), OpenMode::Read)?;
    let txns = if kinds.contains(&FileKind::TxnIndex) {
        let contents = home.disk.read(&home.file(&FileKind::TxnIndex.name(base_offset)))?;
        TxnIndex::decode(base_offset, &contents)
    } else {
        Some(TxnIndex::default())
    };
    Ok(SegmentFiles {
        base_offset,
        size: log.size()?,
        next_base_offset: base_offset,
        must_recover: txns.is_none() || !kinds.contains(&FileKind::OffsetIndex),
        txns,
    })
}

/// The size of one read; a larger batch is read at once if the file is long enough for it, so that the memory never
/// exceeds the size of the file.
const CHUNK: u64 = 1 << 20;

/// Reads a segment from its start up to the first invalid batch.
pub(super) struct RecoveryPass {
    base_offset: Offset,
    size: u64,
    indexes: Indexes,
    txns: TxnIndex,
    /// The offset after the last valid batch.
    pub(super) next_offset: Offset,
}

impl RecoveryPass {
    pub(super) fn new(files: &SegmentFiles, now_ms: i64) -> Self {
        Self {
            base_offset: files.base_offset,
            size: files.size,
            indexes: Indexes::new(files.base_offset, now_ms),
            txns: TxnIndex::default(),
            next_offset: files.base_offset,
        }
    }

    /// Returns the size of the valid part, and applies it to producers and epochs.
    pub(super) fn run(
        &mut self,
        home: &PartitionHome,
        producers: &mut ProducerState,
        epochs: &mut LeaderEpochCache,
    ) -> Result<u64, LogError> {
        let path = home.file(&FileKind::Log.name(self.base_offset));
        let file = home.disk.open(&path, OpenMode::Read)?;
        let mut chunk = Bytes::new();
        let mut position = 0;
        loop {
            if !holds_batch(&chunk) {
                chunk = read_chunk(file.as_ref(), position, self.size, &chunk)?;
            }
            let Some(batch) = self.next_batch(&chunk) else { return Ok(position) };
            chunk = chunk.slice(batch.bytes.len()..);
            self.indexes.on_batch(position, &batch.header, super::INDEX_INTERVAL_BYTES);
            note_epoch(epochs, &batch.header);
            if batch.header.last_offset() >= producers.end_offset() {
                apply(producers, &batch.header, &batch.body(), &mut self.txns);
            }
            self.next_offset = batch.header.next_offset();
            position += as_u64(batch.bytes.len());
        }
    }

    /// The batch at the front of a chunk, if it is complete, undamaged and at the expected offset.
    fn next_batch(&self, chunk: &Bytes) -> Option<RecordBatch> {
        let batch = RecordBatch::parse(chunk).ok()?;
        let header = &batch.header;
        let in_place = has_sane_offsets(header)
            && header.base_offset >= self.next_offset
            && OffsetIndex::can_hold(self.base_offset, header.last_offset());
        (in_place && batch.check_crc().is_ok()).then_some(batch)
    }

    /// Truncates the file to its valid part.
    pub(super) fn finish(
        self,
        home: &Arc<PartitionHome>,
        end: u64,
    ) -> Result<Arc<Segment>, LogError> {
        if end < self.size {
            let path = home.file(&FileKind::Log.name(self.base_offset));
            let file = home.disk.open(&path, OpenMode::Write)?;
            file.set_size(end)?;
            file.sync_data()?;
        }
        // Only the offset index is removed: its absence makes the next start recover the segment, and with it present a
        // missing time or transaction index would not be noticed.
        let name = FileKind::OffsetIndex.name(self.base_offset);
        home.disk.remove_file_if_exists(&home.file(&name))?;
        Ok(Segment::rebuilt(home, end, self.indexes, self.txns))
    }
}

fn holds_batch(chunk: &Bytes) -> bool {
    BatchHeader::parse(chunk).is_ok_and(|header| header.size() <= chunk.len())
}

/// The next bytes of a file: a chunk, or a complete batch if that is larger and within the file.
fn read_chunk(
    file: &dyn DiskFile,
    position: u64,
    size: u64,
    known: &Bytes,
) -> Result<Bytes, LogError> {
    let announced = match BatchHeader::parse(known) {
        Ok(header) => as_u64(header.size()),
        Err(_) => as_u64(HEADER_LEN),
    };
    let length = announced.max(CHUNK).min(size - position);
    let mut bytes = BytesMut::zeroed(index(length));
    let read = file.read_at(&mut bytes, position)?;
    bytes.truncate(read);
    let bytes = bytes.freeze();
    let wanted = BatchHeader::parse(&bytes).map_or(0, |header| as_u64(header.size()));
    // The header is known now, and shows a larger batch.
    if wanted > length && position + wanted <= size {
        return read_chunk(file, position, size, &bytes);
    }
    Ok(bytes)
}
