//! The driver of a node's quorum, metadata log and controller, as `src/controller/driver.rs` is for
//! real: carries effects out in order, replays what is committed, answers when a decision holds.

mod perform;

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
use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_metadata::loader::MetadataLoader;
use klamm_metadata::snapshot;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_protocol::metadata_record::MetadataRecord;
use klamm_replication::quorum::message::{Inbound, Request, Response};
use klamm_replication::quorum::{CorrelationId, Effect, FlushTicket, Quorum, RequestId};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// What a snapshot is long on the wire: its content is shared.
const SNAPSHOT_BYTES: i64 = 10;
/// How long a driver waits before it looks again whether there is room.
const ROOM_MS: i64 = 20;
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
    /// Since when this node leads these voters: the offset of their record tells them apart.
    leads_since_ms: Option<(Option<Offset>, i64)>,
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
        let config = scenario.quorum(life.0, disk.logs.first(), step.random.next());
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
        if self.waits_for_room() {
            return i64::MAX;
        }
        let tick_ms = self.controller.next_tick_ms().unwrap_or(i64::MAX);
        self.quorum.next_deadline_ms().min(tick_ms)
    }

    /// Whether something waits for room in the log. Nothing is taken in meanwhile: whoever has asked asks again.
    fn waits_for_room(&self) -> bool {
        !self.effects.is_empty()
    }

    pub(crate) fn on_request(
        &mut self,
        from: Sender,
        id: CorrelationId,
        request: Request,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        if self.waits_for_room() {
            return;
        }
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
        if self.waits_for_room() {
            return;
        }
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
        if self.waits_for_room() {
            return step.after(ROOM_MS, NodeTimer::MetadataSynced { ticket, mark });
        }
        disk.metadata.on_synced(mark);
        self.effects.extend(self.quorum.on_flushed(step.now_ms, ticket));
        self.settle(disk, step);
    }

    pub(crate) fn on_tick(&mut self, disk: &mut Disk, step: &mut NodeStep<'_>) {
        if self.waits_for_room() {
            return;
        }
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
        if self.waits_for_room() {
            return;
        }
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
        let history = &self.quorum.membership().voters;
        let led = self.leads_since_ms.filter(|(offset, _)| *offset == history.latest_offset());
        let (_, since_ms) = led.unwrap_or((history.latest_offset(), step.now_ms));
        self.leads_since_ms = Some((history.latest_offset(), since_ms));
        let voters = history.latest();
        let others = voters.ids().filter(|id| *id != self.life.0);
        let heard = |id| self.heard.get(&id).copied().unwrap_or(since_ms).max(since_ms);
        let mut heard: Vec<i64> = others.map(heard).collect();
        heard.sort_unstable_by(|one, other| other.cmp(one));
        let needed = voters.majority() - usize::from(voters.get(self.life.0).is_some());
        if let Some(at_ms) = needed.checked_sub(1).map(|index| heard[index]) {
            let silent_ms = step.now_ms - at_ms;
            let (life, others) = (self.life, needed);
            step.observe(Observation::QuorumSilent { life, others, silent_ms });
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
        if self.waits_for_room() {
            return;
        }
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
        if disk.logs.is_first_full() || self.waits_for_room() {
            return;
        }
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

    /// Whether the controller may decide: it is active, and the quorum has not moved on since.
    fn decides(&self) -> bool {
        self.controller.is_active()
            && self.quorum.is_leader()
            && self.active_epoch == Some(self.quorum.epoch())
    }
}

fn loaded(file: &SnapshotFile) -> MetadataLoader {
    MetadataLoader::from_snapshot(&file.records, file.id.offset).expect("a snapshot can be loaded")
}
