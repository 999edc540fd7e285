//! Checks of values against each other: the cross checks of Kafka's `KafkaConfig` and `GroupCoordinatorConfig`, except
//! those of listeners and roles.
//!
//! The texts are Kafka's, because AlterConfigs answers with them too.

use klamm_metadata::config_def::BrokerConfigs;

/// KIP-1066: log directories that take no new replicas.
pub(crate) const CORDONED_LOG_DIRS: &str = "cordoned.log.dirs";
/// `ServerLogConfigs.CORDONED_LOG_DIRS_ALL`
pub(crate) const ALL_LOG_DIRS: &str = "*";

/// Why values contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrossCheckError {
    #[error("log.roll.ms must be greater than or equal to 1")]
    RollMs,
    #[error("log.roll.jitter.ms must be greater than or equal to 0")]
    RollJitterMs,
    #[error("log.retention.ms must be unlimited (-1) or, greater than or equal to 1")]
    RetentionMs,
    #[error("log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.")]
    DedupeBuffer,
    #[error(
        "replica.socket.timeout.ms should always be at least replica.fetch.wait.max.ms to prevent unnecessary socket timeouts"
    )]
    SocketTimeout,
    #[error(
        "replica.fetch.wait.max.ms should always be less than or equal to replica.lag.time.max.ms to prevent frequent changes in ISR"
    )]
    FetchWait,
    #[error("queued.max.request.bytes must be larger or equal to socket.request.max.bytes")]
    QueuedBytes,
    #[error(
        "max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides property is set."
    )]
    NoConnections,
    #[error("max.connections.per.ip.overrides contains '{0}', which is not address:count")]
    ConnectionOverride(String),
    #[error(
        "connection.failed.authentication.delay.ms={delay_ms} should always be less than connections.max.idle.ms={idle_ms} to prevent failed authentication responses from timing out"
    )]
    AuthenticationDelay { delay_ms: i64, idle_ms: i64 },
    #[error("Disabling the 'classic' protocol is not supported.")]
    NoClassicGroups,
    #[error("When {CORDONED_LOG_DIRS} is set to {ALL_LOG_DIRS}, it must not contain other values")]
    CordonedAllAndSome,
    #[error(
        "All entries in {CORDONED_LOG_DIRS} must be present in log.dirs or log.dir. Missing entries : {}",
        .0.join(", ")
    )]
    CordonedUnknown(Vec<String>),
    #[error("{larger} must be greater than or equal to {smaller}")]
    Order { larger: &'static str, smaller: &'static str },
    #[error("{smaller} must be less than {larger}")]
    StrictOrder { larger: &'static str, smaller: &'static str },
}

impl CrossCheckError {
    /// The keys of the error, to name their origins.
    pub fn keys(&self) -> Vec<&'static str> {
        match self {
            Self::RollMs => vec!["log.roll.ms", "log.roll.hours"],
            Self::RollJitterMs => vec!["log.roll.jitter.ms", "log.roll.jitter.hours"],
            Self::RetentionMs => {
                vec!["log.retention.ms", "log.retention.minutes", "log.retention.hours"]
            }
            Self::DedupeBuffer => vec!["log.cleaner.dedupe.buffer.size", "log.cleaner.threads"],
            Self::SocketTimeout => vec!["replica.socket.timeout.ms", "replica.fetch.wait.max.ms"],
            Self::FetchWait => vec!["replica.fetch.wait.max.ms", "replica.lag.time.max.ms"],
            Self::QueuedBytes => vec!["queued.max.request.bytes", "socket.request.max.bytes"],
            Self::NoConnections => vec!["max.connections.per.ip"],
            Self::ConnectionOverride(_) => vec!["max.connections.per.ip.overrides"],
            Self::AuthenticationDelay { .. } => {
                vec!["connection.failed.authentication.delay.ms", "connections.max.idle.ms"]
            }
            Self::NoClassicGroups => vec!["group.coordinator.rebalance.protocols"],
            Self::CordonedAllAndSome => vec![CORDONED_LOG_DIRS],
            Self::CordonedUnknown(_) => vec![CORDONED_LOG_DIRS, "log.dirs", "log.dir"],
            Self::Order { larger, smaller } | Self::StrictOrder { larger, smaller } => {
                vec![larger, smaller]
            }
        }
    }
}

