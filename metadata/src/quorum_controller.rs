//! The controller as a member of the metadata quorum: whether it may decide, how its records reach the log, and when
//! its decisions are answered. (Kafka: `QuorumController` with `ControllerWriteEvent` and `QuorumMetaLogListener`)
//!
//! Owns the [`Controller`], the state of the committed records, the epoch in which this node is the active controller,
//! and the decisions that are not committed yet. It does no IO and reads no clock: the [`Driver`] appends, reads the log,
//! publishes and replies.
//!
//! How a driver runs it, with the effects of the quorum in their order:
//! 1. Requests: [`QuorumController::active`] returns the controller if it may decide; [`QuorumController::on_decided`]
//!    takes the outcome.
//! 2. Quorum: [`QuorumController::on_became_leader`], [`QuorumController::on_resigned`],
//!    [`QuorumController::on_high_watermark`], [`QuorumController::on_snapshot_loaded`].
//! 3. Time: [`QuorumController::on_tick`] when [`QuorumController::next_tick_ms`] has come.
//!
//! Invariants: every completion is given back exactly once, in the order of the decisions; none is completed before the
//! records of its decision, and of all decisions before it, are committed; nothing is appended in another epoch than the
//! one in which it was decided.

mod deferred_event_queue;
mod driver;
#[cfg(test)]
mod tests;

use klamm_protocol::ids::{LeaderEpoch, Offset};
use klamm_protocol::metadata_record::MetadataRecord;

use self::deferred_event_queue::DeferredEventQueue;
pub use self::driver::{Driver, HeldUntil};
use crate::controller::Controller;
use crate::controller::outcome::Outcome;
use crate::loader::MetadataLoader;
use crate::snapshot::schedule::SnapshotSchedule;

/// The controller of one node, active or not. `C` is what a decision is answered by.
#[derive(Debug)]
pub struct QuorumController<C> {
    controller: Controller,
    /// What is committed. The controller itself may be ahead of it.
    committed: MetadataLoader,
    /// The epoch in which this node is the active controller.
    active_epoch: Option<LeaderEpoch>,
    deferred: DeferredEventQueue<C>,
    /// The most records in one batch of a decision that is not atomic.
    max_records_per_batch: usize,
    snapshots: SnapshotSchedule,
}

impl<C> QuorumController<C> {
    /// A controller that is not active. `committed` is the state of the newest snapshot, or of an empty log. An outcome
    /// that is not atomic is appended in batches of at most `max_records_per_batch` records (Kafka:
    /// `QuorumController.maxRecordsPerBatch`).
    ///
    /// # Panics
    /// If `max_records_per_batch` is 0.
    pub fn new(
        controller: Controller,
        committed: MetadataLoader,
        max_records_per_batch: usize,
        snapshots: SnapshotSchedule,
    ) -> Self {
        assert!(max_records_per_batch > 0, "a batch holds at least one record");
        let deferred = DeferredEventQueue::default();
        Self {
            controller,
            committed,
            active_epoch: None,
            deferred,
            max_records_per_batch,
            snapshots,
        }
    }

    /// The state of the committed records: what is published.
    pub fn committed(&self) -> &MetadataLoader {
        &self.committed
    }

    /// The controller, to be looked at.
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// The controller, if it may decide: it is active in the epoch that the quorum says this node leads, `led_epoch`.
    /// Where the two differ, the quorum has moved on, and its effects that say so are still to be performed.
    /// `None` is answered with NOT_CONTROLLER.
    pub fn active(&mut self, led_epoch: Option<LeaderEpoch>) -> Option<&mut Controller> {
        self.decides(led_epoch).then_some(&mut self.controller)
    }

    fn decides(&self, led_epoch: Option<LeaderEpoch>) -> bool {
        self.active_epoch.is_some() && self.active_epoch == led_epoch
    }

    /// Appends the records of a decision that [`Self::active`] made possible. Its response, the completion, is held
    /// until all records of the log are committed, those of earlier decisions too: the decision may rest on them. It is
    /// refused if the leadership ends between the batches of the decision.
    ///
    /// # Errors
    /// The records could not be written or replayed: the node must stop.
    pub fn on_decided<D: Driver<C>>(
        &mut self,
        outcome: Outcome<C>,
        held_until: HeldUntil,
        driver: &mut D,
    ) -> Result<(), D::Error> {
        let Outcome { records, atomic, response: completion } = outcome;
        if !self.append(&records, atomic, driver)? {
            driver.refuse(completion);
            return Ok(());
        }
        let log_end = driver.end_offset();
        if self.committed.end_offset() < log_end {
            self.deferred.add(log_end, held_until, completion);
        } else {
            driver.complete(completion, held_until);
        }
        Ok(())
    }

