//! The thread of the metadata log: receives commands, measures time, calls the quorum and the controller with both, and
//! performs their effects in order.
//!
//! It decides nothing: the quorum (`klamm_replication::quorum`) and the controller
//! (`klamm_metadata::quorum_controller`) do. Commands that are queued together share one sync of the log. If the
//! metadata log cannot be written or replayed, the node stops, because it would no longer agree with the others.

mod io;
mod parts;
mod replica_requests;
mod snapshots;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use klamm_metadata::quorum_controller::{Driver as _, QuorumController};
use klamm_metadata::snapshot::schedule::SnapshotSchedule;
use klamm_protocol::ids::Offset;
use klamm_replication::quorum::Effect;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use self::io::Io;
pub(crate) use self::parts::{DriverParts, channel};
use super::contradictions::Contradictions;
use super::handle::{Command, Completion, ControllerError, Decision, HeldUntil};
use super::metadata_log::MetadataLogError;
use crate::clock;
use crate::config::QuorumConfig;
use crate::owner::OwnerGuard;

/// The most commands that share one sync of the log.
const MAX_COMMANDS_PER_SYNC: usize = 256;
/// The most records in one batch of a decision that is not atomic: a batch must stay below 8 MiB.
const MAX_RECORDS_PER_BATCH: usize = 1000;

/// The driver's state, on its own thread.
pub(crate) struct Driver {
    controller: QuorumController<Completion>,
    io: Io,
    commands: Receiver<Command>,
}

impl Driver {
    pub(crate) fn new(parts: DriverParts, config: &QuorumConfig) -> Self {
        let DriverParts { quorum, log, controller, committed, publications, peers, ends } = parts;
        let snapshots = SnapshotSchedule::new(
            config.metadata_log_max_record_bytes_between_snapshots,
            config.metadata_log_max_snapshot_interval_ms,
            log.size(),
            clock::now_ms(),
        );
        let (quorum, effects) = quorum;
        Self {
            controller: QuorumController::new(
                controller,
                committed,
                MAX_RECORDS_PER_BATCH,
                snapshots,
            ),
            io: Io {
                quorum,
                effects: effects.into(),
                log,
                room: ends.room,
                publications,
                peers,
                requests: BTreeMap::new(),
                next_request_id: 0,
                leader: ends.leader,
                contradictions: Contradictions::default(),
                max_retention_bytes: config.metadata_max_retention_bytes,
            },
            commands: ends.commands,
        }
    }

    /// Runs until [`Command::Stop`]. Cancels `node_failed` when the metadata log can no longer be trusted.
    pub(crate) fn start(
        mut self,
        node_failed: CancellationToken,
    ) -> std::io::Result<JoinHandle<()>> {
        let owner = OwnerGuard::of("the metadata log", &node_failed);
        std::thread::Builder::new().name("metadata".to_owned()).spawn(move || {
            let _owner = owner;
            let room = Arc::clone(&self.io.room);
            match self.run().and_then(|()| self.close()) {
                Ok(()) => {}
                Err(lacking) if lacking.passes() && room.is_stopping() => {
                    warn!("the metadata log is left as after a crash, the next start verifies it: {lacking}");
                }
                Err(failure) => {
                    error!("the metadata log failed, the node stops: {failure}");
                    node_failed.cancel();
                }
            }
        })
    }

