//! DeleteRecords: the leader's log begins further on at once, the answer waits until every replica's does.

use super::Replica;
use crate::partition::delayed::FetchWaiter;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::Offset;

impl<P, F: FetchWaiter> Replica<P, F> {
    /// Where the log of that live replica begins that begins first. `log_start_offset` is this one's.
    pub fn low_watermark(&self, log_start_offset: Offset) -> Result<Offset, ErrorCode> {
        let leader = self.leader().ok_or(ErrorCode::NotLeaderOrFollower)?;
        Ok(leader.low_watermark(log_start_offset))
    }

    /// The waiter is released when the low watermark may have moved.
    pub fn await_deletion(&mut self, waiter: F) {
        self.deletions.add(waiter);
    }
}
