//! The ISR of a partition and the one pending change of it (KIP-497, KIP-966; Kafka's `PartitionState` and
//! `AlterPartitionManager` answers).
//!
//! Invariant: the maximal ISR has every replica that may be in the ISR at the controller. The new member of a pending
//! expansion counts; the members that a pending shrink removes still count. A request without an answer stays pending:
//! it may have been applied.

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch};
use std::collections::BTreeSet;

/// A change that the leader requests from the controller (AlterPartition).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsrProposal {
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
    /// The new ISR, with the broker epoch of each member whose epoch is known.
    pub new_isr: Vec<(BrokerId, Option<i64>)>,
    pub change: IsrChange,
}

/// How the proposal differs from the committed ISR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IsrChange {
    Expand(BrokerId),
    Shrink(BTreeSet<BrokerId>),
}

/// The state that the controller has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedIsr {
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
    pub isr: BTreeSet<BrokerId>,
}

/// The result of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProposalOutcome {
    /// Another state has replaced it meanwhile; the answer is ignored.
    Superseded,
    /// The proposed ISR is committed; the high watermark may have moved.
    Committed,
    /// The controller refused it and the committed ISR stays; another proposal may follow.
    Rejected,
    /// The controller has a newer state: no proposal before the metadata has it.
    AwaitMetadata,
    /// No usable answer: send the same proposal again.
    Retry,
}

/// The committed ISR and the pending change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsrState {
    committed: BTreeSet<BrokerId>,
    pending: Option<IsrProposal>,
}

impl IsrState {
    pub(super) fn committed(isr: BTreeSet<BrokerId>) -> Self {
        Self { committed: isr, pending: None }
    }

    /// The committed ISR, which is compared with min.insync.replicas.
    pub fn isr(&self) -> &BTreeSet<BrokerId> {
        &self.committed
    }

    /// Whether the replica is in the maximal ISR, for which the high watermark waits.
    pub fn is_in_maximal_isr(&self, id: BrokerId) -> bool {
        self.committed.contains(&id) || self.expanding() == Some(id)
    }

    /// The size of the maximal ISR.
    pub fn maximal_len(&self) -> usize {
        let expanding = self.expanding().is_some_and(|id| !self.committed.contains(&id));
        self.committed.len() + usize::from(expanding)
    }

    pub fn pending(&self) -> Option<&IsrProposal> {
        self.pending.as_ref()
    }

    fn expanding(&self) -> Option<BrokerId> {
        match self.pending.as_ref()?.change {
            IsrChange::Expand(id) => Some(id),
            IsrChange::Shrink(_) => None,
        }
    }

    pub(super) fn propose(&mut self, proposal: IsrProposal) {
        assert!(self.pending.is_none(), "one AlterPartition at a time");
        self.pending = Some(proposal);
    }

    pub(super) fn commit(&mut self, isr: BTreeSet<BrokerId>) {
        *self = Self::committed(isr);
    }

    /// The controller refused the proposal, or did not answer (`error`).
    pub(super) fn on_proposal_failed(
        &mut self,
        proposal: &IsrProposal,
        error: ErrorCode,
    ) -> ProposalOutcome {
        if self.pending.as_ref() != Some(proposal) {
            return ProposalOutcome::Superseded;
        }
        match error {
            ErrorCode::OperationNotAttempted | ErrorCode::IneligibleReplica => {
                self.pending = None;
                ProposalOutcome::Rejected
            }
            ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::InvalidUpdateVersion
            | ErrorCode::InvalidRequest
            | ErrorCode::NewLeaderElected => ProposalOutcome::AwaitMetadata,
            _ => ProposalOutcome::Retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(change: IsrChange) -> IsrProposal {
        IsrProposal { leader_epoch: 1, partition_epoch: 3, new_isr: vec![(1, Some(10))], change }
    }

    #[test]
    fn an_expansion_counts_while_it_is_under_way_and_a_shrink_does_not() {
        let mut expanding = IsrState::committed([1, 2].into());
        expanding.propose(proposal(IsrChange::Expand(3)));
        assert!(expanding.is_in_maximal_isr(3));
        assert_eq!((expanding.isr().len(), expanding.maximal_len()), (2, 3));

        let mut shrinking = IsrState::committed([1, 2].into());
        shrinking.propose(proposal(IsrChange::Shrink([2].into())));
        assert!(shrinking.is_in_maximal_isr(2));
        assert_eq!((shrinking.isr().len(), shrinking.maximal_len()), (2, 2));
    }

    #[test]
    fn each_error_has_its_consequence() {
        let cases = [
            (ErrorCode::OperationNotAttempted, ProposalOutcome::Rejected),
            (ErrorCode::IneligibleReplica, ProposalOutcome::Rejected),
            (ErrorCode::UnknownTopicOrPartition, ProposalOutcome::AwaitMetadata),
            (ErrorCode::UnknownTopicId, ProposalOutcome::AwaitMetadata),
            (ErrorCode::FencedLeaderEpoch, ProposalOutcome::AwaitMetadata),
            (ErrorCode::InvalidUpdateVersion, ProposalOutcome::AwaitMetadata),
            (ErrorCode::InvalidRequest, ProposalOutcome::AwaitMetadata),
            (ErrorCode::NewLeaderElected, ProposalOutcome::AwaitMetadata),
            (ErrorCode::RequestTimedOut, ProposalOutcome::Retry),
            (ErrorCode::NotController, ProposalOutcome::Retry),
        ];
        for (error, expected) in cases {
            let mut state = IsrState::committed([1].into());
            let sent = proposal(IsrChange::Expand(2));
            state.propose(sent.clone());
            assert_eq!(state.on_proposal_failed(&sent, error), expected, "{error:?}");
            let reverted = expected == ProposalOutcome::Rejected;
            assert_eq!(state.is_in_maximal_isr(2), !reverted, "{error:?}");
        }
    }

    #[test]
    fn an_answer_to_a_superseded_proposal_means_nothing() {
        let mut state = IsrState::committed([1].into());
        let sent = proposal(IsrChange::Expand(2));
        state.propose(sent.clone());
        state.commit([1, 2].into());
        let outcome = state.on_proposal_failed(&sent, ErrorCode::IneligibleReplica);
        assert_eq!(outcome, ProposalOutcome::Superseded);
        assert_eq!(state.isr().len(), 2);
    }
}