    /// The quorum has elected this node, and everything before `epoch` is committed: the controller becomes active
    /// (Kafka: `claim`). Returns false if the epoch has ended meanwhile; the effects to come say so.
    ///
    /// # Errors
    /// The first records could not be written or replayed: the node must stop.
    pub fn on_became_leader<D: Driver<C>>(
        &mut self,
        epoch: LeaderEpoch,
        now_ms: i64,
        driver: &mut D,
    ) -> Result<bool, D::Error> {
        if driver.led_epoch() != Some(epoch) {
            return Ok(false);
        }
        self.controller.reset(self.committed.clone());
        self.take_over_quorum(driver);
        self.active_epoch = Some(epoch);
        let Outcome { records, atomic, response: () } = self.controller.on_elected(now_ms);
        self.append(&records, atomic, driver)?;
        if let Some(lost) = driver.lost_leader() {
            self.controller.on_node_lost(lost, now_ms);
        }
        Ok(true)
    }

    /// This node no longer leads: what is not committed is dropped, and every decision that waits for its commit is
    /// refused (Kafka: `renounce`).
    pub fn on_resigned<D: Driver<C>>(&mut self, driver: &mut D) {
        self.active_epoch = None;
        self.controller.on_resigned();
        self.controller.reset(self.committed.clone());
        for completion in self.deferred.take_all() {
            driver.refuse(completion);
        }
    }

    /// Everything below `high_watermark` is committed (Kafka: `handleCommit`): replays it, publishes the new state, and
    /// then completes the decisions that waited for it.
    ///
    /// # Errors
    /// The records could not be read or replayed: the node must stop.
    pub fn on_high_watermark<D: Driver<C>>(
        &mut self,
        high_watermark: Offset,
        driver: &mut D,
    ) -> Result<(), D::Error> {
        driver.replay_committed(&mut self.committed, high_watermark)?;
        self.take_over_quorum(driver);
        driver.publish(&self.committed);
        while let Some(event) = self.deferred.pop_committed(self.committed.end_offset()) {
            driver.complete(event.completion, event.held_until);
        }
        Ok(())
    }

    /// The log begins anew with a snapshot of the leader, whose state is `loaded` (Kafka: `handleLoadSnapshot`).
    /// `log_bytes` and `now_ms` are the size of the log and the time after that.
    ///
    /// # Panics
    /// If this controller is active: a leader has all records, and loads no snapshot.
    pub fn on_snapshot_loaded<D: Driver<C>>(
        &mut self,
        loaded: MetadataLoader,
        log_bytes: u64,
        now_ms: i64,
        driver: &mut D,
    ) {
        assert!(self.active_epoch.is_none(), "an active controller loads no snapshot");
        self.committed = loaded;
        self.snapshots.on_taken(log_bytes, now_ms);
        driver.publish(&self.committed);
    }

    /// Does what is due, one decision at a time: each sees the records of the one before, and none is made once the
    /// leadership has ended. (Kafka: `PeriodicTaskControlManager`)
    ///
    /// # Errors
    /// The records could not be written or replayed: the node must stop.
    pub fn on_tick<D: Driver<C>>(&mut self, now_ms: i64, driver: &mut D) -> Result<(), D::Error> {
        while self.decides(driver.led_epoch())
            && let Some(outcome) = self.controller.on_tick(now_ms)
        {
            self.append(&outcome.records, outcome.atomic, driver)?;
        }
        Ok(())
    }

    /// When [`Self::on_tick`] next has something to do; `None` if this controller is not active.
    pub fn next_tick_ms(&self) -> Option<i64> {
        self.controller.next_tick_ms()
    }

    /// Whether a snapshot of the committed state is to be written now that the log has `log_bytes`. Never while a
    /// metadata transaction is open: a snapshot cannot hold half of one (KIP-868).
    pub fn is_snapshot_due(&self, log_bytes: u64, now_ms: i64) -> bool {
        let in_transaction = self.committed.transaction_start_offset().is_some();
        !in_transaction && self.snapshots.is_due(log_bytes, now_ms)
    }

    /// A snapshot was written, or could not be for lack of room: the log has everything, so the next one can wait until
    /// it is due. `log_bytes` is the size of the log after that.
    pub fn on_snapshot_taken(&mut self, log_bytes: u64, now_ms: i64) {
        self.snapshots.on_taken(log_bytes, now_ms);
    }

    /// Appends records, in one batch if they are atomic, and replays them. Returns false if this node no longer leads:
    /// appending takes time, and the leadership can end between two batches.
    fn append<D: Driver<C>>(
        &mut self,
        records: &[MetadataRecord],
        atomic: bool,
        driver: &mut D,
    ) -> Result<bool, D::Error> {
        let epoch = self.active_epoch.expect("only an active controller decides");
        let per_batch = if atomic { records.len().max(1) } else { self.max_records_per_batch };
        for batch in records.chunks(per_batch) {
            let base_offset = driver.end_offset();
            let version = self.controller.image().metadata_version();
            if !driver.append(epoch, batch, version)? {
                return Ok(false);
            }
            for (record, offset) in batch.iter().zip(base_offset..) {
                self.controller.replay(record, offset)?;
            }
        }
        Ok(true)
    }

    /// The controller decides by the voters and the kraft.version of the moment.
    fn take_over_quorum<D: Driver<C>>(&mut self, driver: &D) {
        self.controller.on_quorum(driver.kraft_version(), driver.voters());
    }
}
