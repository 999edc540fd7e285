//! Reads a log without its owner: a [`LogView`] is a snapshot of the log.
//!
//! A view never changes and does not need the owner's lock. Segments that are deleted meanwhile stay readable through
//! their open files; a truncation is detected and reported. Every range begins and ends at a batch, and below the given
//! bound. Records of sealed segments are checked on every read: records that the disk has damaged are never returned.

use crate::disk::DiskFile;
use crate::error::ReadError;
use crate::health::LogDirHealth;
use crate::leader_epoch_cache::LeaderEpochCache;
use crate::segment::{BatchAt, Segment, index};
use crate::txn_index::{AbortedTxn, Search};
use bytes::{Bytes, BytesMut};
use klamm_protocol::ids::Offset;
use std::fmt;
use std::sync::Arc;

/// See the module.
#[derive(Debug, Clone)]
pub struct LogView {
    pub(crate) segments: Arc<Vec<Arc<Segment>>>,
    pub(crate) health: Arc<LogDirHealth>,
    pub(crate) epochs: Arc<LeaderEpochCache>,
    /// The size of the last segment in the view.
    pub(crate) end_position: u64,
    pub(crate) log_start: Offset,
    pub(crate) log_end: Offset,
    pub(crate) high_watermark: Offset,
    pub(crate) last_stable_offset: Offset,
}

/// A range of a segment file, for `sendfile` or to be read.
#[derive(Clone)]
pub struct FileSlice {
    pub file: Arc<dyn DiskFile>,
    pub position: u64,
    pub length: u64,
}

impl fmt::Debug for FileSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSlice")
            .field("position", &self.position)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl FileSlice {
    /// Reads the bytes. Blocks if they are not in the page cache.
    pub fn read(&self) -> Result<Bytes, ReadError> {
        let mut bytes = BytesMut::zeroed(index(self.length));
        let read = self.file.read_at(&mut bytes, self.position)?;
        bytes.truncate(read);
        Ok(bytes.freeze())
    }
}

/// The result of a read.
#[derive(Debug, Clone)]
pub struct FetchedRecords {
    /// The base offset of the first batch: at or below the requested offset. Without records, the requested offset.
    pub base_offset: Offset,
    /// `None` if there are no records below the bound.
    pub records: Option<FileSlice>,
    /// The first batch exceeds the requested size, and the range ends inside it.
    pub first_batch_incomplete: bool,
    /// An offset above all records of the range; without records, the requested offset.
    pub next_offset_bound: Offset,
}

/// The parameters of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchSpec {
    pub offset: Offset,
    /// The range ends here even inside a batch, as in Kafka.
    pub max_bytes: u64,
    /// The first batch is returned as a whole, even if it exceeds `max_bytes`.
    pub min_one_message: bool,
    /// Only batches below this offset: log end, high watermark or last stable offset.
    pub upper_bound: Offset,
}

impl LogView {
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    pub fn log_end(&self) -> Offset {
        self.log_end
    }

    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    pub fn last_stable_offset(&self) -> Offset {
        self.last_stable_offset
    }

    pub fn leader_epochs(&self) -> &LeaderEpochCache {
        &self.epochs
    }

    /// Finds the records from an offset on, in one segment.
    pub fn read(&self, spec: FetchSpec) -> Result<FetchedRecords, ReadError> {
        self.health.check()?;
        self.health.observe(self.read_range(spec))
    }

    fn read_range(&self, spec: FetchSpec) -> Result<FetchedRecords, ReadError> {
        let offset = spec.offset;
        if offset < self.log_start || offset > self.log_end {
            let (log_start, log_end) = (self.log_start, self.log_end);
            return Err(ReadError::OffsetOutOfRange { offset, log_start, log_end });
        }
        let upper_bound = spec.upper_bound.min(self.log_end);
        let nothing = FetchedRecords {
            base_offset: offset,
            records: None,
            first_batch_incomplete: false,
            next_offset_bound: offset,
        };
        if offset >= upper_bound {
            return Ok(nothing);
        }
        // After compaction a segment may have no batch at or above the offset.
        for position in self.floor_index(offset)..self.segments.len() {
            let segment = &self.segments[position];
            if let Some(first) = segment.find(offset, self.end_of(position))? {
                if first.header.base_offset >= upper_bound {
                    return Ok(nothing);
                }
                return self.slice(spec, upper_bound, position, &first);
            }
        }
        Ok(nothing)
    }

