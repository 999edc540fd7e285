//! The sparse offset index of one segment: the last offset and the position of some batches.
//!
//! File format (Kafka's `OffsetIndex`): entries of 8 bytes, big-endian, `offset - base offset` and position, both
//! int32, both strictly rising. Entries are hints: a reader checks the batch at the position, so a damaged entry costs
//! a rebuild and never gives a wrong result.

use klamm_protocol::ids::Offset;

/// Bytes of an entry in the file.
pub const ENTRY_SIZE: usize = 8;

/// The position of the batch whose last offset is `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetPosition {
    pub offset: Offset,
    /// Byte in the segment file.
    pub position: u32,
}

/// The entries of one segment, in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetIndex {
    base_offset: Offset,
    /// (relative offset, position)
    entries: Vec<(u32, u32)>,
}

impl OffsetIndex {
    pub fn new(base_offset: Offset) -> Self {
        Self { base_offset, entries: Vec::new() }
    }

    /// Whether an offset can be stored relative to `base_offset` (int32, not negative).
    pub fn can_hold(base_offset: Offset, offset: Offset) -> bool {
        offset
            .checked_sub(base_offset)
            .is_some_and(|relative| i32::try_from(relative).is_ok_and(|r| r >= 0))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn append(&mut self, offset: Offset, position: u32) {
        let relative = self.relative(offset);
        let rises = self.entries.last().is_none_or(|last| last.0 < relative && last.1 < position);
        assert!(rises, "the offset index of a segment rises");
        self.entries.push((relative, position));
    }

    /// The last entry at or below `offset`; without one, the start of the segment.
    pub fn lookup(&self, offset: Offset) -> OffsetPosition {
        if offset < self.base_offset {
            return self.start();
        }
        let above = self.entries.partition_point(|entry| self.entry(*entry).offset <= offset);
        self.nth_or_start(above)
    }

    /// The first entry at or above a byte position.
    pub fn first_at_or_above(&self, position: u64) -> Option<OffsetPosition> {
        let index = self.entries.partition_point(|entry| u64::from(entry.1) < position);
        self.entries.get(index).map(|entry| self.entry(*entry))
    }

    pub fn last(&self) -> Option<OffsetPosition> {
        self.entries.last().map(|entry| self.entry(*entry))
    }

    /// Drops every entry at or above `offset`.
    pub fn truncate_to(&mut self, offset: Offset) {
        let base = self.base_offset;
        let kept = self.entries.partition_point(|entry| base + Offset::from(entry.0) < offset);
        self.entries.truncate(kept);
    }

    /// Keeps at most about `limit` entries, evenly spread: for sealed segments, where the scan from the entry below
    /// costs little and the memory for all segments of a big disk would cost much.
    pub fn thin_out(&mut self, limit: usize) {
        let step = self.entries.len().div_ceil(limit.max(1));
        if step > 1 {
            self.entries = self.entries.iter().copied().step_by(step).collect();
        }
    }

    /// Encodes the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * ENTRY_SIZE);
        for (relative, position) in &self.entries {
            bytes.extend_from_slice(&relative.to_be_bytes());
            bytes.extend_from_slice(&position.to_be_bytes());
        }
        bytes
    }

    /// Decodes a file; `None` if it cannot be the index of a segment of `segment_size` bytes.
    pub fn decode(base_offset: Offset, bytes: &[u8], segment_size: u64) -> Option<Self> {
        let (entries, rest) = bytes.as_chunks::<ENTRY_SIZE>();
        if !rest.is_empty() {
            return None;
        }
        let mut index = Self::new(base_offset);
        index.entries.reserve_exact(entries.len());
        for [a, b, c, d, e, f, g, h] in entries {
            let entry =
                (u32::from_be_bytes([*a, *b, *c, *d]), u32::from_be_bytes([*e, *f, *g, *h]));
            let rises =
                index.entries.last().is_none_or(|last| last.0 < entry.0 && last.1 < entry.1);
            let fits = i32::try_from(entry.0).is_ok() && u64::from(entry.1) < segment_size;
            if !rises || !fits {
                return None;
            }
            index.entries.push(entry);
        }
        Some(index)
    }

    fn start(&self) -> OffsetPosition {
        OffsetPosition { offset: self.base_offset, position: 0 }
    }

    fn nth_or_start(&self, above: usize) -> OffsetPosition {
        match above.checked_sub(1) {
            Some(below) => self.entry(self.entries[below]),
            None => self.start(),
        }
    }

    fn entry(&self, (relative, position): (u32, u32)) -> OffsetPosition {
        OffsetPosition { offset: self.base_offset + Offset::from(relative), position }
    }

    fn relative(&self, offset: Offset) -> u32 {
        u32::try_from(offset - self.base_offset).expect("a segment rolls before offsets overflow")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> OffsetIndex {
        let mut index = OffsetIndex::new(100);
        index.append(109, 4_000);
        index.append(119, 9_000);
        index.append(150, 14_000);
        index
    }

    fn at(offset: Offset, position: u32) -> OffsetPosition {
        OffsetPosition { offset, position }
    }

    #[test]
    fn lookup_finds_the_entry_at_or_below() {
        let index = index();
        assert_eq!(index.lookup(50), at(100, 0));
        assert_eq!(index.lookup(108), at(100, 0));
        assert_eq!(index.lookup(109), at(109, 4_000));
        assert_eq!(index.lookup(149), at(119, 9_000));
        assert_eq!(index.lookup(9_999), at(150, 14_000));
        assert_eq!(index.first_at_or_above(4_001), Some(at(119, 9_000)));
        assert_eq!(index.first_at_or_above(14_001), None);
    }

    #[test]
    fn the_file_is_kafkas_and_comes_back() {
        let index = index();
        let file = index.encode();
        assert_eq!(file[..8], [0, 0, 0, 9, 0, 0, 0x0f, 0xa0]);
        assert_eq!(OffsetIndex::decode(100, &file, 20_000), Some(index));
    }

    #[test]
    fn damaged_files_are_refused() {
        let file = index().encode();
        assert_eq!(OffsetIndex::decode(100, &file[..23], 20_000), None, "cut");
        assert_eq!(OffsetIndex::decode(100, &file, 14_000), None, "points past the segment");
        let zeroed = [&file[..], &[0; 16]].concat();
        assert_eq!(OffsetIndex::decode(100, &zeroed, 20_000), None, "not trimmed");
        let mut negative = file.clone();
        negative[16] = 0x80;
        assert_eq!(OffsetIndex::decode(100, &negative, 20_000), None, "negative offset");
    }

    #[test]
    fn truncation_drops_what_lies_above() {
        let mut index = index();
        index.truncate_to(119);
        assert_eq!(index.last(), Some(at(109, 4_000)));
        index.truncate_to(0);
        assert!(index.is_empty());
    }

    #[test]
    fn a_relative_offset_stops_at_int32() {
        assert!(OffsetIndex::can_hold(10, 10 + i64::from(i32::MAX)));
        assert!(!OffsetIndex::can_hold(10, 11 + i64::from(i32::MAX)));
        assert!(!OffsetIndex::can_hold(10, 9));
    }

    #[test]
    fn thinning_keeps_the_first_entry_and_the_order() {
        let mut index = OffsetIndex::new(0);
        (1..=1000).for_each(|n| index.append(n, u32::try_from(n).unwrap() * 10));
        index.thin_out(100);
        assert_eq!(index.len(), 100);
        assert_eq!(index.lookup(995), at(991, 9_910));
    }
}
