//! Answers of other replicas: dispatch, their leader, and votes. (Kafka: `maybeHandleCommonResponse`,
//! `handleVoteResponse`.)

use super::message::{
    ApiVersionsResponse, LeaderInfo, QuorumEpochResponse, Response, VoteResponse,
};
use super::role::Role;
use super::{CorrelationId, Effect, Quorum};
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;

impl Quorum {
    /// An answer has come, or the request has failed. Answers to requests that are no longer in flight are ignored.
    pub fn on_response(
        &mut self,
        now_ms: i64,
        correlation_id: CorrelationId,
        response: Response,
    ) -> Vec<Effect> {
        self.assert_not_loading();
        if let Some(from) = self.requests.answered(correlation_id) {
            self.handle_response(now_ms, from, response);
        }
        self.proceed(now_ms)
    }

    fn handle_response(&mut self, now_ms: i64, from: BrokerId, response: Response) {
        let election = self.election;
        let accepted = match response {
            Response::Vote(vote) => self.on_vote_response(now_ms, from, &vote),
            Response::BeginQuorumEpoch(begin) => self.accept_leader_info(now_ms, &begin),
            Response::EndQuorumEpoch(end) => self.on_end_quorum_epoch_response(now_ms, from, &end),
            Response::Fetch(fetch) => self.on_fetch_response(now_ms, fetch),
            Response::FetchSnapshot(fetch) => self.on_fetch_snapshot_response(now_ms, fetch),
            Response::AddVoter(add) => {
                self.on_join_response(now_ms, &add, ErrorCode::DuplicateVoter)
            }
            Response::RemoveVoter(remove) => {
                self.on_join_response(now_ms, &remove, ErrorCode::VoterNotFound)
            }
            Response::UpdateVoter(update) => self.on_update_voter_response(now_ms, &update),
            Response::ApiVersions(versions) => {
                self.on_api_versions_response(now_ms, from, &versions)
            }
            Response::Failed(error) => self.on_failure(now_ms, from, error),
        };
        let news = accepted || self.election != election;
        if !news && self.requests.is_ready(from) {
            self.requests.back_off(from, now_ms);
        }
    }

    /// Handles the leader and epoch of an answer, before its content. Returns true if the content is of this epoch and
    /// has no error.
    pub(super) fn on_leader_info(
        &mut self,
        now_ms: i64,
        error: ErrorCode,
        leader: &LeaderInfo,
    ) -> bool {
        if leader.epoch < self.election.epoch || error == ErrorCode::UnknownLeaderEpoch {
            return false;
        }
        let newer = leader.epoch > self.election.epoch;
        let elsewhere =
            matches!(error, ErrorCode::FencedLeaderEpoch | ErrorCode::NotLeaderOrFollower);
        let found = leader.leader_id.is_some() && self.election.leader_id.is_none();
        if newer || elsewhere || found {
            let consistent = self.follow_if_newer(now_ms, leader);
            return consistent && !newer && error == ErrorCode::None;
        }
        error == ErrorCode::None
    }

    fn on_vote_response(&mut self, now_ms: i64, from: BrokerId, vote: &VoteResponse) -> bool {
        if !self.on_leader_info(now_ms, vote.error, &vote.leader) {
            return false;
        }
        match &mut self.role {
            Role::Prospective { ballot, .. } => {
                ballot.record(from, vote.vote_granted);
                let (won, lost) = (ballot.is_won(), ballot.is_lost());
                if won {
                    self.become_candidate(now_ms);
                } else if lost {
                    self.after_pre_vote_loss(now_ms);
                }
            }
            Role::Candidate { ballot, .. } => {
                ballot.record(from, vote.vote_granted);
                if ballot.is_won() {
                    self.become_leader(now_ms);
                }
            }
            _ => {}
        }
        true
    }

    fn accept_leader_info(&mut self, now_ms: i64, response: &QuorumEpochResponse) -> bool {
        self.on_leader_info(now_ms, response.error, &response.leader)
    }

    fn on_end_quorum_epoch_response(
        &mut self,
        now_ms: i64,
        from: BrokerId,
        response: &QuorumEpochResponse,
    ) -> bool {
        let accepted = self.accept_leader_info(now_ms, response);
        if accepted && let Role::Resigned(resigned) = &mut self.role {
            resigned.unacknowledged.remove(&from);
        }
        accepted
    }

    /// A request has failed. If a voter does not support pre-votes, this node becomes a candidate. If a new voter does
    /// not answer ApiVersions, it is not added.
    fn on_failure(&mut self, now_ms: i64, from: BrokerId, error: ErrorCode) -> bool {
        if self.is_leader() {
            let failed = ApiVersionsResponse { error, kraft_version: None };
            self.on_api_versions_response(now_ms, from, &failed);
            return false;
        }
        let no_pre_vote = error == ErrorCode::UnsupportedVersion;
        if no_pre_vote && matches!(self.role, Role::Prospective { .. }) {
            self.become_candidate(now_ms);
            return true;
        }
        false
    }
}
