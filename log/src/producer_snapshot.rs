//! The `.snapshot` file: the producer state at the offset in its name.
//!
//! File format (`ProducerSnapshot`, version 1, big-endian): version int16, CRC-32C uint32 of everything after it, entry
//! count int32, and per producer 46 bytes. Only the last batch of each producer is kept, as in Kafka: after a restart a
//! duplicate of an older batch is an out-of-order sequence.

use crate::producer_state::{BatchMetadata, ProducerEntry, ProducerState};
use bytes::{Buf, BufMut};
use klamm_protocol::crc::crc32c;
use klamm_protocol::ids::{none_if_negative, or_minus_one};

const VERSION: i16 = 1;
const CRC_END: usize = 6;
const ENTRY_SIZE: usize = 46;

/// Why a file is not a valid producer snapshot. The state is then rebuilt from the records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("the file ends after {size} bytes")]
    TooShort { size: usize },
    #[error("unknown version {version}")]
    Version { version: i16 },
    #[error("the checksum is {computed:#x}, not {stored:#x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("{count} entries do not fill {size} bytes")]
    EntryCount { count: i32, size: usize },
}

/// Encodes a state.
pub fn encode(state: &ProducerState) -> Vec<u8> {
    let mut entries = Vec::with_capacity(4 + state.len() * ENTRY_SIZE);
    let count = i32::try_from(state.len()).expect("a partition has fewer than 2^31 producers");
    entries.put_i32(count);
    for entry in state.producers() {
        let last = entry.last_batch();
        entries.put_i64(entry.producer_id);
        entries.put_i16(entry.epoch);
        entries.put_i32(entry.last_sequence());
        entries.put_i64(or_minus_one(last.map(|batch| batch.last_offset)));
        entries.put_i32(last.map_or(0, |batch| batch.offset_delta));
        entries.put_i64(entry.last_timestamp);
        entries.put_i32(entry.coordinator_epoch);
        entries.put_i64(or_minus_one(entry.txn_first_offset));
    }
    let mut file = Vec::with_capacity(CRC_END + entries.len());
    file.put_i16(VERSION);
    file.put_u32(crc32c(&entries));
    file.extend_from_slice(&entries);
    file
}

/// Decodes the producers in a file.
pub fn decode(file: &[u8]) -> Result<Vec<ProducerEntry>, SnapshotError> {
    let size = file.len();
    let Some((mut head, body)) = file.split_at_checked(CRC_END).filter(|(_, body)| body.len() >= 4)
    else {
        return Err(SnapshotError::TooShort { size });
    };
    let (version, stored) = (head.get_i16(), head.get_u32());
    if version != VERSION {
        return Err(SnapshotError::Version { version });
    }
    let computed = crc32c(body);
    if stored != computed {
        return Err(SnapshotError::Checksum { stored, computed });
    }
    let mut rest = body;
    let count = rest.get_i32();
    let (entries, remainder) = rest.as_chunks::<ENTRY_SIZE>();
    if !remainder.is_empty() || usize::try_from(count) != Ok(entries.len()) {
        return Err(SnapshotError::EntryCount { count, size });
    }
    Ok(entries.iter().map(decode_entry).collect())
}

fn decode_entry(bytes: &[u8; ENTRY_SIZE]) -> ProducerEntry {
    let mut bytes: &[u8] = bytes;
    let mut entry = ProducerEntry::unknown(bytes.get_i64());
    let epoch = bytes.get_i16();
    let last_sequence = bytes.get_i32();
    let last_offset = none_if_negative(bytes.get_i64());
    let offset_delta = bytes.get_i32();
    let timestamp = bytes.get_i64();
    entry.coordinator_epoch = bytes.get_i32();
    entry.txn_first_offset = none_if_negative(bytes.get_i64());
    entry.enter_epoch(epoch);
    if let Some(last_offset) = last_offset {
        let batch = BatchMetadata { last_sequence, last_offset, offset_delta, timestamp };
        entry.add_batch(epoch, batch);
    }
    entry.last_timestamp = timestamp;
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> ProducerState {
        let mut first = ProducerEntry::unknown(7);
        let batch =
            BatchMetadata { last_sequence: 41, last_offset: 99, offset_delta: 9, timestamp: 1234 };
        first.add_batch(3, batch);
        first.txn_first_offset = Some(90);
        let mut ended = ProducerEntry::unknown(8);
        ended.enter_epoch(1);
        ended.coordinator_epoch = 12;
        ended.last_timestamp = 77;
        ProducerState::restored(100, vec![first, ended])
    }

    #[test]
    fn the_state_comes_back() {
        let entries = decode(&encode(&state())).unwrap();
        assert_eq!(ProducerState::restored(100, entries), state());
    }

    #[test]
    fn the_file_is_kafkas() {
        let file = encode(&state());
        assert_eq!(file.len(), 2 + 4 + 4 + 2 * 46);
        assert_eq!(file[..2], [0, 1]);
        assert_eq!(file[6..10], [0, 0, 0, 2]);
        assert_eq!(file[10..20], [0, 0, 0, 0, 0, 0, 0, 7, 0, 3]);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let file = encode(&state());
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..file.len() {
            assert!(decode(&file[..length]).is_err(), "{length} bytes");
        }
    }
}