    fn run(&mut self) -> Result<(), MetadataLogError> {
        loop {
            self.settle()?;
            let command = self.commands.recv_timeout(self.timeout());
            let now = clock::now();
            self.io.quorum.set_wall_ahead(now.wall_ms - now.steady_ms);
            let stop = match command {
                Ok(command) => self.on_commands(command)?,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            if stop {
                return self.settle();
            }
            let now_ms = clock::now_ms();
            self.io.effects.extend(self.io.quorum.on_tick(now_ms));
            self.controller.on_tick(now_ms, &mut self.io)?;
        }
    }

    fn close(self) -> Result<(), MetadataLogError> {
        self.io.log.close(self.controller.committed().end_offset())
    }

    /// How long to wait for a command: until the quorum or the controller has something to do.
    fn timeout(&self) -> Duration {
        let now_ms = clock::now_ms();
        let tick_ms = self.controller.next_tick_ms().unwrap_or(i64::MAX);
        let deadline = self.io.quorum.next_deadline_ms().min(tick_ms);
        let wait_ms = deadline.saturating_sub(now_ms).clamp(1, 60_000);
        Duration::from_millis(wait_ms.unsigned_abs())
    }

    /// Handles the queued commands. Returns true if one of them is [`Command::Stop`].
    fn on_commands(&mut self, first: Command) -> Result<bool, MetadataLogError> {
        let mut next = Some(first);
        for _ in 0..MAX_COMMANDS_PER_SYNC {
            match next.take().or_else(|| self.commands.try_recv().ok()) {
                None => break,
                Some(Command::Stop) => return Ok(true),
                Some(Command::Decide(held_until, decision)) => {
                    self.on_decide(held_until, decision)?;
                }
                Some(Command::Responded(id, response)) => {
                    let effects = self.io.quorum.on_response(clock::now_ms(), id, response);
                    self.io.effects.extend(effects);
                    // The records of this response must be in the log before the next command is handled.
                    self.settle()?;
                }
                Some(Command::Quorum(inbound, answer)) => self.io.on_request(inbound, answer),
                Some(Command::ProcessGone(id)) => {
                    self.io.effects.extend(self.io.quorum.on_process_gone(clock::now_ms(), id));
                }
                // The requester may have given up. Then no task receives the answer.
                Some(Command::DescribeQuorum(answer)) => {
                    drop(answer.send(self.io.quorum.describe(clock::now_ms())));
                }
                Some(Command::UpgradeKRaftVersion { to, validate_only, answer }) => {
                    drop(answer.send(self.io.upgrade_kraft_version(to, validate_only)));
                }
            }
        }
        Ok(false)
    }

    fn on_decide(
        &mut self,
        held_until: HeldUntil,
        decision: Decision,
    ) -> Result<(), MetadataLogError> {
        let turn = self.io.turn();
        let Some(controller) = self.controller.active(self.io.led_epoch()) else {
            decision(Err(ControllerError::NotController));
            return Ok(());
        };
        match decision(Ok((controller, &turn))) {
            None => Ok(()),
            Some(outcome) => self.controller.on_decided(outcome, held_until, &mut self.io),
        }
    }

    /// Performs all pending effects, in order.
    fn settle(&mut self) -> Result<(), MetadataLogError> {
        while let Some(effect) = self.io.effects.pop_front() {
            self.perform(effect)?;
        }
        Ok(())
    }

    fn perform(&mut self, effect: Effect) -> Result<(), MetadataLogError> {
        let Self { controller, io, .. } = self;
        match effect {
            Effect::PersistElection(election) => {
                io.with_room(|log| log.persist_election(&election))
            }
            Effect::Append { base_offset, epoch, batch } => {
                io.with_room(|log| log.append(base_offset, epoch, &batch, clock::now_ms()))
            }
            Effect::Truncate { end_offset } => {
                io.with_room(|log| log.truncate(end_offset, clock::now_ms()))
            }
            Effect::Flush(ticket) => io.flush(ticket),
            Effect::CommitTo { high_watermark } => self.on_high_watermark(high_watermark),
            Effect::BecameLeader { epoch } => {
                if controller.on_became_leader(epoch, clock::now_ms(), io)? {
                    io.show_active(epoch);
                }
                Ok(())
            }
            Effect::Resigned { epoch } => {
                io.show_resigned(epoch);
                controller.on_resigned(io);
                Ok(())
            }
            Effect::LeaderChanged { epoch, leader_id } => {
                io.show_leader(epoch, leader_id);
                Ok(())
            }
            Effect::Anomaly(anomaly) => io.on_anomaly(&anomaly),
            Effect::Send { correlation_id, to, request } => {
                io.peers.send(correlation_id, to, request);
                Ok(())
            }
            Effect::Reply { request_id, reply } => io.reply(request_id, reply),
            Effect::WriteSnapshotChunk { snapshot_id, position, bytes } => {
                io.with_room(|log| log.write_snapshot_chunk(snapshot_id, position, &bytes))
            }
            Effect::LoadSnapshot { snapshot_id } => self.load_snapshot(snapshot_id),
        }
    }

    fn on_high_watermark(&mut self, high_watermark: Offset) -> Result<(), MetadataLogError> {
        self.controller.on_high_watermark(high_watermark, &mut self.io)?;
        let now_ms = clock::now_ms();
        self.io.log.checkpoint_committed(high_watermark, now_ms)?;
        self.io.log.hold_reserve(now_ms);
        self.maybe_snapshot()
    }
}
