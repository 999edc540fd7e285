//! The sparse time index of one segment: the largest timestamp up to each of some batches.
//!
//! File format (Kafka's `TimeIndex`): entries of 12 bytes, big-endian: timestamp int64, `offset - base offset` int32;
//! timestamps strictly rising, offsets not falling. The last entry of a sealed segment has its largest timestamp and
//! the last offset of the first batch that has it.

use klamm_protocol::ids::Offset;

/// Bytes of an entry in the file.
pub const ENTRY_SIZE: usize = 12;

/// No batch up to the one ending with `offset` has a larger timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    pub offset: Offset,
}

/// The entries of one segment, in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeIndex {
    base_offset: Offset,
    entries: Vec<TimestampOffset>,
}

impl TimeIndex {
    pub fn new(base_offset: Offset) -> Self {
        Self { base_offset, entries: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds the entry unless the last one has the same timestamp or a larger one.
    pub fn maybe_append(&mut self, entry: TimestampOffset) {
        if self.entries.last().is_none_or(|last| last.timestamp < entry.timestamp) {
            self.entries.push(entry);
        }
    }

    /// The last entry at or below `timestamp`: every batch before it is older, so a search begins there.
    pub fn lookup(&self, timestamp: i64) -> Option<TimestampOffset> {
        let above = self.entries.partition_point(|entry| entry.timestamp <= timestamp);
        above.checked_sub(1).map(|below| self.entries[below])
    }

    pub fn last(&self) -> Option<TimestampOffset> {
        self.entries.last().copied()
    }

    /// Drops every entry whose offset is at or above `offset`.
    pub fn truncate_to(&mut self, offset: Offset) {
        let kept = self.entries.partition_point(|entry| entry.offset < offset);
        self.entries.truncate(kept);
    }

    /// Keeps about `limit` entries, and the last one.
    pub fn thin_out(&mut self, limit: usize) {
        let step = self.entries.len().div_ceil(limit.max(1));
        if step > 1 {
            let last = self.last();
            self.entries = self.entries.iter().copied().step_by(step).collect();
            last.into_iter().for_each(|last| self.maybe_append(last));
        }
    }

    /// Encodes the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * ENTRY_SIZE);
        for entry in &self.entries {
            let relative = i32::try_from(entry.offset - self.base_offset)
                .expect("a segment rolls before offsets overflow");
            bytes.extend_from_slice(&entry.timestamp.to_be_bytes());
            bytes.extend_from_slice(&relative.to_be_bytes());
        }
        bytes
    }

    /// Decodes a file; `None` if it cannot be a time index.
    pub fn decode(base_offset: Offset, bytes: &[u8]) -> Option<Self> {
        let (entries, rest) = bytes.as_chunks::<ENTRY_SIZE>();
        if !rest.is_empty() {
            return None;
        }
        let mut index = Self::new(base_offset);
        index.entries.reserve_exact(entries.len());
        for entry in entries {
            let entry = decode_entry(base_offset, entry)?;
            let rises = index
                .entries
                .last()
                .is_none_or(|last| last.timestamp < entry.timestamp && last.offset <= entry.offset);
            if !rises {
                return None;
            }
            index.entries.push(entry);
        }
        Some(index)
    }
}

/// Decodes one entry; `None` if its offset is below the segment.
pub fn decode_entry(base_offset: Offset, bytes: &[u8; ENTRY_SIZE]) -> Option<TimestampOffset> {
    let (timestamp, relative) = bytes.split_at(8);
    let timestamp = i64::from_be_bytes(timestamp.try_into().expect("eight bytes"));
    let relative = i32::from_be_bytes(relative.try_into().expect("four bytes"));
    (relative >= 0 && timestamp >= 0)
        .then_some(TimestampOffset { timestamp, offset: base_offset + Offset::from(relative) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timestamp: i64, offset: Offset) -> TimestampOffset {
        TimestampOffset { timestamp, offset }
    }

    fn index() -> TimeIndex {
        let mut index = TimeIndex::new(100);
        for entry in [at(1_000, 109), at(1_000, 115), at(900, 118), at(2_000, 119), at(5_000, 150)]
        {
            index.maybe_append(entry);
        }
        index
    }

    #[test]
    fn only_rising_timestamps_are_kept() {
        assert_eq!(index().len(), 3);
        assert_eq!(index().last(), Some(at(5_000, 150)));
    }

    #[test]
    fn a_search_begins_at_the_last_timestamp_not_above() {
        let index = index();
        assert_eq!(index.lookup(999), None);
        assert_eq!(index.lookup(1_000), Some(at(1_000, 109)));
        assert_eq!(index.lookup(4_999), Some(at(2_000, 119)));
        assert_eq!(index.lookup(9_999), Some(at(5_000, 150)));
    }

    #[test]
    fn the_file_is_kafkas_and_comes_back() {
        let index = index();
        let file = index.encode();
        assert_eq!(file[..12], [0, 0, 0, 0, 0, 0, 3, 0xe8, 0, 0, 0, 9]);
        assert_eq!(TimeIndex::decode(100, &file), Some(index));
    }

    #[test]
    fn damaged_files_are_refused() {
        let file = index().encode();
        assert_eq!(TimeIndex::decode(100, &file[1..]), None, "cut");
        assert_eq!(TimeIndex::decode(100, &[&file[..], &[0; 12]].concat()), None, "not trimmed");
        let mut negative = file.clone();
        negative[8] = 0x80;
        assert_eq!(TimeIndex::decode(100, &negative), None, "negative offset");
    }

    #[test]
    fn truncation_drops_what_lies_above() {
        let mut index = index();
        index.truncate_to(119);
        assert_eq!(index.last(), Some(at(1_000, 109)));
    }

    #[test]
    fn thinning_keeps_the_largest_timestamp() {
        let mut index = TimeIndex::new(0);
        (0..1000).for_each(|n| index.maybe_append(at(n, n)));
        index.thin_out(10);
        assert_eq!(index.last(), Some(at(999, 999)));
        assert_eq!(index.len(), 11);
    }
}