    fn slice(
        &self,
        spec: FetchSpec,
        upper_bound: Offset,
        position: usize,
        first: &BatchAt,
    ) -> Result<FetchedRecords, ReadError> {
        let segment = &self.segments[position];
        let wanted =
            if spec.min_one_message { spec.max_bytes.max(first.size()) } else { spec.max_bytes };
        let wanted_end = first.position.saturating_add(wanted);
        let (end, next_offset_bound) = self.end_below(position, wanted_end, upper_bound)?;
        let length = end.saturating_sub(first.position);
        if position + 1 < self.segments.len() {
            segment.verify(first.position, end, self.segments[position + 1].base_offset())?;
        }
        let records = (length > 0)
            .then(|| segment.open_for_reading())
            .transpose()?
            .map(|file| FileSlice { file, position: first.position, length });
        Ok(FetchedRecords {
            base_offset: first.header.base_offset,
            records,
            first_batch_incomplete: wanted < first.size(),
            next_offset_bound,
        })
    }

    /// The byte at which a range ends, at most `wanted_end` and without batches that the bound hides, and an offset
    /// above all records before that byte.
    fn end_below(
        &self,
        position: usize,
        wanted_end: u64,
        upper_bound: Offset,
    ) -> Result<(u64, Offset), ReadError> {
        let segment = &self.segments[position];
        let segment_end = self.end_of(position);
        let next_base = self.segments.get(position + 1).map(|next| next.base_offset());
        let segment_bound = next_base.unwrap_or(self.log_end);
        let wanted_end = wanted_end.min(segment_end);
        if segment_bound <= upper_bound && wanted_end == segment_end {
            return Ok((wanted_end, segment_bound));
        }
        // The index usually shows with one look-up that the bound is after the range.
        if let Some(above) = segment.offset_at_or_above(wanted_end)?
            && above < upper_bound
        {
            return Ok((wanted_end, above));
        }
        if segment_bound <= upper_bound {
            return Ok((wanted_end, segment_bound));
        }
        let hidden = segment.find(upper_bound, segment_end)?;
        let visible_end = hidden.map_or(segment_end, |batch| batch.position);
        Ok((wanted_end.min(visible_end), upper_bound))
    }

    /// The aborted transactions with records between a fetch offset and the bound returned with the records.
    pub fn aborted_transactions(
        &self,
        fetch_offset: Offset,
        next_offset_bound: Offset,
    ) -> Vec<AbortedTxn> {
        let mut found = Vec::new();
        for segment in &self.segments[self.floor_index(fetch_offset)..] {
            let search = segment.collect_aborted(fetch_offset, next_offset_bound, &mut found);
            if search == Search::Complete {
                break;
            }
        }
        found
    }

    /// The number of sealed segments of the view, for [`Self::verify`].
    pub fn sealed_segments(&self) -> usize {
        self.segments.len() - 1
    }

    /// Checks all records of a sealed segment; returns their size. Blocks for the disk.
    pub fn verify(&self, sealed: usize) -> Result<u64, ReadError> {
        self.health.check()?;
        let (segment, next) = (&self.segments[sealed], &self.segments[sealed + 1]);
        let size = segment.size();
        self.health.observe(segment.verify(0, size, next.base_offset()))?;
        Ok(size)
    }

    /// The segment that holds an offset, or the first one.
    pub(crate) fn floor_index(&self, offset: Offset) -> usize {
        let above = self.segments.partition_point(|segment| segment.base_offset() <= offset);
        above.saturating_sub(1)
    }

    /// The size of a segment in the view.
    pub(crate) fn end_of(&self, position: usize) -> u64 {
        if position + 1 == self.segments.len() {
            self.end_position
        } else {
            self.segments[position].size()
        }
    }
}
