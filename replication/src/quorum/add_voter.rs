//! AddVoter at the leader: it sends ApiVersions to the new voter, and appends the voter set when the answer has come
//! and the new voter has almost caught up (KIP-853; Kafka's `AddVoterHandler`).

use super::message::{AddVoterRequest, ApiVersionsResponse, Reply, Request};
use super::role::Role;
use super::voter_change::{PendingChange, Stage};
use super::voter_change_error::{Change, VoterChangeError};
use super::voters::{Voter, VoterSet};
use super::{Destination, Quorum, ReplicaKey, RequestId};
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;

/// A new voter must have fetched within an hour (`LeaderState.isReplicaCaughtUp`).
const MAX_SILENCE_MS: i64 = 3_600_000;

impl Quorum {
    /// The answer comes when the change is committed, or fails.
    pub(super) fn on_add_voter(
        &mut self,
        now_ms: i64,
        request_id: RequestId,
        request: AddVoterRequest,
    ) {
        self.expire_requests(now_ms);
        self.expire_voter_change(now_ms);
        if let Err(error) = self.ask_new_voter(now_ms, request_id, request) {
            self.reply(request_id, Reply::AddVoter(error.response()));
        }
    }

    fn ask_new_voter(
        &mut self,
        now_ms: i64,
        request_id: RequestId,
        request: AddVoterRequest,
    ) -> Result<(), VoterChangeError> {
        let AddVoterRequest { voter, endpoints, ack_when_committed, .. } = request;
        if !self.is_leader() {
            return Err(VoterChangeError::NotLeader);
        }
        if voter.id < 0 || voter.directory_id.is_none() {
            return Err(VoterChangeError::InvalidVoter(Change::Add));
        }
        let Some(address) = endpoints.address(&self.config.listener).cloned() else {
            let listener = self.config.listener.clone();
            return Err(VoterChangeError::NoEndpoint { endpoints, listener });
        };
        let voters = self.changeable_voters(Change::Add)?;
        if voters.get(voter.id).is_some() {
            return Err(VoterChangeError::Duplicate { voter, voters: voters.display_keys() });
        }
        if !self.requests.is_ready(voter.id) {
            return Err(VoterChangeError::NotReady { voter });
        }
        self.send(now_ms, Destination { id: voter.id, address }, Request::ApiVersions);
        self.set_pending_change(PendingChange {
            stage: Stage::AwaitingApiVersions { voter, endpoints },
            request_id: Some(request_id),
            deadline_ms: self.voter_change_deadline_ms(now_ms),
            ack_when_committed,
        });
        Ok(())
    }

    /// Returns whether the answer had no error.
    pub(super) fn on_api_versions_response(
        &mut self,
        now_ms: i64,
        from: BrokerId,
        response: &ApiVersionsResponse,
    ) -> bool {
        let Role::Leader(leader) = &self.role else { return true };
        let Some(Stage::AwaitingApiVersions { voter, endpoints }) =
            leader.pending_change.as_ref().map(|pending| &pending.stage)
        else {
            return true;
        };
        if voter.id != from {
            return true;
        }
        let (voter, endpoints) = (*voter, endpoints.clone());
        match self.voters_with(now_ms, voter, endpoints, response) {
            Ok(voters) => self.append_added(now_ms, voters),
            Err(error) => self.end_pending_change(Err(error)),
        }
        response.error.is_none()
    }

    fn voters_with(
        &self,
        now_ms: i64,
        voter: ReplicaKey,
        endpoints: super::Endpoints,
        response: &ApiVersionsResponse,
    ) -> Result<VoterSet, VoterChangeError> {
        if response.error != ErrorCode::None {
            return Err(VoterChangeError::ApiVersionsFailed { error: response.error });
        }
        let kraft_version = *self.membership.kraft_version.latest();
        let range = response.kraft_version;
        let Some(supported_kraft_version) = range.filter(|range| range.contains(kraft_version))
        else {
            return Err(VoterChangeError::KRaftVersion { voter, range, kraft_version });
        };
        if !self.has_caught_up(now_ms, &voter) {
            return Err(VoterChangeError::LaggingBehind { voter });
        }
        let new_voter = Voter { key: voter, endpoints, supported_kraft_version };
        Ok(self.voters().with_added(new_voter).expect("nothing else changes the voters meanwhile"))
    }

    fn has_caught_up(&self, now_ms: i64, replica: &ReplicaKey) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        leader.observer(replica).is_some_and(|progress| {
            let silent_ms = progress.last_fetch_ms.map(|last_ms| now_ms.saturating_sub(last_ms));
            progress.last_caught_up_ms.is_some()
                && silent_ms.is_some_and(|silent_ms| silent_ms < MAX_SILENCE_MS)
        })
    }

    fn append_added(&mut self, now_ms: i64, voters: VoterSet) {
        let voters_offset = self.append_voters(now_ms, voters);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(pending) = &mut leader.pending_change else { return };
        pending.stage = Stage::Adding { voters_offset };
        if !pending.ack_when_committed {
            self.effects.extend(pending.answer(Ok(())));
            pending.request_id = None;
        }
    }
}
