//! The reserved log directory ids of KIP-858 (Kafka's DirectoryId), and one of Klamm's from the same range.

use klamm_protocol::Uuid;

/// The replica's directory was chosen before directories had ids.
pub const MIGRATING: Uuid = reserved(0);
/// The replica has no directory yet; its broker will choose one and report it.
pub const UNASSIGNED: Uuid = reserved(1);
/// The replica's directory has failed.
pub const LOST: Uuid = reserved(2);
/// The replica's log could not be created for lack of space or descriptors: it is offline, and there is no log to wait
/// for.
///
/// Klamm's own id. For Apache Kafka's controllers and brokers it is the id of an offline directory.
pub const NOT_BEGUN: Uuid = reserved(75);

const fn reserved(low: u8) -> Uuid {
    Uuid::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low])
}

/// Whether the id is reserved: no directory may have it. Kafka compares the low half as a signed number, so an id with
/// that sign bit set counts as reserved too.
pub fn is_reserved(directory: Uuid) -> bool {
    let bytes = directory.as_bytes();
    let (high, low) = bytes.split_at(8);
    let low = i64::from_be_bytes(low.try_into().expect("half of 16 bytes is 8 bytes"));
    high.iter().all(|byte| *byte == 0) && low < 100
}

/// Whether a broker has given up a replica: the controller moves the leadership and keeps the replica out of the ISR
/// until another directory is reported for it.
pub fn is_given_up(directory: Uuid) -> bool {
    directory == LOST || directory == NOT_BEGUN
}

/// Whether a replica in `directory` can be served by a broker with these online directories.
///
/// A registration from before metadata.version 17 names no directories; its broker would have
/// stopped without any, so they count as online (KAFKA-16162).
pub fn is_online(directory: Uuid, online: &[Uuid]) -> bool {
    if directory == UNASSIGNED || directory == MIGRATING {
        return true;
    }
    if is_given_up(directory) {
        return false;
    }
    online.is_empty() || online.contains(&directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(last: u8) -> Uuid {
        Uuid::from_bytes([7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
    }

    #[test]
    fn the_first_hundred_ids_are_reserved() {
        assert!(is_reserved(MIGRATING) && is_reserved(UNASSIGNED) && is_reserved(LOST));
        assert!(is_reserved(reserved(99)));
        assert!(!is_reserved(reserved(100)));
        assert!(!is_reserved(id(1)));
    }

    #[test]
    fn a_lost_directory_is_never_online_and_an_unassigned_one_always_is() {
        assert!(is_online(UNASSIGNED, &[id(1)]));
        assert!(is_online(MIGRATING, &[id(1)]));
        assert!(!is_online(LOST, &[LOST]));
        assert!(is_reserved(NOT_BEGUN) && !is_online(NOT_BEGUN, &[]));
        assert!(is_online(id(1), &[id(2), id(1)]));
        assert!(!is_online(id(3), &[id(2), id(1)]));
        assert!(is_online(id(3), &[]));
    }
}
