//! Records that the disk has damaged. A read detects the damage, [`crate::replica::repair`] repairs it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{LeaderEpoch, Offset};
use tracing::error;

use super::Partition;

/// No segment is damaged.
const INTACT: Offset = -1;

/// What is known of a replica's damage.
#[derive(Debug)]
pub(crate) struct Damage {
    /// The base offset of the lowest damaged segment.
    segment: AtomicI64,
    /// The records from a damaged segment on are being fetched again.
    refetching: AtomicBool,
}

impl Damage {
    pub(super) fn none() -> Self {
        Self { segment: AtomicI64::new(INTACT), refetching: AtomicBool::new(false) }
    }

    /// The base offset of the lowest damaged segment.
    pub(crate) fn segment(&self) -> Option<Offset> {
        Some(self.segment.load(Ordering::Acquire)).filter(|segment| *segment != INTACT)
    }

    /// Whether the records from the damage on are being fetched again. The replica is reported as lost meanwhile.
    pub(crate) fn is_refetching(&self) -> bool {
        self.refetching.load(Ordering::Acquire)
    }

    /// The records from the damage on have been fetched.
    pub(crate) fn on_refetched(&self) {
        self.refetching.store(false, Ordering::Release);
    }

    fn on_cut(&self) {
        self.segment.store(INTACT, Ordering::Release);
        self.refetching.store(true, Ordering::Release);
    }

    /// Returns whether the segment is the lowest damaged one now.
    fn note(&self, segment: Offset) -> bool {
        let lowest = |known: Offset| match known {
            INTACT => Some(segment),
            known => (segment < known).then_some(segment),
        };
        self.segment.fetch_update(Ordering::AcqRel, Ordering::Acquire, lowest).is_ok()
    }
}

/// A replica is the only one with all the records: it serves the intact ones.
pub(crate) fn serve_intact(partition: &Partition) {
    partition.offline.store(false, Ordering::Release);
}

impl Partition {
    /// A read has found that a segment's records are not those that were written. Returns the error code for the
    /// client: KAFKA_STORAGE_ERROR, so that it looks for another leader, or CORRUPT_MESSAGE if this leader is alone in
    /// the ISR.
    pub(crate) fn on_corrupt(&self, segment: Offset) -> ErrorCode {
        if self.damage.note(segment) {
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

    pub(crate) fn damage(&self) -> &Damage {
        &self.damage
    }

    /// The leader epoch in which this broker follows a leader, if it does.
    pub(crate) fn following_epoch(&self) -> Option<LeaderEpoch> {
        let state = self.lock();
        let follower = state.replica.follower().filter(|follower| follower.leader_id.is_some());
        follower.map(|follower| follower.leader_epoch)
    }

    /// The log was truncated before the damage, for the leader of `epoch`: the replica fetches again from there. False if
    /// this broker does not follow in that epoch any more, and may not have truncated the log.
    pub(crate) fn on_repaired(&self, epoch: LeaderEpoch) -> bool {
        let mut state = self.lock();
        if state.log.is_none() || !state.replica.on_repaired(epoch) {
            return false;
        }
        self.damage.on_cut();
        self.offline.store(false, Ordering::Release);
        true
    }
}
