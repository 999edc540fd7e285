//! The typed configuration of each part of the broker. Units are in the names and types.
//!
//! Each is built from [`BrokerConfigs`], and built again after a dynamic change.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use klamm_metadata::config_def::BrokerConfigs;

use super::check::connection_overrides;

/// Sockets, connections and request sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// None unless it is set to more than -1: the operating system's automatic buffer size is better than Kafka's
    /// default.
    pub socket_send_buffer_bytes: Option<u32>,
    /// As `socket_send_buffer_bytes`.
    pub socket_receive_buffer_bytes: Option<u32>,
    pub socket_request_max_bytes: i32,
    /// None if not set.
    pub socket_listen_backlog_size: Option<u32>,
    pub max_connections: i32,
    pub max_connections_per_ip: i32,
    /// The limit by address or host name.
    pub max_connections_per_ip_overrides: BTreeMap<String, i32>,
    pub max_connection_creation_rate: i32,
    /// `None`: idle connections are never closed.
    pub connections_max_idle: Option<Duration>,
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
            connections_max_idle: u64::try_from(configs.long("connections.max.idle.ms"))
                .ok()
                .map(Duration::from_millis),
            max_request_partition_size_limit: configs.int("max.request.partition.size.limit"),
        }
    }
}

/// A duration in milliseconds. The table allows negative values of some keys, which become zero.
fn millis(ms: impl Into<i64>) -> Duration {
    Duration::from_millis(u64::try_from(ms.into()).unwrap_or_default())
}

/// A count, or milliseconds for a pure core. Negative values become 0.
fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or_default()
}

/// A number of bytes. Negative values become 0.
fn size(configs: &BrokerConfigs, name: &str) -> u64 {
    u64::try_from(configs.long(name)).unwrap_or_default()
}

/// A size, if it is set and not negative; defaults do not count.
fn if_set(configs: &BrokerConfigs, name: &str) -> Option<u32> {
    configs.originals().get(name).and_then(|_| u32::try_from(configs.int(name)).ok())
}

/// Log directories and the background maintenance of logs. A topic's own values are in
/// `klamm_metadata::config_def::topic_config::TopicConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    pub log_dirs: Vec<PathBuf>,
    /// The directory of `__cluster_metadata-0`; one of `log_dirs` unless it is set.
    pub metadata_log_dir: PathBuf,
    pub num_recovery_threads_per_data_dir: i32,
    /// `failover.metadata.reserve.bytes`: what the metadata log can use when its disk is full.
    pub metadata_reserve_bytes: u64,
    /// `failover.directory.room.bytes`: what must be free in a log directory that was full before it is written to again.
    pub room_bytes: u64,
    pub retention_check_interval: Duration,
    pub flush_scheduler_interval: Duration,
    pub scrub_interval: Duration,
    /// Bytes per second that scrubbing reads; 0 disables scrubbing.
    pub scrub_rate: u64,
    pub flush_offset_checkpoint_interval: Duration,
    pub producer_id_expiration_check_interval: Duration,
    pub producer_id_expiration_ms: i64,
    /// Whether the first append of a transaction is verified with its coordinator (KIP-890).
    pub transaction_verification: bool,
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
            metadata_reserve_bytes: size(configs, "failover.metadata.reserve.bytes"),
            room_bytes: size(configs, "failover.directory.room.bytes"),
            retention_check_interval: millis(configs.long("log.retention.check.interval.ms")),
            scrub_interval: millis(configs.long("log.scrub.interval.ms")),
            scrub_rate: size(configs, "log.scrub.io.max.bytes.per.second"),
            flush_scheduler_interval: millis(configs.long("log.flush.scheduler.interval.ms")),
            flush_offset_checkpoint_interval: millis(
                configs.int("log.flush.offset.checkpoint.interval.ms"),
            ),
            producer_id_expiration_check_interval: millis(
                configs.int("producer.id.expiration.check.interval.ms"),
            ),
            producer_id_expiration_ms: i64::from(configs.int("producer.id.expiration.ms")),
            transaction_verification: configs.boolean("transaction.partition.verification.enable"),
        }
    }
}

/// Creation and deletion of topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicsConfig {
    pub auto_create_enable: bool,
    pub num_partitions: i32,
    pub default_replication_factor: i32,
}

impl TopicsConfig {
    pub fn new(configs: &BrokerConfigs) -> Self {
        Self {
            auto_create_enable: configs.boolean("auto.create.topics.enable"),
            num_partitions: configs.int("num.partitions"),
            default_replication_factor: configs.int("default.replication.factor"),
        }
    }
}

/// Replication, and fetches of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationConfig {
    pub lag_time_max_ms: i64,
    /// `failover.follower.silence.ms`
    pub follower_silence_ms: i64,
    pub fetch_wait_max_ms: i32,
    pub fetch_min_bytes: i32,
    pub fetch_max_bytes: i32,
    pub fetch_response_max_bytes: i32,
    pub fetch_backoff: Duration,
    /// Fetchers for each leader broker; at least one.
    pub num_fetchers: u32,
    pub socket_timeout: Duration,
    /// Bytes per second (KIP-73, KIP-113).
    pub leader_throttled_rate: i64,
    pub follower_throttled_rate: i64,
    pub alter_log_dirs_rate: i64,
    /// The class that chooses the replica from which a consumer reads (KIP-392).
    pub replica_selector_class: Option<String>,
    /// `fetch.max.bytes`: the maximum size of the answer to a consumer's fetch.
    pub consumer_fetch_max_bytes: i32,
    pub max_incremental_fetch_session_cache_slots: i32,
}

