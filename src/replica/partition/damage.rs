//! Records that the disk has damaged. A read detects the damage, [`crate::replica::repair`] repairs it.

use std::sync::atomic::Ordering;

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{LeaderEpoch, Offset};
use tracing::error;

use super::Partition;

/// No segment is damaged.
pub(super) const INTACT: Offset = -1;

impl Partition {
    /// A read has found that a segment's records are not those that were written. Returns the error code for the
    /// client: KAFKA_STORAGE_ERROR, so that it looks for another leader, or CORRUPT_MESSAGE if this leader is alone in
    /// the ISR.
    pub(crate) fn on_corrupt(&self, segment: Offset) -> ErrorCode {
        let lowest = |known: Offset| match known {
            INTACT => Some(segment),
            known => (segment < known).then_some(segment),
        };
        let noted = self.damaged.fetch_update(Ordering::AcqRel, Ordering::Acquire, lowest);
        if noted.is_ok() {
            let (topic, index) = (&self.topic, self.index);
            error!(
                %topic, partition = index,
                "{topic}-{index}: the segment with base offset {segment} is damaged"
            );
        }
        let is_only_one =
            self.lock().replica.leader().is_some_and(|leader| leader.isr().isr().len() == 1);
        if is_only_one { ErrorCode::CorruptMessage } else { ErrorCode::KafkaStorageError }
    }

    /// The base offset of the lowest damaged segment.
    pub(crate) fn damaged_segment(&self) -> Option<Offset> {
        Some(self.damaged.load(Ordering::Acquire)).filter(|segment| *segment != INTACT)
    }

    /// The leader epoch in which this broker follows a leader, if it does.
    pub(crate) fn following_epoch(&self) -> Option<LeaderEpoch> {
        let state = self.lock();
        let follower = state.replica.follower().filter(|follower| follower.leader_id >= 0);
        follower.map(|follower| follower.leader_epoch)
    }

    /// The log was truncated before the damage, for the leader of `epoch`: the replica fetches again from there. False if
    /// this broker does not follow in that epoch any more, and may not have truncated the log.
    pub(crate) fn on_repaired(&self, epoch: LeaderEpoch) -> bool {
        let mut state = self.lock();
        if state.log.is_none() || !state.replica.on_repaired(epoch) {
            return false;
        }
        self.damaged.store(INTACT, Ordering::Release);
        self.refetching.store(true, Ordering::Release);
        self.offline.store(false, Ordering::Release);
        true
    }

    /// Whether the records from the damage on are being fetched again. The replica is reported as lost meanwhile.
    pub(crate) fn is_refetching(&self) -> bool {
        self.refetching.load(Ordering::Acquire)
    }

    /// The records from the damage on have been fetched.
    pub(crate) fn on_refetched(&self) {
        self.refetching.store(false, Ordering::Release);
    }

    /// The replica is the only one with all the records: it serves the intact ones.
    pub(crate) fn serve_intact(&self) {
        self.offline.store(false, Ordering::Release);
    }
}
