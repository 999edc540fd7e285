//! The events of a partition's leader, and their results.

use super::isr::IsrProposal;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use std::collections::BTreeSet;

/// The configuration of broker and topic that the leader uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderConfig {
    pub broker_id: BrokerId,
    /// `min.insync.replicas`
    pub min_insync_replicas: usize,
    /// `replica.lag.time.max.ms`
    pub replica_lag_time_max_ms: i64,
    /// `failover.follower.silence.ms`
    pub follower_silence_ms: i64,
    /// `flush.before.ack`: only flushed records count.
    pub flush_before_ack: bool,
}

/// A partition as the cluster metadata has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
    pub replicas: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
}

/// The ends of the leader's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnds {
    pub log_end_offset: Offset,
    /// All records below are on disk.
    pub flushed_offset: Offset,
}

/// A follower's fetch at a position that is part of this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FollowerFetch {
    pub(super) follower: BrokerId,
    /// None before Fetch v15.
    pub(super) broker_epoch: Option<i64>,
    pub(super) current_leader_epoch: Option<LeaderEpoch>,
    pub(super) fetch_offset: Offset,
    pub(super) log_start_offset: Offset,
    pub(super) now_ms: i64,
}

/// The result of a follower's fetch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FetchProgress {
    /// The high watermark, if it moved.
    pub(super) high_watermark: Option<Offset>,
    /// A change of the ISR to send to the controller.
    pub(super) proposal: Option<IsrProposal>,
    /// Whether the follower's log start offset has moved.
    pub(super) log_start_moved: bool,
}

/// Whether a produce with acks=all may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AcksState {
    Waiting,
    Replicated,
    /// Replicated, but the ISR has become too small: NOT_ENOUGH_REPLICAS_AFTER_APPEND.
    NotEnoughReplicas,
}

/// An acks=all produce is refused before anything is appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ISR {isr:?} is smaller than min.insync.replicas={required}")]
pub struct NotEnoughReplicas {
    pub isr: BTreeSet<BrokerId>,
    pub required: usize,
}

impl NotEnoughReplicas {
    pub fn code(&self) -> ErrorCode {
        ErrorCode::NotEnoughReplicas
    }
}