/// Values that are valid but probably a mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Caution {
    #[error(
        "the broker sends a heartbeat every {heartbeat_ms} ms (the lesser of broker.heartbeat.interval.ms and failover.heartbeat.interval.ms), which is more than half of broker.session.timeout.ms ({session_ms} ms): one lost heartbeat may fence the broker"
    )]
    Heartbeat { heartbeat_ms: i32, session_ms: i32 },
}

/// Checks all values against each other.
pub fn check(configs: &BrokerConfigs) -> Result<(), CrossCheckError> {
    check_log(configs)?;
    check_cordoned(configs)?;
    check_replication(configs)?;
    check_connections(configs)?;
    check_groups(configs)
}

/// Looks for values that are probably a mistake.
pub fn cautions(configs: &BrokerConfigs) -> Vec<Caution> {
    let heartbeat_ms = configs.int("broker.heartbeat.interval.ms");
    let heartbeat_ms = heartbeat_ms.min(configs.int("failover.heartbeat.interval.ms"));
    let session_ms = configs.int("broker.session.timeout.ms");
    if i64::from(heartbeat_ms) * 2 > i64::from(session_ms) {
        vec![Caution::Heartbeat { heartbeat_ms, session_ms }]
    } else {
        Vec::new()
    }
}

fn check_log(configs: &BrokerConfigs) -> Result<(), CrossCheckError> {
    if configs.integer("log.roll.ms").is_some_and(|ms| ms < 1) {
        return Err(CrossCheckError::RollMs);
    }
    if configs.integer("log.roll.jitter.ms").is_some_and(|ms| ms < 0) {
        return Err(CrossCheckError::RollJitterMs);
    }
    let retention = ["log.retention.ms", "log.retention.minutes", "log.retention.hours"]
        .iter()
        .find_map(|name| configs.integer(name));
    if retention == Some(0) {
        return Err(CrossCheckError::RetentionMs);
    }
    let buffer_size = configs.long("log.cleaner.dedupe.buffer.size");
    let threads = i64::from(configs.int("log.cleaner.threads"));
    if threads > 0 && buffer_size / threads <= 1024 * 1024 {
        return Err(CrossCheckError::DedupeBuffer);
    }
    Ok(())
}

fn check_cordoned(configs: &BrokerConfigs) -> Result<(), CrossCheckError> {
    let cordoned = configs.list(CORDONED_LOG_DIRS).unwrap_or_default();
    if cordoned.iter().any(|entry| entry == ALL_LOG_DIRS) {
        return if cordoned.len() == 1 { Ok(()) } else { Err(CrossCheckError::CordonedAllAndSome) };
    }
    let log_dirs = configs.list("log.dirs").or_else(|| configs.list("log.dir")).unwrap_or_default();
    let missing: Vec<String> =
        cordoned.into_iter().filter(|entry| !log_dirs.contains(entry)).collect();
    if missing.is_empty() { Ok(()) } else { Err(CrossCheckError::CordonedUnknown(missing)) }
}

fn check_replication(configs: &BrokerConfigs) -> Result<(), CrossCheckError> {
    let wait_ms = configs.int("replica.fetch.wait.max.ms");
    if wait_ms > configs.int("replica.socket.timeout.ms") {
        return Err(CrossCheckError::SocketTimeout);
    }
    if i64::from(wait_ms) > configs.long("replica.lag.time.max.ms") {
        return Err(CrossCheckError::FetchWait);
    }
    Ok(())
}

fn check_connections(configs: &BrokerConfigs) -> Result<(), CrossCheckError> {
    let queued_bytes = configs.long("queued.max.request.bytes");
    if queued_bytes > 0 && queued_bytes < i64::from(configs.int("socket.request.max.bytes")) {
        return Err(CrossCheckError::QueuedBytes);
    }
    let overrides = connection_overrides(configs)?;
    if configs.int("max.connections.per.ip") == 0 && overrides.is_empty() {
        return Err(CrossCheckError::NoConnections);
    }
    let delay_ms = i64::from(configs.int("connection.failed.authentication.delay.ms"));
    let idle_ms = configs.long("connections.max.idle.ms");
    if idle_ms >= 0 && delay_ms >= idle_ms {
        return Err(CrossCheckError::AuthenticationDelay { delay_ms, idle_ms });
    }
    Ok(())
}

