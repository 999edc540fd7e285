//! The thread of the metadata log: receives commands, lets the quorum and the controller decide,
//! carries out what they ask for, and hands over what is committed for publication.
//!
//! Commands that are waiting share one sync of the log. A failure to write the metadata log or to
//! replay it stops the node: it would no longer agree with the others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_metadata::loader::MetadataLoader;
use klamm_metadata::snapshot;
use klamm_protocol::batch_builder::BatchBuilder;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_protocol::metadata_record::MetadataRecord;
use klamm_replication::OffsetAndEpoch;
use klamm_replication::quorum::message::{FetchReplyBody, Inbound, Reply};
use klamm_replication::quorum::{
    Anomaly, Effect, KRaftUpgradeError, Quorum, RequestId, membership_records,
};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::channel::QuorumLeader;
use super::contradictions::{Contradictions, peer};
use super::handle::{
    Command, Completion, ControllerError, ControllerHandle, Decided, DecisionTurn, HeldUntil,
    MAX_QUEUED_DECISIONS, QuorumAnswer,
};
use super::metadata_log::{MetadataLog, MetadataLogError};
use super::publications::Publications;
use super::quorum_peers::QuorumPeers;
use super::room::Room;
use super::snapshot_file::{Snapshot, SnapshotSchedule};
use crate::clock;
use crate::config::QuorumConfig;
use crate::metadata_cache::PublishedImage;
use crate::net::peer::PeerAddress;
use crate::owner::OwnerGuard;

/// Commands that are taken together before the log is synced.
const MAX_COMMANDS_PER_SYNC: usize = 256;
/// How far what is noted of the high watermark may be behind (Kafka: `replica.high.watermark.checkpoint.interval.ms`).
const NOTE_INTERVAL_MS: i64 = 5_000;
/// Records in one batch of a decision that may be spread: a batch must stay below 8 MiB.
const MAX_RECORDS_PER_BATCH: usize = 1000;

/// The driver's state, on its own thread.
pub(crate) struct Driver {
    quorum: Quorum,
    log: MetadataLog,
    controller: Controller,
    /// Replays what is committed; what is published comes from here.
    loader: MetadataLoader,
    publications: Arc<Publications>,
    peers: QuorumPeers,
    commands: Receiver<Command>,
    room: Arc<Room>,
    effects: VecDeque<Effect>,
    /// Inbound requests that are not answered yet.
    inbound: BTreeMap<RequestId, oneshot::Sender<QuorumAnswer>>,
    next_request_id: u64,
    /// The epoch in which the controller is active.
    active_epoch: Option<LeaderEpoch>,
    leader: watch::Sender<QuorumLeader>,
    snapshots: SnapshotSchedule,
    /// `metadata.max.retention.bytes`, of the log and its snapshots together.
    max_retention_bytes: u64,
    /// Decisions that are not committed yet, by the offset at which they will be.
    uncommitted: VecDeque<(Offset, HeldUntil, Completion)>,
    contradictions: Contradictions,
    /// When it is next noted beside the log what is committed.
    next_note_ms: i64,
}

/// The driver's ends of its queues.
pub(crate) struct DriverEnds {
    commands: Receiver<Command>,
    room: Arc<Room>,
    leader: watch::Sender<QuorumLeader>,
}

/// Queues to and from a driver that does not run yet.
pub(crate) fn channel() -> (ControllerHandle, DriverEnds) {
    let (sender, commands): (SyncSender<Command>, _) = sync_channel(MAX_QUEUED_DECISIONS);
    let (leader, room) = (watch::Sender::default(), Arc::<Room>::default());
    let handle = ControllerHandle::new(sender, leader.subscribe(), Arc::clone(&room));
    (handle, DriverEnds { commands, room, leader })
}

