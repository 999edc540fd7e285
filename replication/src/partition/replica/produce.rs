//! Appends to a leader: the check before, the waiters after, and the acknowledgement.

use super::Replica;
use crate::partition::delayed::FetchWaiter;
use crate::partition::event::{AcksState, NotEnoughReplicas};
use crate::partition::role::Role;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{LeaderEpoch, Offset};

/// Why records may not be appended here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefused {
    #[error("this broker does not lead the partition")]
    NotLeader,
    #[error(transparent)]
    NotEnoughReplicas(#[from] NotEnoughReplicas),
}

impl AppendRefused {
    /// The error code for the producer.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotLeader => ErrorCode::NotLeaderOrFollower,
            Self::NotEnoughReplicas(error) => error.code(),
        }
    }
}

/// Records that must be replicated before an acks=all produce is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Awaited {
    /// The offset that the high watermark has to reach: one after the last record.
    pub required_offset: Offset,
    /// The epoch of the last record, to detect that another record has replaced it.
    pub epoch: Option<LeaderEpoch>,
}

impl Awaited {
    pub fn last_offset(&self) -> Offset {
        self.required_offset - 1
    }
}

impl<P, F: FetchWaiter> Replica<P, F> {
    /// The epoch for an append, if it is allowed; with acks=all only while the ISR has min.insync.replicas.
    pub fn check_append(&self, acks_all: bool) -> Result<LeaderEpoch, AppendRefused> {
        let leader = self.leader().ok_or(AppendRefused::NotLeader)?;
        if acks_all {
            leader.check_min_isr()?;
        }
        Ok(leader.leader_epoch())
    }

    /// The leader's log now ends at `log_end_offset`.
    ///
    /// # Panics
    /// Unless this broker leads.
    pub fn on_appended(&mut self, log_end_offset: Offset, now_ms: i64) {
        let Role::Leader(leader) = &mut self.role else {
            panic!("nobody but a leader appends in an epoch of its own");
        };
        leader.on_appended(log_end_offset, now_ms);
        self.followers.release_all();
    }

    /// Everything below `flushed_offset` is on disk.
    pub fn on_flushed(&mut self, flushed_offset: Offset, now_ms: i64) {
        if let Role::Leader(leader) = &mut self.role {
            leader.on_flushed(flushed_offset, now_ms);
        }
        self.flushes.release_to(flushed_offset);
    }

    /// The waiter is released when `required_offset` is committed, or this broker no longer leads.
    ///
    /// # Panics
    /// Unless this broker leads.
    pub fn await_committed(&mut self, required_offset: Offset, waiter: P) {
        assert!(self.is_leader(), "only a leader acknowledges");
        self.produces.add(required_offset, waiter);
        self.produces.release_to(self.announced.high_watermark);
    }

    /// The waiter is released when everything below `required_offset` is on disk, or will never be.
    pub fn await_flushed(&mut self, required_offset: Offset, waiter: P) {
        self.flushes.add(required_offset, waiter);
    }

    /// Whether the records may be acknowledged: they are below the high watermark. `epoch` is that of the record that
    /// is now at [`Awaited::last_offset`].
    pub fn acknowledged(
        &self,
        awaited: &Awaited,
        epoch: Option<LeaderEpoch>,
    ) -> Result<bool, ErrorCode> {
        let leader = self.leader().ok_or(ErrorCode::NotLeaderOrFollower)?;
        // This broker may have lost the leadership and got it back, and the records may have been truncated meanwhile.
        if epoch.is_some() && epoch != awaited.epoch {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        match leader.acks_state(awaited.required_offset) {
            AcksState::Waiting => Ok(false),
            AcksState::Replicated => Ok(true),
            AcksState::NotEnoughReplicas => Err(ErrorCode::NotEnoughReplicasAfterAppend),
        }
    }
}
