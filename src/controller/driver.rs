//! The thread of the metadata log: receives commands, lets the quorum and the controller decide,
//! carries out what they ask for, publishes what is committed and answers.
//!
//! Commands that are waiting share one sync of the log. A failure to write the metadata log or to
//! replay it stops the node: it would no longer agree with the others.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_metadata::loader::MetadataLoader;
use klamm_metadata::snapshot;
use klamm_protocol::batch_builder::BatchBuilder;
use klamm_protocol::ids::Offset;
use klamm_protocol::metadata_record::MetadataRecord;
use klamm_replication::quorum::{Effect, Quorum, membership_records};
use tracing::{debug, error, info, warn};

use super::handle::{
    Command, Completion, ControllerError, ControllerHandle, Decided, DecisionContext,
    MAX_QUEUED_DECISIONS,
};
use super::metadata_log::{MetadataLog, MetadataLogError};
use super::publisher::Publisher;
use super::snapshot_file::{Snapshot, SnapshotSchedule};
use crate::clock;
use crate::config::QuorumConfig;

/// Commands that are taken together before the log is synced.
const MAX_COMMANDS_PER_SYNC: usize = 256;
/// Records in one batch of a decision that may be spread: a batch must stay below 8 MiB.
const MAX_RECORDS_PER_BATCH: usize = 1000;

/// The driver's state, on its own thread.
pub(crate) struct Driver {
    quorum: Quorum,
    log: MetadataLog,
    controller: Controller,
    /// Replays what is committed; what is published comes from here.
    loader: MetadataLoader,
    publisher: Publisher,
    commands: Receiver<Command>,
    effects: VecDeque<Effect>,
    snapshots: SnapshotSchedule,
    /// `metadata.max.retention.bytes`, of the log and its snapshots together.
    max_retention_bytes: u64,
    /// Decisions that are not committed yet, by the offset at which they will be.
    uncommitted: VecDeque<(Offset, Completion)>,
}

/// A queue to a driver that does not run yet.
pub(crate) fn channel() -> (ControllerHandle, Receiver<Command>) {
    let (sender, receiver): (SyncSender<Command>, _) = sync_channel(MAX_QUEUED_DECISIONS);
    (ControllerHandle::new(sender), receiver)
}

impl Driver {
    pub(crate) fn new(
        (quorum, effects): (Quorum, Vec<Effect>),
        log: MetadataLog,
        controller: Controller,
        loader: MetadataLoader,
        publisher: Publisher,
        commands: Receiver<Command>,
        config: &QuorumConfig,
    ) -> Self {
        let snapshots = SnapshotSchedule::new(
            config.metadata_log_max_record_bytes_between_snapshots,
            config.metadata_log_max_snapshot_interval_ms,
            log.size(),
            clock::now_ms(),
        );
        Self {
            snapshots,
            max_retention_bytes: u64::try_from(config.metadata_max_retention_bytes)
                .unwrap_or(u64::MAX),
            quorum,
            log,
            controller,
            loader,
            publisher,
            commands,
            effects: effects.into(),
            uncommitted: VecDeque::new(),
        }
    }

    /// Runs until a command ends it. `on_failure` is called when the metadata log can no longer be
    /// trusted.
    pub(crate) fn start(
        mut self,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("metadata".to_owned()).spawn(move || {
            // Nothing of the driver is used after a panic but the way out.
            let run = AssertUnwindSafe(move || self.run().and_then(|()| self.log.close()));
            match std::panic::catch_unwind(run) {
                Ok(Ok(())) => return,
                Ok(Err(failure)) => {
                    error!("the metadata log failed, the node stops: {failure}");
                }
                Err(_) => error!("a rule of the metadata log is broken, the node stops"),
            }
            on_failure();
        })
    }

