//! The scheduler: one queue of events in the order of the world's time, everything else by the seed.
//!
//! A run has a phase with faults, in which nothing unsafe may happen, and a healed one, in which everything
//! must get going again within bounded time.

mod directories;
mod faults;
mod healing;
mod upkeep;

use crate::batch::BatchStore;
use crate::client::{Client, ClientStep, ClientTimer, Leaders};
use crate::clock::{Clock, right_ms};
use crate::invariants::{Cluster, Invariants};
use crate::message::{Address, Message, Sender};
use crate::metadata_driver::NodeStep;
use crate::network::Network;
use crate::node::{Node, NodeTimer};
use crate::observation::Observation;
use crate::plant::Plant;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::step::{Alarm, Step};
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;
use klamm_protocol::time::Now;
use klamm_replication::quorum::message::Response;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How long the faults last.
const FAULTS_MS: i64 = 6_000;
/// How many effects a power failure in the midst of a step spares at most.
const MAX_FUSE: i64 = 6;
/// One in so many steps of a node ends with its power failing.
const FUSE_ODDS: u64 = 3_000;

#[derive(Debug, Clone)]
enum Event {
    Deliver { from: Sender, to: Address, life: Option<u64>, message: Box<Message> },
    Node { id: BrokerId, incarnation: u64, timer: NodeTimer },
    Client { index: usize, timer: ClientTimer },
    Crash,
    Stop,
    Start(BrokerId),
    Cut,
    Mend,
    ReplaceDisk,
    BreakDirectory,
    HideDirectory,
    DirectoryReturns { id: BrokerId, at: usize },
    FillDisk,
    Room(BrokerId),
    SetClock,
    SetClockRight(BrokerId),
    DamageDisk,
    MoveReplica,
}

pub(crate) struct World {
    scenario: Scenario,
    random: Random,
    /// For damage and moves alone.
    upkeep: Random,
    plant: Plant,
    now_ms: i64,
    sequence: u64,
    events: BTreeMap<(i64, u64), Event>,
    pub(crate) nodes: BTreeMap<BrokerId, Node>,
    pub(crate) clients: Vec<Client>,
    store: BatchStore,
    network: Network,
    faults: bool,
    /// The node with an empty disk, until it has all that it should have again. One loss is to be survived at a time.
    restoring: Option<BrokerId>,
    pub(crate) invariants: Invariants,
    violation: Option<String>,
    /// Everything that happened, if asked for: formatting takes most of a run.
    trace: Option<DefaultHasher>,
    /// How often each kind of thing was seen, faults included.
    pub(crate) census: BTreeMap<&'static str, u64>,
    /// Whether to tell what is observed.
    is_verbose: bool,
}

impl World {
    pub(crate) fn new(seed: u64, plant: Plant) -> Self {
        let mut random = Random::new(seed);
        let mut upkeep = Random::new(!seed);
        let scenario = Scenario::random(&mut random, &mut upkeep);
        let node = |id: &BrokerId, random: &mut Random| {
            (*id, Node::new(*id, Clock::random(random), &scenario))
        };
        let nodes = scenario.nodes.iter().map(|id| node(id, &mut random)).collect();
        let mut world = Self {
            clients: crate::client::all(&scenario),
            network: Network::new(scenario.loss),
            random,
            upkeep,
            plant,
            now_ms: 0,
            sequence: 0,
            events: BTreeMap::new(),
            nodes,
            store: BatchStore::default(),
            faults: true,
            restoring: None,
            invariants: Invariants::default(),
            violation: None,
            trace: None,
            census: BTreeMap::new(),
            is_verbose: std::env::var_os("SIMULATION_VERBOSE").is_some(),
            scenario,
        };
        for id in world.scenario.nodes.clone() {
            if world.scenario.clocks_jump && world.random.chance(60) {
                world.start_clock_behind(id);
            }
            world.start(id);
        }
        for index in 0..world.clients.len() {
            world.step_client(index, |client, step| client.start(step));
        }
        world
    }

    pub(crate) fn traced(mut self) -> Self {
        self.trace = Some(DefaultHasher::new());
        self
    }

    pub(crate) fn trace(&self) -> Option<u64> {
        self.trace.as_ref().map(DefaultHasher::finish)
    }