impl Driver {
    pub(crate) fn new(
        (quorum, effects): (Quorum, Vec<Effect>),
        log: MetadataLog,
        controller: Controller,
        loader: MetadataLoader,
        publications: Arc<Publications>,
        (ends, peers): (DriverEnds, QuorumPeers),
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
            max_retention_bytes: config.metadata_max_retention_bytes,
            quorum,
            log,
            controller,
            loader,
            publications,
            peers,
            commands: ends.commands,
            room: ends.room,
            inbound: BTreeMap::new(),
            next_request_id: 0,
            active_epoch: None,
            leader: ends.leader,
            effects: effects.into(),
            uncommitted: VecDeque::new(),
            contradictions: Contradictions::default(),
            next_note_ms: i64::MIN,
        }
    }

    /// Runs until a command ends it. `node_failed` is cancelled when the metadata log can no longer be
    /// trusted.
    pub(crate) fn start(
        mut self,
        node_failed: CancellationToken,
    ) -> std::io::Result<JoinHandle<()>> {
        let owner = OwnerGuard::of("the metadata log", &node_failed);
        std::thread::Builder::new().name("metadata".to_owned()).spawn(move || {
            let _owner = owner;
            let room = Arc::clone(&self.room);
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
            let command = self.commands.recv_timeout(self.patience());
            let now = clock::now();
            self.quorum.set_wall_ahead(now.wall_ms - now.steady_ms);
            let stop = match command {
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

    /// Leaves the log in order, with a note of what is committed.
    fn close(mut self) -> Result<(), MetadataLogError> {
        self.next_note_ms = i64::MIN;
        self.note_committed(self.loader.end_offset())?;
        self.log.close()
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
                Some(Command::Quorum(inbound, answer)) => self.on_inbound(inbound, answer),
                Some(Command::Responded(id, response)) => {
                    let effects = self.quorum.on_response(clock::now_ms(), id, response);
                    self.effects.extend(effects);
                    // What the answer brought must be in the log before anything else is said.
                    self.settle()?;
                }
                Some(Command::UpgradeKRaftVersion { to, validate_only, answer }) => {
                    // Whoever asked may have gone away.
                    drop(answer.send(self.upgrade_kraft_version(to, validate_only)));
                }
                Some(Command::ProcessGone(id)) => {
                    self.effects.extend(self.quorum.on_process_gone(clock::now_ms(), id));
                }
                Some(Command::Decide(decision)) => {
                    if !self.decides() {
                        decision(Err(ControllerError::NotController));
                        continue;
                    }
                    let turn = self.turn();
                    let decided = decision(Ok((&mut self.controller, &turn)));
                    if let Some(decided) = decided {
                        self.on_decided(decided)?;
                    }
                }
            }
        }
        Ok(false)
    }

    fn on_inbound(&mut self, inbound: Inbound, answer: oneshot::Sender<QuorumAnswer>) {
        let request_id = RequestId(self.next_request_id);
        self.next_request_id += 1;
        // Requests of peers that have gone away are answered for nobody.
        self.inbound.retain(|_, waiting| !waiting.is_closed());
        self.inbound.insert(request_id, answer);
        self.effects.extend(self.quorum.on_request(clock::now_ms(), request_id, inbound));
    }

    fn upgrade_kraft_version(
        &mut self,
        to: i16,
        validate_only: bool,
    ) -> Result<(), KRaftUpgradeError> {
        let epoch = self.quorum.epoch();
        let upgraded =
            self.quorum.upgrade_kraft_version(clock::now_ms(), epoch, to, validate_only)?;
        self.effects.extend(upgraded);
        Ok(())
    }

    fn turn(&self) -> DecisionTurn {
        DecisionTurn {
            next_offset: self.quorum.log().end_offset,
            epoch: self.quorum.epoch(),
            now_ms: clock::now_ms(),
            wall_ms: clock::wall_ms(),
        }
    }

    /// Whether the controller may decide: it is active, and the quorum has not moved on since, which the effects in the
    /// queue are about to say.
    fn decides(&self) -> bool {
        self.controller.is_active()
            && self.quorum.is_leader()
            && self.active_epoch == Some(self.quorum.epoch())
    }

    fn on_tick(&mut self) -> Result<(), MetadataLogError> {
        let now_ms = clock::now_ms();
        self.effects.extend(self.quorum.on_tick(now_ms));
        // Due decisions are made one by one: each sees the records of the one before. If an append finds that this node
        // no longer leads, no further decision is made.
        while self.decides()
            && let Some(outcome) = self.controller.on_tick(now_ms)
        {
            self.append_outcome(outcome)?;
        }
        Ok(())
    }

    fn append_outcome(&mut self, outcome: Outcome<()>) -> Result<(), MetadataLogError> {
        let Outcome { records, atomic, response: () } = outcome;
        let completion = Box::new(|_| ());
        self.on_decided(Decided { records, atomic, held_until: HeldUntil::Committed, completion })
    }

    /// Appends what was decided. The answer waits for all that was decided before it as well: it
    /// may rest on that.
    fn on_decided(&mut self, decided: Decided) -> Result<(), MetadataLogError> {
        let Decided { records, atomic, held_until, completion } = decided;
        let per_batch = if atomic { records.len().max(1) } else { MAX_RECORDS_PER_BATCH };
        for batch in records.chunks(per_batch) {
            if !self.append(batch)? {
                completion(Err(ControllerError::NotController));
                return Ok(());
            }
        }
        let log_end = self.quorum.log().end_offset;
        if self.loader.end_offset() < log_end {
            self.uncommitted.push_back((log_end, held_until, completion));
        } else if held_until == HeldUntil::Published {
            self.publications.complete([completion]);
        } else {
            completion(Ok(()));
        }
        Ok(())
    }

    /// Appends a batch; says whether this node still led. Time passes between the batches of a decision, and with it the
    /// leadership may run out: the effects in the queue say so, and the controller begins anew.
    fn append(&mut self, records: &[MetadataRecord]) -> Result<bool, MetadataLogError> {
        let turn = self.turn();
        let version = self.controller.image().metadata_version();
        let mut batch = BatchBuilder::new(turn.next_offset).leader_epoch(turn.epoch);
        for record in records {
            let frame = record.to_frame(version.record_version(record))?;
            batch.append(turn.wall_ms, None, Some(&frame), &[])?;
        }
        let batch = batch.build()?;
        let count = u32::try_from(records.len()).expect("a decision has far fewer records");
        match self.quorum.append(turn.now_ms, turn.epoch, count, batch.bytes) {
            Ok(effects) => self.effects.extend(effects),
            Err(lost) => {
                info!("what was decided is not written: {lost}");
                return Ok(false);
            }
        }
        for (record, offset) in records.iter().zip(turn.next_offset..) {
            self.controller.replay(record, offset)?;
        }
        Ok(true)
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
            Effect::PersistElection(election) => {
                self.with_room(|log| log.persist_election(&election))
            }
            Effect::Append { base_offset, epoch, batch } => {
                self.with_room(|log| log.append(base_offset, epoch, &batch, clock::now_ms()))
            }
            Effect::Truncate { end_offset } => {
                self.with_room(|log| log.truncate(end_offset, clock::now_ms()))
            }
            Effect::Flush(ticket) => {
                self.with_room(MetadataLog::flush)?;
                self.effects.extend(self.quorum.on_flushed(clock::now_ms(), ticket));
                Ok(())
            }
            Effect::CommitTo { high_watermark } => self.on_committed(high_watermark),
            // Of an epoch that has ended meanwhile, the queue holds the end as well.
            Effect::BecameLeader { epoch }
                if self.quorum.epoch() != epoch || !self.quorum.is_leader() =>
            {
                Ok(())
            }
            Effect::BecameLeader { epoch } => {
                info!(epoch, "this node is the active controller in epoch {epoch}");
                self.controller.reset(self.loader.clone());
                self.tell_membership();
                self.active_epoch = Some(epoch);
                let now_ms = clock::now_ms();
                let outcome = self.controller.on_elected(now_ms);
                self.append_outcome(outcome)?;
                if let Some(lost) = self.quorum.lost_leader() {
                    self.controller.on_node_lost(lost, now_ms);
                }
                self.leader.send_modify(|leader| leader.is_active_here = true);
                Ok(())
            }
            Effect::Resigned { epoch } => {
                info!(epoch, "this node is no longer the controller of epoch {epoch}");
                self.resign();
                Ok(())
            }
            Effect::LeaderChanged { epoch, leader_id } => {
                self.on_leader(epoch, leader_id);
                Ok(())
            }
            Effect::Anomaly(anomaly) => self.on_anomaly(&anomaly),
            Effect::Send { correlation_id, to, request } => {
                self.peers.send(correlation_id, to, request);
                Ok(())
            }
            Effect::Reply { request_id, reply } => self.reply(request_id, reply),
            Effect::WriteSnapshotChunk { snapshot_id, position, bytes } => {
                self.with_room(|log| log.write_snapshot_chunk(snapshot_id, position, &bytes))
            }
            Effect::LoadSnapshot { snapshot_id } => self.load_snapshot(snapshot_id),
        }
    }

    /// Does something with the log, as soon as nothing is lacking for it.
    fn with_room<T>(
        &mut self,
        attempt: impl Fn(&mut MetadataLog) -> Result<T, MetadataLogError>,
    ) -> Result<T, MetadataLogError> {
        let (room, log) = (&self.room, &mut self.log);
        room.wait_for(|| attempt(log))
    }

    /// What a peer says is not taken in. A leader without what is committed here cannot be followed at all.
    fn on_anomaly(&mut self, anomaly: &Anomaly) -> Result<(), MetadataLogError> {
        let peer = peer(anomaly, self.quorum.leader_id());
        if let Anomaly::TruncationBelowHighWatermark { end_offset, high_watermark } = *anomaly {
            return Err(MetadataLogError::LeaderLacksCommitted {
                leader: peer.expect("only a leader's log is followed"),
                epoch: self.quorum.epoch(),
                dir: self.log.dir().to_path_buf(),
                end_offset,
                high_watermark,
            });
        }
        let name = peer.map_or_else(|| "a peer".to_owned(), |id| format!("node {id}"));
        match self.contradictions.on_anomaly(clock::now_ms(), anomaly, peer) {
            None => {}
            Some(0) => {
                warn!("{name} contradicts what is known of the metadata quorum: {anomaly:?}")
            }
            Some(untold) => warn!(
                "{name} contradicts what is known of the metadata quorum, as {untold} times since this was last said: \
                 {anomaly:?}"
            ),
        }
        Ok(())
    }

    fn resign(&mut self) {
        self.leader.send_modify(|leader| leader.is_active_here = false);
        self.active_epoch = None;
        self.controller.on_resigned();
        self.controller.reset(self.loader.clone());
        for (_, _, completion) in self.uncommitted.drain(..) {
            completion(Err(ControllerError::NotController));
        }
    }

    fn on_leader(&self, epoch: LeaderEpoch, id: Option<BrokerId>) {
        let address = self.quorum.leader_endpoints().address(self.peers.listener());
        let address = address.map(|at| PeerAddress { host: at.host.clone(), port: at.port });
        match id {
            Some(id) => {
                info!(node = id, epoch, "node {id} leads the metadata quorum in epoch {epoch}")
            }
            None => debug!("the metadata quorum has no leader in epoch {epoch}"),
        }
        self.leader.send_replace(QuorumLeader { epoch, id, address, is_active_here: false });
    }

    /// Answers a replica. What it asked to read is read now, from a log that only this thread changes.
    fn reply(&mut self, request_id: RequestId, reply: Reply) -> Result<(), MetadataLogError> {
        let Some(waiting) = self.inbound.remove(&request_id) else { return Ok(()) };
        let answer = match reply {
            Reply::Fetch(fetch) => {
                let records = match fetch.body {
                    FetchReplyBody::Records { offset, max_bytes } => {
                        self.with_room(|log| log.read(offset, max_bytes))?
                    }
                    FetchReplyBody::Empty
                    | FetchReplyBody::Diverging(_)
                    | FetchReplyBody::Snapshot(_) => Bytes::new(),
                };
                QuorumAnswer::Fetch(fetch, records)
            }
            Reply::FetchSnapshot(fetch) => {
                let (id, position, max_bytes) =
                    (fetch.snapshot_id, fetch.position, fetch.max_bytes);
                let piece =
                    self.with_room(|log| log.read_snapshot_piece(id, position, max_bytes))?;
                QuorumAnswer::FetchSnapshot(fetch, piece)
            }
            plain => QuorumAnswer::Plain(plain),
        };
        // Whoever asked may have gone away.
        drop(waiting.send(answer));
        Ok(())
    }

    /// Begins anew with a snapshot that a leader has sent.
    fn load_snapshot(&mut self, id: OffsetAndEpoch) -> Result<(), MetadataLogError> {
        let (room, log, own) = (&self.room, &mut self.log, &self.loader);
        let (loader, membership) = room.wait_for(|| log.load_snapshot(id, own, clock::now_ms()))?;
        self.loader = loader;
        self.effects.extend(self.quorum.on_snapshot_loaded(clock::now_ms(), id, membership));
        self.snapshots.on_taken(self.log.size(), clock::now_ms());
        self.publish(Vec::new());
        Ok(())
    }

    fn on_committed(&mut self, high_watermark: Offset) -> Result<(), MetadataLogError> {
        let (log, loader) = (&mut self.log, &mut self.loader);
        self.room.wait_for(|| log.replay(loader, high_watermark))?;
        self.tell_membership();
        let mut completions = Vec::new();
        while self.uncommitted.front().is_some_and(|(offset, ..)| *offset <= high_watermark) {
            match self.uncommitted.pop_front() {
                Some((_, HeldUntil::Published, completion)) => completions.push(completion),
                Some((_, HeldUntil::Committed, completion)) => completion(Ok(())),
                None => unreachable!("there was a first one"),
            }
        }
        self.publish(completions);
        self.note_committed(high_watermark)?;
        match self.maybe_snapshot() {
            // The log has everything: the snapshot can wait until it is due again.
            Err(lacking) if lacking.passes() => {
                warn!("no metadata snapshot for now: {lacking}");
                self.snapshots.on_taken(self.log.size(), clock::now_ms());
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Notes now and then what is committed; the note may be behind.
    fn note_committed(&mut self, high_watermark: Offset) -> Result<(), MetadataLogError> {
        let now_ms = clock::now_ms();
        if now_ms < self.next_note_ms {
            return Ok(());
        }
        self.next_note_ms = now_ms + NOTE_INTERVAL_MS;
        match self.log.note_committed(high_watermark) {
            Err(lacking) if lacking.passes() => Ok(()),
            outcome => outcome,
        }
    }

    /// The controller goes by the quorum of the moment.
    fn tell_membership(&mut self) {
        let membership = self.quorum.membership();
        let kraft_version = *membership.kraft_version.latest();
        self.controller.on_quorum(kraft_version, membership.voters.latest().ids());
    }

    fn publish(&self, completions: Vec<Completion>) {
        let published = PublishedImage {
            image: self.loader.stable().clone(),
            end_offset: self.loader.end_offset(),
            kraft_version: *self.quorum.membership().kraft_version.latest(),
        };
        self.publications.publish(published, completions);
    }

    /// Takes a snapshot if one is due, and deletes what it makes superfluous.
    fn maybe_snapshot(&mut self) -> Result<(), MetadataLogError> {
        let now = clock::now();
        let in_transaction = self.loader.transaction_start_offset().is_some();
        if in_transaction || !self.snapshots.is_due(self.log.size(), now.steady_ms) {
            return Ok(());
        }
        let Some(id) = self.log.next_snapshot(self.loader.end_offset()) else { return Ok(()) };
        let membership = self.quorum.membership();
        let level = *membership.kraft_version.at(id.offset - 1);
        let image = self.loader.stable();
        let version = image.metadata_version();
        let contents = Snapshot {
            epoch: id.epoch,
            last_contained_log_timestamp: now.wall_ms,
            membership: membership_records(level, membership.voters.at(id.offset - 1)),
            records: &snapshot::records(image),
            wall_ms: now.wall_ms,
        }
        .encode(|record| version.record_version(record))?;
        self.log.write_snapshot(id, &contents)?;
        self.quorum.on_snapshot_written(id);
        if let Some((start, earliest)) = self.log.clean(self.max_retention_bytes, now)? {
            self.quorum.on_log_deleted(start, earliest);
        }
        self.snapshots.on_taken(self.log.size(), now.steady_ms);
        Ok(())
    }
}
