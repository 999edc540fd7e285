//! Verifies stored records: a disk may return other bytes than were written.
//!
//! Only records of sealed segments are verified: they are read long after they were written, and no longer from memory.

use super::{Segment, as_u64, index};
use crate::error::ReadError;
use bytes::Bytes;
use klamm_protocol::batch::{BatchError, RecordBatch};
use klamm_protocol::ids::Offset;

/// The size of one read; more only for a larger batch.
const CHUNK: u64 = 256 * 1024;

impl Segment {
    /// Verifies the batches entirely within a byte range that begins at a batch: checksums, and that offsets rise and
    /// stay below `upper_bound`. Blocks if the bytes are not in the page cache.
    pub(crate) fn verify(&self, from: u64, to: u64, upper_bound: Offset) -> Result<(), ReadError> {
        let generation = self.generation();
        let verified = self.verify_once(from, to, upper_bound);
        if self.generation() != generation {
            return Err(ReadError::Truncated);
        }
        verified
    }

    fn verify_once(&self, from: u64, to: u64, upper_bound: Offset) -> Result<(), ReadError> {
        let file = self.open_for_reading()?;
        let corrupt = |position| ReadError::Corrupt { segment: self.base_offset(), position };
        let (mut position, mut needed) = (from, 0);
        let mut next_offset = self.base_offset();
        while position < to {
            let mut chunk = vec![0; index(needed.max(CHUNK).min(to - position))];
            let read = file.read_at(&mut chunk, position)?;
            if read < chunk.len() {
                return Err(corrupt(position));
            }
            let mut rest = Bytes::from(chunk);
            let start = position;
            loop {
                let batch = match RecordBatch::parse(&rest) {
                    Ok(batch) => batch,
                    Err(BatchError::Truncated { needed: of_batch, .. }) => {
                        needed = as_u64(of_batch);
                        break;
                    }
                    Err(_) => return Err(corrupt(position)),
                };
                let header = &batch.header;
                let in_order = header.base_offset >= next_offset
                    && header.last_offset_delta >= 0
                    && header.last_offset() < upper_bound;
                if !in_order || batch.check_crc().is_err() {
                    return Err(corrupt(position));
                }
                next_offset = header.next_offset();
                position += as_u64(batch.bytes.len());
                rest = rest.slice(batch.bytes.len()..);
                if rest.is_empty() {
                    break;
                }
            }
            // The rest is the beginning of a batch that the chunk or the range ends inside of. The segment itself does
            // not end inside a batch.
            if position == start && position + needed > to {
                let is_whole = position + needed <= self.size();
                return if is_whole { Ok(()) } else { Err(corrupt(position)) };
            }
        }
        Ok(())
    }
}
