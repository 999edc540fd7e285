//! What goes wrong with log directories: they are away for a while, fail, are replaced by empty ones, have no room.

use super::{Event, World};
use crate::batch::PARTITIONS;
use crate::log_directories::Availability;
use crate::node::Node;
use klamm_metadata::directory_id;
use klamm_protocol::ids::BrokerId;

/// Of so many looks at the directories, one finds that one has failed.
const FAILURE_ODDS: u64 = 30;
/// Of so many looks that find a replica whose directory is not recorded, one has the power fail.
const UNRECORDED_ODDS: u64 = 4;

impl World {
    /// A node that is down may find one of its directories missing when it starts.
    pub(super) fn hide_a_directory(&mut self, id: BrokerId) {
        let is_unlucky = self.random.chance(self.scenario.directories_away);
        let Some(at) = self.any_other_directory(id).filter(|_| is_unlucky && self.faults) else {
            return;
        };
        self.hide_directory(id, at);
    }

    fn hide_directory(&mut self, id: BrokerId, at: usize) {
        let logs = &mut self.nodes.get_mut(&id).expect("a node").disk.logs;
        if logs.set_away(at, true).is_some() {
            self.count("directories away");
            let delay_ms = self.random.between(20, 3_000);
            self.schedule(delay_ms, Event::DirectoryReturns { id, at });
        }
    }

    /// The power fails while the metadata do not record yet where a replica lies, and that directory is away when the
    /// node starts: the replica is begun in another one, and there are two logs of it when the first is back. By itself
    /// that happens in one run of a few thousand.
    pub(super) fn hide_an_unrecorded_directory(&mut self) {
        let delay_ms = self.random.between(5, 60);
        self.schedule(delay_ms, Event::HideDirectory);
        let nodes = self.nodes.values();
        let found =
            nodes.filter_map(|node| Some((node.id, self.unrecorded_directory(node)?))).next();
        let Some((id, at)) = found.filter(|_| self.may_crash()) else { return };
        if self.random.below(UNRECORDED_ODDS) == 0 {
            self.count("directories away before they are recorded");
            self.crash(id);
            self.hide_directory(id, at);
        }
    }

    /// A directory, other than the one with the metadata log, with a replica that nobody counts on and that the metadata
    /// do not record in it.
    fn unrecorded_directory(&self, node: &Node) -> Option<usize> {
        let mut open = node.disk.logs.in_use().filter(|_| node.is_up());
        open.find_map(|(partition, directory, _)| {
            let known = self.invariants.committed().partition(partition)?;
            let is_recorded = known.directory(node.id)? == directory;
            let at = node.disk.logs.at(directory);
            (at > 0 && !is_recorded && !known.isr.contains(&node.id)).then_some(at)
        })
    }

    /// A directory is where it should be: its node notices while it runs, or when it starts.
    pub(super) fn return_directory(&mut self, id: BrokerId, at: usize) {
        let logs = &mut self.nodes.get_mut(&id).expect("a node").disk.logs;
        if logs.set_away(at, false).is_none() {
            return;
        }
        if self.nodes[&id].is_up() {
            self.count("directories back in a running node");
            self.step_node(id, |node, _, step| node.on_directory_returned(step));
        }
    }

    /// A directory answers EIO, or is replaced by an empty one.
    pub(super) fn break_a_directory(&mut self) {
        // Moments in which a directory may be lost are short.
        let delay_ms = self.random.between(5, 60);
        self.schedule(delay_ms, Event::BreakDirectory);
        let several = self.nodes.values().filter(|node| node.disk.logs.count() > 1);
        let several: Vec<BrokerId> = several.map(|node| node.id).collect();
        let count = u64::try_from(several.len()).expect("few nodes");
        if count == 0 {
            return;
        }
        let id = several[usize::try_from(self.random.below(count)).expect("an index")];
        let Some(at) = self.any_other_directory(id).filter(|_| self.may_crash()) else { return };
        if self.scenario.replaces_disks && self.may_lose_disk(id) {
            self.count("directories replaced");
            self.crash(id);
            self.restoring = Some(id);
            self.nodes.get_mut(&id).expect("a node").replace_directory(at);
        } else if self.scenario.directories_fail
            && self.random.below(FAILURE_ODDS) == 0
            && self.nodes[&id].is_up()
        {
            self.count("directories failed");
            self.step_node(id, |node, _, step| node.on_directory_failed(at, step));
        }
    }

