//! Requests of other replicas: dispatch, votes, and the begin and end of a leader's epoch. (Kafka: `handleVoteRequest`,
//! `handleBeginQuorumEpochRequest`, `handleEndQuorumEpochRequest`.)

use super::message::{
    ApiVersionsResponse, BeginQuorumEpochRequest, EndQuorumEpochRequest, Inbound, LeaderInfo,
    QuorumEpochResponse, Reply, Request, VoteRequest, VoteResponse,
};
use super::role::Role;
use super::voter_change::reply_to;
use super::voter_change_error::{Change, VoterChangeError};
use super::voters::{Endpoints, KRaftVersionRange, ReplicaKey};
use super::{Anomaly, Effect, Quorum, RequestId};
use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch};

impl Quorum {
    /// Handles a request of another replica. The answer is among the effects of this call or, for a fetch that waits
    /// for records, of a later one.
    pub fn on_request(
        &mut self,
        now_ms: i64,
        request_id: RequestId,
        inbound: Inbound,
    ) -> Vec<Effect> {
        self.assert_not_loading();
        let foreign = inbound.cluster_id.filter(|id| *id != self.config.cluster_id);
        if let Some(given) = foreign {
            let reply = self.foreign_reply(&inbound.request, given);
            self.reply(request_id, reply);
            return self.proceed(now_ms);
        }
        match inbound.request {
            Request::Vote(vote) => {
                let response = self.on_vote_request(now_ms, &vote);
                self.reply(request_id, Reply::Vote(response));
            }
            Request::BeginQuorumEpoch(begin) => {
                let error = self.on_begin_quorum_epoch(now_ms, &begin);
                let leader = self.leader_info();
                let response = QuorumEpochResponse { error, leader };
                self.reply(request_id, Reply::BeginQuorumEpoch(response));
            }
            Request::EndQuorumEpoch(end) => {
                let error = self.on_end_quorum_epoch(now_ms, &end);
                let leader = self.leader_info();
                let response = QuorumEpochResponse { error, leader };
                self.reply(request_id, Reply::EndQuorumEpoch(response));
            }
            Request::Fetch(fetch) => self.on_fetch_request(now_ms, request_id, fetch),
            Request::FetchSnapshot(fetch) => {
                let reply = self.on_fetch_snapshot_request(now_ms, &fetch);
                self.reply(request_id, Reply::FetchSnapshot(reply));
            }
            Request::AddVoter(add) => self.on_add_voter(now_ms, request_id, add),
            Request::RemoveVoter(remove) => self.on_remove_voter(now_ms, request_id, &remove),
            Request::UpdateVoter(update) => {
                let error = self.on_update_voter(now_ms, update);
                let leader = self.leader_info();
                let response = QuorumEpochResponse { error, leader };
                self.reply(request_id, Reply::UpdateVoter(response));
            }
            Request::ApiVersions => {
                let kraft_version = Some(KRaftVersionRange::SUPPORTED);
                let response = ApiVersionsResponse { error: ErrorCode::None, kraft_version };
                self.reply(request_id, Reply::ApiVersions(response));
            }
        }
        self.proceed(now_ms)
    }

    /// The answer to a node of another cluster, in the response type of its request.
    fn foreign_reply(&self, request: &Request, given: ByteString) -> Reply {
        let cluster_id = self.config.cluster_id.clone();
        let change = VoterChangeError::InconsistentClusterId { given, cluster_id };
        match request {
            Request::AddVoter(_) => reply_to(Change::Add, change.response()),
            Request::RemoveVoter(_) => reply_to(Change::Remove, change.response()),
            Request::UpdateVoter(_) => {
                let leader = self.leader_info();
                Reply::UpdateVoter(QuorumEpochResponse { error: change.code(), leader })
            }
            Request::Vote(_)
            | Request::BeginQuorumEpoch(_)
            | Request::EndQuorumEpoch(_)
            | Request::Fetch(_)
            | Request::FetchSnapshot(_)
            | Request::ApiVersions => Reply::Refused(change.code()),
        }
    }

    pub(super) fn reply(&mut self, request_id: RequestId, reply: Reply) {
        self.effects.push(Effect::Reply { request_id, reply });
    }

