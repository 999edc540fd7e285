//! The topic configuration that a log uses, with Kafka's names and defaults (`LogConfig`).

use klamm_protocol::batch::TimestampType;
use klamm_protocol::ids::Offset;

/// How old records are removed (`cleanup.policy`). Both may be set, or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    pub delete: bool,
    pub compact: bool,
}

/// The configuration of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `segment.bytes`
    pub segment_bytes: u32,
    /// `segment.ms`
    pub segment_ms: i64,
    /// `segment.jitter.ms`: the maximum that is subtracted from `segment.ms`, at random per segment.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`: the size of an index file at which the segment rolls.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`
    pub index_interval_bytes: u32,
    /// `cleanup.policy`
    pub cleanup_policy: CleanupPolicy,
    /// `retention.ms`, -1 for no limit
    pub retention_ms: i64,
    /// `retention.bytes`, -1 for no limit
    pub retention_bytes: i64,
    /// `file.delete.delay.ms`
    pub file_delete_delay_ms: i64,
    /// `max.message.bytes`
    pub max_message_bytes: u32,
    /// `message.timestamp.type`
    pub message_timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`
    pub message_timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`
    pub message_timestamp_after_max_ms: i64,
    /// `flush.messages`: a flush is due after so many records.
    pub flush_messages: i64,
    /// `flush.ms`: a flush is due after so many milliseconds.
    pub flush_ms: i64,
    /// `flush.before.ack`: records are synced before they are acknowledged.
    pub flush_before_ack: bool,
    /// `producer.id.expiration.ms` (of the broker)
    pub producer_id_expiration_ms: i64,
    /// `transaction.partition.verification.enable` (of the broker)
    pub transaction_verification: bool,
}

const HOUR_MS: i64 = 60 * 60 * 1000;

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * HOUR_MS,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            cleanup_policy: CleanupPolicy { delete: true, compact: false },
            retention_ms: 7 * 24 * HOUR_MS,
            retention_bytes: -1,
            file_delete_delay_ms: 60_000,
            max_message_bytes: 1_048_588,
            message_timestamp_type: TimestampType::CreateTime,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_after_max_ms: HOUR_MS,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            flush_before_ack: true,
            producer_id_expiration_ms: 24 * HOUR_MS,
            transaction_verification: true,
        }
    }
}

impl LogConfig {
    /// `segment.ms` less the jitter of the segment at `base_offset`.
    ///
    /// The jitter spreads the rolls of many partitions. It is derived from `seed` (one number per
    /// partition) and the offset, so that it needs no randomness and is the same after a restart.
    pub(crate) fn segment_ms_of(&self, seed: u64, base_offset: Offset) -> i64 {
        if self.segment_jitter_ms <= 0 {
            return self.segment_ms;
        }
        let spread = u64::from_ne_bytes(base_offset.to_ne_bytes()) ^ seed;
        let mixed = spread.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1;
        let mixed = i64::try_from(mixed).expect("63 bits");
        self.segment_ms - mixed % self.segment_jitter_ms.min(self.segment_ms.max(1))
    }

    /// The maximum number of entries of `entry_size` bytes in an index.
    pub(crate) fn index_entries(&self, entry_size: usize) -> usize {
        usize::try_from(self.segment_index_bytes).unwrap_or(usize::MAX) / entry_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_shortens_the_segment_and_differs_between_partitions() {
        let config = LogConfig { segment_ms: 1000, segment_jitter_ms: 400, ..LogConfig::default() };
        let rolls = (0..50).map(|seed| config.segment_ms_of(seed, 7)).collect::<Vec<_>>();
        assert!(rolls.iter().all(|ms| (601..=1000).contains(ms)), "{rolls:?}");
        assert!(rolls.iter().any(|ms| ms != &rolls[0]));
        assert_eq!(LogConfig { segment_jitter_ms: 0, ..config }.segment_ms_of(3, 7), 1000);
    }
}
