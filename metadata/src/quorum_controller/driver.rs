//! What the controller needs from the metadata log, the quorum and the rest of the node: the interface between
//! decisions and IO.

use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_protocol::metadata_record::MetadataRecord;

use crate::image::replay_error::ReplayError;
use crate::loader::MetadataLoader;
use crate::metadata_version::MetadataVersion;

/// When the answer to a decision is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldUntil {
    /// As soon as its records are committed.
    Committed,
    /// When this node has applied them as well, so that a client finds its change on this node.
    Published,
}

/// The side effects of a [`super::QuorumController`] (Kafka: `RaftClient`, `MetadataPublisher`, and the futures of the
/// events). `C` is the completion that answers a decision.
pub trait Driver<C> {
    /// Why records could not be written, read or replayed. The node must stop then, because it no longer agrees with
    /// the others.
    type Error: From<ReplayError>;

    /// The current epoch of the quorum, if this node leads it (Kafka: `RaftClient.leaderAndEpoch`).
    fn led_epoch(&self) -> Option<LeaderEpoch>;

    /// The end of the log, uncommitted records included (Kafka: `RaftClient.logEndOffset`).
    fn end_offset(&self) -> Offset;

    /// The kraft.version in force.
    fn kraft_version(&self) -> i16;

    /// The voters in force, by id.
    fn voters(&self) -> impl Iterator<Item = BrokerId>;

    /// The leader that this node followed before its election, if that leader fell silent and did not resign.
    fn lost_leader(&self) -> Option<BrokerId>;

    /// Appends records as one batch at the end of the log, each in the version that `version` asks for. Returns false,
    /// and appends nothing, if this node does not lead `epoch` (any longer). (Kafka: `RaftClient.prepareAppend`)
    ///
    /// # Errors
    /// The batch could not be made.
    fn append(
        &mut self,
        epoch: LeaderEpoch,
        records: &[MetadataRecord],
        version: MetadataVersion,
    ) -> Result<bool, Self::Error>;

    /// Replays the records of the log from the end of `committed` up to `high_watermark`.
    ///
    /// # Errors
    /// They could not be read or replayed.
    fn replay_committed(
        &mut self,
        committed: &mut MetadataLoader,
        high_watermark: Offset,
    ) -> Result<(), Self::Error>;

    /// Makes this node apply the stable image of `committed`.
    fn publish(&mut self, committed: &MetadataLoader);

    /// Answers a decision whose records are committed. With [`HeldUntil::Published`], the answer waits until this node
    /// has applied the image that was published last.
    fn complete(&mut self, completion: C, held_until: HeldUntil);

    /// Answers NOT_CONTROLLER: the decision may or may not be committed by the next controller.
    fn refuse(&mut self, completion: C);
}
