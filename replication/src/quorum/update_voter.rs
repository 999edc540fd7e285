//! UpdateVoter at the leader: a voter sends its endpoints and supported versions (KIP-853; Kafka's
//! `UpdateVoterHandler`).
//!
//! Before kraft.version 1 the log cannot store this, so the leader keeps it in memory for its epoch; an upgrade to
//! kraft.version 1 writes it to the log.

use super::message::UpdateVoterRequest;
use super::role::Role;
use super::voters::{Voter, VoterSet};
use super::{KRaftVersionRange, Quorum};
use klamm_protocol::ErrorCode;

impl Quorum {
    /// Answered as soon as the new voter set is appended. If it is not committed, the voter sends the request again.
    pub(super) fn on_update_voter(&mut self, now_ms: i64, update: UpdateVoterRequest) -> ErrorCode {
        self.expire_voter_change(now_ms);
        match self.update_voter(now_ms, update) {
            Ok(()) => ErrorCode::None,
            Err(error) => error,
        }
    }

    fn update_voter(&mut self, now_ms: i64, update: UpdateVoterRequest) -> Result<(), ErrorCode> {
        self.check_leader_request(update.leader_epoch)?;
        let UpdateVoterRequest { voter: key, endpoints, supported_kraft_version, .. } = update;
        let KRaftVersionRange { min, max } = supported_kraft_version;
        let malformed = key.id < 0
            || key.directory_id.is_none()
            || key.id == self.config.local.id
            || endpoints.address(&self.config.listener).is_none()
            || min < 0
            || max < min;
        if malformed {
            return Err(ErrorCode::InvalidRequest);
        }
        let kraft_version = *self.membership.kraft_version.latest();
        let voters = self.updatable_voters(kraft_version).ok_or(ErrorCode::RequestTimedOut)?;
        if !supported_kraft_version.contains(kraft_version) {
            return Err(ErrorCode::InvalidRequest);
        }
        let voter = Voter { key, endpoints, supported_kraft_version };
        let updated = match kraft_version {
            0 => voters.with_updated_id(voter),
            _ => voters.with_updated(voter),
        };
        let updated = updated.ok_or(ErrorCode::VoterNotFound)?;
        match (kraft_version, &mut self.role) {
            (0, Role::Leader(leader)) => leader.volatile_voters = Some(updated),
            _ => {
                self.append_voters(now_ms, updated);
            }
        }
        self.count_contact(now_ms, &key);
        Ok(())
    }

    /// The voter set to update; None while another change is pending.
    fn updatable_voters(&self, kraft_version: i16) -> Option<&VoterSet> {
        let Role::Leader(leader) = &self.role else { return None };
        let high_watermark = leader.high_watermark.filter(|_| leader.pending_change.is_none())?;
        if kraft_version == 0 {
            return leader.volatile_voters.as_ref();
        }
        let voters_offset = self.membership.voters.latest_offset()?;
        (voters_offset < high_watermark).then(|| self.voters())
    }
}
