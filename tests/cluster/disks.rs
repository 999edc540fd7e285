//! What disks do to a cluster: all of them lose power at once, or one of two of a node fails.

use std::time::Duration;

use klamm_faults::{Anomaly, History, Scene, lose_power, on_disks};
use klamm_testbed::{ClusterSetup, Disk, Flavour, until_true};

use crate::stage::{LOAD, alone, scene};

const LIMIT: Duration = Duration::from_secs(60);

/// `broker.session.timeout.ms`: much longer than a restart.
const SESSION: Duration = Duration::from_secs(45);

/// Producers that are told that acknowledged records are gone never go on.
const PATIENCE_WITH_THE_BETRAYED: Duration = Duration::from_secs(20);

/// What the clients of three nodes saw whose disks lost power at once.
fn history_of_a_power_cut(setup: ClusterSetup, keeps_promises: bool) -> History {
    let _machine = alone();
    // They outlive the cluster on them.
    let disks: [Disk; 3] = std::array::from_fn(|_| Disk::new());
    let setup = setup.set("broker.session.timeout.ms", &SESSION.as_millis().to_string());
    let mut scene = scene(on_disks(setup, &disks).start());
    // What is lost shall be records, and not the cluster itself.
    for disk in &disks {
        disk.sync();
    }
    scene.until_steady();
    let whole = lose_power(&mut scene, &disks);
    if Flavour::under_test() == Flavour::Klamm {
        // Not even where the controller has changed, and never saw the former processes end.
        assert!(whole < SESSION, "a node has waited for its former session: {whole:?}");
    }
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

#[test]
fn a_log_directory_that_fails_takes_its_replicas_out_of_use_and_no_others() {
    let _machine = alone();
    let disk = Disk::new();
    let setup = ClusterSetup::under_test().with_second_on_disk(2, disk.directory());
    let mut scene = scene(setup.start());
    let topic = scene.topic().to_owned();
    let lies_on = |scene: &Scene, partition: i32| {
        let second = scene.cluster().node(2).broker().second_data();
        second.join(format!("{topic}-{partition}")).exists()
    };
    let lost: Vec<i32> = (0..LOAD.partitions).filter(|p| lies_on(&scene, *p)).collect();
    assert!(
        !lost.is_empty() && lost.len() < 6,
        "node 2 has replicas in both directories: {lost:?}"
    );
    let stalls = scene.measure(2, |_, _| disk.power_off());
    if Flavour::under_test() == Flavour::Klamm {
        // Apache Kafka waits for the lost followers for replica.lag.time.max.ms.
        assert!(stalls.led.max(stalls.others) < Duration::from_secs(5), "{stalls:?}");
    }
    let is_gone = |scene: &Scene| {
        let partitions = scene.cluster().partitions_of(&topic).unwrap_or_default();
        partitions.iter().all(|found| {
            let counted_on = found.isr.contains(&2) || found.leader == 2;
            counted_on != lost.contains(&found.partition)
        })
    };
    until_true("the lost replicas to be out of the ISR", LIMIT, || is_gone(&scene));
    scene.until_steady();
    assert!(scene.cluster().unfenced().unwrap().contains(&2));
    let described = scene.cluster().tool("kafka-log-dirs --describe --broker-list 2").ok();
    assert!(described.contains("KafkaStorageException"), "{described}");

    // The node starts without the directory, and does not begin its replicas anew elsewhere.
    crate::failover::stop(scene.cluster_mut(), 2);
    scene.cluster_mut().start_again(2);
    until_true("the replicas in the other directory", LIMIT, || is_gone(&scene));
    scene.until_steady();

    scene.cluster_mut().kill(2);
    disk.power_on();
    scene.cluster_mut().start_again(2);
    scene.cluster().until_whole();
    scene.finish_without_anomaly();
}
