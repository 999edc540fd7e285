//! What goes wrong: nodes crash, stop and come back, links are cut.

use super::{Event, World};
use crate::node::NodeTimer;
use crate::plant::Plant;
use klamm_protocol::ids::BrokerId;

impl World {
    pub(super) fn any_node(&mut self) -> BrokerId {
        let count = u64::try_from(self.nodes.len()).expect("few nodes");
        BrokerId::try_from(self.random.below(count) + 1).expect("a small id")
    }

    pub(super) fn start(&mut self, id: BrokerId) {
        if !self.nodes[&id].is_up() {
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
            if self.faults && self.nodes[&id].is_up() {
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
        let node = self.nodes.get_mut(&id).expect("a node");
        if let Some(process) = node.process.as_mut().filter(|_| self.faults) {
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
