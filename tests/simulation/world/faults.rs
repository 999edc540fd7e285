//! What goes wrong: nodes crash, stop and come back, links are cut.

use super::{Event, World};
use crate::batch::{PARTITIONS, PartitionId};
use crate::node::NodeTimer;
use crate::plant::Plant;
use crate::progress::partitions_are_whole;
use klamm_protocol::ids::BrokerId;

impl World {
    pub(super) fn any_node(&mut self) -> BrokerId {
        let count = u64::try_from(self.nodes.len()).expect("few nodes");
        BrokerId::try_from(self.random.below(count) + 1).expect("a small id")
    }

    pub(super) fn start(&mut self, id: BrokerId) {
        if !self.nodes[&id].is_up() {
            self.nodes.get_mut(&id).expect("a node").clock.restart(self.now_ms);
            self.step_node(id, |node, scenario, step| node.start(scenario, step));
        }
    }

    pub(super) fn crash_someone(&mut self) {
        let delay_ms = self.random.between(200, self.scenario.crash_every_ms);
        self.schedule(delay_ms, Event::Crash);
        let everybody = self.random.chance(8);
        let id = self.any_node();
        let victims = if everybody { self.scenario.nodes.clone() } else { vec![id] };
        for id in victims {
            if self.may_crash() && self.nodes[&id].is_up() {
                self.crash(id);
            }
        }
    }

    pub(super) fn crash(&mut self, id: BrokerId) {
        self.count("crashes");
        let node = self.nodes.get_mut(&id).expect("a node");
        node.process = None;
        node.tick_at_ms = i64::MAX;
        node.disk.crash(&mut self.random);
        if self.plant == Plant::VoteNotPersisted {
            node.disk.lose_last_election();
        }
        self.hide_a_directory(id);
        self.tell_of_loss(id);
        let quick = self.random.chance(40);
        let delay_ms = self.random.between(1, if quick { 20 } else { 1_500 });
        self.schedule(delay_ms, Event::Start(id));
    }

    /// Some of the others notice that a node is gone.
    pub(super) fn tell_of_loss(&mut self, gone: BrokerId) {
        for id in self.scenario.nodes.clone() {
            let incarnation = self.nodes[&id].incarnation;
            let delay_ms = self.random.between(1, 20);
            if id != gone && self.random.chance(50) {
                let timer = NodeTimer::ProcessGone(gone);
                self.schedule(delay_ms, Event::Node { id, incarnation, timer });
            }
        }
    }

    pub(super) fn stop_someone(&mut self) {
        let delay_ms = self.random.between(1_000, 4_000);
        self.schedule(delay_ms, Event::Stop);
        let id = self.any_node();
        let may_stop = self.may_crash();
        let node = self.nodes.get_mut(&id).expect("a node");
        if let Some(process) = node.process.as_mut().filter(|_| may_stop) {
            process.broker.stop();
        }
    }

    /// The controller has let the node go: it ends in order and comes back.
    pub(super) fn close(&mut self, id: BrokerId) {
        self.count("orderly stops");
        let node = self.nodes.get_mut(&id).expect("a node");
        let process = node.process.take().expect("it runs");
        node.tick_at_ms = i64::MAX;
        node.disk.close(process.broker.epoch);
        self.hide_a_directory(id);
        let delay_ms = self.random.between(1, 500);
        self.schedule(delay_ms, Event::Start(id));
    }

    /// Whether another node may go now: not before a replaced disk holds again what it should.
    pub(super) fn may_crash(&mut self) -> bool {
        self.faults && self.is_restored_by_now()
    }

    pub(super) fn is_restored_by_now(&mut self) -> bool {
        if self.restoring.is_some_and(|id| self.is_restored(id)) {
            self.restoring = None;
        }
        self.restoring.is_none()
    }

    /// Whether a node runs and the metadata know this life of it.
    fn is_registered(&self, id: BrokerId) -> bool {
        let Some(process) = &self.nodes[&id].process else { return false };
        let registered = self.invariants.committed().loader.stable().brokers.get(id);
        registered.is_some_and(|known| known.incarnation_id == process.broker.incarnation_id)
    }

