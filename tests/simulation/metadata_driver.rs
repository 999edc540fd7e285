//! The driver of a node's quorum, metadata log and controller, as `src/controller/driver.rs` is for real: the quorum and
//! the controller that ship, on a simulated disk and network.

mod contact;
mod io;
mod perform;

use crate::batch::SnapshotFile;
use crate::decision;
use crate::disk::Disk;
use crate::log::SyncMark;
use crate::message::{CallId, ControllerRequest, Message, Sender};
use crate::node::NodeTimer;
use crate::observation::Life;
use crate::plant::Plant;
use crate::scenario::{CLUSTER_ID, Scenario};
use crate::step::Step;
use klamm_metadata::controller::Controller;
use klamm_metadata::controller::outcome::Outcome;
use klamm_metadata::image::replay_error::ReplayError;
use klamm_metadata::loader::MetadataLoader;
use klamm_metadata::quorum_controller::{HeldUntil, QuorumController};
use klamm_metadata::snapshot;
use klamm_metadata::snapshot::schedule::SnapshotSchedule;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;
use klamm_replication::quorum::message::{Inbound, Request, Response};
use klamm_replication::quorum::{CorrelationId, Effect, FlushTicket, Quorum, RequestId};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use self::contact::Contact;
use self::io::{Io, Waiting, led_epoch};

/// What a snapshot is long on the wire: its content is shared.
const SNAPSHOT_BYTES: i64 = 10;
/// How long a driver waits before it looks again whether there is room.
const ROOM_MS: i64 = 20;
/// Records in one batch of a decision that may be spread.
const MAX_RECORDS_PER_BATCH: usize = 4;

pub(crate) type NodeStep<'w> = Step<'w, NodeTimer>;

#[derive(Debug)]
pub(crate) struct MetadataDriver {
    life: Life,
    pub(crate) quorum: Quorum,
    pub(crate) controller: QuorumController<Waiting>,
    effects: VecDeque<Effect>,
    requests: BTreeMap<RequestId, (Sender, CorrelationId)>,
    next_request: u64,
    contact: Contact,
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
        // A timer of the node says when a snapshot is taken: by the schedule one is due at any time.
        let snapshots = SnapshotSchedule::new(0, 0, 0, step.now_ms);
        let mut driver = Self {
            life,
            quorum,
            controller: QuorumController::new(controller, loader, MAX_RECORDS_PER_BATCH, snapshots),
            effects: effects.into(),
            requests: BTreeMap::new(),
            next_request: 0,
            contact: Contact::default(),
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
        self.contact.on_request(from, &request, step.now_ms);
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
        if !step.is_dead() {
            let now_ms = step.now_ms;
            self.with_controller(disk, step, |controller, io| controller.on_tick(now_ms, io));
            self.settle(disk, step);
        }
        self.contact.observe_majority(self.life, &self.quorum, step);
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
        if step.is_dead() {
            return;
        }
        let Some(controller) = self.controller.active(led_epoch(&self.quorum)) else { return };
        let registered = controller.image().brokers.get(id).map(|broker| broker.epoch);
        if let Some(epoch) = registered {
            let outcome = controller.on_process_gone(id, epoch, step.now_ms).map(|()| None);
            self.on_decided(outcome, disk, step);
        }
    }

    /// A driver with a mistake hands an old fetch to the quorum once more.
    fn repeat_contact(&mut self, disk: &mut Disk, step: &mut NodeStep<'_>) {
        for request in self.contact.last_fetches() {
            self.next_request += 1;
            let inbound = Inbound { cluster_id: None, request };
            let request_id = RequestId(self.next_request);
            self.effects.extend(self.quorum.on_request(step.now_ms, request_id, inbound));
        }
        self.settle(disk, step);
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
        let Some(controller) = self.controller.active(led_epoch(&self.quorum)) else {
            let answer = Err(ErrorCode::NotController);
            return step.answer(from, Message::ControllerAnswer { call, answer });
        };
        let next_offset = self.quorum.log().end_offset;
        let outcome = decision::decide(controller, request, next_offset, step);
        self.on_decided(outcome.map(|answer| Some((from, call, answer))), disk, step);
    }

    fn on_decided(&mut self, outcome: Outcome<Waiting>, disk: &mut Disk, step: &mut NodeStep<'_>) {
        self.with_controller(disk, step, |controller, io| {
            // The node publishes at the end of each of its steps.
            controller.on_decided(outcome, HeldUntil::Committed, io)
        });
        self.settle(disk, step);
    }

    /// Has the controller do something with the log and the network.
    fn with_controller<R>(
        &mut self,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
        event: impl FnOnce(&mut QuorumController<Waiting>, &mut Io<'_, '_>) -> Result<R, ReplayError>,
    ) -> R {
        let Self { life, quorum, controller, effects, .. } = self;
        let mut io = Io { life: *life, quorum, effects, disk, step };
        event(controller, &mut io).expect("what is decided or committed can be replayed")
    }

    /// Takes a snapshot of what is committed, if there is anything new.
    pub(crate) fn take_snapshot(&mut self, disk: &mut Disk, step: &mut NodeStep<'_>) {
        let committed = self.controller.committed();
        let end_offset = committed.end_offset();
        if disk.logs.is_first_full() || self.waits_for_room() {
            return;
        }
        let is_committed = Some(end_offset) <= self.quorum.high_watermark();
        if !is_committed || !self.controller.is_snapshot_due(0, step.now_ms) {
            return;
        }
        let Some(id) = disk.snapshot_id(end_offset) else { return };
        let mut membership = self.quorum.membership().clone();
        membership.voters.truncate_from_end(id.offset);
        membership.kraft_version.truncate_from_end(id.offset);
        let records = snapshot::records(committed.stable());
        let file = Rc::new(SnapshotFile { id, membership, records });
        step.store.keep_snapshot(&file);
        disk.put_snapshot(file);
        self.quorum.on_snapshot_written(id);
        self.quorum.on_log_deleted(id.offset, id);
    }
}

fn loaded(file: &SnapshotFile) -> MetadataLoader {
    MetadataLoader::from_snapshot(&file.records, file.id.offset).expect("a snapshot can be loaded")
}
