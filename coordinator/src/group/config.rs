//! The settings of classic groups, under Kafka's configuration names.

/// The configurable settings; the defaults are those of Kafka 4.3.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`: how long the first rebalance of an empty group waits for
    /// more members.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`: members in one group.
    pub max_size: usize,
    /// `offset.metadata.max.bytes`: characters, counted as UTF-16 units as Kafka does.
    pub offset_metadata_max_size: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: i64,
    /// `offsets.commit.timeout.ms`: how long a reply waits for its records to be committed.
    pub offset_commit_timeout_ms: i64,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: 2_147_483_647,
            offset_metadata_max_size: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offsets_retention_check_interval_ms: 600_000,
            offset_commit_timeout_ms: 5_000,
        }
    }
}

/// How long a new member may wait for its first JoinGroup answer. It cannot send heartbeats yet, and a client that
/// timed out and joined again would otherwise leave dead members in the rebalance for ever.
/// (`classicGroupNewMemberJoinTimeoutMs` of Kafka's `GroupCoordinatorConfig`)
pub(crate) const NEW_MEMBER_JOIN_TIMEOUT_MS: i32 = 5 * 60 * 1_000;