/// Parses `max.connections.per.ip.overrides`: `address:count` pairs.
pub(super) fn connection_overrides(
    configs: &BrokerConfigs,
) -> Result<Vec<(String, i32)>, CrossCheckError> {
    let text = configs.string("max.connections.per.ip.overrides").unwrap_or_default();
    text.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            entry
                .rsplit_once(':')
                .filter(|(address, _)| !address.trim().is_empty())
                .and_then(|(address, count)| {
                    Some((address.trim().to_owned(), count.trim().parse().ok()?))
                })
                .ok_or_else(|| CrossCheckError::ConnectionOverride(entry.to_owned()))
        })
        .collect()
}

/// Pairs of keys of which the first must not be smaller, in the order of Kafka's checks.
const GROUP_ORDERS: &[(&str, &str)] = &[
    ("group.consumer.max.heartbeat.interval.ms", "group.consumer.min.heartbeat.interval.ms"),
    ("group.consumer.heartbeat.interval.ms", "group.consumer.min.heartbeat.interval.ms"),
    ("group.consumer.max.heartbeat.interval.ms", "group.consumer.heartbeat.interval.ms"),
    ("group.consumer.max.session.timeout.ms", "group.consumer.min.session.timeout.ms"),
    ("group.consumer.session.timeout.ms", "group.consumer.min.session.timeout.ms"),
    ("group.consumer.max.session.timeout.ms", "group.consumer.session.timeout.ms"),
    ("group.consumer.max.assignment.interval.ms", "group.consumer.min.assignment.interval.ms"),
    ("group.consumer.assignment.interval.ms", "group.consumer.min.assignment.interval.ms"),
    ("group.consumer.max.assignment.interval.ms", "group.consumer.assignment.interval.ms"),
    ("group.share.max.heartbeat.interval.ms", "group.share.min.heartbeat.interval.ms"),
    ("group.share.heartbeat.interval.ms", "group.share.min.heartbeat.interval.ms"),
    ("group.share.max.heartbeat.interval.ms", "group.share.heartbeat.interval.ms"),
    ("group.share.max.session.timeout.ms", "group.share.min.session.timeout.ms"),
    ("group.share.session.timeout.ms", "group.share.min.session.timeout.ms"),
    ("group.share.max.session.timeout.ms", "group.share.session.timeout.ms"),
    ("group.share.max.delivery.count.limit", "group.share.delivery.count.limit"),
    ("group.share.delivery.count.limit", "group.share.min.delivery.count.limit"),
    ("group.share.max.partition.max.record.locks", "group.share.partition.max.record.locks"),
    ("group.share.partition.max.record.locks", "group.share.min.partition.max.record.locks"),
    ("group.share.record.lock.duration.ms", "group.share.min.record.lock.duration.ms"),
    ("group.share.max.record.lock.duration.ms", "group.share.record.lock.duration.ms"),
    ("group.share.max.share.sessions", "group.share.max.size"),
    ("group.streams.max.heartbeat.interval.ms", "group.streams.min.heartbeat.interval.ms"),
    ("group.streams.heartbeat.interval.ms", "group.streams.min.heartbeat.interval.ms"),
    ("group.streams.max.heartbeat.interval.ms", "group.streams.heartbeat.interval.ms"),
    ("group.streams.max.session.timeout.ms", "group.streams.min.session.timeout.ms"),
    ("group.streams.session.timeout.ms", "group.streams.min.session.timeout.ms"),
    ("group.streams.max.session.timeout.ms", "group.streams.session.timeout.ms"),
    ("group.streams.max.standby.replicas", "group.streams.num.standby.replicas"),
];

const GROUP_STRICT_ORDERS: &[(&str, &str)] = &[
    ("group.consumer.session.timeout.ms", "group.consumer.heartbeat.interval.ms"),
    ("group.share.session.timeout.ms", "group.share.heartbeat.interval.ms"),
    ("group.streams.session.timeout.ms", "group.streams.heartbeat.interval.ms"),
];

