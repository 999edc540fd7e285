//! Nodes, network, time and chance, and the invariants that are checked at every step.

use crate::disk::{Disk, SNAPSHOT_BYTES, Snapshot};
use crate::random::Random;
use bytes::Bytes;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_protocol::{ErrorCode, Uuid};
use klamm_replication::OffsetAndEpoch;
use klamm_replication::quorum::message::{
    AddVoterRequest, FetchBody, FetchReply, FetchReplyBody, FetchResponse, FetchSnapshotResponse,
    FetchedBatch, Inbound, RemoveVoterRequest, Reply, Request, Response,
};
use klamm_replication::quorum::{
    Address, Anomaly, AppendBatch, ControlChange, CorrelationId, Effect, Endpoints, FlushTicket,
    KRaftVersionRange, Membership, Quorum, QuorumConfig, ReplicaKey, RequestId, Voter, VoterSet,
};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

const LISTENER: &str = "CONTROLLER";

/// A defect that the invariants must catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    None,
    LogSyncLies,
    VoteSyncLies,
}

#[derive(Debug, Clone)]
enum Event {
    Tick(BrokerId),
    Request { from: (BrokerId, u64), to: BrokerId, id: CorrelationId, request: Request },
    Response { to: (BrokerId, u64), id: CorrelationId, response: Response },
    Flushed { node: (BrokerId, u64), ticket: FlushTicket, dates_from: u64 },
    ClientAppend,
    TakeSnapshot,
    ChangeVoters,
    Crash,
    Restart(BrokerId),
    Partition,
    Heal,
}

#[derive(Debug)]
struct Node {
    quorum: Option<Quorum>,
    /// Another one after its disk was replaced.
    key: ReplicaKey,
    disk: Disk,
    incarnation: u64,
    applied: Offset,
    tick_at_ms: i64,
    active_epoch: Option<LeaderEpoch>,
}

pub(crate) struct Cluster {
    random: Random,
    plant: Plant,
    now_ms: i64,
    sequence: u64,
    events: BTreeMap<(i64, u64), Event>,
    nodes: BTreeMap<BrokerId, Node>,
    /// Whether voters come and go (kraft.version 1), or are as configured until an upgrade.
    dynamic: bool,
    auto_join: bool,
    blocked: BTreeSet<(BrokerId, BrokerId)>,
    requests: BTreeMap<RequestId, (BrokerId, u64, CorrelationId)>,
    /// Changes of the voter set that were asked for from outside, and not answered yet.
    operator_requests: BTreeSet<RequestId>,
    /// How many of them were carried out.
    pub(crate) changes: u64,
    /// How many disks have been replaced.
    generation: u8,
    faults: bool,
    /// Everything that was done, if asked for: formatting takes most of a run.
    trace: Option<DefaultHasher>,
    next_value: u64,
    /// The leader of each epoch and its incarnation.
    leaders: BTreeMap<LeaderEpoch, (BrokerId, u64)>,
    committed: Vec<(LeaderEpoch, Bytes)>,
    /// Every batch that a leader has ever written, and every snapshot taken.
    written: BTreeMap<(Offset, Bytes), FetchedBatch>,
    snapshots: BTreeMap<OffsetAndEpoch, Snapshot>,
    violation: Option<String>,
}

fn key(id: BrokerId) -> ReplicaKey {
    ReplicaKey::new(id, Uuid::from_bytes([u8::try_from(id).expect("a small id"); 16]))
}

fn endpoints(id: BrokerId) -> Endpoints {
    Endpoints::single(LISTENER.into(), address(id))
}

fn address(id: BrokerId) -> Address {
    Address { host: "localhost".into(), port: u16::try_from(id).expect("a small id") }
}