    pub(super) fn leader_info(&self) -> LeaderInfo {
        LeaderInfo {
            epoch: self.election.epoch,
            leader_id: self.election.leader_id,
            endpoints: self.leader_endpoints.clone(),
        }
    }

    fn on_vote_request(&mut self, now_ms: i64, vote: &VoteRequest) -> VoteResponse {
        let (error, vote_granted) = match self.decide_vote(now_ms, vote) {
            Ok(granted) => (ErrorCode::None, granted),
            Err(error) => (error, false),
        };
        VoteResponse { error, leader: self.leader_info(), vote_granted }
    }

    fn decide_vote(&mut self, now_ms: i64, vote: &VoteRequest) -> Result<bool, ErrorCode> {
        let last_epoch = vote.log_end.epoch;
        let illegal_epoch = match vote.pre_vote {
            true => last_epoch > vote.replica_epoch,
            false => last_epoch >= vote.replica_epoch,
        };
        if illegal_epoch || last_epoch < 0 || vote.log_end.offset < 0 {
            return Err(ErrorCode::InvalidRequest);
        }
        self.check_voter_request(vote.replica.id, vote.replica_epoch)?;
        if vote.replica_epoch > self.election.epoch {
            self.become_unattached(now_ms, vote.replica_epoch, None);
        }
        self.check_voter_key(vote.voter.as_ref())?;
        let granted = self.can_grant_vote(now_ms, vote);
        if granted && !vote.pre_vote && self.election.voted.is_none() {
            self.record_vote(now_ms, vote.replica);
        }
        Ok(granted)
    }

    /// The rules of each role for granting a vote (KIP-996). A follower grants no pre-vote against its leader, unless
    /// it has not fetched from it in this epoch, or not for so long that a voter would campaign: an observer may be a
    /// voter by a record that it has not fetched yet.
    fn can_grant_vote(&self, now_ms: i64, vote: &VoteRequest) -> bool {
        if vote.replica.id == self.config.local.id || self.must_catch_up {
            return false;
        }
        let log_up_to_date = vote.log_end >= self.log_end();
        match &self.role {
            Role::Leader(_) => false,
            Role::Follower(follower) => {
                let silent = now_ms >= follower.fetch_deadline_ms;
                let stands_by_leader = follower.has_fetched_from_leader && !silent;
                vote.pre_vote && log_up_to_date && !stands_by_leader
            }
            Role::Candidate { .. } | Role::Resigned(_) => vote.pre_vote && log_up_to_date,
            Role::Unattached { .. } | Role::Prospective { .. } if vote.pre_vote => log_up_to_date,
            Role::Unattached { .. } | Role::Prospective { .. } => {
                self.election.allows_vote_for(&vote.replica, log_up_to_date)
            }
        }
    }

    fn on_begin_quorum_epoch(&mut self, now_ms: i64, begin: &BeginQuorumEpochRequest) -> ErrorCode {
        let leader = (begin.leader_id, begin.leader_epoch);
        match self.follow_requesting_leader(now_ms, leader, &begin.leader_endpoints) {
            Ok(()) => self.check_voter_key(begin.voter.as_ref()).err().unwrap_or(ErrorCode::None),
            Err(error) => error,
        }
    }

    fn on_end_quorum_epoch(&mut self, now_ms: i64, end: &EndQuorumEpochRequest) -> ErrorCode {
        let leader = (end.leader_id, end.leader_epoch);
        if let Err(error) = self.follow_requesting_leader(now_ms, leader, &end.leader_endpoints) {
            return error;
        }
        let backoff_ms = self.successor_backoff_ms(&end.preferred_candidates);
        if self.election.leader_id == Some(end.leader_id)
            && let Role::Follower(follower) = &mut self.role
        {
            follower.fetch_deadline_ms = now_ms.saturating_add(backoff_ms);
        }
        ErrorCode::None
    }

    fn follow_requesting_leader(
        &mut self,
        now_ms: i64,
        (leader_id, epoch): (BrokerId, LeaderEpoch),
        endpoints: &Endpoints,
    ) -> Result<(), ErrorCode> {
        self.check_voter_request(leader_id, epoch)?;
        let leader = LeaderInfo { epoch, leader_id: Some(leader_id), endpoints: endpoints.clone() };
        match self.follow_if_newer(now_ms, &leader) {
            true => Ok(()),
            false => Err(ErrorCode::InvalidRequest),
        }
    }

