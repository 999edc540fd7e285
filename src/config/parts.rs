//! The typed part of the configuration that each part of the broker takes. Units are in the names.
//!
//! Each is built from [`BrokerConfigs`], so that after a dynamic change it is built again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use klamm_metadata::config_def::BrokerConfigs;

use super::check::connection_overrides;

/// Sockets, connections and request sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// None unless it is set to more than -1: the system, which fits buffers to the connection, does better
    /// than Kafka's default.
    pub socket_send_buffer_bytes: Option<u32>,
    /// As `socket_send_buffer_bytes`.
    pub socket_receive_buffer_bytes: Option<u32>,
    pub socket_request_max_bytes: i32,
    /// None unless it is set.
    pub socket_listen_backlog_size: Option<u32>,
    pub max_connections: i32,
    pub max_connections_per_ip: i32,
    /// Address or host name to its own limit.
    pub max_connections_per_ip_overrides: BTreeMap<String, i32>,
    pub max_connection_creation_rate: i32,
    /// Negative: connections never idle out.
    pub connections_max_idle_ms: i64,
    pub queued_max_requests: i32,
    /// -1: no limit.
    pub queued_max_request_bytes: i64,
    pub num_network_threads: i32,
    pub num_io_threads: i32,
    pub max_request_partition_size_limit: i32,
}

impl NetworkConfig {
    pub fn new(configs: &BrokerConfigs) -> Self {
        Self {
            socket_send_buffer_bytes: if_set(configs, "socket.send.buffer.bytes"),
            socket_receive_buffer_bytes: if_set(configs, "socket.receive.buffer.bytes"),
            socket_request_max_bytes: configs.int("socket.request.max.bytes"),
            socket_listen_backlog_size: if_set(configs, "socket.listen.backlog.size"),
            max_connections: configs.int("max.connections"),
            max_connections_per_ip: configs.int("max.connections.per.ip"),
            max_connections_per_ip_overrides: connection_overrides(configs)
                .map(BTreeMap::from_iter)
                .expect("the overrides were checked when they were set"),
            max_connection_creation_rate: configs.int("max.connection.creation.rate"),
            connections_max_idle_ms: configs.long("connections.max.idle.ms"),
            queued_max_requests: configs.int("queued.max.requests"),
            queued_max_request_bytes: configs.long("queued.max.request.bytes"),
            num_network_threads: configs.int("num.network.threads"),
            num_io_threads: configs.int("num.io.threads"),
            max_request_partition_size_limit: configs.int("max.request.partition.size.limit"),
        }
    }
}

/// A size, where one is given and no default stands for it.
fn if_set(configs: &BrokerConfigs, name: &str) -> Option<u32> {
    configs.originals().get(name).and_then(|_| u32::try_from(configs.int(name)).ok())
}

/// Log directories and what is done to logs in the background. A topic's own values are in
/// `klamm_metadata::config_def::topic_config::TopicConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    pub log_dirs: Vec<PathBuf>,
    /// Where `__cluster_metadata-0` is; one of `log_dirs` unless it is set.
    pub metadata_log_dir: PathBuf,
    pub num_recovery_threads_per_data_dir: i32,
    pub retention_check_interval_ms: i64,
    pub flush_scheduler_interval_ms: i64,
    pub flush_offset_checkpoint_interval_ms: i32,
    pub flush_start_offset_checkpoint_interval_ms: i32,
    pub high_watermark_checkpoint_interval_ms: i64,
    pub initial_task_delay_ms: i64,
    pub log_dir_failure_timeout_ms: i64,
    pub producer_id_expiration_ms: i32,
    pub producer_id_expiration_check_interval_ms: i32,
    pub transaction_partition_verification_enable: bool,
    pub cleaner: CleanerConfig,
}

/// Compaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanerConfig {
    pub enable: bool,
    pub threads: i32,
    pub dedupe_buffer_size: i64,
    pub io_buffer_size: i32,
    pub backoff_ms: i64,
}