fn initial_membership(voters: &[BrokerId], with_directories: bool) -> Membership {
    let ids = voters.iter().copied();
    if !with_directories {
        let addresses = ids.map(|id| (id, address(id)));
        return Membership::new(VoterSet::from_static(&LISTENER.into(), addresses));
    }
    let voters = VoterSet::new(ids.map(|id| Voter {
        key: key(id),
        endpoints: endpoints(id),
        supported_kraft_version: KRaftVersionRange { min: 0, max: 1 },
    }));
    let mut membership = Membership::new(VoterSet::default());
    membership.apply(Membership::BOOTSTRAP_OFFSET, ControlChange::KRaftVersion(1));
    membership.apply(Membership::BOOTSTRAP_OFFSET, ControlChange::Voters(voters));
    membership
}

impl Cluster {
    pub(crate) fn new(seed: u64, plant: Plant) -> Self {
        let mut random = Random::new(seed);
        let voter_count = [1, 3, 3, 5][usize::try_from(random.below(4)).expect("an index")];
        let ids: Vec<BrokerId> = (1..=voter_count).collect();
        let dynamic = random.chance(60);
        let observers = BrokerId::from(random.chance(50)) * if dynamic { 2 } else { 1 };
        let membership = initial_membership(&ids, dynamic);
        let node = |id| Node {
            quorum: None,
            key: key(id),
            disk: Disk::new(membership.clone()),
            incarnation: 0,
            applied: 0,
            tick_at_ms: i64::MAX,
            active_epoch: None,
        };
        let mut cluster = Self {
            random,
            plant,
            now_ms: 0,
            sequence: 0,
            events: BTreeMap::new(),
            nodes: (1..=voter_count + observers).map(|id| (id, node(id))).collect(),
            dynamic,
            auto_join: false,
            blocked: BTreeSet::new(),
            requests: BTreeMap::new(),
            operator_requests: BTreeSet::new(),
            changes: 0,
            generation: 0,
            faults: true,
            trace: None,
            next_value: 0,
            leaders: BTreeMap::new(),
            committed: Vec::new(),
            written: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            violation: None,
        };
        cluster.auto_join = dynamic && cluster.random.chance(40);
        for id in cluster.nodes.keys().copied().collect::<Vec<_>>() {
            cluster.restart(id);
        }
        cluster
    }

    pub(crate) fn traced(mut self) -> Self {
        self.trace = Some(DefaultHasher::new());
        self
    }

    pub(crate) fn trace(&self) -> Option<u64> {
        self.trace.as_ref().map(DefaultHasher::finish)
    }

    /// How many nodes have come back with another disk and become voters again by themselves.
    pub(crate) fn rejoined(&self) -> usize {
        let is_voter = |(id, node): &(&BrokerId, &Node)| {
            let quorum = node.quorum.as_ref();
            node.key != key(**id)
                && quorum
                    .is_some_and(|quorum| quorum.membership().voters.latest().is_voter(&node.key))
        };
        self.nodes.iter().filter(is_voter).count()
    }

    /// Whether voters that were static are written down now.
    pub(crate) fn has_upgraded(&self) -> bool {
        let mut quorums = self.nodes.values().filter_map(|node| node.quorum.as_ref());
        !self.dynamic && quorums.all(|quorum| *quorum.membership().kraft_version.latest() == 1)
    }

    pub(crate) fn run_with_faults(&mut self, duration_ms: i64) -> Result<(), String> {
        self.schedule(100, Event::ClientAppend);
        self.schedule(500, Event::Crash);
        self.schedule(700, Event::Partition);
        self.schedule(2_000, Event::TakeSnapshot);
        self.schedule(1_000, Event::ChangeVoters);
        self.run_until(self.now_ms + duration_ms)
    }