impl ReplicationConfig {
    pub fn new(configs: &BrokerConfigs) -> Self {
        Self {
            lag_time_max_ms: configs.long("replica.lag.time.max.ms"),
            follower_silence_ms: i64::from(configs.int("failover.follower.silence.ms")),
            fetch_wait_max_ms: configs.int("replica.fetch.wait.max.ms"),
            fetch_min_bytes: configs.int("replica.fetch.min.bytes"),
            fetch_max_bytes: configs.int("replica.fetch.max.bytes"),
            fetch_response_max_bytes: configs.int("replica.fetch.response.max.bytes"),
            fetch_backoff: millis(configs.int("replica.fetch.backoff.ms")),
            num_fetchers: count(configs.int("num.replica.fetchers")).max(1),
            socket_timeout: millis(configs.int("replica.socket.timeout.ms")),
            leader_throttled_rate: configs.long("leader.replication.throttled.rate"),
            follower_throttled_rate: configs.long("follower.replication.throttled.rate"),
            alter_log_dirs_rate: configs.long("replica.alter.log.dirs.io.max.bytes.per.second"),
            replica_selector_class: configs.string("replica.selector.class"),
            consumer_fetch_max_bytes: configs.int("fetch.max.bytes"),
            max_incremental_fetch_session_cache_slots: configs
                .int("max.incremental.fetch.session.cache.slots"),
        }
    }
}

/// The KRaft quorum's timers and the metadata log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumConfig {
    pub election_timeout_ms: u32,
    pub fetch_timeout_ms: u32,
    pub election_backoff_max_ms: u32,
    pub request_timeout_ms: u32,
    pub retry_backoff_ms: u32,
    /// `failover.quorum.silence.ms`: a voter's fetch timeout, if it is less than `fetch_timeout_ms`.
    pub silence_ms: u32,
    pub auto_join: bool,
    pub fetch_max_bytes: i32,
    pub fetch_snapshot_max_bytes: i32,
    pub metadata_max_retention_bytes: u64,
    pub metadata_log_max_record_bytes_between_snapshots: i64,
    pub metadata_log_max_snapshot_interval_ms: i64,
}

impl QuorumConfig {
    pub fn new(configs: &BrokerConfigs) -> Self {
        Self {
            election_timeout_ms: count(configs.int("controller.quorum.election.timeout.ms")),
            fetch_timeout_ms: count(configs.int("controller.quorum.fetch.timeout.ms")),
            election_backoff_max_ms: count(
                configs.int("controller.quorum.election.backoff.max.ms"),
            ),
            request_timeout_ms: count(configs.int("controller.quorum.request.timeout.ms")),
            retry_backoff_ms: count(configs.int("controller.quorum.retry.backoff.ms")),
            silence_ms: count(configs.int("failover.quorum.silence.ms")),
            auto_join: configs.boolean("controller.quorum.auto.join.enable"),
            fetch_max_bytes: configs.int("controller.quorum.fetch.max.bytes"),
            fetch_snapshot_max_bytes: configs.int("controller.quorum.fetch.snapshot.max.bytes"),
            metadata_max_retention_bytes: u64::try_from(
                configs.long("metadata.max.retention.bytes"),
            )
            .unwrap_or(u64::MAX),
            metadata_log_max_record_bytes_between_snapshots: configs
                .long("metadata.log.max.record.bytes.between.snapshots"),
            metadata_log_max_snapshot_interval_ms: configs
                .long("metadata.log.max.snapshot.interval.ms"),
        }
    }
}

/// A broker's registration, heartbeats and shutdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleConfig {
    pub rack: Option<String>,
    /// The lesser of `broker.heartbeat.interval.ms` and `failover.heartbeat.interval.ms`.
    pub heartbeat_interval: Duration,
    pub session_timeout_ms: i64,
    /// `failover.broker.silence.ms`
    pub silence_ms: i64,
    /// `controller.socket.timeout.ms`: the timeout of requests to the controller.
    pub controller_socket_timeout: Duration,
    /// `request.timeout.ms`: the timeout of requests to other nodes.
    pub request_timeout: Duration,
    /// Whether a leader stops acknowledging when its lease has expired: no answer of the controller for a session
    /// timeout.
    pub leader_lease_enable: bool,
    pub initial_registration_timeout: Duration,
    pub controlled_shutdown_enable: bool,
    pub server_max_startup_time: Duration,
}

impl LifecycleConfig {
    pub fn new(configs: &BrokerConfigs) -> Self {
        Self {
            rack: configs.string("broker.rack"),
            heartbeat_interval: millis(configs.int("broker.heartbeat.interval.ms"))
                .min(millis(configs.int("failover.heartbeat.interval.ms")))
                .max(Duration::from_millis(1)),
            session_timeout_ms: i64::from(configs.int("broker.session.timeout.ms")),
            silence_ms: i64::from(configs.int("failover.broker.silence.ms")),
            controller_socket_timeout: millis(configs.int("controller.socket.timeout.ms")),
            request_timeout: millis(configs.int("request.timeout.ms")),
            leader_lease_enable: configs.boolean("failover.leader.lease.enable"),
            initial_registration_timeout: millis(
                configs.int("initial.broker.registration.timeout.ms"),
            ),
            controlled_shutdown_enable: configs.boolean("controlled.shutdown.enable"),
            server_max_startup_time: millis(configs.long("server.max.startup.time.ms")),
        }
    }
}
