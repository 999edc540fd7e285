//! RemoveVoter at the leader (KIP-853; Kafka's `RemoveVoterHandler`). A leader that removes itself continues to lead,
//! without counting itself, until the removal is committed.

use super::message::{RemoveVoterRequest, Reply};
use super::voter_change::{PendingChange, Stage};
use super::voter_change_error::{Change, VoterChangeError};
use super::{Quorum, RequestId};

impl Quorum {
    /// The answer comes when the change is committed, or fails.
    pub(super) fn on_remove_voter(
        &mut self,
        now_ms: i64,
        request_id: RequestId,
        request: &RemoveVoterRequest,
    ) {
        self.expire_voter_change(now_ms);
        if let Err(error) = self.append_removal(now_ms, request_id, request) {
            self.reply(request_id, Reply::RemoveVoter(error.response()));
        }
    }

    fn append_removal(
        &mut self,
        now_ms: i64,
        request_id: RequestId,
        request: &RemoveVoterRequest,
    ) -> Result<(), VoterChangeError> {
        let voter = request.voter;
        if !self.is_leader() {
            return Err(VoterChangeError::NotLeader);
        }
        if voter.id < 0 || voter.directory_id.is_none() {
            return Err(VoterChangeError::InvalidVoter(Change::Remove));
        }
        let voters = self.changeable_voters(Change::Remove)?;
        let Some(rest) = voters.without(&voter) else {
            return Err(VoterChangeError::NotFound { voter, voters: voters.display_keys() });
        };
        let voters_offset = self.append_voters(now_ms, rest);
        self.set_pending_change(PendingChange {
            stage: Stage::Removing { voters_offset },
            request_id: Some(request_id),
            deadline_ms: self.voter_change_deadline_ms(now_ms),
            ack_when_committed: true,
        });
        Ok(())
    }
}
