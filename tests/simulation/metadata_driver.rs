//! The driver of a node's quorum, metadata log and controller, as `src/controller/driver.rs` is for
//! real: carries effects out in order, replays what is committed, answers when a decision holds.

use crate::batch::SnapshotFile;
use crate::decision;
use crate::disk::Disk;
use crate::log::SyncMark;
use crate::message::{Address, CallId, ControllerAnswer, ControllerRequest, Message, Sender};
use crate::node::NodeTimer;
use crate::observation::{Life, Observation};
use crate::plant::Plant;
use crate::scenario::{CLUSTER_ID, Scenario};
use crate::step::Step;
use bytes::Bytes;
use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_metadata::loader::MetadataLoader;
use klamm_metadata::snapshot;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_protocol::metadata_record::MetadataRecord;
use klamm_replication::OffsetAndEpoch;
use klamm_replication::quorum::message::{
    FetchBody, FetchReply, FetchReplyBody, FetchResponse, FetchSnapshotReply,
    FetchSnapshotResponse, Inbound, Reply, Request, Response,
};
use klamm_replication::quorum::{
    AppendBatch, ControlChange, CorrelationId, Effect, FlushTicket, Quorum, RequestId,
};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// What a snapshot is long on the wire: its content is shared.
const SNAPSHOT_BYTES: i64 = 10;
/// Records in one batch of a decision that may be spread.
const MAX_RECORDS_PER_BATCH: usize = 4;

pub(crate) type NodeStep<'w> = Step<'w, NodeTimer>;

/// A decision whose answer waits for its commit.
#[derive(Debug)]
struct Held {
    until: Offset,
    to: Option<(Sender, CallId, ControllerAnswer)>,
}

#[derive(Debug)]
pub(crate) struct MetadataDriver {
    life: Life,
    pub(crate) quorum: Quorum,
    pub(crate) controller: Controller,
    /// Replays what is committed.
    pub(crate) loader: MetadataLoader,
    effects: VecDeque<Effect>,
    requests: BTreeMap<RequestId, (Sender, CorrelationId)>,
    next_request: u64,
    held: VecDeque<Held>,
    /// The epoch that the controller decides in.
    active_epoch: Option<LeaderEpoch>,
    /// When each other voter was last heard from, while this node leads.
    heard: BTreeMap<BrokerId, i64>,
    leads_since_ms: Option<i64>,
    /// The last fetch of each voter, for a driver that counts old contact.
    last_fetches: BTreeMap<BrokerId, Request>,
}

impl MetadataDriver {
    pub(crate) fn start(
        life: Life,
        scenario: &Scenario,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) -> Self {
        let config = scenario.quorum(life.0, step.random.next());
        let (quorum, effects) = Quorum::start(config, disk.boot(), step.now_ms);
        let loader = match &disk.snapshot {
            None => MetadataLoader::default(),
            Some(file) => loaded(file),
        };
        let controller = Controller::new(scenario.controller(life.0), loader.clone());
        let mut driver = Self {
            life,
            quorum,
            controller,
            loader,
            effects: effects.into(),
            requests: BTreeMap::new(),
            next_request: 0,
            held: VecDeque::new(),
            active_epoch: None,
            heard: BTreeMap::new(),
            leads_since_ms: None,
            last_fetches: BTreeMap::new(),
        };
        driver.settle(disk, step);
        driver
    }

    pub(crate) fn next_deadline_ms(&self) -> i64 {
        let tick_ms = self.controller.next_tick_ms().unwrap_or(i64::MAX);
        self.quorum.next_deadline_ms().min(tick_ms)
    }

    pub(crate) fn on_request(
        &mut self,
        from: Sender,
        id: CorrelationId,
        request: Request,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        self.note_contact(from, &request, step.now_ms);
        self.next_request += 1;
        let request_id = RequestId(self.next_request);
        self.requests.insert(request_id, (from, id));
        let inbound = Inbound { cluster_id: Some(CLUSTER_ID.into()), request };
        self.effects.extend(self.quorum.on_request(step.now_ms, request_id, inbound));
        self.settle(disk, step);
    }

