//! Which directories are full.

use bytestring::ByteString;
use klamm_protocol::ids::PartitionIndex;

use super::LogManager;

/// The directories that are full, by their places.
pub(crate) fn full_places(log_manager: &LogManager) -> Vec<usize> {
    let full =
        log_manager.in_use().filter(|(_, one)| one.is_online() && one.flusher.room.is_full());
    full.map(|(place, _)| place).collect()
}

/// Looks whether a directory that was full has room for `bytes`. Blocks for the disk.
pub(crate) fn has_room_again(log_manager: &LogManager, place: usize, bytes: u64) -> bool {
    log_manager.at(place).has_room_again(bytes)
}

/// Whether the directory of a partition is full.
pub(crate) fn is_full(log_manager: &LogManager, topic: &ByteString, index: PartitionIndex) -> bool {
    let place = log_manager.place_of(topic, index);
    place.is_some_and(|place| log_manager.at(place).flusher.room.is_full())
}