    /// Ends the faults. A leader must emerge, and what it appends must be applied everywhere.
    pub(crate) fn heal_and_converge(&mut self, duration_ms: i64) -> Result<(), String> {
        self.faults = false;
        self.blocked.clear();
        let down: Vec<BrokerId> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.quorum.is_none())
            .map(|(id, _)| *id)
            .collect();
        down.into_iter().for_each(|id| self.restart(id));
        let before = self.committed.len();
        self.run_until(self.now_ms + duration_ms)?;
        if self.committed.len() <= before {
            let nodes = self.nodes.values().map(|node| {
                let quorum = node.quorum.as_ref().expect("all are up");
                let voters = quorum.membership().voters.latest();
                let (role, epoch, end) = (quorum.role(), quorum.epoch(), quorum.log().end());
                format!("{} is {role} in {epoch}, at {end:?}, {}", node.key, voters.display_keys())
            });
            let nodes: Vec<String> = nodes.collect();
            return Err(format!("nothing committed in {duration_ms} ms: {}", nodes.join("; ")));
        }
        let furthest = i64::try_from(self.committed.len()).expect("a short log");
        for (id, node) in &self.nodes {
            if node.applied < furthest - 20 {
                return Err(format!("node {id} has applied {} of {furthest}", node.applied));
            }
        }
        Ok(())
    }

    fn run_until(&mut self, end_ms: i64) -> Result<(), String> {
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > end_ms {
                break;
            }
            let ((at_ms, _), event) = entry.remove_entry();
            self.now_ms = at_ms;
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
            Event::Tick(id) => self.tick(id),
            Event::Request { from, to, id, request } => self.deliver_request(from, to, id, request),
            Event::Response { to, id, response } => {
                self.step(to.0, Some(to.1), |quorum, now_ms| {
                    quorum.on_response(now_ms, id, response)
                });
            }
            Event::Flushed { node, ticket, dates_from } => self.flushed(node, ticket, dates_from),
            Event::ClientAppend => self.client_append(),
            Event::TakeSnapshot => self.take_snapshot(),
            Event::ChangeVoters => self.change_voters(),
            Event::Crash => self.crash_someone(),
            Event::Restart(id) => self.restart(id),
            Event::Partition => self.partition(),
            Event::Heal => self.blocked.clear(),
        }
    }

    fn tick(&mut self, id: BrokerId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.tick_at_ms > self.now_ms {
            return;
        }
        node.tick_at_ms = i64::MAX;
        self.step(id, None, |quorum, now_ms| quorum.on_tick(now_ms));
    }

    fn deliver_request(
        &mut self,
        from: (BrokerId, u64),
        to: BrokerId,
        id: CorrelationId,
        request: Request,
    ) {
        self.sequence += 1;
        let request_id = RequestId(self.sequence);
        self.requests.insert(request_id, (from.0, from.1, id));
        let inbound = Inbound { cluster_id: Some("cluster".into()), request };
        self.step(to, None, |quorum, now_ms| quorum.on_request(now_ms, request_id, inbound));
    }

    fn flushed(&mut self, (id, incarnation): (BrokerId, u64), ticket: FlushTicket, since: u64) {
        let node = self.nodes.get_mut(&id).expect("a node");
        if node.incarnation == incarnation && self.plant != Plant::LogSyncLies {
            node.disk.sync(ticket, since);
        }
        self.step(id, Some(incarnation), |quorum, now_ms| quorum.on_flushed(now_ms, ticket));
    }

    fn client_append(&mut self) {
        let delay_ms = self.random.between(5, 150);
        self.schedule(delay_ms, Event::ClientAppend);
        let leading = self.nodes.iter().find_map(|(id, node)| {
            let active = node.active_epoch.filter(|_| node.quorum.is_some())?;
            Some((*id, active))
        });
        let Some((id, epoch)) = leading else { return };
        self.next_value += 1;
        let value = Bytes::from(self.next_value.to_be_bytes().to_vec());
        let count = u32::try_from(self.random.below(3) + 1).expect("a small count");
        self.step(id, None, |quorum, now_ms| {
            quorum.append(now_ms, epoch, count, value).expect("an active leader may append")
        });
    }

    fn take_snapshot(&mut self) {
        let delay_ms = self.random.between(500, 4_000);
        self.schedule(delay_ms, Event::TakeSnapshot);
        let id = self.any_node();
        let node = self.nodes.get_mut(&id).expect("a node");
        let Some(quorum) = node.quorum.as_mut() else { return };
        let Some(boundary) = node.disk.boundary_below(node.applied) else { return };
        let mut membership = quorum.membership().clone();
        membership.voters.truncate_from_end(boundary.offset);
        membership.kraft_version.truncate_from_end(boundary.offset);
        quorum.on_snapshot_written(boundary);
        quorum.on_log_deleted(boundary.offset, boundary);
        let snapshot = Snapshot { id: boundary, membership };
        self.snapshots.insert(boundary, snapshot.clone());
        node.disk.take_snapshot(snapshot);
    }

    /// Someone asks the leader for another voter set, or a whole quorum of static voters for
    /// kraft.version 1; now and then a voter's disk is replaced instead.
    fn change_voters(&mut self) {
        let delay_ms = self.random.between(100, 1_500);
        self.schedule(delay_ms, Event::ChangeVoters);
        let leading = self.nodes.iter().find_map(|(id, node)| {
            let quorum = node.quorum.as_ref().filter(|quorum| quorum.is_leader())?;
            Some((*id, quorum.epoch(), quorum.membership().voters.latest().clone()))
        });
        let Some((leader, epoch, voters)) = leading.filter(|_| self.faults) else { return };
        let target = self.any_node();
        if !self.dynamic {
            self.step(leader, None, |quorum, now_ms| {
                quorum.upgrade_kraft_version(now_ms, epoch, 1, false).unwrap_or_default()
            });
        } else if self.auto_join && self.random.chance(25) {
            self.replace_disk(target);
        } else {
            self.ask_for_change(leader, target, &voters);
        }
    }

    fn ask_for_change(&mut self, leader: BrokerId, target: BrokerId, voters: &VoterSet) {
        // Who takes a good voter out while another has lost its disk has lost the quorum.
        if voters.iter().any(|voter| self.nodes[&voter.key.id].key != voter.key) {
            return;
        }
        let request = match voters.get(target) {
            Some(voter) => Request::RemoveVoter(RemoveVoterRequest { voter: voter.key }),
            None => Request::AddVoter(AddVoterRequest {
                timeout_ms: 0,
                voter: self.nodes[&target].key,
                endpoints: endpoints(target),
                ack_when_committed: true,
            }),
        };
        self.sequence += 1;
        let request_id = RequestId(self.sequence);
        self.operator_requests.insert(request_id);
        let inbound = Inbound { cluster_id: None, request };
        self.step(leader, None, |quorum, now_ms| quorum.on_request(now_ms, request_id, inbound));
    }

    /// The node comes back as another replica that knows nothing. Only if all the other voters are
    /// what they were: KIP-853 survives the loss of a minority, as everything does.
    fn replace_disk(&mut self, id: BrokerId) {
        let intact = |voters: &VoterSet| {
            voters.len() > 2
                && voters.iter().all(|voter| self.nodes[&voter.key.id].key == voter.key)
        };
        let known = self.nodes.values().map(|node| node.quorum.as_ref());
        let mut known =
            known.map(|quorum| quorum.map(|quorum| quorum.membership().voters.latest()));
        if !known.all(|voters| voters.is_some_and(intact)) {
            return;
        }
        self.crash(id);
        self.generation += 1;
        let directory_id = Uuid::from_bytes([100 + self.generation; 16]);
        let node = self.nodes.get_mut(&id).expect("a node");
        node.key = ReplicaKey::new(id, directory_id);
        node.disk = Disk::new(Membership::new(VoterSet::default()));
    }

    fn crash_someone(&mut self) {
        let delay_ms = self.random.between(200, 3_000);
        self.schedule(delay_ms, Event::Crash);
        let id = self.any_node();
        if self.faults && self.nodes[&id].quorum.is_some() {
            self.crash(id);
        }
    }

    fn crash(&mut self, id: BrokerId) {
        let node = self.nodes.get_mut(&id).expect("a node");
        node.quorum = None;
        node.active_epoch = None;
        node.incarnation += 1;
        node.disk.crash(&mut self.random);
        if self.plant == Plant::VoteSyncLies {
            node.disk.lose_last_vote();
        }
        let quick = self.random.chance(30);
        let delay_ms = self.random.between(1, if quick { 10 } else { 3_000 });
        self.schedule(delay_ms, Event::Restart(id));
    }

    fn restart(&mut self, id: BrokerId) {
        if self.nodes[&id].quorum.is_some() {
            return;
        }
        let local = self.nodes[&id].key;
        let others = self.nodes.keys().filter(|other| **other != id);
        let config = QuorumConfig {
            local_endpoints: endpoints(id),
            can_become_voter: self.dynamic || self.random.chance(50),
            auto_join: self.auto_join,
            bootstrap_servers: others.copied().map(address).collect(),
            // Kafka's divided by ten and more, against delays that are not: more happens at once.
            election_timeout_ms: 100,
            fetch_timeout_ms: 200,
            election_backoff_max_ms: 100,
            request_timeout_ms: 50,
            seed: self.random.next(),
            ..QuorumConfig::with_defaults(local, LISTENER.into(), "cluster".into())
        };
        let node = self.nodes.get_mut(&id).expect("a node");
        let (quorum, effects) = Quorum::start(config, node.disk.boot(), self.now_ms);
        node.quorum = Some(quorum);
        node.applied = node.disk.start();
        self.perform(id, effects);
        self.reschedule_tick(id);
    }

    /// Cuts some directed links for a while.
    fn partition(&mut self) {
        let delay_ms = self.random.between(500, 4_000);
        self.schedule(delay_ms, Event::Partition);
        if !self.faults {
            return;
        }
        let victim = self.any_node();
        let others: Vec<BrokerId> = self.nodes.keys().copied().collect();
        for other in others {
            let (inwards, outwards) = (self.random.chance(60), self.random.chance(60));
            self.blocked.extend(inwards.then_some((other, victim)));
            self.blocked.extend(outwards.then_some((victim, other)));
        }
        let heal_ms = self.random.between(100, 4_000);
        self.schedule(heal_ms, Event::Heal);
    }

    fn any_node(&mut self) -> BrokerId {
        let count = u64::try_from(self.nodes.len()).expect("few nodes");
        BrokerId::try_from(self.random.below(count) + 1).expect("a small id")
    }

    /// Lets a node handle something, if it is up and (if given) still the same incarnation.
    fn step(
        &mut self,
        id: BrokerId,
        incarnation: Option<u64>,
        event: impl FnOnce(&mut Quorum, i64) -> Vec<Effect>,
    ) {
        let now_ms = self.now_ms;
        let node = self.nodes.get_mut(&id).expect("a node");
        if incarnation.is_some_and(|incarnation| incarnation != node.incarnation) {
            return;
        }
        let Some(quorum) = node.quorum.as_mut() else { return };
        let effects = event(quorum, now_ms);
        self.perform(id, effects);
        self.reschedule_tick(id);
    }

    fn reschedule_tick(&mut self, id: BrokerId) {
        let node = self.nodes.get_mut(&id).expect("a node");
        let Some(quorum) = &node.quorum else { return };
        let deadline_ms = quorum.next_deadline_ms();
        if deadline_ms < node.tick_at_ms {
            node.tick_at_ms = deadline_ms;
            let delay_ms = (deadline_ms - self.now_ms).max(0);
            self.schedule(delay_ms, Event::Tick(id));
        }
    }

    /// Carries effects out in order. The power may fail between any two.
    fn perform(&mut self, id: BrokerId, effects: Vec<Effect>) {
        for effect in effects {
            if self.violation.is_some() {
                return;
            }
            // Right after a vote has been told is when forgetting it does the most harm.
            let voted = matches!(&effect, Effect::Reply { reply: Reply::Vote(vote), .. } if vote.vote_granted);
            if let Some(trace) = &mut self.trace {
                (self.now_ms, id, format!("{effect:?}")).hash(trace);
            }
            self.perform_one(id, effect);
            let odds = if voted { 5 } else { 2_000 };
            if self.faults && self.random.below(odds) == 0 && self.nodes[&id].quorum.is_some() {
                self.crash(id);
                return;
            }
        }
    }

    fn perform_one(&mut self, id: BrokerId, effect: Effect) {
        let node = self.nodes.get_mut(&id).expect("a node");
        match effect {
            Effect::PersistElection(stored) => node.disk.persist(stored),
            Effect::Append { base_offset, epoch, batch } => {
                self.append(id, base_offset, epoch, batch);
            }
            Effect::Truncate { end_offset } => {
                node.disk.truncate(end_offset);
                if end_offset < node.applied {
                    self.violation = Some(format!("node {id} cut applied records"));
                }
            }
            Effect::Flush(ticket) => {
                let dates_from = node.disk.ticket_dates_from();
                let flushed = Event::Flushed { node: (id, node.incarnation), ticket, dates_from };
                let delay_ms = self.random.between(0, 15);
                self.schedule(delay_ms, flushed);
            }
            Effect::Send { correlation_id, to, request } => {
                let from = (id, node.incarnation);
                let to = BrokerId::from(to.address.port);
                let event = Event::Request { from, to, id: correlation_id, request };
                self.transmit(id, to, event);
            }
            Effect::Reply { request_id, reply } => self.reply(id, request_id, reply),
            Effect::CommitTo { high_watermark } => self.commit(id, high_watermark),
            Effect::BecameLeader { epoch } => self.became_leader(id, epoch),
            Effect::Resigned { .. } => node.active_epoch = None,
            Effect::WriteSnapshotChunk { .. } | Effect::LeaderChanged { .. } => {}
            Effect::LoadSnapshot { snapshot_id } => self.load_snapshot(id, snapshot_id),
            // A fetch that was delayed or sent twice arrives after a later one.
            Effect::Anomaly(Anomaly::FetchOffsetWentBack { .. }) => {}
            // Leaders are known by id: who led with another disk is told that it still does.
            Effect::Anomaly(Anomaly::ConflictingLeader { claimed, .. })
                if claimed == id && node.key != key(id) => {}
            Effect::Anomaly(anomaly) => {
                self.violation = Some(format!("node {id} met {anomaly:?} among correct nodes"));
            }
        }
    }

    fn append(&mut self, id: BrokerId, base: Offset, epoch: LeaderEpoch, batch: AppendBatch) {
        let node = self.nodes.get_mut(&id).expect("a node");
        let end = node.quorum.as_ref().expect("it appends").log().end_offset;
        match batch {
            AppendBatch::Fetched(batches) => {
                let mut offset = base;
                for bytes in batches {
                    let Some(batch) = self.written.get(&(offset, bytes.clone())) else {
                        self.violation = Some(format!("nobody ever wrote {bytes:?} at {offset}"));
                        return;
                    };
                    offset = batch.next_offset;
                    node.disk.append(batch.clone());
                }
            }
            AppendBatch::Membership(change) => {
                let changes = change.changes(base);
                let bytes = Bytes::from(format!("epoch {epoch} has {changes:?}"));
                let (base_offset, next_offset) = (base, end);
                let batch = FetchedBatch { base_offset, next_offset, epoch, changes, bytes };
                node.disk.append(batch.clone());
                self.written.insert((base, batch.bytes.clone()), batch);
            }
            AppendBatch::Records(bytes) => {
                let (base_offset, next_offset, changes) = (base, end, Vec::new());
                let batch = FetchedBatch { base_offset, next_offset, epoch, changes, bytes };
                node.disk.append(batch.clone());
                self.written.insert((base, batch.bytes.clone()), batch);
            }
            AppendBatch::EpochStart(start) => {
                let incarnation = node.incarnation;
                let mut changes = Vec::new();
                if let Some((level, voters)) = start.membership {
                    changes.push((base + 1, ControlChange::KRaftVersion(level)));
                    changes.push((base + 2, ControlChange::Voters(voters)));
                }
                let bytes = Bytes::from(format!("epoch {epoch} of {id}"));
                let (base_offset, next_offset) = (base, end);
                let batch = FetchedBatch { base_offset, next_offset, epoch, changes, bytes };
                node.disk.append(batch.clone());
                self.written.insert((base, batch.bytes.clone()), batch);
                self.took_office(id, incarnation, epoch);
            }
        }
    }

    fn took_office(&mut self, id: BrokerId, incarnation: u64, epoch: LeaderEpoch) {
        if let Some(other) = self.leaders.insert(epoch, (id, incarnation)) {
            self.violation =
                Some(format!("epoch {epoch} is led by {other:?} and by {:?}", (id, incarnation)));
        }
    }

    fn became_leader(&mut self, id: BrokerId, epoch: LeaderEpoch) {
        let node = self.nodes.get_mut(&id).expect("a node");
        node.active_epoch = Some(epoch);
        let (start, end) = (node.disk.start(), node.disk.end());
        for (offset, record) in (0..end).zip(&self.committed) {
            if offset >= start && node.disk.record(offset).as_ref() != Some(record) {
                self.violation = Some(format!("leader {id} lacks committed offset {offset}"));
                return;
            }
        }
    }

    fn commit(&mut self, id: BrokerId, high_watermark: Offset) {
        let node = self.nodes.get_mut(&id).expect("a node");
        if high_watermark <= node.applied && node.applied > node.disk.start() {
            self.violation = Some(format!("the high watermark of {id} fell to {high_watermark}"));
            return;
        }
        let before = self.committed.len();
        for offset in node.applied..high_watermark {
            let Some(record) = node.disk.record(offset) else {
                self.violation = Some(format!("node {id} applies {offset}, which it lacks"));
                return;
            };
            match self.committed.get(usize::try_from(offset).expect("an offset")) {
                Some(known) if *known == record => {}
                Some(known) => {
                    self.violation =
                        Some(format!("{id} commits {record:?} at {offset}, not {known:?}"));
                    return;
                }
                None => self.committed.push(record),
            }
        }
        node.applied = node.applied.max(high_watermark);
        node.disk.committed = node.disk.committed.max(high_watermark);
        if self.committed.len() > before {
            self.check_durable(id, high_watermark);
        }
    }

    /// What is committed for the first time is on disk at a majority of the voters that the
    /// committing leader knows.
    fn check_durable(&mut self, leader: BrokerId, high_watermark: Offset) {
        let last = usize::try_from(high_watermark - 1).expect("an offset");
        if self.plant != Plant::None {
            return;
        }
        let record = &self.committed[last];
        let quorum = self.nodes[&leader].quorum.as_ref().expect("it commits");
        let voters = quorum.membership().voters.latest();
        let nodes = voters.iter().map(|voter| (voter, &self.nodes[&voter.key.id]));
        // What a disk that has been replaced had held, nobody knows.
        let holders = nodes.filter(|(voter, node)| {
            !voter.key.matches(&node.key) || node.disk.holds_durably(high_watermark - 1, record)
        });
        let count = holders.count();
        if count < voters.majority() {
            self.violation = Some(format!(
                "{leader} commits {last}, which is on {count} disks of {} only",
                voters.display_keys()
            ));
        }
    }

    fn load_snapshot(&mut self, id: BrokerId, snapshot_id: OffsetAndEpoch) {
        let snapshot = self.snapshots[&snapshot_id].clone();
        let node = self.nodes.get_mut(&id).expect("a node");
        node.disk.start_at(snapshot.clone());
        node.applied = snapshot_id.offset;
        self.step(id, None, |quorum, now_ms| {
            quorum.on_snapshot_loaded(now_ms, snapshot_id, snapshot.membership)
        });
    }

    fn reply(&mut self, from: BrokerId, request_id: RequestId, reply: Reply) {
        if self.operator_requests.remove(&request_id) {
            self.check_change(from, &reply);
            return;
        }
        let Some((to, incarnation, id)) = self.requests.remove(&request_id) else {
            self.violation = Some(format!("{from} answers {request_id:?} twice"));
            return;
        };
        let response = self.response(from, reply);
        let event = Event::Response { to: (to, incarnation), id, response };
        self.transmit(from, to, event);
    }

    /// A change that is said to be done is committed.
    fn check_change(&mut self, leader: BrokerId, reply: &Reply) {
        let (Reply::AddVoter(answer) | Reply::RemoveVoter(answer)) = reply else {
            self.violation = Some(format!("{leader} answers a change of voters by {reply:?}"));
            return;
        };
        if answer.error != ErrorCode::None {
            return;
        }
        self.changes += 1;
        let quorum = self.nodes[&leader].quorum.as_ref().expect("it answers");
        let voters_offset = quorum.membership().voters.latest_offset().expect("it was written");
        if voters_offset >= i64::try_from(self.committed.len()).expect("a short log") {
            self.violation = Some(format!("the voters at {voters_offset} are not committed"));
        }
    }

    fn response(&mut self, from: BrokerId, reply: Reply) -> Response {
        match reply {
            Reply::AddVoter(add) => Response::AddVoter(add),
            Reply::RemoveVoter(remove) => Response::RemoveVoter(remove),
            Reply::UpdateVoter(update) => Response::UpdateVoter(update),
            Reply::ApiVersions(versions) => Response::ApiVersions(versions),
            Reply::Vote(vote) => Response::Vote(vote),
            Reply::BeginQuorumEpoch(begin) => Response::BeginQuorumEpoch(begin),
            Reply::EndQuorumEpoch(end) => Response::EndQuorumEpoch(end),
            Reply::Fetch(fetch) => Response::Fetch(self.read(from, fetch)),
            Reply::FetchSnapshot(fetch) => {
                let snapshot = self.nodes[&from].disk.snapshot.as_ref();
                let found = snapshot.is_some_and(|snapshot| snapshot.id == fetch.snapshot_id);
                let length = self.random.between(1, SNAPSHOT_BYTES - fetch.position);
                let length = usize::try_from(length).expect("a short piece");
                let error = match fetch.error {
                    ErrorCode::None if !found => ErrorCode::SnapshotNotFound,
                    error => error,
                };
                Response::FetchSnapshot(FetchSnapshotResponse {
                    error,
                    leader: fetch.leader,
                    snapshot_id: fetch.snapshot_id,
                    size: SNAPSHOT_BYTES,
                    position: fetch.position,
                    bytes: Bytes::from(vec![0; length]),
                })
            }
            Reply::Refused(error) => Response::Failed(error),
        }
    }

    fn read(&mut self, from: BrokerId, reply: FetchReply) -> FetchResponse {
        let body = match reply.body {
            FetchReplyBody::Empty => FetchBody::Records(Vec::new()),
            FetchReplyBody::Diverging(end) => FetchBody::Diverging(end),
            FetchReplyBody::Snapshot(id) => FetchBody::Snapshot(id),
            FetchReplyBody::Records { offset, .. } => {
                let max_batches = usize::try_from(self.random.between(1, 6)).expect("few");
                FetchBody::Records(self.nodes[&from].disk.read(offset, max_batches))
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

    /// Sends over a network that, while there are faults, loses, delays and duplicates.
    fn transmit(&mut self, from: BrokerId, to: BrokerId, event: Event) {
        if self.faults && (self.blocked.contains(&(from, to)) || self.random.chance(3)) {
            return;
        }
        if self.faults && self.random.chance(3) {
            let delay_ms = self.random.between(1, 3_000);
            self.schedule(delay_ms, event.clone());
        }
        let slow = self.faults && self.random.chance(3);
        let delay_ms =
            if slow { self.random.between(1, 2_500) } else { self.random.between(1, 10) };
        self.schedule(delay_ms, event);
    }
}