    /// Whether a node's new disk holds every replica in sync.
    fn is_restored(&self, id: BrokerId) -> bool {
        let node = &self.nodes[&id];
        let committed = self.invariants.committed();
        let is_found = |partition| {
            let found = committed.partition(partition);
            let directory = found.and_then(|found| found.directory(id));
            directory.is_none_or(|directory| node.disk.logs.is_online(directory))
        };
        self.is_registered(id)
            && (0..PARTITIONS.len()).all(is_found)
            && partitions_are_whole(self).is_ok()
    }

    /// Whether every disk holds what it should, also one that was empty.
    pub(crate) fn replaced_disk_is_restored(&self) -> Result<(), String> {
        match self.restoring {
            Some(id) if !self.is_restored(id) => Err(format!("node {id} lacks what it lost")),
            _ => Ok(()),
        }
    }

    /// A node dies with its disk and comes back with an empty one, if all the others are well. A voter's disk is
    /// the business of the simulation of the quorum alone.
    pub(super) fn replace_a_disk(&mut self) {
        // Such moments are short.
        let delay_ms = self.random.between(5, 60);
        self.schedule(delay_ms, Event::ReplaceDisk);
        let id = self.any_node();
        if !self.may_crash() || !self.may_lose_disk(id) || self.scenario.voters.contains(&id) {
            return;
        }
        self.count("disks replaced");
        self.crash(id);
        self.restoring = Some(id);
        self.nodes.get_mut(&id).expect("a node").replace_disks(&self.scenario);
    }

    /// Whether what a node has can be lost: all the others are well, and have everything.
    pub(super) fn may_lose_disk(&self, id: BrokerId) -> bool {
        let is_whole =
            |id: &BrokerId| self.is_registered(*id) && self.nodes[id].disk.logs.are_all_online();
        !self.is_any_damaged()
            && self.scenario.nodes.iter().all(is_whole)
            && (0..PARTITIONS.len()).all(|partition| self.is_held_without(id, partition))
    }

    /// Whether every other replica of a partition is in sync.
    fn is_held_without(&self, id: BrokerId, partition: PartitionId) -> bool {
        let Some(found) = self.invariants.committed().partition(partition) else { return false };
        let mut others = found.replicas.iter().filter(|replica| **replica != id);
        found.has_leader() && others.all(|replica| found.isr.contains(replica))
    }

    /// A machine starts days behind, and is set right before anything is stored.
    pub(super) fn start_clock_behind(&mut self, id: BrokerId) {
        self.nodes.get_mut(&id).expect("a node").clock.start_behind(&mut self.random);
        // No offset is committed so early.
        let delay_ms = self.random.between(1, 200);
        self.schedule(delay_ms, Event::SetClockRight(id));
    }

    pub(super) fn set_clock_right(&mut self, id: BrokerId) {
        self.count("clocks that were behind set right");
        self.nodes.get_mut(&id).expect("a node").clock.set_right(self.now_ms);
        self.reschedule_tick(id);
    }

    /// Somebody sets a wall clock, by minutes or days.
    pub(super) fn set_a_clock(&mut self) {
        let delay_ms = self.random.between(50, 1_500);
        self.schedule(delay_ms, Event::SetClock);
        if !self.faults {
            return;
        }
        let id = self.any_node();
        let node = self.nodes.get_mut(&id).expect("a node");
        let kind = match node.clock.set(self.now_ms, &mut self.random) {
            true => "clocks set ahead",
            false => "clocks set back",
        };
        self.count(kind);
        self.reschedule_tick(id);
    }

    pub(super) fn cut_someone_off(&mut self) {
        let delay_ms = self.random.between(500, self.scenario.partition_every_ms);
        self.schedule(delay_ms, Event::Cut);
        if !self.faults {
            return;
        }
        self.count("cuts of the network");
        let victim = self.any_node();
        self.network.cut(victim, &self.scenario.nodes, &mut self.random);
        if self.random.chance(20) {
            // What cuts the network may also make it seem that nobody listens.
            self.tell_of_loss(victim);
        }
        let mend_ms = self.random.between(100, 2_500);
        self.schedule(mend_ms, Event::Mend);
    }
}
