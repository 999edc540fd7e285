//! The end of the faults: everything is well again, and the cluster has to get going.

use super::World;
use crate::client::Kind;
use crate::progress::Goal;

/// Within this the healed cluster must be as good as new.
const HEALING_MS: i64 = 8_000;
/// How often the healed cluster is looked at.
const LOOK_MS: i64 = 100;

impl World {
    pub(super) fn heal(&mut self) {
        self.faults = false;
        self.network.heal();
        self.heal_directories();
        let down = self.nodes.values().filter(|node| !node.is_up()).map(|node| node.id);
        for id in down.collect::<Vec<_>>() {
            self.start(id);
        }
        for client in &mut self.clients {
            match &mut client.kind {
                Kind::Admin(admin) => admin.is_restless = false,
                Kind::Member(member) => member.is_restless = false,
                Kind::Producer(_) => {}
            }
        }
    }

    pub(super) fn converge(&mut self) -> Result<(), String> {
        let end_ms = self.now_ms + HEALING_MS;
        let mut goal = Goal::set(self);
        loop {
            self.run_until(self.now_ms + LOOK_MS)?;
            match goal.look(self) {
                Ok(()) => return Ok(()),
                Err(missing) if self.now_ms >= end_ms => {
                    return Err(format!("{HEALING_MS} ms after the last fault {missing}"));
                }
                Err(_) => self.restart_for_failed_directories(),
            }
        }
    }
}
