//! Look-ups in a segment: from an offset or a timestamp to the batch in the file.

use super::{BatchAt, BatchScan, IndexState, Indexes, ScanError, Segment, index};
use crate::disk::DiskFile;
use crate::error::ReadError;
use crate::file_name::FileKind;
use crate::offset_index::{OffsetIndex, OffsetPosition};
use crate::time_index::{TimeIndex, TimestampOffset};
use crate::txn_index::{AbortedTxn, Search};
use bytes::{Bytes, BytesMut};
use klamm_protocol::batch::RecordBatch;
use klamm_protocol::ids::Offset;
use std::sync::PoisonError;

impl Segment {
    /// The batch that contains `offset`, or the first one after it, among those that end at or before byte `end`.
    pub(crate) fn find(&self, offset: Offset, end: u64) -> Result<Option<BatchAt>, ReadError> {
        let generation = self.generation();
        let found = self.find_once(offset, end);
        if self.generation() != generation {
            return Err(ReadError::Truncated);
        }
        found
    }

    fn find_once(&self, offset: Offset, end: u64) -> Result<Option<BatchAt>, ReadError> {
        if end == 0 {
            return Ok(None);
        }
        let file = self.open_for_reading()?;
        let mut start = self.with_indexes(|indexes| indexes.offset.lookup(offset))?;
        if !self.is_confirmed(file.as_ref(), start, end)? {
            self.rebuild_indexes(file.as_ref())?;
            start = self.with_indexes(|indexes| indexes.offset.lookup(offset))?;
        }
        for batch in BatchScan::new(file.as_ref(), u64::from(start.position), end) {
            let batch = batch.map_err(|error| self.scan_error(error))?;
            if batch.header.last_offset() >= offset {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Whether the batch at an index entry's position has the entry's offset.
    fn is_confirmed(
        &self,
        file: &dyn DiskFile,
        entry: OffsetPosition,
        end: u64,
    ) -> Result<bool, ReadError> {
        let position = u64::from(entry.position);
        if position == 0 || position >= end {
            return Ok(true);
        }
        match BatchScan::new(file, position, end).next() {
            Some(Err(ScanError::Disk(error))) => Err(error.into()),
            Some(Err(ScanError::Corrupt { .. })) | None => Ok(false),
            Some(Ok(batch)) => Ok(batch.header.last_offset() == entry.offset),
        }
    }

    /// An offset above all batches before `position`, if the index has one.
    pub(crate) fn offset_at_or_above(&self, position: u64) -> Result<Option<Offset>, ReadError> {
        let entry = self.with_indexes(|indexes| indexes.offset.first_at_or_above(position))?;
        Ok(entry.map(|entry| entry.offset))
    }

    /// The largest timestamp in the segment; `None` if no record has one.
    pub(crate) fn largest_timestamp(&self) -> Result<Option<TimestampOffset>, ReadError> {
        self.with_indexes(|indexes| indexes.max_timestamp)
    }

    /// The batch from which to search for a timestamp at or after an offset.
    pub(crate) fn find_by_timestamp(
        &self,
        timestamp: i64,
        start: Offset,
        end: u64,
    ) -> Result<Option<BatchAt>, ReadError> {
        if let Some(entry) = self.with_indexes(|indexes| indexes.time.lookup(timestamp))? {
            let batch = self.find(entry.offset, end)?;
            let confirmed = |b: &BatchAt| b.header.max_timestamp == entry.timestamp;
            if entry.offset >= start && batch.as_ref().is_some_and(confirmed) {
                return Ok(batch);
            }
            if batch.is_some_and(|batch| !confirmed(&batch)) {
                self.rebuild_indexes(self.open_for_reading()?.as_ref())?;
                let entry = self.with_indexes(|indexes| indexes.time.lookup(timestamp))?;
                return self.find(entry.map_or(start, |entry| entry.offset.max(start)), end);
            }
        }
        self.find(start, end)
    }

    /// Reads a complete batch and checks its checksum.
    pub(crate) fn read_batch(&self, batch: &BatchAt) -> Result<RecordBatch, ReadError> {
        let corrupt = || ReadError::Corrupt { segment: self.base_offset, position: batch.position };
        let bytes = self.read(batch.position, batch.size())?;
        let batch = RecordBatch::parse(&bytes).map_err(|_| corrupt())?;
        batch.check_crc().map_err(|_| corrupt())?;
        Ok(batch)
    }

    /// Reads bytes of the file; fewer at its end.
    pub(crate) fn read(&self, position: u64, length: u64) -> Result<Bytes, ReadError> {
        let file = self.open_for_reading()?;
        let mut bytes = BytesMut::zeroed(index(length));
        let read = file.read_at(&mut bytes, position)?;
        bytes.truncate(read);
        Ok(bytes.freeze())
    }

    pub(crate) fn collect_aborted(
        &self,
        fetch_offset: Offset,
        upper_bound: Offset,
        found: &mut Vec<AbortedTxn>,
    ) -> Search {
        let txns = self.txns.read().unwrap_or_else(PoisonError::into_inner);
        txns.collect(fetch_offset, upper_bound, found)
    }

    /// The time of the last write to the file, in milliseconds.
    pub(crate) fn modified_ms(&self) -> Result<i64, ReadError> {
        Ok(self.open_for_reading()?.modified_ms()?)
    }

    /// The open file, or the error that the segment was deleted.
    pub(crate) fn open_for_reading(&self) -> Result<std::sync::Arc<dyn DiskFile>, ReadError> {
        self.file().map_err(|error| {
            if error.is_not_found() && self.is_deleted() {
                return ReadError::SegmentDeleted { segment: self.base_offset };
            }
            error.into()
        })
    }

    pub(crate) fn scan_error(&self, error: ScanError) -> ReadError {
        match error {
            ScanError::Disk(error) => error.into(),
            ScanError::Corrupt { position } => {
                ReadError::Corrupt { segment: self.base_offset, position }
            }
        }
    }

    /// Runs a look-up, after loading the indexes of a sealed segment if necessary.
    pub(super) fn with_indexes<T>(&self, look_up: impl Fn(&Indexes) -> T) -> Result<T, ReadError> {
        if let IndexState::Live(indexes) | IndexState::Cached(indexes) = &*self.read_indexes() {
            return Ok(look_up(indexes));
        }
        let loaded = self.load_indexes()?;
        let mut state = self.write_indexes();
        if matches!(*state, IndexState::OnDisk) {
            *state = loaded;
        }
        match &*state {
            IndexState::Live(indexes) | IndexState::Cached(indexes) => Ok(look_up(indexes)),
            IndexState::OnDisk => unreachable!("the indexes were put there under the same lock"),
        }
    }

    /// Reads the index files; damaged ones are rebuilt from the records.
    fn load_indexes(&self) -> Result<IndexState, ReadError> {
        let file = self.open_for_reading()?;
        if let Some(mut indexes) = self.decode_indexes()?
            && self.is_largest_timestamp_confirmed(&indexes, file.as_ref())?
        {
            indexes.thin_out();
            return Ok(IndexState::Cached(indexes));
        }
        Ok(IndexState::Live(self.index_batches(file.as_ref(), self.size(), 0)?))
    }

    fn decode_indexes(&self) -> Result<Option<Indexes>, ReadError> {
        let Some(offset) = self.read_index_file(FileKind::OffsetIndex)? else { return Ok(None) };
        let Some(time) = self.read_index_file(FileKind::TimeIndex)? else { return Ok(None) };
        let base_offset = self.base_offset;
        let offset = OffsetIndex::decode(base_offset, &offset, self.size());
        let time = TimeIndex::decode(base_offset, &time);
        Ok(offset.zip(time).map(|(offset, time)| Indexes::loaded(base_offset, offset, time)))
    }

    fn read_index_file(&self, kind: FileKind) -> Result<Option<Vec<u8>>, ReadError> {
        match self.home.disk.read(&self.home.file(&self.name(kind))) {
            Ok(contents) => Ok(Some(contents)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The last time index entry decides what retention deletes, so it is checked with the batch.
    fn is_largest_timestamp_confirmed(
        &self,
        indexes: &Indexes,
        file: &dyn DiskFile,
    ) -> Result<bool, ReadError> {
        let Some(largest) = indexes.max_timestamp else { return Ok(self.size() == 0) };
        let start = indexes.offset.lookup(largest.offset);
        if !self.is_confirmed(file, start, self.size())? {
            return Ok(false);
        }
        for batch in BatchScan::new(file, u64::from(start.position), self.size()) {
            match batch {
                Err(ScanError::Disk(error)) => return Err(error.into()),
                Err(ScanError::Corrupt { .. }) => return Ok(false),
                Ok(batch) if batch.header.last_offset() >= largest.offset => {
                    return Ok(batch.header.max_timestamp == largest.timestamp);
                }
                Ok(_) => {}
            }
        }
        Ok(false)
    }

    /// Rebuilds damaged indexes from the records, without recovery.
    fn rebuild_indexes(&self, file: &dyn DiskFile) -> Result<(), ReadError> {
        let size = self.size();
        let indexes = self.index_batches(file, size, 0)?;
        let mut state = self.write_indexes();
        // Only if there was no append meanwhile, which changes the size under the same lock and has newer indexes.
        if self.size() == size {
            *state = IndexState::Live(indexes);
        }
        Ok(())
    }

    /// Indexes the batches below byte `end`, as far as they can be read.
    pub(super) fn index_batches(
        &self,
        file: &dyn DiskFile,
        end: u64,
        now_ms: i64,
    ) -> Result<Indexes, ReadError> {
        let mut indexes = Indexes::new(self.base_offset, now_ms);
        for batch in BatchScan::new(file, 0, end) {
            match batch {
                Ok(batch) => {
                    indexes.on_batch(batch.position, &batch.header, REBUILT_INTERVAL_BYTES);
                }
                Err(ScanError::Disk(error)) => return Err(error.into()),
                // Reads will report the damage.
                Err(ScanError::Corrupt { .. }) => break,
            }
        }
        indexes.seal();
        Ok(indexes)
    }

    /// Makes a sealed segment active again, without changing its files, and returns the offset after its last batch.
    /// Only the batches from the last index entry on are read.
    pub(crate) fn resume(&self, now_ms: i64) -> Result<Offset, ReadError> {
        let file = self.open_for_reading()?;
        let file = file.as_ref();
        let mut decoded = self.decode_indexes()?;
        if let Some(indexes) = &decoded
            && !(self.is_confirmed(file, indexes.offset.lookup(Offset::MAX), self.size())?
                && self.is_largest_timestamp_confirmed(indexes, file)?)
        {
            decoded = None;
        }
        let mut indexes = decoded.unwrap_or_else(|| Indexes::new(self.base_offset, now_ms));
        indexes.created_ms = now_ms;
        indexes.first_timestamp = first_timestamp(file, self.size())?;
        let last_entry = indexes.offset.last();
        let start = last_entry.map_or(0, |entry| u64::from(entry.position));
        let mut next_offset = self.base_offset;
        for batch in BatchScan::new(file, start, self.size()) {
            let batch = batch.map_err(|error| self.scan_error(error))?;
            next_offset = batch.header.next_offset();
            indexes.on_batch(batch.position, &batch.header, REBUILT_INTERVAL_BYTES);
        }
        *self.write_indexes() = IndexState::Live(indexes);
        Ok(next_offset)
    }
}

fn first_timestamp(file: &dyn DiskFile, size: u64) -> Result<Option<i64>, ReadError> {
    match BatchScan::new(file, 0, size).next() {
        Some(Ok(batch)) => Ok(Some(batch.header.max_timestamp)),
        Some(Err(ScanError::Disk(error))) => Err(error.into()),
        Some(Err(ScanError::Corrupt { .. })) | None => Ok(None),
    }
}

/// `index.interval.bytes` by default; a rebuilt index need not have the topic's interval.
const REBUILT_INTERVAL_BYTES: u32 = 4096;
