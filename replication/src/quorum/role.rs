//! The roles of a replica and the state of each (Kafka: `EpochState` and its kin).

use super::election::Ballot;
use super::leader::LeaderState;
use super::voters::ReplicaKey;
use crate::OffsetAndEpoch;
use klamm_protocol::ids::BrokerId;
use std::collections::BTreeSet;
use std::fmt;

#[derive(Debug)]
pub(super) enum Role {
    /// Has no leader. A voter campaigns at its election deadline, an observer never.
    Unattached {
        election_deadline_ms: i64,
    },
    /// Requests pre-votes, without starting a new epoch (KIP-996).
    Prospective {
        ballot: Ballot,
        election_deadline_ms: i64,
    },
    /// Has started a new epoch and voted for itself.
    Candidate {
        ballot: Ballot,
        election_deadline_ms: i64,
    },
    Leader(LeaderState),
    /// Has led this epoch and resigned; sends EndQuorumEpoch to the voters.
    Resigned(ResignedState),
    Follower(FollowerState),
}

#[derive(Debug)]
pub(super) struct ResignedState {
    pub(super) unacknowledged: BTreeSet<BrokerId>,
    pub(super) preferred_successors: Vec<ReplicaKey>,
    pub(super) election_deadline_ms: i64,
}

#[derive(Debug)]
pub(super) struct FollowerState {
    pub(super) fetch_deadline_ms: i64,
    /// Whether the leader has answered a fetch in this epoch. Until then this node may grant a pre-vote, because the
    /// leader may be unreachable for all.
    pub(super) has_fetched_from_leader: bool,
    pub(super) snapshot: Option<FetchingSnapshot>,
    /// When this node may next send a request about its own entry in the voter set.
    pub(super) voter_request_deadline_ms: i64,
    /// Whether the leader has got this voter's endpoints (before kraft.version 1).
    pub(super) has_updated_leader: bool,
}

/// A snapshot that is being fetched, and the number of received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FetchingSnapshot {
    pub(super) id: OffsetAndEpoch,
    pub(super) position: i64,
}

/// A role's name in Kafka's metric `current-state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleName {
    Unattached,
    Prospective,
    Candidate,
    Leader,
    Resigned,
    Follower,
    Observer,
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unattached => "unattached",
            Self::Prospective => "prospective",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::Resigned => "resigned",
            Self::Follower => "follower",
            Self::Observer => "observer",
        })
    }
}

impl Role {
    pub(super) fn name(&self, is_voter: bool) -> RoleName {
        match self {
            Self::Unattached { .. } => RoleName::Unattached,
            Self::Prospective { .. } => RoleName::Prospective,
            Self::Candidate { .. } => RoleName::Candidate,
            Self::Leader(_) => RoleName::Leader,
            Self::Resigned(_) => RoleName::Resigned,
            Self::Follower(_) if is_voter => RoleName::Follower,
            Self::Follower(_) => RoleName::Observer,
        }
    }

    /// The next deadline at which the role changes or sends.
    pub(super) fn next_deadline_ms(&self, may_campaign: bool) -> i64 {
        match self {
            Self::Unattached { election_deadline_ms } if may_campaign => *election_deadline_ms,
            Self::Follower(follower) if may_campaign => follower.fetch_deadline_ms,
            Self::Unattached { .. } | Self::Follower(_) => i64::MAX,
            Self::Prospective { election_deadline_ms, .. }
            | Self::Candidate { election_deadline_ms, .. } => *election_deadline_ms,
            Self::Leader(leader) => leader.next_deadline_ms(),
            Self::Resigned(resigned) => resigned.election_deadline_ms,
        }
    }
}