    /// Some of a node's directories are full for a while.
    pub(super) fn fill_a_disk(&mut self) {
        let delay_ms = self.random.between(200, 1_500);
        self.schedule(delay_ms, Event::FillDisk);
        if !self.faults {
            return;
        }
        self.count("disks full");
        let id = self.any_node();
        for at in 0..self.nodes[&id].disk.logs.count() {
            if self.random.chance(60) {
                self.nodes.get_mut(&id).expect("a node").disk.logs.set_full(at, true);
            }
        }
        let delay_ms = self.random.between(20, 1_500);
        self.schedule(delay_ms, Event::Room(id));
    }

    pub(super) fn make_room(&mut self, id: BrokerId) {
        let logs = &mut self.nodes.get_mut(&id).expect("a node").disk.logs;
        (0..logs.count()).for_each(|at| logs.set_full(at, false));
        if self.nodes[&id].is_up() {
            self.step_node(id, |node, _, step| node.on_room(step));
        }
    }

    /// What was away is back, what was full has room. What has failed has failed.
    pub(super) fn heal_directories(&mut self) {
        for id in self.scenario.nodes.clone() {
            self.make_room(id);
            (0..self.nodes[&id].disk.logs.count()).for_each(|at| self.return_directory(id, at));
        }
    }

    /// A directory that has failed needs a restart of its node. Nobody does that before all that others can lead is led
    /// by them.
    pub(super) fn restart_for_failed_directories(&mut self) {
        if (0..PARTITIONS.len())
            .any(|partition| self.can_be_led(partition) && !self.is_led(partition))
        {
            return;
        }
        for id in self.scenario.nodes.clone() {
            let node = &self.nodes[&id];
            let has_failed = node.disk.logs.with(Availability::Failed).next().is_some();
            if has_failed && node.is_up() {
                self.crash(id);
            }
        }
    }

    /// Whether a partition has a leader with its log.
    fn is_led(&self, partition: usize) -> bool {
        let found = self.invariants.committed().partition(partition);
        found.is_some_and(|found| {
            let leader = found.leader.map(|leader| &self.nodes[&leader]);
            leader.is_some_and(|leader| leader.disk.logs.get(partition).is_some())
        })
    }

    /// Whether a partition is led, or somebody in sync, or eligible, has the directory that it is recorded in. A leader
    /// whose directory has failed before its place could be recorded leads by name only.
    fn can_be_led(&self, partition: usize) -> bool {
        let Some(found) = self.invariants.committed().partition(partition) else { return true };
        let leads_by_name = |leader: BrokerId| {
            let is_unreported = found.directory(leader).is_some_and(directory_id::is_reserved);
            is_unreported && self.nodes[&leader].disk.logs.get(partition).is_none()
        };
        if found.leader.is_some_and(|leader| !leads_by_name(leader)) {
            return true;
        }
        let candidates = if found.isr.is_empty() { &found.elr } else { &found.isr };
        candidates.iter().any(|id| {
            let directory = found.directory(*id);
            directory.is_some_and(|directory| self.nodes[id].disk.logs.is_online(directory))
        })
    }

    /// A directory of a node beside the one with the metadata log.
    fn any_other_directory(&mut self, id: BrokerId) -> Option<usize> {
        let others = self.nodes[&id].disk.logs.count() - 1;
        let others = u64::try_from(others).expect("few directories");
        if others == 0 {
            return None;
        }
        Some(usize::try_from(self.random.below(others) + 1).expect("few directories"))
    }
}
