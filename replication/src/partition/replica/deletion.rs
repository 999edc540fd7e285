//! DeleteRecords: the leader moves its log start at once, and answers when every live replica has moved its own.

use super::Replica;
use crate::partition::delayed::FetchWaiter;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::Offset;

impl<P, F: FetchWaiter> Replica<P, F> {
    /// The smallest log start offset of the live replicas. `log_start_offset` is that of this replica.
    pub fn low_watermark(&self, log_start_offset: Offset) -> Result<Offset, ErrorCode> {
        let leader = self.leader().ok_or(ErrorCode::NotLeaderOrFollower)?;
        Ok(leader.low_watermark(log_start_offset))
    }

    /// The waiter is released when the low watermark may have moved.
    pub fn await_deletion(&mut self, waiter: F) {
        self.deletions.add(waiter);
    }
}