fn check_groups(configs: &BrokerConfigs) -> Result<(), CrossCheckError> {
    let protocols = configs.list("group.coordinator.rebalance.protocols").unwrap_or_default();
    if !protocols.iter().any(|protocol| protocol == "classic") {
        return Err(CrossCheckError::NoClassicGroups);
    }
    for &(larger, smaller) in GROUP_ORDERS {
        if configs.int(larger) < configs.int(smaller) {
            return Err(CrossCheckError::Order { larger, smaller });
        }
    }
    for &(larger, smaller) in GROUP_STRICT_ORDERS {
        if configs.int(larger) <= configs.int(smaller) {
            return Err(CrossCheckError::StrictOrder { larger, smaller });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(pairs: &[(&str, &str)]) -> BrokerConfigs {
        let statics = pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
        BrokerConfigs::new(statics).unwrap()
    }

    fn refusal(pairs: &[(&str, &str)]) -> CrossCheckError {
        check(&configs(pairs)).unwrap_err()
    }

    #[test]
    fn kafkas_defaults_pass() {
        assert_eq!(check(&configs(&[])), Ok(()));
        assert_eq!(cautions(&configs(&[])), []);
    }

    #[test]
    fn log_times_and_sizes_are_checked() {
        assert_eq!(refusal(&[("log.roll.ms", "0")]), CrossCheckError::RollMs);
        assert_eq!(refusal(&[("log.roll.jitter.ms", "-1")]), CrossCheckError::RollJitterMs);
        assert_eq!(refusal(&[("log.retention.hours", "0")]), CrossCheckError::RetentionMs);
        assert_eq!(check(&configs(&[("log.retention.ms", "-7")])), Ok(()));
        assert_eq!(
            refusal(&[("log.cleaner.dedupe.buffer.size", "1048576")]),
            CrossCheckError::DedupeBuffer
        );
    }

    #[test]
    fn only_own_directories_are_cordoned() {
        let with_two = |cordoned| check(&configs(&[("log.dirs", "/a,/b"), cordoned]));
        for allowed in ["", "*", "/b", "/b,/a"] {
            assert_eq!(with_two((CORDONED_LOG_DIRS, allowed)), Ok(()), "{allowed}");
        }
        for both in ["*,/b", "/b,*"] {
            let refused = Err(CrossCheckError::CordonedAllAndSome);
            assert_eq!(with_two((CORDONED_LOG_DIRS, both)), refused, "{both}");
        }
        let unknown = CrossCheckError::CordonedUnknown(vec!["/c".into()]);
        assert_eq!(with_two((CORDONED_LOG_DIRS, "/b,/c")), Err(unknown));
        let defaulted = refusal(&[("log.dir", "/a"), (CORDONED_LOG_DIRS, "/b")]);
        assert_eq!(defaulted, CrossCheckError::CordonedUnknown(vec!["/b".into()]));
        assert_eq!(check(&configs(&[("log.dir", "/a"), (CORDONED_LOG_DIRS, "/a")])), Ok(()));
    }

    #[test]
    fn waits_fit_into_timeouts() {
        assert_eq!(
            refusal(&[("replica.fetch.wait.max.ms", "40000")]),
            CrossCheckError::SocketTimeout
        );
        assert_eq!(refusal(&[("replica.lag.time.max.ms", "5")]), CrossCheckError::FetchWait);
        assert_eq!(
            refusal(&[("connections.max.idle.ms", "50")]),
            CrossCheckError::AuthenticationDelay { delay_ms: 100, idle_ms: 50 }
        );
        let quick = ("broker.session.timeout.ms", "3000");
        assert_eq!(cautions(&configs(&[quick])), [], "heartbeats are sent every 200 ms");
        let slow = ("failover.heartbeat.interval.ms", "5000");
        let caution = Caution::Heartbeat { heartbeat_ms: 2000, session_ms: 3000 };
        assert_eq!(cautions(&configs(&[quick, slow])), [caution]);
    }

    #[test]
    fn connection_limits_make_sense() {
        assert_eq!(refusal(&[("max.connections.per.ip", "0")]), CrossCheckError::NoConnections);
        assert_eq!(
            check(&configs(&[
                ("max.connections.per.ip", "0"),
                ("max.connections.per.ip.overrides", "127.0.0.1:200, ::1:3"),
            ])),
            Ok(())
        );
        assert_eq!(
            refusal(&[("max.connections.per.ip.overrides", "host")]),
            CrossCheckError::ConnectionOverride("host".into())
        );
        assert_eq!(refusal(&[("queued.max.request.bytes", "5")]), CrossCheckError::QueuedBytes);
    }

    #[test]
    fn group_values_lie_between_their_bounds() {
        assert_eq!(
            refusal(&[("group.consumer.session.timeout.ms", "1")]).to_string(),
            "group.consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms"
        );
        assert_eq!(
            refusal(&[("group.coordinator.rebalance.protocols", "consumer")]),
            CrossCheckError::NoClassicGroups
        );
    }
}