    /// Both phases, and what must hold at the end.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        // The cluster comes up before the first fault, or it would hardly ever have topics.
        let (crash_ms, stop_ms) =
            (self.random.between(900, 2_500), self.random.between(900, 5_000));
        let cut_ms = self.random.between(900, 2_500);
        self.schedule(crash_ms, Event::Crash);
        self.schedule(stop_ms, Event::Stop);
        self.schedule(cut_ms, Event::Cut);
        if self.scenario.replaces_disks {
            let replace_ms = self.random.between(900, 1_500);
            self.schedule(replace_ms, Event::ReplaceDisk);
        }
        if self.scenario.directories_fail || self.scenario.replaces_disks {
            let break_ms = self.random.between(900, 2_500);
            self.schedule(break_ms, Event::BreakDirectory);
        }
        if self.scenario.directories_away > 0 {
            let hide_ms = self.random.between(300, 1_500);
            self.schedule(hide_ms, Event::HideDirectory);
        }
        if self.scenario.disks_fill {
            let fill_ms = self.random.between(100, 2_500);
            self.schedule(fill_ms, Event::FillDisk);
        }
        if self.scenario.clocks_jump {
            let set_ms = self.random.between(700, 2_500);
            self.schedule(set_ms, Event::SetClock);
        }
        self.schedule_upkeep();
        self.run_until(FAULTS_MS)?;
        self.heal();
        self.converge()?;
        let (nodes, scenario, restoring) = (&self.nodes, &self.scenario, self.restoring);
        let cluster = Cluster { nodes, scenario, restoring };
        self.invariants.finish(&cluster)
    }

    fn run_until(&mut self, end_ms: i64) -> Result<(), String> {
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > end_ms {
                break;
            }
            let ((at_ms, _), event) = entry.remove_entry();
            self.now_ms = at_ms;
            if let Some(trace) = &mut self.trace {
                (at_ms, format!("{event:?}")).hash(trace);
            }
            self.handle(event);
            if let Some(violation) = self.violation.take() {
                return Err(format!("at {at_ms} ms: {violation}"));
            }
        }
        self.now_ms = end_ms;
        Ok(())
    }

    fn schedule(&mut self, delay_ms: i64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now_ms + delay_ms, self.sequence), event);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, life, message } => self.deliver(from, to, life, *message),
            Event::Node { id, incarnation, timer } => self.wake_node(id, incarnation, timer),
            Event::Client { index, timer } => {
                self.step_client(index, |client, step| client.on_timer(timer, step));
            }
            Event::Crash => self.crash_someone(),
            Event::Stop => self.stop_someone(),
            Event::Start(id) => self.start(id),
            Event::Cut => self.cut_someone_off(),
            Event::Mend => self.network.mend(),
            Event::ReplaceDisk => self.replace_a_disk(),
            Event::BreakDirectory => self.break_a_directory(),
            Event::HideDirectory => self.hide_an_unrecorded_directory(),
            Event::DirectoryReturns { id, at } => self.return_directory(id, at),
            Event::FillDisk => self.fill_a_disk(),
            Event::Room(id) => self.make_room(id),
            Event::SetClock => self.set_a_clock(),
            Event::SetClockRight(id) => self.set_clock_right(id),
            Event::DamageDisk => self.damage_a_disk(),
            Event::MoveReplica => self.move_a_replica(),
        }
    }

    fn deliver(&mut self, from: Sender, to: Address, life: Option<u64>, message: Message) {
        match to {
            Address::Client(index) => {
                self.step_client(index, |client, step| client.on_message(message, step));
            }
            Address::Node(id) => {
                let node = &self.nodes[&id];
                if !node.is_up() {
                    self.refuse_connection(from, to, message);
                } else if life.is_none_or(|life| life == node.incarnation) {
                    self.step_node(id, |node, _, step| node.on_message(from, message, step));
                }
            }
        }
    }

    /// Nobody listens there. Mostly the sender is told so.
    fn refuse_connection(&mut self, from: Sender, to: Address, message: Message) {
        if let Message::Quorum { id, .. } = message
            && self.random.chance(70)
        {
            let response = Response::Failed(ErrorCode::BrokerNotAvailable);
            let message = Box::new(Message::QuorumAnswer { id, response });
            let life = Some(from.incarnation);
            let from_node = Sender { address: to, incarnation: 0 };
            self.schedule(2, Event::Deliver { from: from_node, to: from.address, life, message });
        }
    }

    fn wake_node(&mut self, id: BrokerId, incarnation: u64, timer: NodeTimer) {
        let node = self.nodes.get_mut(&id).expect("a node");
        if node.incarnation != incarnation || !node.is_up() {
            return;
        }
        if let NodeTimer::Tick = timer {
            if node.tick_at_ms > self.now_ms {
                return;
            }
            node.tick_at_ms = i64::MAX;
        }
        let syncs = matches!(timer, NodeTimer::DataSynced(_) | NodeTimer::MetadataSynced { .. });
        if syncs && self.may_crash() && self.random.below(self.scenario.disk_failure_odds) == 0 {
            // A sync that fails stops the node; what it was to sync is not to be relied on.
            return self.crash(id);
        }
        self.step_node(id, |node, _, step| node.on_timer(timer, step));
    }

    /// Lets a node act, and carries out what it asks for.
    fn step_node(
        &mut self,
        id: BrokerId,
        act: impl FnOnce(&mut Node, &Scenario, &mut NodeStep<'_>),
    ) {
        let blows = self.may_crash() && self.now_ms > 900 && self.random.below(FUSE_ODDS) == 0;
        let fuse = self.random.between(1, MAX_FUSE);
        let node = self.nodes.get_mut(&id).expect("a node");
        let mut now = node.clock.now(self.now_ms);
        match self.plant {
            Plant::CommitsCarrySteadyClock => now.wall_ms = now.steady_ms,
            Plant::SkippedDaysAreBelieved => now.retention_ms = now.wall_ms,
            Plant::TimersFollowWallClock => now.steady_ms = now.wall_ms,
            _ => {}
        }
        let mut step = Step {
            now,
            now_ms: now.steady_ms,
            random: &mut self.random,
            store: &mut self.store,
            plant: self.plant,
            fuse: blows.then(|| u32::try_from(fuse).expect("small")),
            sent: Vec::new(),
            alarms: Vec::new(),
            observed: Vec::new(),
        };
        act(node, &self.scenario, &mut step);
        let Step { fuse, sent, alarms, observed, .. } = step;
        let from = Sender { address: Address::Node(id), incarnation: node.incarnation };
        let may_stop = node.process.as_ref().is_some_and(|process| process.broker.may_stop);
        for Alarm { delay_ms, timer } in alarms {
            let event = Event::Node { id, incarnation: from.incarnation, timer };
            self.schedule(delay_ms, event);
        }
        self.transmit(from, sent);
        self.observe(&observed);
        if fuse == Some(0) {
            self.crash(id);
        } else if may_stop {
            self.close(id);
        } else {
            self.reschedule_tick(id);
        }
    }

    fn step_client(&mut self, index: usize, act: impl FnOnce(&mut Client, &mut ClientStep<'_>)) {
        self.refresh_leaders(index);
        let now = Now::at(right_ms(self.now_ms));
        let mut step = Step {
            now,
            now_ms: now.steady_ms,
            random: &mut self.random,
            store: &mut self.store,
            plant: self.plant,
            fuse: None,
            sent: Vec::new(),
            alarms: Vec::new(),
            observed: Vec::new(),
        };
        act(&mut self.clients[index], &mut step);
        let Step { sent, alarms, observed, .. } = step;
        for Alarm { delay_ms, timer } in alarms {
            self.schedule(delay_ms, Event::Client { index, timer });
        }
        let from = Sender { address: Address::Client(index), incarnation: 0 };
        self.transmit(from, sent);
        self.observe(&observed);
    }

    /// The client asks any node that runs for the metadata that this one knows.
    fn refresh_leaders(&mut self, index: usize) {
        let id = self.any_node();
        if let Some(process) = &self.nodes[&id].process {
            let leaders: &mut Leaders = &mut self.clients[index].leaders;
            leaders.learn(process.metadata.controller.committed().stable());
        }
    }

    fn transmit(&mut self, from: Sender, sent: Vec<(Address, Option<u64>, Message)>) {
        for (to, life, message) in sent {
            let mut delays = self.network.delays(from.address, to, &mut self.random);
            if keeps_order(&message) {
                let [first, _] = delays;
                let now_ms = self.now_ms;
                let queued = |delay_ms| self.network.in_order(from.address, to, now_ms, delay_ms);
                delays = [first.map(queued), None];
            }
            for delay_ms in delays.into_iter().flatten() {
                let message = Box::new(message.clone());
                self.schedule(delay_ms, Event::Deliver { from, to, life, message });
            }
        }
    }

    /// A fault happens.
    fn count(&mut self, kind: &'static str) {
        if self.is_verbose {
            eprintln!("{} ms: {kind}", self.now_ms);
        }
        *self.census.entry(kind).or_default() += 1;
    }

    fn observe(&mut self, observed: &[Observation]) {
        if self.is_verbose {
            observed.iter().for_each(|seen| eprintln!("{} ms: {seen:?}", self.now_ms));
        }
        for seen in observed {
            *self.census.entry(seen.kind()).or_default() += 1;
        }
        let (nodes, scenario, restoring) = (&self.nodes, &self.scenario, self.restoring);
        let cluster = Cluster { nodes, scenario, restoring };
        if let Err(violation) = self.invariants.observe(observed, &cluster) {
            self.violation.get_or_insert(violation);
        }
    }

    pub(super) fn reschedule_tick(&mut self, id: BrokerId) {
        let node = self.nodes.get_mut(&id).expect("a node");
        let deadline_ms = node.next_deadline_ms();
        if deadline_ms == i64::MAX {
            return;
        }
        let at_ms = match self.plant {
            Plant::TimersFollowWallClock => node.clock.world_ms_by_wall(deadline_ms),
            _ => node.clock.world_ms(deadline_ms),
        };
        let at_ms = at_ms.max(self.now_ms);
        if at_ms < node.tick_at_ms {
            node.tick_at_ms = at_ms;
            let event = Event::Node { id, incarnation: node.incarnation, timer: NodeTimer::Tick };
            self.schedule(at_ms - self.now_ms, event);
        }
    }
}

/// What relies on a connection that neither doubles nor reorders. A commit that overtakes a later one
/// would set the offset back. An AlterPartition that was given up and arrives after its repetition was
/// refused would change the ISR behind the leader's back.
fn keeps_order(message: &Message) -> bool {
    matches!(message, Message::Group { .. } | Message::Controller { .. })
}
