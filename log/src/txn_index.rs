//! The aborted transactions of one segment, in the order of their abort markers.
//!
//! File format (Kafka's `TransactionIndex` and `AbortedTxn`): entries of 34 bytes, big-endian: version int16 = 0,
//! producer id, first offset, last offset (the marker's), last stable offset, all int64. Without entries the file does
//! not exist.

use klamm_protocol::ids::{Offset, ProducerId};

/// Bytes of an entry in the file.
pub const ENTRY_SIZE: usize = 34;

const VERSION: i16 = 0;

/// A transaction whose records a `read_committed` consumer must skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTxn {
    pub producer_id: ProducerId,
    /// The first offset of the transaction in this partition.
    pub first_offset: Offset,
    /// The offset of the abort marker.
    pub last_offset: Offset,
    /// The last stable offset after the end of this transaction.
    pub last_stable_offset: Offset,
}

/// The result of [`TxnIndex::collect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// Later segments may have more.
    Continue,
    /// No later segment can have more.
    Complete,
}

/// The entries of one segment, in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TxnIndex {
    entries: Vec<AbortedTxn>,
}

impl TxnIndex {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn entries(&self) -> &[AbortedTxn] {
        &self.entries
    }

    pub fn append(&mut self, txn: AbortedTxn) {
        let rises = self.entries.last().is_none_or(|last| last.last_offset < txn.last_offset);
        assert!(rises, "abort markers rise in offset");
        self.entries.push(txn);
    }

    /// Drops the transactions whose marker is at or above `offset`.
    pub fn truncate_to(&mut self, offset: Offset) {
        let kept = self.entries.partition_point(|txn| txn.last_offset < offset);
        self.entries.truncate(kept);
    }

    /// Adds to `found` every transaction that overlaps `fetch_offset..upper_bound`.
    pub fn collect(
        &self,
        fetch_offset: Offset,
        upper_bound: Offset,
        found: &mut Vec<AbortedTxn>,
    ) -> Search {
        for txn in &self.entries {
            if txn.last_offset >= fetch_offset && txn.first_offset < upper_bound {
                found.push(*txn);
            }
            if txn.last_stable_offset >= upper_bound {
                return Search::Complete;
            }
        }
        Search::Continue
    }

    /// Encodes the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * ENTRY_SIZE);
        for txn in &self.entries {
            bytes.extend_from_slice(&VERSION.to_be_bytes());
            for field in
                [txn.producer_id, txn.first_offset, txn.last_offset, txn.last_stable_offset]
            {
                bytes.extend_from_slice(&field.to_be_bytes());
            }
        }
        bytes
    }

    /// Decodes a file; `None` if it cannot be the transaction index of a segment with this base offset.
    pub fn decode(base_offset: Offset, bytes: &[u8]) -> Option<Self> {
        let (entries, rest) = bytes.as_chunks::<ENTRY_SIZE>();
        if !rest.is_empty() {
            return None;
        }
        let mut index = Self::default();
        for entry in entries {
            let (version, fields) = entry.split_at(2);
            let field = |n: usize| {
                i64::from_be_bytes(fields[n * 8..][..8].try_into().expect("eight bytes"))
            };
            let txn = AbortedTxn {
                producer_id: field(0),
                first_offset: field(1),
                last_offset: field(2),
                last_stable_offset: field(3),
            };
            let rises = index.entries.last().is_none_or(|last| last.last_offset < txn.last_offset);
            let sane = txn.first_offset <= txn.last_offset && txn.last_offset >= base_offset;
            if version != VERSION.to_be_bytes() || !rises || !sane {
                return None;
            }
            index.entries.push(txn);
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txn(first_offset: Offset, last_offset: Offset, last_stable_offset: Offset) -> AbortedTxn {
        AbortedTxn { producer_id: 7, first_offset, last_offset, last_stable_offset }
    }

    fn index() -> TxnIndex {
        let mut index = TxnIndex::default();
        index.append(txn(0, 10, 11));
        index.append(txn(12, 20, 15));
        index.append(txn(15, 30, 31));
        index
    }

    #[test]
    fn only_overlapping_transactions_are_collected() {
        let mut found = Vec::new();
        assert_eq!(index().collect(5, 12, &mut found), Search::Complete);
        assert_eq!(found, [txn(0, 10, 11)]);
        found.clear();
        assert_eq!(index().collect(11, 40, &mut found), Search::Continue);
        assert_eq!(found, [txn(12, 20, 15), txn(15, 30, 31)]);
    }

    #[test]
    fn the_file_comes_back_and_damage_is_refused() {
        let index = index();
        let file = index.encode();
        assert_eq!(file.len(), 3 * 34);
        assert_eq!(TxnIndex::decode(0, &file), Some(index));
        assert_eq!(TxnIndex::decode(11, &file), None, "marker before the segment");
        assert_eq!(TxnIndex::decode(0, &file[..33]), None);
        let mut version = file.clone();
        version[1] = 1;
        assert_eq!(TxnIndex::decode(0, &version), None);
    }

    #[test]
    fn truncation_drops_markers_at_or_above() {
        let mut index = index();
        index.truncate_to(20);
        assert_eq!(index.entries(), [txn(0, 10, 11)]);
    }
}
