//! The loss of power of all nodes at once.

use std::time::Duration;

use klamm_testbed::{ClusterSetup, Disk};

use crate::scene::Scene;

/// Puts nodes 1, 2, ... on disks that can lose power.
pub fn on_disks(setup: ClusterSetup, disks: &[Disk]) -> ClusterSetup {
    (1..).zip(disks).fold(setup, |setup, (id, disk)| setup.on_disk(id, disk.directory()))
}

/// Cuts the power of all disks at once, brings disks and nodes back, and waits until all replicas are in sync. Returns how long
/// that took from the start of the last process. A producer whose records are gone may never go on.
///
/// # Panics
/// When that does not happen in time.
pub fn lose_power(scene: &mut Scene, disks: &[Disk]) -> Duration {
    std::thread::scope(|threads| {
        for disk in disks {
            threads.spawn(|| disk.power_off());
        }
    });
    scene.cluster_mut().kill_all();
    for disk in disks {
        disk.power_on();
    }
    for id in scene.cluster().ids() {
        scene.cluster_mut().spawn(id);
    }
    scene.cluster().until_whole()
}
