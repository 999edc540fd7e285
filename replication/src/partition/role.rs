//! The role of a replica. Each role carries the high watermark, so there is exactly one at any time.

use super::follower::FollowerState;
use super::leader::LeaderState;
use klamm_protocol::ids::{LeaderEpoch, Offset};

/// The role that the cluster metadata gives this broker for a partition.
#[derive(Debug)]
pub enum Role {
    /// No role is known yet, or the log is closed. The replica serves and acknowledges no request.
    None {
        high_watermark: Offset,
    },
    Leader(LeaderState),
    Follower(FollowerState),
}

impl Role {
    /// The epoch of the leader, here or on another broker.
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        match self {
            Self::None { .. } => None,
            Self::Leader(leader) => Some(leader.leader_epoch()),
            Self::Follower(follower) => Some(follower.leader_epoch),
        }
    }

    /// Records below are committed, as far as this replica knows.
    pub fn high_watermark(&self) -> Offset {
        match self {
            Self::None { high_watermark } => *high_watermark,
            Self::Leader(leader) => leader.high_watermark(),
            Self::Follower(follower) => follower.high_watermark(),
        }
    }
}
