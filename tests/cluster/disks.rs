//! What disks do to a cluster: all of them lose power at once, or one of them returns a wrong byte.

use klamm_faults::{History, Scene};
use klamm_testbed::{Cluster, ClusterSetup, Disk, Flavour};

use crate::stage::{alone, scene};

fn on(disks: &[Disk]) -> ClusterSetup {
    (1..)
        .zip(disks)
        .fold(ClusterSetup::under_test(), |setup, (id, disk)| setup.on_disk(id, disk.directory()))
}

/// Cuts the power of all disks at once under load, and brings all nodes back.
fn lose_power(setup: ClusterSetup, disks: &[Disk]) -> (Cluster, History) {
    let mut scene: Scene = scene(setup.start());
    std::thread::scope(|threads| {
        for disk in disks {
            threads.spawn(|| disk.power_off());
        }
    });
    let ids = scene.cluster().ids();
    for id in &ids {
        scene.cluster_mut().kill(*id);
    }
    for disk in disks {
        disk.power_on();
    }
    for id in &ids {
        scene.cluster_mut().spawn(*id);
    }
    scene.cluster().until_whole();
    scene.until_steady();
    scene.finish()
}

/// Three disks that outlive the cluster on them.
fn disks() -> [Disk; 3] {
    std::array::from_fn(|_| Disk::new())
}

#[test]
fn a_power_cut_of_all_nodes_loses_nothing_that_was_acknowledged() {
    let _machine = alone();
    let disks = disks();
    let setup = match Flavour::under_test() {
        Flavour::Klamm => on(&disks),
        // The oracle has no other way to sync before it acknowledges.
        Flavour::Kafka => on(&disks).set("log.flush.interval.messages", "1"),
    };
    let (cluster, history) = lose_power(setup, &disks);
    assert_eq!(history.anomalies(), []);
    drop(cluster);
}