    pub(crate) fn on_response(
        &mut self,
        id: CorrelationId,
        response: Response,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        self.effects.extend(self.quorum.on_response(step.now_ms, id, response));
        self.settle(disk, step);
    }

    pub(crate) fn on_synced(
        &mut self,
        ticket: FlushTicket,
        mark: SyncMark,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        disk.metadata.on_synced(mark);
        self.effects.extend(self.quorum.on_flushed(step.now_ms, ticket));
        self.settle(disk, step);
    }

    pub(crate) fn on_tick(&mut self, disk: &mut Disk, step: &mut NodeStep<'_>) {
        if step.plant == Plant::NoCheckQuorum && self.quorum.is_leader() {
            self.repeat_contact(disk, step);
        }
        self.effects.extend(self.quorum.on_tick(step.now_ms));
        self.settle(disk, step);
        while self.decides() && !step.is_dead() {
            let Some(outcome) = self.controller.on_tick(step.now_ms) else { break };
            self.decided(outcome.records, outcome.atomic, None, step);
            self.settle(disk, step);
        }
        self.watch_majority(step);
    }

    /// Nobody listens any more where a node is reached; or so it seems.
    pub(crate) fn on_process_gone(
        &mut self,
        id: BrokerId,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        self.effects.extend(self.quorum.on_process_gone(step.now_ms, id));
        self.settle(disk, step);
        let registered = self.controller.image().brokers.get(id).map(|broker| broker.epoch);
        if let Some(epoch) = registered.filter(|_| self.decides() && !step.is_dead()) {
            let outcome = self.controller.on_process_gone(id, epoch, step.now_ms);
            self.decided(outcome.records, outcome.atomic, None, step);
            self.settle(disk, step);
        }
    }

    /// A driver with a mistake hands an old fetch to the quorum once more.
    fn repeat_contact(&mut self, disk: &mut Disk, step: &mut NodeStep<'_>) {
        for request in self.last_fetches.values().cloned().collect::<Vec<_>>() {
            self.next_request += 1;
            let inbound = Inbound { cluster_id: None, request };
            let request_id = RequestId(self.next_request);
            self.effects.extend(self.quorum.on_request(step.now_ms, request_id, inbound));
        }
        self.settle(disk, step);
    }

    fn note_contact(&mut self, from: Sender, request: &Request, now_ms: i64) {
        let Address::Node(id) = from.address else { return };
        if matches!(
            request,
            Request::Fetch(_) | Request::FetchSnapshot(_) | Request::UpdateVoter(_)
        ) {
            self.heard.insert(id, now_ms);
        }
        if matches!(request, Request::Fetch(_)) {
            self.last_fetches.insert(id, request.clone());
        }
    }

    /// How long ago the leader had last heard from a majority.
    fn watch_majority(&mut self, step: &mut NodeStep<'_>) {
        if !self.quorum.is_leader() {
            self.leads_since_ms = None;
            return;
        }
        let since_ms = *self.leads_since_ms.get_or_insert(step.now_ms);
        let voters = self.quorum.membership().voters.latest();
        let others = voters.ids().filter(|id| *id != self.life.0);
        let heard = |id| self.heard.get(&id).copied().unwrap_or(since_ms).max(since_ms);
        let mut heard: Vec<i64> = others.map(heard).collect();
        heard.sort_unstable_by(|one, other| other.cmp(one));
        let needed = voters.majority() - 1;
        if let Some(at_ms) = needed.checked_sub(1).map(|index| heard[index]) {
            let silent_ms = step.now_ms - at_ms;
            step.observe(Observation::QuorumSilent { life: self.life, silent_ms });
        }
    }

    /// A broker or an administrator asks the controller.
    pub(crate) fn on_controller_request(
        &mut self,
        from: Sender,
        call: CallId,
        request: ControllerRequest,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        if !self.decides() {
            let answer = Err(ErrorCode::NotController);
            return step.answer(from, Message::ControllerAnswer { call, answer });
        }
        let next_offset = self.quorum.log().end_offset;
        let decided = decision::decide(&mut self.controller, request, next_offset, step);
        let Outcome { records, atomic, response } = decided;
        self.decided(records, atomic, Some((from, call, response)), step);
        self.settle(disk, step);
    }

