//! One node of three fails: nothing acknowledged is lost, repeated or reordered, and writes go on soon.

use std::time::Duration;

use klamm_testbed::{Cluster, ClusterSetup, Flavour, Roles, until_true};

use crate::limits::{FROZEN, KILLED_BROKER, KILLED_CONTROLLER, Limit, TERMINATED, catch_up};
use crate::stage::{alone, three_nodes, victim};

pub(crate) fn stop(cluster: &mut Cluster, id: i32) {
    let status = cluster.stop(id);
    // 143 is how a JVM tells of a SIGTERM.
    assert!(matches!(status.code(), Some(0 | 143)), "a clean shutdown ends well: {status}");
}

/// Kills a node, brings it back, and checks what both cost.
#[track_caller]
fn survive_a_kill(of_controller: bool, limit: Limit) {
    let _machine = alone();
    let mut scene = three_nodes();
    let victim = victim(&scene, of_controller);
    let stalls = scene.measure(victim, Cluster::kill);
    scene.cluster_mut().spawn(victim);
    let took = scene.cluster().until_whole();
    scene.finish_without_anomaly();
    limit.check(stalls);
    assert!(took <= catch_up(), "{took:?} until every ISR was full");
}

#[test]
fn a_killed_broker_costs_little_and_nothing_is_lost() {
    survive_a_kill(false, KILLED_BROKER);
}

#[test]
fn a_killed_active_controller_costs_little_and_nothing_is_lost() {
    survive_a_kill(true, KILLED_CONTROLLER);
}

#[test]
fn a_frozen_leader_is_replaced_and_comes_back_without_harm() {
    let _machine = alone();
    let mut scene = three_nodes();
    let victim = victim(&scene, false);
    let stalls = scene.measure(victim, Cluster::pause);
    scene.cluster_mut().resume(victim);
    scene.cluster().until_whole();
    scene.finish_without_anomaly();
    FROZEN.check(stalls);
}

#[test]
fn a_clean_shutdown_is_hardly_noticed() {
    let _machine = alone();
    let mut scene = three_nodes();
    let victim = victim(&scene, false);
    let stalls = scene.measure(victim, stop);
    scene.finish_without_anomaly();
    TERMINATED.check(stalls);
}

#[test]
fn a_rolling_restart_loses_nothing() {
    let _machine = alone();
    let mut scene = three_nodes();
    for id in scene.cluster().ids() {
        stop(scene.cluster_mut(), id);
        scene.until_steady();
        scene.cluster_mut().start_again(id);
        scene.cluster().until_whole();
    }
    scene.finish_without_anomaly();
}

#[test]
fn a_node_that_comes_back_as_a_controller_only_is_missed_as_a_broker() {
    let _machine = alone();
    let setup = ClusterSetup::empty().node(1, Flavour::Klamm, Roles::Combined).node(
        2,
        Flavour::Klamm,
        Roles::Broker,
    );
    let mut cluster = setup.start();
    let topic = cluster.create_topic("left", &[vec![1, 2]], &[]);
    cluster.kill(1);
    cluster.spawn_as_controller(1);
    // Apache Kafka: the session of 9 s, from the election on.
    until_true("node 2 to lead alone", Duration::from_secs(20), || {
        let alive = cluster.unfenced().is_ok_and(|alive| alive == [2].into());
        let led = cluster.partitions_of(&topic);
        alive && led.is_ok_and(|led| led.iter().all(|partition| partition.leader == 2))
    });
}
