//! What the controller has done by its driver: the quorum, the disk and the network during one event.

use super::NodeStep;
use crate::disk::Disk;
use crate::message::{CallId, ControllerAnswer, Message, Sender};
use crate::observation::{Life, Observation};
use crate::plant::Plant;
use klamm_metadata::image::replay_error::ReplayError;
use klamm_metadata::loader::MetadataLoader;
use klamm_metadata::metadata_version::MetadataVersion;
use klamm_metadata::quorum_controller::{Driver, HeldUntil};
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_protocol::metadata_record::MetadataRecord;
use klamm_replication::quorum::{Effect, Quorum};
use std::collections::VecDeque;

/// Who waits for a decision, and its answer; `None` if it was made for nobody.
pub(crate) type Waiting = Option<(Sender, CallId, ControllerAnswer)>;

#[derive(Debug)]
pub(super) struct Io<'a, 'w> {
    pub(super) life: Life,
    pub(super) quorum: &'a mut Quorum,
    pub(super) effects: &'a mut VecDeque<Effect>,
    pub(super) disk: &'a mut Disk,
    pub(super) step: &'a mut NodeStep<'w>,
}

/// The current epoch of the quorum, if this node leads it.
pub(super) fn led_epoch(quorum: &Quorum) -> Option<LeaderEpoch> {
    quorum.is_leader().then(|| quorum.epoch())
}

impl Driver<Waiting> for Io<'_, '_> {
    type Error = ReplayError;

    fn led_epoch(&self) -> Option<LeaderEpoch> {
        led_epoch(self.quorum)
    }

    fn end_offset(&self) -> Offset {
        self.quorum.log().end_offset
    }

    fn kraft_version(&self) -> i16 {
        *self.quorum.membership().kraft_version.latest()
    }

    fn voters(&self) -> impl Iterator<Item = BrokerId> {
        self.quorum.membership().voters.latest().ids()
    }

    fn lost_leader(&self) -> Option<BrokerId> {
        self.quorum.lost_leader()
    }

    fn append(
        &mut self,
        epoch: LeaderEpoch,
        records: &[MetadataRecord],
        _version: MetadataVersion,
    ) -> Result<bool, ReplayError> {
        let count = u32::try_from(records.len()).expect("few records");
        let bytes = self.step.store.announce(records.to_vec());
        let appended = self.quorum.append(self.step.now_ms, epoch, count, bytes);
        Ok(appended.map(|effects| self.effects.extend(effects)).is_ok())
    }

    fn replay_committed(
        &mut self,
        committed: &mut MetadataLoader,
        high_watermark: Offset,
    ) -> Result<(), ReplayError> {
        let end_offset = match self.step.plant {
            Plant::MetadataAppliedBeforeCommit => self.disk.metadata.end(),
            _ => high_watermark,
        };
        for batch in self.disk.metadata.read(committed.end_offset(), end_offset, usize::MAX) {
            match &batch.records {
                None => committed.skip_to(batch.next_offset),
                Some(records) => {
                    for (record, offset) in records.iter().zip(batch.base_offset..) {
                        committed.replay(record, offset)?;
                    }
                }
            }
            self.step.observe(Observation::MetadataCommitted { life: self.life, batch });
        }
        let (life, end_offset) = (self.life, committed.end_offset());
        self.step.observe(Observation::MetadataApplied { life, end_offset });
        Ok(())
    }

    /// The node hands what is new to its broker at the end of each of its steps.
    fn publish(&mut self, _committed: &MetadataLoader) {}

    fn complete(&mut self, waiting: Waiting, _held_until: HeldUntil) {
        if let Some((to, call, answer)) = waiting {
            self.step.answer(to, Message::ControllerAnswer { call, answer: Ok(answer) });
        }
    }

    fn refuse(&mut self, waiting: Waiting) {
        if let Some((to, call, _)) = waiting {
            let answer = Err(ErrorCode::NotController);
            self.step.answer(to, Message::ControllerAnswer { call, answer });
        }
    }
}