impl StorageConfig {
    pub fn new(configs: &BrokerConfigs) -> Self {
        let log_dirs: Vec<PathBuf> = configs
            .list("log.dirs")
            .or_else(|| configs.list("log.dir"))
            .unwrap_or_default()
            .into_iter()
            .map(PathBuf::from)
            .collect();
        let first = log_dirs.first().cloned().expect("the table refuses an empty log.dirs");
        Self {
            metadata_log_dir: configs.string("metadata.log.dir").map_or(first, PathBuf::from),
            log_dirs,
            num_recovery_threads_per_data_dir: configs.int("num.recovery.threads.per.data.dir"),
            retention_check_interval_ms: configs.long("log.retention.check.interval.ms"),
            flush_scheduler_interval_ms: configs.long("log.flush.scheduler.interval.ms"),
            flush_offset_checkpoint_interval_ms: configs
                .int("log.flush.offset.checkpoint.interval.ms"),
            flush_start_offset_checkpoint_interval_ms: configs
                .int("log.flush.start.offset.checkpoint.interval.ms"),
            high_watermark_checkpoint_interval_ms: configs
                .long("replica.high.watermark.checkpoint.interval.ms"),
            initial_task_delay_ms: configs.long("log.initial.task.delay.ms"),
            log_dir_failure_timeout_ms: configs.long("log.dir.failure.timeout.ms"),
            producer_id_expiration_ms: configs.int("producer.id.expiration.ms"),
            producer_id_expiration_check_interval_ms: configs
                .int("producer.id.expiration.check.interval.ms"),
            transaction_partition_verification_enable: configs
                .boolean("transaction.partition.verification.enable"),
            cleaner: CleanerConfig {
                enable: configs.boolean("log.cleaner.enable"),
                threads: configs.int("log.cleaner.threads"),
                dedupe_buffer_size: configs.long("log.cleaner.dedupe.buffer.size"),
                io_buffer_size: configs.int("log.cleaner.io.buffer.size"),
                backoff_ms: configs.long("log.cleaner.backoff.ms"),
            },
        }
    }
}

/// How topics come and go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicsConfig {
    pub auto_create_enable: bool,
    pub delete_enable: bool,
    pub num_partitions: i32,
    pub default_replication_factor: i32,
}

impl TopicsConfig {
    pub fn new(configs: &BrokerConfigs) -> Self {
        Self {
            auto_create_enable: configs.boolean("auto.create.topics.enable"),
            delete_enable: configs.boolean("delete.topic.enable"),
            num_partitions: configs.int("num.partitions"),
            default_replication_factor: configs.int("default.replication.factor"),
        }
    }
}

/// Followers, leaders and what clients fetch from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationConfig {
    pub lag_time_max_ms: i64,
    pub fetch_wait_max_ms: i32,
    pub fetch_min_bytes: i32,
    pub fetch_max_bytes: i32,
    pub fetch_response_max_bytes: i32,
    pub fetch_backoff_ms: i32,
    pub num_fetchers: i32,
    pub auto_leader_rebalance_enable: bool,
    pub leader_imbalance_check_interval_seconds: i64,
    /// `fetch.max.bytes`: the most that one fetch of a consumer returns.
    pub consumer_fetch_max_bytes: i32,
    pub max_incremental_fetch_session_cache_slots: i32,
}

impl ReplicationConfig {
    pub fn new(configs: &BrokerConfigs) -> Self {
        Self {
            lag_time_max_ms: configs.long("replica.lag.time.max.ms"),
            fetch_wait_max_ms: configs.int("replica.fetch.wait.max.ms"),
            fetch_min_bytes: configs.int("replica.fetch.min.bytes"),
            fetch_max_bytes: configs.int("replica.fetch.max.bytes"),
            fetch_response_max_bytes: configs.int("replica.fetch.response.max.bytes"),
            fetch_backoff_ms: configs.int("replica.fetch.backoff.ms"),
            num_fetchers: configs.int("num.replica.fetchers"),
            auto_leader_rebalance_enable: configs.boolean("auto.leader.rebalance.enable"),
            leader_imbalance_check_interval_seconds: configs
                .long("leader.imbalance.check.interval.seconds"),
            consumer_fetch_max_bytes: configs.int("fetch.max.bytes"),
            max_incremental_fetch_session_cache_slots: configs
                .int("max.incremental.fetch.session.cache.slots"),
        }
    }
}