    /// The first preferred successor campaigns at once, each other one a step later, so that they do not split the
    /// votes.
    fn successor_backoff_ms(&self, successors: &[ReplicaKey]) -> i64 {
        let is_local = |key: &ReplicaKey| key.matches(&self.config.local);
        let max_ms = i64::from(self.config.election_backoff_max_ms);
        match successors.iter().position(is_local) {
            Some(0) => 0,
            None => max_ms,
            Some(position) => {
                let halvings = u32::try_from(successors.len() - 1).unwrap_or(u32::MAX);
                let doublings = u32::try_from(position - 1).unwrap_or(u32::MAX);
                let base_ms = max_ms.checked_shr(halvings).unwrap_or(0);
                base_ms.checked_shl(doublings).map_or(max_ms, |ms| ms.clamp(0, max_ms))
            }
        }
    }

    /// Follows the leader that a message names, if it is newer. Returns false, and changes nothing, if the message
    /// contradicts this node's state: an epoch has one leader.
    pub(super) fn follow_if_newer(&mut self, now_ms: i64, leader: &LeaderInfo) -> bool {
        if let Some(claimed) = leader.leader_id
            && self.contradicts(leader.epoch, claimed)
        {
            let known = self.election.leader_id;
            let anomaly = Anomaly::ConflictingLeader { epoch: leader.epoch, known, claimed };
            self.effects.push(Effect::Anomaly(anomaly));
            return false;
        }
        let is_newer = leader.epoch > self.election.epoch;
        match leader.leader_id {
            Some(leader_id) if leader_id != self.config.local.id => {
                self.follow_known_leader(now_ms, leader.epoch, leader_id, &leader.endpoints);
            }
            Some(_) => {}
            None if is_newer => self.become_unattached(now_ms, leader.epoch, None),
            None => {}
        }
        true
    }

    fn follow_known_leader(
        &mut self,
        now_ms: i64,
        epoch: LeaderEpoch,
        leader_id: BrokerId,
        endpoints: &Endpoints,
    ) {
        let known = self.voters().get(leader_id).map(|voter| &voter.endpoints);
        let endpoints = match endpoints.is_empty() {
            true => known.cloned().unwrap_or_default(),
            false => endpoints.clone(),
        };
        let is_newer = epoch > self.election.epoch;
        let is_news = is_newer
            || self.election.leader_id.is_none()
            || endpoints.len() > self.leader_endpoints.len();
        if epoch < self.election.epoch || !is_news {
            return;
        }
        if !endpoints.is_empty() {
            self.become_follower(now_ms, epoch, leader_id, endpoints);
            return;
        }
        let anomaly = Anomaly::LeaderWithoutEndpoint { epoch, leader_id };
        self.effects.push(Effect::Anomaly(anomaly));
        if is_newer {
            self.become_unattached(now_ms, epoch, Some(leader_id));
        }
    }

    fn contradicts(&self, epoch: LeaderEpoch, claimed: BrokerId) -> bool {
        if claimed == self.config.local.id {
            return epoch >= self.election.epoch && !self.is_leader();
        }
        epoch == self.election.epoch
            && self.election.leader_id.is_some_and(|known| known != claimed)
    }

    fn check_voter_request(&self, id: BrokerId, epoch: LeaderEpoch) -> Result<(), ErrorCode> {
        if epoch < self.election.epoch {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if id < 0 {
            return Err(ErrorCode::InvalidRequest);
        }
        Ok(())
    }

    /// Checks that the request is for this replica; a request without a voter key is.
    fn check_voter_key(&self, voter: Option<&ReplicaKey>) -> Result<(), ErrorCode> {
        match voter {
            Some(key) if !key.matches(&self.config.local) => Err(ErrorCode::InvalidVoterKey),
            _ => Ok(()),
        }
    }

    /// The checks of a request that only the leader answers.
    pub(super) fn check_leader_request(&self, epoch: LeaderEpoch) -> Result<(), ErrorCode> {
        if epoch < self.election.epoch {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if epoch > self.election.epoch {
            return Err(ErrorCode::UnknownLeaderEpoch);
        }
        if !self.is_leader() {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        Ok(())
    }
}
