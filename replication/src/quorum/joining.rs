//! Requests of a follower about its own entry in the voter set: a voter updates it (UpdateVoter), and an observer that
//! may become a voter adds itself (AddVoter) (KIP-853, KIP-1186; Kafka's `pollFollowerAsVoter` and
//! `pollFollowerAsObserver`).
//!
//! Such a request is sent instead of a fetch, at most once in a fetch timeout.

use super::Quorum;
use super::message::{
    AddVoterRequest, QuorumEpochResponse, RemoveVoterRequest, Request, UpdateVoterRequest,
    VoterChangeResponse,
};
use super::role::Role;
use super::voters::{KRaftVersionRange, Voter};
use klamm_protocol::ErrorCode;

impl Quorum {
    /// The entry that the voter set should have for this node.
    pub(super) fn local_voter(&self) -> Voter {
        Voter {
            key: self.config.local,
            endpoints: self.config.local_endpoints.clone(),
            supported_kraft_version: KRaftVersionRange::SUPPORTED,
        }
    }

    /// The due request about this node's entry in the voter set, if any.
    pub(super) fn due_voter_request(&mut self, now_ms: i64) -> Option<Request> {
        let Role::Follower(follower) = &self.role else { return None };
        if now_ms < follower.voter_request_deadline_ms {
            return None;
        }
        let has_updated_leader = follower.has_updated_leader;
        let request = match self.is_voter() {
            true => self.update_voter_request(has_updated_leader),
            false => self.join_request(),
        };
        if request.is_none() {
            self.restart_voter_request_period(now_ms);
        }
        request
    }

    /// Before kraft.version 1 the request is sent to every new leader, afterwards only if the entry has changed.
    fn update_voter_request(&self, has_updated_leader: bool) -> Option<Request> {
        let local = self.local_voter();
        let is_news = match *self.membership.kraft_version.latest() {
            0 => !has_updated_leader,
            _ => self.voters().needs_update(&local),
        };
        is_news.then_some(Request::UpdateVoter(UpdateVoterRequest {
            leader_epoch: self.election.epoch,
            voter: local.key,
            endpoints: local.endpoints,
            supported_kraft_version: local.supported_kraft_version,
        }))
    }

    /// AddVoter for this node. A voter with this node's id and another directory id is of a disk that is gone: that one is
    /// removed first (RemoveVoter).
    fn join_request(&self) -> Option<Request> {
        let dynamic = *self.membership.kraft_version.latest() > 0;
        if !(dynamic && self.config.auto_join && self.config.can_become_voter) {
            return None;
        }
        let local = self.config.local;
        let request = match self.voters().get(local.id) {
            Some(former) => Request::RemoveVoter(RemoveVoterRequest { voter: former.key }),
            None => Request::AddVoter(AddVoterRequest {
                timeout_ms: i32::try_from(self.config.request_timeout_ms).unwrap_or(i32::MAX),
                voter: local,
                endpoints: self.config.local_endpoints.clone(),
                // This node has to fetch for the change to be committed, so it cannot wait for that.
                ack_when_committed: false,
            }),
        };
        Some(request)
    }

    pub(super) fn restart_voter_request_period(&mut self, now_ms: i64) {
        let deadline_ms = self.fetch_deadline_ms(now_ms);
        if let Role::Follower(follower) = &mut self.role {
            follower.voter_request_deadline_ms = deadline_ms;
        }
    }

    /// A leader that does not support UpdateVoter gets no retry.
    pub(super) fn on_update_voter_response(
        &mut self,
        now_ms: i64,
        response: &QuorumEpochResponse,
    ) -> bool {
        let error = match response.error {
            ErrorCode::UnsupportedVersion => ErrorCode::None,
            error => error,
        };
        if !self.on_leader_info(now_ms, error, &response.leader) {
            return false;
        }
        if let Role::Follower(follower) = &mut self.role {
            follower.has_updated_leader = true;
        }
        self.on_contact_with_leader(now_ms);
        true
    }

    /// `nothing_to_do` is the error of a request that is no longer needed.
    pub(super) fn on_join_response(
        &mut self,
        now_ms: i64,
        response: &VoterChangeResponse,
        nothing_to_do: ErrorCode,
    ) -> bool {
        let expected = [ErrorCode::None, ErrorCode::RequestTimedOut, nothing_to_do];
        let understood = expected.contains(&response.error);
        if understood {
            self.restart_voter_request_period(now_ms);
        }
        understood
    }
}
