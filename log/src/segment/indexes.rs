//! The offset and time index of one segment, kept together because they grow together.

use crate::offset_index::OffsetIndex;
use crate::time_index::{TimeIndex, TimestampOffset};
use klamm_protocol::batch::BatchHeader;
use klamm_protocol::ids::Offset;

/// The maximum number of entries per index that a sealed segment keeps in memory: 80 KiB instead of 5 MiB for a segment
/// of 1 GiB, and a look-up scans 128 KiB of headers on average.
const SEALED_INDEX_ENTRIES: usize = 4096;

/// The indexes of a segment's batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Indexes {
    base_offset: Offset,
    pub(crate) offset: OffsetIndex,
    pub(crate) time: TimeIndex,
    /// The largest timestamp, and the last offset of the first batch that has it.
    pub(crate) max_timestamp: Option<TimestampOffset>,
    /// The largest timestamp of the first batch, from which the segment's age is computed.
    pub(crate) first_timestamp: Option<i64>,
    pub(crate) created_ms: i64,
    bytes_since_entry: u64,
}

impl Indexes {
    pub(crate) fn new(base_offset: Offset, created_ms: i64) -> Self {
        Self {
            base_offset,
            offset: OffsetIndex::new(base_offset),
            time: TimeIndex::new(base_offset),
            max_timestamp: None,
            first_timestamp: None,
            created_ms,
            bytes_since_entry: 0,
        }
    }

    /// The indexes from the files of a sealed segment.
    pub(crate) fn loaded(base_offset: Offset, offset: OffsetIndex, time: TimeIndex) -> Self {
        let max_timestamp = time.last();
        Self { offset, time, max_timestamp, ..Self::new(base_offset, 0) }
    }

    pub(crate) fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// Adds the next batch, which begins at byte `position`.
    pub(crate) fn on_batch(&mut self, position: u64, header: &BatchHeader, interval_bytes: u32) {
        self.first_timestamp.get_or_insert(header.max_timestamp);
        let largest = self.max_timestamp.map_or(-1, |largest| largest.timestamp);
        if header.max_timestamp > largest {
            let (timestamp, offset) = (header.max_timestamp, header.last_offset());
            self.max_timestamp = Some(TimestampOffset { timestamp, offset });
        }
        if self.bytes_since_entry > u64::from(interval_bytes) {
            let position = u32::try_from(position).expect("a segment is below 2 GiB");
            self.offset.append(header.last_offset(), position);
            self.max_timestamp.into_iter().for_each(|largest| self.time.maybe_append(largest));
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += super::as_u64(header.size());
    }

    /// Ends the time index with the largest timestamp, as every sealed segment's does.
    pub(crate) fn seal(&mut self) {
        self.max_timestamp.into_iter().for_each(|largest| self.time.maybe_append(largest));
    }

    /// Drops most entries of a sealed segment from memory.
    pub(crate) fn thin_out(&mut self) {
        self.offset.thin_out(SEALED_INDEX_ENTRIES);
        self.time.thin_out(SEALED_INDEX_ENTRIES);
    }
}
