//! Transitions of the role: which are legal, what each writes to disk, and which a timer triggers. (Kafka:
//! `QuorumState.transitionTo...` and `KafkaRaftClient.poll...`.)
//!
//! An illegal transition is a broken invariant and panics; the handlers of messages check first.

use super::election::{Ballot, Election};
use super::leader::LeaderState;
use super::role::{FollowerState, ResignedState, Role};
use super::voter_change_error::VoterChangeError;
use super::voters::{Endpoints, ReplicaKey};
use super::{Effect, Quorum, StoredElection};
use klamm_protocol::ids::{BrokerId, LeaderEpoch};

impl Quorum {
    /// Enters the role that follows from the files on disk.
    pub(super) fn boot(&mut self, now_ms: i64) {
        let election_deadline_ms = self.election_deadline_ms(now_ms);
        let local = self.config.local;
        if self.election.epoch < self.log.last_epoch() {
            self.election = Election::unknown_leader(self.log.last_epoch());
        }
        let leader_id = self.election.leader_id;
        let own_vote = self.election.voted.is_some_and(|voted| voted.matches(&local));
        if leader_id == Some(local.id) {
            self.leader_endpoints = self.config.local_endpoints.clone();
            self.role = self.resigned_role(Vec::new(), election_deadline_ms);
        } else if leader_id.is_none() && own_vote && self.may_campaign() {
            let ballot = Ballot::with_own_vote(self.voters(), &local);
            self.role = Role::Candidate { ballot, election_deadline_ms };
        } else {
            self.boot_without_own_claim(now_ms, election_deadline_ms);
        }
        if self.voters().is_only_voter(&local) {
            self.campaign_alone(now_ms);
        }
        self.persist_election();
        self.announce_leader();
    }

    fn boot_without_own_claim(&mut self, now_ms: i64, election_deadline_ms: i64) {
        let leader = self.election.leader_id.and_then(|id| self.voters().get(id));
        match leader.map(|leader| leader.endpoints.clone()) {
            Some(endpoints) if !endpoints.is_empty() => {
                self.leader_endpoints = endpoints;
                self.role = self.follower_role(now_ms);
            }
            _ => self.role = self.unattached_role(election_deadline_ms),
        }
    }

    /// The only voter campaigns at once.
    fn campaign_alone(&mut self, now_ms: i64) {
        match self.role {
            Role::Candidate { .. } => self.become_leader(now_ms),
            Role::Unattached { .. } | Role::Follower(_) | Role::Resigned(_) => {
                self.become_prospective(now_ms);
            }
            Role::Prospective { .. } | Role::Leader(_) => {}
        }
    }

    /// Handles the expired deadline of the role. Returns whether the role changed.
    pub(super) fn expire_role(&mut self, now_ms: i64) -> bool {
        let may_campaign = self.may_campaign();
        match &self.role {
            Role::Unattached { election_deadline_ms }
                if may_campaign && *election_deadline_ms <= now_ms =>
            {
                self.become_prospective(now_ms);
            }
            Role::Follower(follower) if may_campaign && follower.fetch_deadline_ms <= now_ms => {
                self.lost_leader = self.election.leader_id;
                self.become_prospective(now_ms);
            }
            Role::Prospective { election_deadline_ms, .. } if *election_deadline_ms <= now_ms => {
                self.after_pre_vote_loss(now_ms);
            }
            Role::Candidate { election_deadline_ms, .. } if *election_deadline_ms <= now_ms => {
                self.become_prospective(now_ms);
            }
            Role::Leader(leader) if leader.removed => self.become_resigned(now_ms),
            Role::Leader(leader)
                if !leader.is_only_voter() && leader.check_quorum_deadline_ms <= now_ms =>
            {
                self.become_resigned(now_ms);
            }
            Role::Resigned(resigned) if resigned.election_deadline_ms <= now_ms => {
                self.become_unattached(now_ms, self.election.epoch + 1, None);
            }
            _ => return false,
        }
        true
    }

