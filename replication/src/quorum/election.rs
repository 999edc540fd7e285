//! The durable part of an election, the count of its votes, and the rules for granting one. (Kafka: `ElectionState`,
//! `EpochElection`, `EpochState.canGrantVote`.)

use super::voters::{ReplicaKey, VoterSet};
use klamm_protocol::ids::{BrokerId, LeaderEpoch};
use std::collections::BTreeMap;

/// The contents of `quorum-state`: an epoch, its leader and the vote of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Election {
    pub epoch: LeaderEpoch,
    pub leader_id: Option<BrokerId>,
    pub voted: Option<ReplicaKey>,
}

impl Election {
    /// The election of a new node.
    pub const NEVER: Self = Self::unknown_leader(0);

    pub const fn unknown_leader(epoch: LeaderEpoch) -> Self {
        Self { epoch, leader_id: None, voted: None }
    }

    pub const fn elected(epoch: LeaderEpoch, leader_id: BrokerId) -> Self {
        Self { epoch, leader_id: Some(leader_id), voted: None }
    }

    /// Whether a binding vote may go to `candidate`, by this election alone.
    ///
    /// A repeated request of the same candidate is granted again, because the first answer may have been lost. In an
    /// epoch with a leader no other vote is granted.
    pub fn allows_vote_for(&self, candidate: &ReplicaKey, log_up_to_date: bool) -> bool {
        match self.voted {
            Some(voted) => voted.matches(candidate),
            None => self.leader_id.is_none() && log_up_to_date,
        }
    }
}

/// The vote, or pre-vote, of each voter, as far as known.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ballot {
    votes: BTreeMap<BrokerId, (ReplicaKey, Option<bool>)>,
}

impl Ballot {
    /// A ballot among `voters` with the own vote of `own` granted.
    pub(super) fn with_own_vote(voters: &VoterSet, own: &ReplicaKey) -> Self {
        let votes = voters.iter().map(|voter| (voter.key.id, (voter.key, None))).collect();
        let mut ballot = Self { votes };
        ballot.record(own.id, true);
        ballot
    }

    /// Records the answer of a voter. Answers of other nodes do not count.
    pub(super) fn record(&mut self, id: BrokerId, granted: bool) {
        if let Some((_, vote)) = self.votes.get_mut(&id) {
            *vote = Some(granted);
        }
    }

    pub(super) fn is_won(&self) -> bool {
        self.count(Some(true)) >= self.majority()
    }

    /// Whether no majority is possible any more.
    pub(super) fn is_lost(&self) -> bool {
        self.count(Some(true)) + self.count(None) < self.majority()
    }

    pub(super) fn unanswered(&self) -> impl Iterator<Item = ReplicaKey> {
        self.votes.values().filter(|(_, vote)| vote.is_none()).map(|(key, _)| *key)
    }

    pub(super) fn granting(&self) -> impl Iterator<Item = BrokerId> {
        self.votes.iter().filter(|(_, (_, vote))| *vote == Some(true)).map(|(id, _)| *id)
    }

    fn count(&self, vote: Option<bool>) -> usize {
        self.votes.values().filter(|(_, cast)| *cast == vote).count()
    }

    fn majority(&self) -> usize {
        self.votes.len() / 2 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::voters::Address;
    use super::*;
    use klamm_protocol::Uuid;

    fn key(id: BrokerId) -> ReplicaKey {
        ReplicaKey::new(id, Uuid::from_bytes([u8::try_from(id).unwrap(); 16]))
    }

    fn voters(ids: &[BrokerId]) -> VoterSet {
        VoterSet::from_static(
            &"CONTROLLER".into(),
            ids.iter().map(|&id| (id, Address { host: "localhost".into(), port: 9093 })),
        )
    }

    #[test]
    fn a_vote_is_given_once_and_again_only_to_the_same_candidate() {
        let free = Election::unknown_leader(3);
        let voted = Election { voted: Some(key(2)), ..free };
        let led = Election::elected(3, 1);
        let cases = [
            (free, key(2), true, true),
            (free, key(2), false, false),
            (voted, key(2), true, true),
            (voted, key(2), false, true),
            (voted, key(3), true, false),
            (voted, ReplicaKey::new(2, Uuid::from_bytes([9; 16])), true, false),
            (led, key(2), true, false),
        ];
        for (election, candidate, up_to_date, expected) in cases {
            assert_eq!(
                election.allows_vote_for(&candidate, up_to_date),
                expected,
                "{election:?} {candidate} {up_to_date}"
            );
        }
    }

    #[test]
    fn the_only_voter_has_won_by_its_own_vote() {
        assert!(Ballot::with_own_vote(&voters(&[1]), &key(1)).is_won());
    }

    #[test]
    fn a_ballot_is_won_by_a_majority_and_lost_when_none_is_possible() {
        let mut ballot = Ballot::with_own_vote(&voters(&[1, 2, 3]), &key(1));
        assert!(!ballot.is_won() && !ballot.is_lost());
        ballot.record(2, false);
        assert!(!ballot.is_won() && !ballot.is_lost());
        let mut won = ballot.clone();
        won.record(3, true);
        assert!(won.is_won());
        assert_eq!(won.granting().collect::<Vec<_>>(), [1, 3]);
        ballot.record(3, false);
        assert!(ballot.is_lost());
    }

    #[test]
    fn a_stranger_has_no_vote() {
        let mut ballot = Ballot::with_own_vote(&voters(&[1, 2, 3]), &key(1));
        ballot.record(9, true);
        assert!(!ballot.is_won());
    }
}