    /// Appends what was decided; the answer waits for all that was decided before it as well.
    fn decided(
        &mut self,
        records: Vec<MetadataRecord>,
        atomic: bool,
        to: Option<(Sender, CallId, ControllerAnswer)>,
        step: &mut NodeStep<'_>,
    ) {
        let per_batch = if atomic { records.len().max(1) } else { MAX_RECORDS_PER_BATCH };
        for batch in records.chunks(per_batch) {
            self.append(batch, step);
        }
        let until = self.quorum.log().end_offset;
        self.held.push_back(Held { until, to });
        self.release(step);
    }

    fn append(&mut self, records: &[MetadataRecord], step: &mut NodeStep<'_>) {
        let offset = self.quorum.log().end_offset;
        let epoch = self.quorum.epoch();
        let count = u32::try_from(records.len()).expect("few records");
        let bytes = step.store.announce(records.to_vec());
        let effects = self.quorum.append(step.now_ms, epoch, count, bytes);
        self.effects.extend(effects.expect("an active controller leads the epoch it decides in"));
        for (record, offset) in records.iter().zip(offset..) {
            self.controller
                .replay(record, offset)
                .expect("a controller's decision can be replayed");
        }
    }

    fn release(&mut self, step: &mut NodeStep<'_>) {
        let end_offset = self.loader.end_offset();
        while let Some(held) = self.held.pop_front_if(|held| held.until <= end_offset) {
            if let Some((to, call, answer)) = held.to {
                let answer = Ok(answer);
                step.answer(to, Message::ControllerAnswer { call, answer });
            }
        }
    }

    /// Takes a snapshot of what is committed, if there is anything new.
    pub(crate) fn take_snapshot(&mut self, disk: &mut Disk, step: &mut NodeStep<'_>) {
        let in_transaction = self.loader.transaction_start_offset().is_some();
        let end_offset = self.loader.end_offset();
        if in_transaction || Some(end_offset) > self.quorum.high_watermark() {
            return;
        }
        let Some(id) = disk.snapshot_id(end_offset) else { return };
        let mut membership = self.quorum.membership().clone();
        membership.voters.truncate_from_end(id.offset);
        membership.kraft_version.truncate_from_end(id.offset);
        let records = snapshot::records(self.loader.stable());
        let file = Rc::new(SnapshotFile { id, membership, records });
        step.store.keep_snapshot(&file);
        disk.put_snapshot(file);
        self.quorum.on_snapshot_written(id);
        self.quorum.on_log_deleted(id.offset, id);
    }

    /// Carries out everything that is to be done now. The power may fail between any two effects.
    fn settle(&mut self, disk: &mut Disk, step: &mut NodeStep<'_>) {
        while let Some(effect) = self.effects.pop_front() {
            if step.is_dead() {
                return;
            }
            self.perform(effect, disk, step);
            step.burn();
        }
    }

    fn perform(&mut self, effect: Effect, disk: &mut Disk, step: &mut NodeStep<'_>) {
        match effect {
            Effect::PersistElection(election) => disk.persist_election(election),
            Effect::Append { base_offset, epoch, batch } => {
                self.append_to_disk(base_offset, epoch, batch, disk, step);
            }
            Effect::Truncate { end_offset } => {
                disk.metadata.truncate(end_offset);
                let (life, applied) = (self.life, self.loader.end_offset());
                step.observe(Observation::MetadataCut { life, end_offset, applied });
            }
            Effect::Flush(ticket) => self.flush(ticket, disk, step),
            Effect::Send { correlation_id: id, to, request } => {
                let to = Address::Node(BrokerId::from(to.address.port));
                step.ask(to, Message::Quorum { id, request });
            }
            Effect::Reply { request_id, reply } => self.reply(request_id, reply, disk, step),
            Effect::CommitTo { high_watermark } => self.commit_to(high_watermark, disk, step),
            // Of an epoch that has ended meanwhile, the queue holds the end as well.
            Effect::BecameLeader { epoch }
                if self.quorum.epoch() != epoch || !self.quorum.is_leader() => {}
            Effect::BecameLeader { epoch } => self.became_leader(epoch, step),
            Effect::Resigned { .. } => self.resigned(step),
            Effect::LoadSnapshot { snapshot_id } => self.load_snapshot(snapshot_id, disk, step),
            Effect::WriteSnapshotChunk { .. } | Effect::LeaderChanged { .. } => {}
            Effect::Anomaly(anomaly) => {
                step.observe(Observation::Contradiction { life: self.life, anomaly });
            }
        }
    }