    /// Enters a later epoch without a known leader, or ends a pre-vote.
    pub(super) fn become_unattached(
        &mut self,
        now_ms: i64,
        epoch: LeaderEpoch,
        leader_id: Option<BrokerId>,
    ) {
        let gives_up =
            epoch == self.election.epoch && matches!(self.role, Role::Prospective { .. });
        assert!(epoch > self.election.epoch || gives_up, "Unattached is entered for a later epoch");
        let election_deadline_ms = match &self.role {
            // Another node's campaign does not move this node's own deadline: otherwise a candidate whose log cannot
            // win could keep the others from campaigning for ever.
            Role::Unattached { election_deadline_ms }
            | Role::Candidate { election_deadline_ms, .. } => *election_deadline_ms,
            Role::Prospective { election_deadline_ms, ballot } if !ballot.is_lost() => {
                *election_deadline_ms
            }
            Role::Resigned(resigned) => resigned.election_deadline_ms,
            _ => self.election_deadline_ms(now_ms),
        };
        let voted = if gives_up { self.election.voted } else { None };
        let role = self.unattached_role(election_deadline_ms);
        self.enter(Election { epoch, leader_id, voted }, Endpoints::default(), role);
    }

    pub(super) fn become_follower(
        &mut self,
        now_ms: i64,
        epoch: LeaderEpoch,
        leader_id: BrokerId,
        endpoints: Endpoints,
    ) {
        assert!(epoch >= self.election.epoch, "a follower never goes back an epoch");
        assert!(leader_id != self.config.local.id, "nobody follows itself");
        assert!(!endpoints.is_empty(), "a leader is followed at a known endpoint");
        let same_epoch = epoch == self.election.epoch;
        assert!(!(same_epoch && self.is_leader()), "an epoch has one leader");
        let voted = if same_epoch { self.election.voted } else { None };
        let election = Election { epoch, leader_id: Some(leader_id), voted };
        let role = self.follower_role(now_ms);
        self.lost_leader = None;
        self.enter(election, endpoints, role);
    }

    pub(super) fn become_prospective(&mut self, now_ms: i64) {
        assert!(self.may_campaign(), "only a voter campaigns");
        let legal = !matches!(self.role, Role::Leader(_) | Role::Prospective { .. });
        assert!(legal, "a leader or a prospective node starts no pre-vote");
        let ballot = Ballot::with_own_vote(self.voters(), &self.config.local);
        let won = ballot.is_won();
        let election_deadline_ms = self.election_deadline_ms(now_ms);
        let role = Role::Prospective { ballot, election_deadline_ms };
        self.enter(self.election, self.leader_endpoints.clone(), role);
        if won {
            self.become_candidate(now_ms);
        }
    }

    pub(super) fn become_candidate(&mut self, now_ms: i64) {
        assert!(self.may_campaign(), "only a voter campaigns");
        let legal = matches!(self.role, Role::Prospective { .. });
        assert!(legal, "an election starts with a pre-vote");
        let local = self.config.local;
        let ballot = Ballot::with_own_vote(self.voters(), &local);
        let won = ballot.is_won();
        let election_deadline_ms = self.election_deadline_ms(now_ms);
        let epoch = self.election.epoch + 1;
        let election = Election { epoch, leader_id: None, voted: Some(local) };
        let role = Role::Candidate { ballot, election_deadline_ms };
        self.enter(election, Endpoints::default(), role);
        if won {
            self.become_leader(now_ms);
        }
    }

    pub(super) fn become_leader(&mut self, now_ms: i64) {
        let Role::Candidate { ballot, .. } = &self.role else {
            panic!("only a candidate becomes leader");
        };
        assert!(ballot.is_won(), "a leader has a majority of the votes");
        let granting: Vec<BrokerId> = ballot.granting().collect();
        let (local, epoch) = (self.config.local, self.election.epoch);
        let start_offset = self.log.end_offset;
        let mut leader = LeaderState::new(local, epoch, start_offset, self.voters(), now_ms);
        leader.check_quorum_deadline_ms = self.check_quorum_deadline_ms(now_ms);
        if *self.membership.kraft_version.latest() == 0 {
            leader.volatile_voters = self.voters().with_updated_id(self.local_voter());
        }
        let endpoints = self.config.local_endpoints.clone();
        self.enter(Election::elected(epoch, local.id), endpoints, Role::Leader(leader));
        self.append_epoch_start(now_ms, granting);
    }

