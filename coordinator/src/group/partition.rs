//! The partition of `__consumer_offsets` that holds a group.

/// The partition of a group id: the absolute value of Java's `String.hashCode` modulo `partitions`,
/// where `Integer.MIN_VALUE` counts as 0.
///
/// The sign is *not* masked off, as Kafka does elsewhere (`Utils.toPositive`): for half of all ids
/// that gives another partition. (Kafka: `GroupCoordinatorService.partitionFor`, `Utils.abs`)
///
/// # Panics
/// If `partitions` is not positive: a topic has at least one partition.
#[must_use]
pub fn partition_for(group_id: &str, partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has at least one partition");
    let hash = group_id
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_lie_where_kafka_4_3_1_puts_them() {
        // Computed by Kafka's own classes.
        let known = [
            ("", 0),
            ("abc", 4),
            ("grp-\u{fc}", 16),
            ("console-consumer-12345", 6),
            ("\u{1F600}x", 39),
            ("zzzzzzzzzz", 36),
        ];
        for (group_id, partition) in known {
            assert_eq!(partition_for(group_id, 50), partition, "{group_id}");
        }
    }

    #[test]
    fn the_lowest_hash_of_all_has_no_absolute_value_and_counts_as_zero() {
        assert_eq!(partition_for("polygenelubricants", 50), 0);
        assert_eq!(partition_for("polygenelubricants", i32::MAX), 0);
    }

    #[test]
    fn characters_beyond_the_basic_plane_count_as_two_code_units() {
        // "\u{1F600}" is 0xD83D 0xDE00 in UTF-16: 0xD83D * 31 + 0xDE00.
        assert_eq!(partition_for("\u{1F600}", i32::MAX), 0xD83D * 31 + 0xDE00);
    }
}