    fn flush(&mut self, ticket: FlushTicket, disk: &Disk, step: &mut NodeStep<'_>) {
        if step.plant == Plant::MetadataCountedBeforeSync {
            self.effects.extend(self.quorum.on_flushed(step.now_ms, ticket));
            return;
        }
        let mark = disk.metadata.sync_mark();
        let delay_ms = step.random.between(0, 12);
        step.after(delay_ms, NodeTimer::MetadataSynced { ticket, mark });
    }

    fn append_to_disk(
        &mut self,
        base: Offset,
        epoch: LeaderEpoch,
        batch: AppendBatch,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        match batch {
            AppendBatch::Fetched(batches) => {
                for bytes in &batches {
                    disk.metadata.append(step.store.batch(bytes));
                }
            }
            AppendBatch::Records(bytes) => {
                let records = step.store.announced(&bytes);
                let next = base + Offset::try_from(records.len()).expect("few records");
                let batch = step.store.write((base, next), epoch, Vec::new(), Some(records));
                disk.metadata.append(batch);
            }
            AppendBatch::Membership(change) => {
                let changes = change.changes(base);
                let next = base + Offset::try_from(changes.len()).expect("two at most");
                disk.metadata.append(step.store.write((base, next), epoch, changes, None));
            }
            AppendBatch::EpochStart(start) => {
                let next = base + Offset::from(start.record_count());
                let changes = start.membership.map(|(level, voters)| {
                    vec![
                        (base + 1, ControlChange::KRaftVersion(level)),
                        (base + 2, ControlChange::Voters(voters)),
                    ]
                });
                let changes = changes.unwrap_or_default();
                disk.metadata.append(step.store.write((base, next), epoch, changes, None));
                step.observe(Observation::QuorumLed { life: self.life, epoch });
            }
        }
    }

    fn became_leader(&mut self, epoch: LeaderEpoch, step: &mut NodeStep<'_>) {
        self.active_epoch = Some(epoch);
        self.controller.reset(self.loader.clone());
        step.observe(Observation::ControllerActive { life: self.life });
        let Outcome { records, atomic, response: () } = self.controller.on_elected(step.now_ms);
        self.decided(records, atomic, None, step);
    }

    /// Whether the controller may decide: it is active, and the quorum has not moved on since.
    fn decides(&self) -> bool {
        self.controller.is_active()
            && self.quorum.is_leader()
            && self.active_epoch == Some(self.quorum.epoch())
    }

    fn resigned(&mut self, step: &mut NodeStep<'_>) {
        self.active_epoch = None;
        self.controller.on_resigned();
        self.controller.reset(self.loader.clone());
        for held in std::mem::take(&mut self.held) {
            if let Some((to, call, _)) = held.to {
                let answer = Err(ErrorCode::NotController);
                step.answer(to, Message::ControllerAnswer { call, answer });
            }
        }
    }

    fn commit_to(&mut self, high_watermark: Offset, disk: &Disk, step: &mut NodeStep<'_>) {
        let end_offset = match step.plant {
            Plant::MetadataAppliedBeforeCommit => disk.metadata.end(),
            _ => high_watermark,
        };
        let from = self.loader.end_offset();
        for batch in disk.metadata.read(from, end_offset, usize::MAX) {
            match &batch.records {
                None => self.loader.skip_to(batch.next_offset),
                Some(records) => {
                    for (record, offset) in records.iter().zip(batch.base_offset..) {
                        let replayed = self.loader.replay(record, offset);
                        replayed.expect("what is committed can be replayed");
                    }
                }
            }
            step.observe(Observation::MetadataCommitted { life: self.life, batch });
        }
        let (life, end_offset) = (self.life, self.loader.end_offset());
        step.observe(Observation::MetadataApplied { life, end_offset });
        self.release(step);
    }