    pub(super) fn become_resigned(&mut self, now_ms: i64) {
        let Role::Leader(leader) = &self.role else { panic!("only a leader resigns") };
        let preferred_successors = leader.preferred_successors();
        let election_deadline_ms = self.election_deadline_ms(now_ms);
        let role = self.resigned_role(preferred_successors, election_deadline_ms);
        self.enter(self.election, self.leader_endpoints.clone(), role);
    }

    /// Follows the previous leader again, if it is known, or becomes Unattached.
    pub(super) fn after_pre_vote_loss(&mut self, now_ms: i64) {
        let Election { epoch, leader_id, .. } = self.election;
        match leader_id {
            Some(leader_id)
                if leader_id != self.config.local.id && !self.leader_endpoints.is_empty() =>
            {
                self.become_follower(now_ms, epoch, leader_id, self.leader_endpoints.clone());
            }
            _ => self.become_unattached(now_ms, epoch, leader_id),
        }
    }

    /// Records a binding vote.
    pub(super) fn record_vote(&mut self, now_ms: i64, candidate: ReplicaKey) {
        assert!(self.election.voted.is_none(), "one vote in an epoch");
        let deadline_ms = self.election_deadline_ms(now_ms);
        match &self.role {
            Role::Unattached { .. } => self.role = self.unattached_role(deadline_ms),
            Role::Prospective { .. } => {
                let ballot = Ballot::with_own_vote(self.voters(), &self.config.local);
                self.role = Role::Prospective { ballot, election_deadline_ms: deadline_ms };
            }
            _ => panic!("a vote is given only by Unattached and Prospective"),
        }
        self.election.voted = Some(candidate);
        self.persist_election();
    }

    fn enter(&mut self, election: Election, leader_endpoints: Endpoints, role: Role) {
        let left = std::mem::replace(&mut self.role, role);
        self.election = election;
        self.leader_endpoints = leader_endpoints;
        self.requests.reset_all();
        self.persist_election();
        if let Role::Leader(leader) = left {
            let lost = Err(VoterChangeError::LeadershipLost);
            self.effects.extend(leader.pending_change.and_then(|change| change.answer(lost)));
            self.effects.push(Effect::Resigned { epoch: leader.epoch });
            self.refuse_parked_fetches();
        }
        self.announce_leader();
    }

    fn persist_election(&mut self) {
        let kraft_version = *self.membership.kraft_version.latest();
        let stored = StoredElection::new(self.election, kraft_version, self.voters());
        if self.persisted != stored {
            self.persisted = stored.clone();
            self.effects.push(Effect::PersistElection(stored));
        }
    }

    fn announce_leader(&mut self) {
        let leader_id = match self.role {
            Role::Resigned(_) => None,
            _ => self.election.leader_id,
        };
        let epoch = self.election.epoch;
        if self.announced_leader != Some((epoch, leader_id)) {
            self.announced_leader = Some((epoch, leader_id));
            self.effects.push(Effect::LeaderChanged { epoch, leader_id });
        }
    }

    fn unattached_role(&self, election_deadline_ms: i64) -> Role {
        let observer = !self.may_campaign();
        Role::Unattached {
            election_deadline_ms: if observer { i64::MAX } else { election_deadline_ms },
        }
    }

    fn follower_role(&self, now_ms: i64) -> Role {
        Role::Follower(FollowerState {
            fetch_deadline_ms: self.fetch_deadline_ms(now_ms),
            has_fetched_from_leader: false,
            snapshot: None,
            voter_request_deadline_ms: self.fetch_deadline_ms(now_ms),
            has_updated_leader: false,
        })
    }

    fn resigned_role(
        &self,
        preferred_successors: Vec<ReplicaKey>,
        election_deadline_ms: i64,
    ) -> Role {
        let local_id = self.config.local.id;
        let unacknowledged = self.voters().ids().filter(|id| *id != local_id).collect();
        Role::Resigned(ResignedState { unacknowledged, preferred_successors, election_deadline_ms })
    }

    /// One and a half fetch timeouts from now (`LeaderState.CHECK_QUORUM_TIMEOUT_FACTOR`).
    pub(super) fn check_quorum_deadline_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_add(i64::from(self.config.fetch_timeout_ms) * 3 / 2)
    }
}
