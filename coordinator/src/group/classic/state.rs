//! The states of a classic group and their transitions. (Kafka: `ClassicGroupState`)

/// The state of a group. A deleted group has none; it is described as `Dead`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No members; offsets may remain.
    Empty,
    /// Waiting for the members' JoinGroup requests.
    PreparingRebalance,
    /// Waiting for the leader's assignment.
    CompletingRebalance,
    /// Every member has, or can fetch, its assignment.
    Stable,
}

/// The state in the description of a group that does not exist.
pub(crate) const DEAD: &str = "Dead";

impl State {
    /// Kafka's name, as in DescribeGroups and ListGroups.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }

    pub(crate) fn may_follow(self, previous: Self) -> bool {
        match self {
            Self::Empty | Self::CompletingRebalance => previous == Self::PreparingRebalance,
            Self::PreparingRebalance => previous != Self::PreparingRebalance,
            Self::Stable => previous == Self::CompletingRebalance,
        }
    }
}