    fn load_snapshot(&mut self, id: OffsetAndEpoch, disk: &mut Disk, step: &mut NodeStep<'_>) {
        step.observe(Observation::SnapshotLoaded);
        let file = step.store.snapshot(id);
        self.loader = loaded(&file);
        let membership = file.membership.clone();
        disk.start_at_snapshot(file);
        self.controller.reset(self.loader.clone());
        let effects = self.quorum.on_snapshot_loaded(step.now_ms, id, membership);
        // These are told before what was still to be done when the snapshot arrived.
        for effect in effects.into_iter().rev() {
            self.effects.push_front(effect);
        }
        let (life, end_offset) = (self.life, self.loader.end_offset());
        step.observe(Observation::MetadataApplied { life, end_offset });
    }

    fn reply(&mut self, request_id: RequestId, reply: Reply, disk: &Disk, step: &mut NodeStep<'_>) {
        let Some((to, id)) = self.requests.remove(&request_id) else {
            assert!(step.plant == Plant::NoCheckQuorum, "a request is answered once");
            return;
        };
        let response = response(reply, disk, step);
        step.answer(to, Message::QuorumAnswer { id, response });
    }
}

fn loaded(file: &SnapshotFile) -> MetadataLoader {
    MetadataLoader::from_snapshot(&file.records, file.id.offset).expect("a snapshot can be loaded")
}

fn response(reply: Reply, disk: &Disk, step: &mut NodeStep<'_>) -> Response {
    match reply {
        Reply::Vote(vote) => Response::Vote(vote),
        Reply::BeginQuorumEpoch(begin) => Response::BeginQuorumEpoch(begin),
        Reply::EndQuorumEpoch(end) => Response::EndQuorumEpoch(end),
        Reply::Fetch(fetch) => Response::Fetch(read(fetch, disk, step)),
        Reply::FetchSnapshot(fetch) => Response::FetchSnapshot(read_snapshot(fetch, disk, step)),
        Reply::AddVoter(add) => Response::AddVoter(add),
        Reply::RemoveVoter(remove) => Response::RemoveVoter(remove),
        Reply::UpdateVoter(update) => Response::UpdateVoter(update),
        Reply::ApiVersions(versions) => Response::ApiVersions(versions),
        Reply::Refused(error) => Response::Failed(error),
    }
}

fn read(reply: FetchReply, disk: &Disk, step: &mut NodeStep<'_>) -> FetchResponse {
    let body = match reply.body {
        FetchReplyBody::Empty => FetchBody::Records(Vec::new()),
        FetchReplyBody::Diverging(end) => FetchBody::Diverging(end),
        FetchReplyBody::Snapshot(id) => FetchBody::Snapshot(id),
        FetchReplyBody::Records { offset, .. } => {
            let max = usize::try_from(step.random.between(1, 8)).expect("few");
            let batches = disk.metadata.read(offset, Offset::MAX, max);
            FetchBody::Records(batches.iter().map(|batch| batch.fetched()).collect())
        }
    };
    FetchResponse {
        error: reply.error,
        leader: reply.leader,
        high_watermark: reply.high_watermark,
        log_start_offset: reply.log_start_offset,
        body,
    }
}

fn read_snapshot(
    fetch: FetchSnapshotReply,
    disk: &Disk,
    step: &mut NodeStep<'_>,
) -> FetchSnapshotResponse {
    let found = disk.snapshot.as_ref().is_some_and(|file| file.id == fetch.snapshot_id);
    let error = match fetch.error {
        ErrorCode::None if !found => ErrorCode::SnapshotNotFound,
        error => error,
    };
    let left = (SNAPSHOT_BYTES - fetch.position).max(1);
    let length = usize::try_from(step.random.between(1, left)).expect("a short piece");
    FetchSnapshotResponse {
        error,
        leader: fetch.leader,
        snapshot_id: fetch.snapshot_id,
        size: SNAPSHOT_BYTES,
        position: fetch.position,
        bytes: Bytes::from(vec![0; length]),
    }
}