    fn run(&mut self) -> Result<(), MetadataLogError> {
        loop {
            self.settle()?;
            let stop = match self.commands.recv_timeout(self.patience()) {
                Ok(command) => self.on_commands(command)?,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            if stop {
                return self.settle();
            }
            self.on_tick()?;
        }
    }

    /// How long nothing has to be done if nobody asks.
    fn patience(&self) -> Duration {
        let now_ms = clock::now_ms();
        let tick_ms = self.controller.next_tick_ms().unwrap_or(i64::MAX);
        let deadline = self.quorum.next_deadline_ms().min(tick_ms);
        let wait_ms = deadline.saturating_sub(now_ms).clamp(1, 60_000);
        Duration::from_millis(wait_ms.unsigned_abs())
    }

    /// Takes the commands that are there; says whether one of them ends the thread.
    fn on_commands(&mut self, first: Command) -> Result<bool, MetadataLogError> {
        let mut next = Some(first);
        for _ in 0..MAX_COMMANDS_PER_SYNC {
            match next.take().or_else(|| self.commands.try_recv().ok()) {
                None => break,
                Some(Command::Stop) => return Ok(true),
                Some(Command::DescribeQuorum(answer)) => {
                    // Whoever asked may have gone away.
                    drop(answer.send(self.quorum.describe(clock::now_ms())));
                }
                Some(Command::Decide(decision)) => {
                    if !self.controller.is_active() {
                        decision(Err(ControllerError::NotController));
                        continue;
                    }
                    let context = self.context();
                    let decided = decision(Ok((&mut self.controller, &context)));
                    if let Some(decided) = decided {
                        self.on_decided(decided)?;
                    }
                }
            }
        }
        Ok(false)
    }

    fn context(&self) -> DecisionContext {
        DecisionContext {
            next_offset: self.quorum.log().end_offset,
            epoch: self.quorum.epoch(),
            now_ms: clock::now_ms(),
        }
    }

    fn on_tick(&mut self) -> Result<(), MetadataLogError> {
        let now_ms = clock::now_ms();
        self.effects.extend(self.quorum.on_tick(now_ms));
        if self.controller.is_active() {
            // What is due is taken one by one: each decision sees the records of the one before.
            while let Some(outcome) = self.controller.on_tick(now_ms) {
                self.append_outcome(outcome)?;
            }
        }
        Ok(())
    }

    fn append_outcome(&mut self, outcome: Outcome<()>) -> Result<(), MetadataLogError> {
        let Outcome { records, atomic, response: () } = outcome;
        self.on_decided(Decided { records, atomic, completion: Box::new(|_| ()) })
    }

    /// Appends what was decided. The answer waits for all that was decided before it as well: it
    /// may rest on that.
    fn on_decided(&mut self, decided: Decided) -> Result<(), MetadataLogError> {
        let Decided { records, atomic, completion } = decided;
        let per_batch = if atomic { records.len().max(1) } else { MAX_RECORDS_PER_BATCH };
        for batch in records.chunks(per_batch) {
            self.append(batch)?;
        }
        let held_until = self.quorum.log().end_offset;
        if self.loader.end_offset() >= held_until {
            completion(Ok(()));
        } else {
            self.uncommitted.push_back((held_until, completion));
        }
        Ok(())
    }

    fn append(&mut self, records: &[MetadataRecord]) -> Result<(), MetadataLogError> {
        let context = self.context();
        let version = self.controller.image().metadata_version();
        let mut batch = BatchBuilder::new(context.next_offset).leader_epoch(context.epoch);
        for record in records {
            let frame = record.to_frame(version.record_version(record))?;
            batch.append(context.now_ms, None, Some(&frame), &[])?;
        }
        let batch = batch.build()?;
        let count = u32::try_from(records.len()).expect("a decision has far fewer records");
        let effects = self
            .quorum
            .append(context.now_ms, context.epoch, count, batch.bytes)
            .expect("an active controller leads the epoch that it decides in");
        self.effects.extend(effects);
        for (record, offset) in records.iter().zip(context.next_offset..) {
            self.controller.replay(record, offset)?;
        }
        Ok(())
    }

    /// Carries out everything that is to be done now.
    fn settle(&mut self) -> Result<(), MetadataLogError> {
        while let Some(effect) = self.effects.pop_front() {
            self.perform(effect)?;
        }
        Ok(())
    }

    fn perform(&mut self, effect: Effect) -> Result<(), MetadataLogError> {
        match effect {
            Effect::PersistElection(election) => self.log.persist_election(&election),
            Effect::Append { base_offset, epoch, batch } => {
                self.log.append(base_offset, epoch, batch, clock::now_ms())
            }
            Effect::Truncate { end_offset } => self.log.truncate(end_offset, clock::now_ms()),
            Effect::Flush(ticket) => {
                self.log.flush()?;
                self.effects.extend(self.quorum.on_flushed(clock::now_ms(), ticket));
                Ok(())
            }
            Effect::CommitTo { high_watermark } => self.on_committed(high_watermark),
            Effect::BecameLeader { epoch } => {
                info!("this node is the active controller in epoch {epoch}");
                let outcome = self.controller.on_elected(clock::now_ms());
                self.append_outcome(outcome)
            }
            Effect::Resigned { epoch } => {
                info!("this node is no longer the controller of epoch {epoch}");
                self.controller.on_resigned();
                self.controller.reset(self.loader.clone());
                for (_, completion) in self.uncommitted.drain(..) {
                    completion(Err(ControllerError::NotController));
                }
                Ok(())
            }
            Effect::LeaderChanged { epoch, leader_id } => {
                debug!("leader of the metadata quorum in epoch {epoch}: {leader_id:?}");
                Ok(())
            }
            Effect::Anomaly(anomaly) => {
                warn!("a peer of the metadata quorum contradicts itself: {anomaly:?}");
                Ok(())
            }
            Effect::Send { .. }
            | Effect::Reply { .. }
            | Effect::WriteSnapshotChunk { .. }
            | Effect::LoadSnapshot { .. } => {
                unreachable!("a quorum of one voter speaks to nobody: {effect:?}")
            }
        }
    }

    fn on_committed(&mut self, high_watermark: Offset) -> Result<(), MetadataLogError> {
        self.log.replay(&mut self.loader, high_watermark)?;
        let kraft_version = *self.quorum.membership().kraft_version.latest();
        self.publisher.publish(&self.loader, kraft_version);
        while self.uncommitted.front().is_some_and(|(offset, _)| *offset <= high_watermark) {
            if let Some((_, completion)) = self.uncommitted.pop_front() {
                completion(Ok(()));
            }
        }
        self.maybe_snapshot()
    }

    /// Takes a snapshot if one is due, and deletes what it makes superfluous.
    fn maybe_snapshot(&mut self) -> Result<(), MetadataLogError> {
        let now_ms = clock::now_ms();
        let in_transaction = self.loader.transaction_start_offset().is_some();
        if in_transaction || !self.snapshots.is_due(self.log.size(), now_ms) {
            return Ok(());
        }
        let Some(id) = self.log.next_snapshot(self.loader.end_offset()) else { return Ok(()) };
        let membership = self.quorum.membership();
        let level = *membership.kraft_version.at(id.offset - 1);
        let image = self.loader.stable();
        let version = image.metadata_version();
        let contents = Snapshot {
            epoch: id.epoch,
            last_contained_log_timestamp: now_ms,
            membership: membership_records(level, membership.voters.at(id.offset - 1)),
            records: &snapshot::records(image),
            now_ms,
        }
        .encode(|record| version.record_version(record))?;
        self.log.write_snapshot(id, &contents)?;
        self.quorum.on_snapshot_written(id);
        if let Some((start, earliest)) = self.log.clean(self.max_retention_bytes, now_ms)? {
            self.quorum.on_log_deleted(start, earliest);
        }
        self.snapshots.on_taken(self.log.size(), now_ms);
        Ok(())
    }
}
