//! The interface of a coordinator's own state machine. The runtime has the parts that all coordinators share.

use std::fmt::Debug;

use bytes::Bytes;
use klamm_protocol::EncodeError;
use klamm_protocol::ids::{Offset, ProducerId};
use klamm_protocol::time::Now;

use super::effects::Effects;
use super::record::{EncodedRecord, Replayed};
use super::write_failure::WriteFailure;

/// The state machine of one partition of an internal topic. (Kafka: `CoordinatorShard`)
///
/// Requests are inherent methods of a shard: they get a [`super::RequestToken`] and put their decisions into
/// [`Effects`]. Durable state changes only in [`Self::replay`], [`Self::replay_end_transaction`] and [`Self::apply`]. A
/// driver may run it on any thread, so all of it is `Send`.
pub trait Shard: Debug + Send + Sized + 'static {
    /// The settings of a shard.
    type Config: Clone + Debug + Send + Sync;
    /// A record that the shard writes.
    type Record: Debug + Send;
    /// The answer to a request, independent of its version.
    type Response: Debug + Send;
    /// The shard's action when its records are committed, or to undo when they are not.
    type OnCommit: Debug + Send;
    /// Identifies a timer of the shard.
    type Timer: Clone + Ord + Debug + Send;
    /// Why a record in the log cannot be replayed.
    type ReplayError: std::error::Error + Send + Sync + 'static;

    /// A shard without state.
    fn new(config: Self::Config) -> Self;

    /// How long, in milliseconds, a reply waits for its records to be committed.
    fn commit_timeout_ms(&self) -> i64;

    /// The record as it is written to the log.
    ///
    /// # Errors
    /// A field is longer than the record can hold.
    fn encode(record: &Self::Record) -> Result<EncodedRecord, EncodeError>;

    /// Loads the record at `offset` of the log. `producer_id` is set if its batch is part of a
    /// transaction. Offsets come in ascending order.
    ///
    /// # Errors
    /// The record is damaged or newer than this program. The partition must not be served then.
    fn replay(
        &mut self,
        offset: Offset,
        producer_id: Option<ProducerId>,
        key: Bytes,
        value: Option<Bytes>,
    ) -> Result<Replayed, Self::ReplayError>;

    /// Loads the end of a transaction: an end-transaction control record of the log.
    fn replay_end_transaction(&mut self, producer_id: ProducerId, committed: bool);

    /// The log has been read to its end: starts the timers. It must not reply or write.
    fn on_loaded(&mut self, effects: &mut Effects<Self>);

    /// Applies a record that this shard has appended at `offset`.
    fn apply(&mut self, offset: Offset, record: &Self::Record, now: Now);

    /// The records of an event are committed.
    fn on_committed(&mut self, on_commit: Self::OnCommit, effects: &mut Effects<Self>);

    /// The records of an event were refused by the log, or were not committed in time.
    fn on_write_failed(
        &mut self,
        on_commit: Self::OnCommit,
        failure: WriteFailure,
        effects: &mut Effects<Self>,
    );

    /// The answer with an error, because the write that it depends on failed.
    fn refuse(response: Self::Response, failure: WriteFailure) -> Self::Response;

    /// A timer has come due.
    fn on_timer(&mut self, timer: Self::Timer, effects: &mut Effects<Self>);

    /// This broker is no longer the coordinator: refuses all parked requests.
    fn on_unloaded(&mut self, effects: &mut Effects<Self>);
}