/// The KRaft quorum's timers and the metadata log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumConfig {
    pub election_timeout_ms: i32,
    pub fetch_timeout_ms: i32,
    pub election_backoff_max_ms: i32,
    pub append_linger_ms: i32,
    pub request_timeout_ms: i32,
    pub retry_backoff_ms: i32,
    pub fetch_max_bytes: i32,
    pub fetch_snapshot_max_bytes: i32,
    pub metadata_log_segment_bytes: i32,
    pub metadata_log_segment_ms: i64,
    pub metadata_max_retention_bytes: i64,
    pub metadata_max_retention_ms: i64,
    pub metadata_log_max_record_bytes_between_snapshots: i64,
    pub metadata_log_max_snapshot_interval_ms: i64,
    /// 0: the active controller writes no no-op records.
    pub metadata_max_idle_interval_ms: i32,
}

impl QuorumConfig {
    pub fn new(configs: &BrokerConfigs) -> Self {
        Self {
            election_timeout_ms: configs.int("controller.quorum.election.timeout.ms"),
            fetch_timeout_ms: configs.int("controller.quorum.fetch.timeout.ms"),
            election_backoff_max_ms: configs.int("controller.quorum.election.backoff.max.ms"),
            append_linger_ms: configs.int("controller.quorum.append.linger.ms"),
            request_timeout_ms: configs.int("controller.quorum.request.timeout.ms"),
            retry_backoff_ms: configs.int("controller.quorum.retry.backoff.ms"),
            fetch_max_bytes: configs.int("controller.quorum.fetch.max.bytes"),
            fetch_snapshot_max_bytes: configs.int("controller.quorum.fetch.snapshot.max.bytes"),
            metadata_log_segment_bytes: configs.int("metadata.log.segment.bytes"),
            metadata_log_segment_ms: configs.long("metadata.log.segment.ms"),
            metadata_max_retention_bytes: configs.long("metadata.max.retention.bytes"),
            metadata_max_retention_ms: configs.long("metadata.max.retention.ms"),
            metadata_log_max_record_bytes_between_snapshots: configs
                .long("metadata.log.max.record.bytes.between.snapshots"),
            metadata_log_max_snapshot_interval_ms: configs
                .long("metadata.log.max.snapshot.interval.ms"),
            metadata_max_idle_interval_ms: configs.int("metadata.max.idle.interval.ms"),
        }
    }
}

/// A broker's life in its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleConfig {
    pub rack: Option<String>,
    pub heartbeat_interval_ms: i32,
    pub session_timeout_ms: i32,
    /// Whether a leader that nobody has confirmed for a session refuses to acknowledge.
    pub leader_lease_enable: bool,
    pub initial_registration_timeout_ms: i32,
    pub controlled_shutdown_enable: bool,
    pub server_max_startup_time_ms: i64,
}

impl LifecycleConfig {
    pub fn new(configs: &BrokerConfigs) -> Self {
        Self {
            rack: configs.string("broker.rack"),
            heartbeat_interval_ms: configs.int("broker.heartbeat.interval.ms"),
            session_timeout_ms: configs.int("broker.session.timeout.ms"),
            leader_lease_enable: configs.boolean("failover.leader.lease.enable"),
            initial_registration_timeout_ms: configs.int("initial.broker.registration.timeout.ms"),
            controlled_shutdown_enable: configs.boolean("controlled.shutdown.enable"),
            server_max_startup_time_ms: configs.long("server.max.startup.time.ms"),
        }
    }
}
