//! The configuration in force for a topic's partitions on this broker.

use klamm_log::config::{CleanupPolicy, LogConfig};
use klamm_metadata::config_def::Configs;
use klamm_metadata::config_def::topic_config::{
    CompressedRecordValidation, CompressionType, TimestampType as ConfiguredTimestampType,
    TopicConfig,
};
use klamm_protocol::batch::TimestampType;
use klamm_protocol::compression::{Codec, Compression};
use tracing::error;

use super::partition::PartitionConfig;
use super::throttle::ThrottledReplicas;
use crate::config::{BrokerConfig, StorageConfig};

/// The values in force for a topic with these overrides.
pub(crate) fn partition_config(
    broker: &BrokerConfig,
    topic: &str,
    overrides: &Configs,
) -> PartitionConfig {
    let config = TopicConfig::new(&broker.configs, overrides).unwrap_or_else(|invalid| {
        // The controller validates topic configurations. An invalid one that another program wrote must not stop the
        // node.
        error!(
            "topic {topic} has an invalid configuration, the broker's defaults apply: {invalid}"
        );
        TopicConfig::new(&broker.configs, &Configs::new())
            .expect("the broker's own values are valid")
    });
    let throttled = |name: &str| ThrottledReplicas::parse(overrides.get(name).map(|text| &**text));
    PartitionConfig {
        leader_throttled: throttled("leader.replication.throttled.replicas"),
        follower_throttled: throttled("follower.replication.throttled.replicas"),
        log: log_config(&config, &broker.storage),
        compression: codec(&config),
        min_insync_replicas: usize::try_from(config.min_insync_replicas).unwrap_or(1),
        replica_lag_time_max_ms: broker.replication.lag_time_max_ms,
        follower_silence_ms: broker.replication.follower_silence_ms,
        validate_compressed: config.compressed_record_validation
            == CompressedRecordValidation::Full,
    }
}

fn log_config(config: &TopicConfig, broker: &StorageConfig) -> LogConfig {
    // Only the internal segment size can be negative: Kafka then refuses every append.
    let unsigned = |value: i32| u32::try_from(value).unwrap_or(0);
    LogConfig {
        segment_bytes: unsigned(config.segment_bytes),
        segment_ms: config.segment_ms,
        segment_jitter_ms: config.segment_jitter_ms,
        segment_index_bytes: unsigned(config.segment_index_bytes),
        index_interval_bytes: unsigned(config.index_interval_bytes),
        cleanup_policy: CleanupPolicy { delete: config.delete, compact: config.compact },
        retention_ms: config.retention_ms,
        retention_bytes: config.retention_bytes,
        file_delete_delay_ms: config.file_delete_delay_ms,
        max_message_bytes: unsigned(config.max_message_bytes),
        message_timestamp_type: match config.message_timestamp_type {
            ConfiguredTimestampType::CreateTime => TimestampType::CreateTime,
            ConfiguredTimestampType::LogAppendTime => TimestampType::LogAppendTime,
        },
        message_timestamp_before_max_ms: config.message_timestamp_before_max_ms,
        message_timestamp_after_max_ms: config.message_timestamp_after_max_ms,
        flush_messages: config.flush_messages,
        flush_ms: config.flush_ms,
        flush_before_ack: config.flush_before_ack,
        producer_id_expiration_ms: broker.producer_id_expiration_ms,
        transaction_verification: broker.transaction_verification,
    }
}

fn codec(config: &TopicConfig) -> Option<Codec> {
    let (compression, level) = match config.compression_type {
        CompressionType::Producer => return None,
        CompressionType::Uncompressed => (Compression::None, 0),
        CompressionType::Gzip => (Compression::Gzip, config.compression_gzip_level),
        CompressionType::Snappy => (Compression::Snappy, 0),
        CompressionType::Lz4 => (Compression::Lz4, config.compression_lz4_level),
        CompressionType::Zstd => (Compression::Zstd, config.compression_zstd_level),
    };
    Some(Codec::new(compression, level).expect("the table refuses levels that the codec lacks"))
}

#[cfg(test)]
mod tests {
    use klamm_metadata::config_def::{ConfigDef, ConfigType};

    use super::*;

    #[test]
    fn whatever_the_table_lets_through_is_a_configuration() {
        let broker = BrokerConfig::from_pairs::<&str, &str>([]).unwrap();
        let mut accepted = 0;
        for key in ConfigDef::topic().iter().filter(|key| key.config_type == ConfigType::Int) {
            for value in [i32::MIN, -200_000, -7, -1, 0, 1, 9, 17, 22, 1 << 20, i32::MAX] {
                let overrides = Configs::from([(key.name.into(), value.to_string().into())]);
                if TopicConfig::new(&broker.configs, &overrides).is_ok() {
                    partition_config(&broker, "t", &overrides);
                    for codec in ["gzip", "lz4", "zstd"] {
                        let mut overrides = overrides.clone();
                        overrides.insert("compression.type".into(), codec.into());
                        assert!(partition_config(&broker, "t", &overrides).compression.is_some());
                    }
                    accepted += 1;
                }
            }
        }
        assert!(accepted > 20, "{accepted} values were accepted");
    }

    #[test]
    fn a_negative_internal_segment_size_has_room_for_nothing() {
        let broker = BrokerConfig::from_pairs::<&str, &str>([]).unwrap();
        let overrides = Configs::from([("internal.segment.bytes".into(), "-7".into())]);
        assert_eq!(partition_config(&broker, "t", &overrides).log.segment_bytes, 0);
    }
}
