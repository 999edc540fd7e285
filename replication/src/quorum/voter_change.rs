//! The leader's one pending change of the voter set: its preconditions, its append, and its end (KIP-853; Kafka's
//! `AddVoterHandler`, `RemoveVoterHandler`).
//!
//! Invariants: a change begins only when the leader has committed in its own epoch and the voter set in force is
//! committed; the new set is in force as soon as it is appended; the request is answered once.

use super::control_batch::MembershipBatch;
use super::message::{Reply, VoterChangeResponse};
use super::role::Role;
use super::voter_change_error::{Change, VoterChangeError};
use super::voters::{Endpoints, ReplicaKey, VoterSet};
use super::{AppendBatch, Effect, Quorum, RequestId};
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::Offset;

/// A pending change.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PendingChange {
    pub(super) stage: Stage,
    /// The request to answer; None after it was answered.
    pub(super) request_id: Option<RequestId>,
    /// Then the change fails. An appended voter set stays, and blocks the next change until it is committed.
    pub(super) deadline_ms: i64,
    /// Whether the answer waits for the commit, or only for the append.
    pub(super) ack_when_committed: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stage {
    /// Waits for the new voter's answer to ApiVersions.
    AwaitingApiVersions { voter: ReplicaKey, endpoints: Endpoints },
    /// The voter set with it is at this offset.
    Adding { voters_offset: Offset },
    /// The voter set without it is at this offset.
    Removing { voters_offset: Offset },
}

impl Stage {
    fn change(&self) -> Change {
        match self {
            Self::AwaitingApiVersions { .. } | Self::Adding { .. } => Change::Add,
            Self::Removing { .. } => Change::Remove,
        }
    }

    fn is_committed(&self, high_watermark: Offset) -> bool {
        match self {
            Self::AwaitingApiVersions { .. } => false,
            Self::Adding { voters_offset } | Self::Removing { voters_offset } => {
                *voters_offset < high_watermark
            }
        }
    }
}

impl PendingChange {
    /// The answer to the request for the change, if it was not sent yet.
    pub(super) fn answer(&self, outcome: Result<(), VoterChangeError>) -> Option<Effect> {
        let request_id = self.request_id?;
        let response = match outcome {
            Ok(()) => VoterChangeResponse { error: ErrorCode::None, message: None },
            Err(error) => error.response(),
        };
        Some(Effect::Reply { request_id, reply: reply_to(self.stage.change(), response) })
    }
}

pub(super) fn reply_to(change: Change, response: VoterChangeResponse) -> Reply {
    match change {
        Change::Add => Reply::AddVoter(response),
        Change::Remove => Reply::RemoveVoter(response),
    }
}

impl Quorum {
    /// The committed voter set to change, or why it may not be changed now.
    pub(super) fn changeable_voters(&self, change: Change) -> Result<&VoterSet, VoterChangeError> {
        let Role::Leader(leader) = &self.role else { return Err(VoterChangeError::NotLeader) };
        if leader.pending_change.is_some() {
            return Err(VoterChangeError::ChangePending);
        }
        let high_watermark = leader.high_watermark.ok_or(VoterChangeError::HighWatermarkUnknown)?;
        let kraft_version = *self.membership.kraft_version.latest();
        if kraft_version == 0 {
            return Err(VoterChangeError::StaticVoters { change, kraft_version });
        }
        let voters_offset = self.membership.voters.latest_offset();
        if voters_offset.is_none_or(|offset| offset >= high_watermark) {
            return Err(VoterChangeError::Uncommitted { voters_offset, high_watermark });
        }
        Ok(self.voters())
    }

    pub(super) fn set_pending_change(&mut self, change: PendingChange) {
        let Role::Leader(leader) = &mut self.role else { panic!("only a leader changes voters") };
        leader.pending_change = Some(change);
    }

    pub(super) fn end_pending_change(&mut self, outcome: Result<(), VoterChangeError>) {
        let Role::Leader(leader) = &mut self.role else { return };
        let pending = leader.pending_change.take();
        self.effects.extend(pending.and_then(|pending| pending.answer(outcome)));
    }

    /// The deadline of a change.
    pub(super) fn voter_change_deadline_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_add(self.config.request_timeout_ms.into())
    }

    pub(super) fn expire_voter_change(&mut self, now_ms: i64) {
        let Role::Leader(leader) = &self.role else { return };
        let pending = leader.pending_change.as_ref();
        if pending.is_some_and(|pending| pending.deadline_ms <= now_ms) {
            self.end_pending_change(Err(VoterChangeError::TimedOut));
        }
    }

    /// Appends a voter set, which is in force from now on, and returns its offset.
    pub(super) fn append_voters(&mut self, now_ms: i64, voters: VoterSet) -> Offset {
        let voters_offset = self.log.end_offset;
        let voters = Some(voters);
        self.append_membership(
            now_ms,
            MembershipBatch { kraft_version: None, voters, timestamp_ms: self.wall_ms(now_ms) },
        );
        voters_offset
    }

    pub(super) fn append_membership(&mut self, now_ms: i64, batch: MembershipBatch) {
        let changes = batch.changes(self.log.end_offset);
        let record_count = u32::try_from(changes.len()).expect("two records at most");
        for (offset, change) in changes {
            self.membership.apply(offset, change);
        }
        let check_quorum_deadline_ms = self.check_quorum_deadline_ms(now_ms);
        let voters = self.voters().clone();
        if let Role::Leader(leader) = &mut self.role {
            // As the only voter, the leader did not run the check-quorum timer: start it.
            if leader.is_only_voter() {
                leader.check_quorum_deadline_ms = check_quorum_deadline_ms;
            }
            leader.set_voters(&voters);
        }
        self.append_to_log(record_count, AppendBatch::Membership(batch));
    }

    /// A committed voter set ends its change; a leader that is not in it resigns, even if the change has already failed
    /// by timeout.
    pub(super) fn settle_voter_change(&mut self, high_watermark: Offset) {
        let voters_offset = self.membership.voters.latest_offset();
        let removed = !self.is_voter() && voters_offset.is_some_and(|at| at < high_watermark);
        let Role::Leader(leader) = &mut self.role else { return };
        leader.removed |= removed;
        let pending = leader.pending_change.as_ref();
        if pending.is_some_and(|pending| pending.stage.is_committed(high_watermark)) {
            self.end_pending_change(Ok(()));
        }
    }
}
