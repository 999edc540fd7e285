//! Batches on a disk become unreadable, and an operator moves replicas between log directories.

use super::{Event, World};
use crate::batch::{DATA_PARTITIONS, PARTITIONS, PartitionId};
use crate::log_directories::Availability;
use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, Offset};

/// In a hundred looks at a node that moves a replica, how many find that the directory fails from which it moves.
const SOURCE_FAILS: u64 = 40;

impl World {
    pub(super) fn schedule_upkeep(&mut self) {
        if self.scenario.disks_decay {
            let delay_ms = self.upkeep.between(900, 2_500);
            self.schedule(delay_ms, Event::DamageDisk);
        }
        if self.scenario.replicas_move {
            let delay_ms = self.upkeep.between(700, 1_500);
            self.schedule(delay_ms, Event::MoveReplica);
        }
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> Option<T> {
        let count = u64::try_from(among.len()).expect("few");
        let at = self.upkeep.below(count.max(1));
        among.get(usize::try_from(at).expect("an index")).copied()
    }

    /// A batch in use decays that all other replicas have on disk. One loss is to be survived at a time.
    pub(super) fn damage_a_disk(&mut self) {
        let delay_ms = self.upkeep.between(20, 300);
        self.schedule(delay_ms, Event::DamageDisk);
        let id = self.pick(&self.scenario.nodes.clone()).expect("a node");
        let partition = usize::try_from(self.upkeep.below(2)).expect("an index");
        if !self.faults || self.is_any_damaged() || !self.is_restored_by_now() {
            return;
        }
        if let Some(base_offset) = self.spare_batch(id, partition) {
            self.count("batches damaged");
            let logs = &mut self.nodes.get_mut(&id).expect("a node").disk.logs;
            logs.damage(partition, base_offset);
        }
    }

    fn spare_batch(&mut self, id: BrokerId, partition: PartitionId) -> Option<Offset> {
        assert!(partition < DATA_PARTITIONS, "the coordinator does not read again");
        let known = self.invariants.committed().partition(partition)?;
        let others = known.replicas.iter().filter(|other| **other != id);
        let logs: Option<Vec<_>> =
            others.map(|other| self.nodes[other].disk.logs.get(partition)).collect();
        let logs = logs.filter(|_| known.replicas.contains(&id))?;
        let own = &self.nodes[&id].disk.logs.get(partition)?.log;
        let is_spare = |offset| {
            let Some(batch) = own.find_synced(offset) else { return false };
            let is_held = |held: &std::rc::Rc<_>| std::rc::Rc::ptr_eq(held, batch);
            logs.iter().all(|log| log.log.find_synced(offset).is_some_and(is_held))
        };
        let offsets = own.batches().iter().map(|batch| batch.base_offset);
        let spare: Vec<Offset> = offsets.filter(|offset| is_spare(*offset)).collect();
        self.pick(&spare)
    }

    pub(super) fn is_any_damaged(&self) -> bool {
        self.nodes.values().any(|node| node.disk.logs.is_any_damaged())
    }

    /// An operator moves a replica, to where it is by chance: that ends its move.
    pub(super) fn move_a_replica(&mut self) {
        let delay_ms = self.upkeep.between(20, 400);
        self.schedule(delay_ms, Event::MoveReplica);
        let id = self.pick(&self.scenario.nodes.clone()).expect("a node");
        let partition = usize::try_from(self.upkeep.below(3)).expect("an index") % PARTITIONS.len();
        self.fail_a_source(id);
        let online: Vec<Uuid> = self.nodes[&id].disk.logs.with(Availability::Online).collect();
        let Some(wanted) = self.pick(&online).filter(|_| self.faults) else { return };
        self.step_node(id, |node, _, step| node.alter_log_dir(partition, wanted, step));
    }

    /// A directory fails when the metadata are told already that its replica is in another. Such moments are short.
    fn fail_a_source(&mut self, id: BrokerId) {
        let node = &self.nodes[&id];
        let process = node.process.as_ref().filter(|_| self.scenario.directories_fail);
        let Some(source) = process.and_then(|process| process.broker.announced_from()) else {
            return;
        };
        let at = node.disk.logs.at(source);
        if at > 0 && self.upkeep.chance(SOURCE_FAILS) && self.may_crash() {
            self.count("directories failed");
            self.step_node(id, |node, _, step| node.on_directory_failed(at, step));
        }
    }

    /// Whether every batch can be read, and every move has come to its end.
    pub(crate) fn upkeep_is_done(&self) -> Result<(), String> {
        if self.is_any_damaged() {
            return Err("damage is not repaired".to_owned());
        }
        match self.nodes.values().find(|node| node.disk.logs.is_any_copied()) {
            Some(node) => Err(format!("a move of node {} does not end: {}", node.id, node.moves())),
            None => Ok(()),
        }
    }
}
