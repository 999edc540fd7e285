//! What disks do to a cluster: all of them lose power at once.

use std::time::Duration;

use klamm_faults::{Anomaly, History, lose_power, on_disks};
use klamm_testbed::{ClusterSetup, Disk, Flavour};

use crate::stage::{alone, scene};

/// Producers that are told that acknowledged records are gone never go on.
const PATIENCE_WITH_THE_BETRAYED: Duration = Duration::from_secs(20);

/// What the clients of three nodes saw whose disks lost power at once.
fn history_of_a_power_cut(setup: ClusterSetup, keeps_promises: bool) -> History {
    let _machine = alone();
    // They outlive the cluster on them.
    let disks: [Disk; 3] = std::array::from_fn(|_| Disk::new());
    let mut scene = scene(on_disks(setup, &disks).start());
    // What is lost shall be records, and not the cluster itself.
    for disk in &disks {
        disk.sync();
    }
    scene.until_steady();
    lose_power(&mut scene, &disks);
    let (cluster, history) = if keeps_promises {
        scene.until_steady();
        scene.finish()
    } else {
        scene.finish_within(PATIENCE_WITH_THE_BETRAYED)
    };
    drop(cluster);
    history
}

#[test]
fn a_power_cut_of_all_nodes_loses_nothing_that_was_acknowledged() {
    let setup = ClusterSetup::under_test();
    let setup = match Flavour::under_test() {
        Flavour::Klamm => setup,
        // The oracle syncs before it acknowledges only if it is told so.
        Flavour::Kafka => setup.set("log.flush.interval.messages", "1"),
    };
    assert_eq!(history_of_a_power_cut(setup, true).anomalies(), []);
}

#[test]
fn the_same_power_cut_takes_records_that_were_acknowledged_out_of_the_page_cache() {
    let setup = ClusterSetup::under_test();
    let setup = match Flavour::under_test() {
        Flavour::Klamm => setup.set("log.flush.before.ack", "false"),
        Flavour::Kafka => setup,
    };
    let anomalies = history_of_a_power_cut(setup, false).anomalies();
    assert!(anomalies.iter().any(|found| matches!(found, Anomaly::Lost(_))), "{anomalies:?}");
}
