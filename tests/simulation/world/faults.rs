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
            if self.scenario.loses_directories {
                self.lose_a_directory(id);
            }
            self.step_node(id, |node, scenario, step| node.start(scenario, step));
        }
    }

    /// A node comes up without its second log directory, at times.
    fn lose_a_directory(&mut self, id: BrokerId) {
        let (loses, is_named) = (self.random.chance(60), self.random.chance(20));
        let back_ms = self.random.between(100, 2_500);
        let node = self.nodes.get_mut(&id).expect("a node");
        if self.faults && loses && node.incarnation > 0 && node.disk.lose_second(is_named) {
            *self.census.entry("directories lost").or_default() += 1;
            self.schedule(back_ms, Event::DirectoryBack(id));
        }
    }

    pub(super) fn put_directory_back(&mut self, id: BrokerId) {
        let node = self.nodes.get_mut(&id).expect("a node");
        if node.disk.put_second_back() {
            *self.census.entry("directories back").or_default() += 1;
            node.on_directory_back();
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
        *self.census.entry("crashes").or_default() += 1;
        let node = self.nodes.get_mut(&id).expect("a node");
        node.process = None;
        node.tick_at_ms = i64::MAX;
        node.disk.crash(&mut self.random);
        if self.plant == Plant::VoteNotPersisted {
            node.disk.lose_last_election();
        }
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
        *self.census.entry("orderly stops").or_default() += 1;
        let node = self.nodes.get_mut(&id).expect("a node");
        let process = node.process.take().expect("it runs");
        node.tick_at_ms = i64::MAX;
        node.disk.close(process.broker.epoch);
        let delay_ms = self.random.between(1, 500);
        self.schedule(delay_ms, Event::Start(id));
    }

    /// Whether another node may go now: not before a replaced disk holds again what it should.
    pub(super) fn may_crash(&mut self) -> bool {
        if self.restoring.is_some_and(|id| self.is_restored(id)) {
            self.restoring = None;
        }
        self.faults && self.restoring.is_none()
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
            directory.is_none_or(|directory| directory == node.disk.directory)
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
        let all_well = self.may_crash()
            && self.scenario.nodes.iter().all(|id| self.is_registered(*id))
            && (0..PARTITIONS.len()).all(|partition| self.is_held_without(id, partition));
        if !all_well || self.scenario.voters.contains(&id) {
            return;
        }
        *self.census.entry("disks replaced").or_default() += 1;
        self.crash(id);
        self.restoring = Some(id);
        self.nodes.get_mut(&id).expect("a node").replace_disk(&self.scenario);
    }

    /// Whether every other replica of a partition is in sync.
    fn is_held_without(&self, id: BrokerId, partition: PartitionId) -> bool {
        let Some(found) = self.invariants.committed().partition(partition) else { return false };
        let mut others = found.replicas.iter().filter(|replica| **replica != id);
        found.leader >= 0 && others.all(|replica| found.isr.contains(replica))
    }

    pub(super) fn cut_someone_off(&mut self) {
        let delay_ms = self.random.between(500, self.scenario.partition_every_ms);
        self.schedule(delay_ms, Event::Cut);
        if !self.faults {
            return;
        }
        *self.census.entry("cuts of the network").or_default() += 1;
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
