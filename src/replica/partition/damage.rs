//! Records that the disk has damaged: noticed by whoever reads them, mended by [`crate::replica::repair`].

use std::sync::atomic::Ordering;

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{LeaderEpoch, Offset};
use tracing::error;

use super::Partition;

/// Nothing is damaged.
pub(super) const INTACT: Offset = -1;

impl Partition {
    /// The records of this segment are not what was written. Returns what a client is told: to look for another
    /// leader, if there can be one.
    pub(crate) fn on_corrupt(&self, segment: Offset) -> ErrorCode {
        let lowest = |known: Offset| match known {
            INTACT => Some(segment),
            known => (segment < known).then_some(segment),
        };
        let noted = self.damaged.fetch_update(Ordering::AcqRel, Ordering::Acquire, lowest);
        if noted.is_ok() {
            error!(topic = %self.topic, partition = self.index, "{}-{}: the segment at {segment} is damaged", self.topic, self.index);
        }
        let is_only_one =
            self.lock().replica.leader().is_some_and(|leader| leader.isr().isr().len() == 1);
        if is_only_one { ErrorCode::CorruptMessage } else { ErrorCode::KafkaStorageError }
    }

    /// The first offset of the lowest damaged segment.
    pub(crate) fn damaged_segment(&self) -> Option<Offset> {
        Some(self.damaged.load(Ordering::Acquire)).filter(|segment| *segment != INTACT)
    }

    /// The epoch in which this broker follows, if it does.
    pub(crate) fn following_epoch(&self) -> Option<LeaderEpoch> {
        self.lock().replica.follower().map(|follower| follower.leader_epoch)
    }

    /// The damaged records are gone: the replica fetches again from where they began.
    pub(crate) fn on_repaired(&self) {
        let mut state = self.lock();
        if state.log.is_none() || !state.replica.on_repaired() {
            return;
        }
        self.damaged.store(INTACT, Ordering::Release);
        self.offline.store(false, Ordering::Release);
    }
}
